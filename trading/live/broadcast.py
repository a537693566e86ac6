"""What the pages see: the engine's state as messages to the channel layer, conflated so that no page slows it."""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import islice
from time import monotonic
from typing import Any

import structlog
from channels.exceptions import ChannelFull
from channels.layers import get_channel_layer
from redis.exceptions import RedisError

from orders.portfolio import Position
from trading.candles import Candle
from trading.cover import CoverMeter
from trading.indicators import IndicatorSet
from trading.live.calendar import FULL_SESSION
from trading.market import MINUTE, Bar
from trading.messages import ActivityRecorded, ActivityType, CandleClosed, ForeignHeld
from trading.strategy import Strategy
from trading.trader import Trader

log = structlog.get_logger("engine")

GROUP = "dashboard"
ENGINE_CHANNEL = "engine"
UPDATES_PER_SECOND = 5
HEARTBEAT_SECONDS = 15.0
RECENT_ACTIVITIES = 50
MOST_SYMBOLS_SHOWN = 50
LAST_WORDS_SECONDS = 2.0
LONGEST_WAY_GIVEN_SECONDS = 0.5
LAYER_ERRORS = (ChannelFull, OSError, RedisError)  # how the channel layer says that it takes nothing now


class Broadcaster:
    """Collects what changed and sends it a few times a second: the latest state of each topic, never a backlog of them.

    Activities are not conflated, each is sent once. A page that asks gets a snapshot of everything. Of a long watchlist
    the symbols with positions and orders are shown, and the first others.
    """

    def __init__(self, *, clock: Callable[[], datetime], account_mode: str, run_id: int) -> None:
        self._clock = clock
        self._run_id = run_id  # tells pages of other processes that a new engine speaks, whatever its clock says
        self._account_mode = account_mode
        self._trader: Trader | None = None
        self._cover: CoverMeter | None = None
        self._listeners: list[Callable[[ActivityRecorded], None]] = []
        self._next_open: Callable[[], datetime | None] = lambda: None
        self._conditions: dict[tuple[str, str], tuple[Candle, list[dict[str, Any]]]] = {}
        self._layer = get_channel_layer()
        self._seq = 0
        self._is_dirty = False
        self._wake = asyncio.Event()
        self._pending_activities: deque[dict[str, Any]] = deque(maxlen=RECENT_ACTIVITIES)
        self._recent_activities: deque[dict[str, Any]] = deque(maxlen=RECENT_ACTIVITIES)
        self._unseen_fills: deque[tuple[str, float]] = deque()
        self._candles: dict[tuple[str, int], dict[str, Any]] = {}
        self._changed_candles: set[tuple[str, int]] = set()
        self._shown: Collection[str] = ()
        self._sent: dict[str, Any] = {}
        self._outgoing: list[str] = []
        self._idle: Callable[[], Awaitable[object]] = partial(asyncio.sleep, 0)
        self._connection: dict[str, Any] = {
            "status": "disconnected",
            "bar_stream": False,
            "trade_stream": False,
            "last_bar_at": None,
            "account_mode": account_mode,
            "detail": "",
            "ledger_problem": "",
            "retry_at": None,
            "clock_drift_seconds": None,
        }

    def show_cover(self, cover: CoverMeter) -> None:
        """From now on positions are shown with the time and the dollars that were without a stop."""
        self._cover = cover

    def give_way_until(self, idle: Callable[[], Awaitable[object]]) -> None:
        """From now on nothing is sent before `idle` returns, for half a second at most."""
        self._idle = idle

    def attach(
        self,
        trader: Trader,
        recent: list[dict[str, Any]],
        *,
        next_open: Callable[[], datetime | None] = lambda: None,
    ) -> None:
        """From now on the pages show this Trader; `recent` are the latest activities of earlier runs, oldest first.

        `next_open` tells when the next session begins.
        """
        self._trader = trader
        self._next_open = next_open
        self._recent_activities.extend(recent)
        self._choose_shown()

    def follow(self, listener: Callable[[ActivityRecorded], None]) -> None:
        """From now on `listener` hears of every activity too; it must not wait."""
        self._listeners.append(listener)

    # --- what the engine says -----------------------------------------------------------------------------------------

    def changed(self) -> None:
        """Something may look different now."""
        self._is_dirty = True
        self._wake.set()

    def activity(self, activity_id: int, record: ActivityRecorded) -> None:
        """One more line of the feed."""
        line = activity_line(activity_id, record)
        for listener in self._listeners:
            listener(record)
        if record.type is ActivityType.ORDER_FILLED:
            self._unseen_fills.append((record.correlation_id, monotonic()))
        self._pending_activities.append(line)
        self._recent_activities.append(line)
        self.changed()

    def bar(self, bar: Bar) -> None:
        """A minute bar: it extends the open candle of each length that is charted."""
        self._connection["last_bar_at"] = timestamp(bar.delivered_at)
        if self._trader is None or self._trader.session is None or bar.symbol not in self._shown:
            return
        for feed in self._trader.books[bar.symbol].feeds:
            span = feed.interval_minutes * MINUTE
            start = bar.timestamp - (bar.timestamp - self._trader.session.open) % span
            key = (bar.symbol, feed.interval_minutes)
            open_candle = self._candles.get(key)
            if open_candle is not None and open_candle["timestamp"] >= timestamp(start) and open_candle["final"]:
                continue
            if open_candle is None or open_candle["timestamp"] != timestamp(start):
                open_candle = {
                    "symbol": bar.symbol,
                    "interval": feed.interval_minutes,
                    "timestamp": timestamp(start),
                    "open": float(bar.open),
                    "high": float(bar.high),
                    "low": float(bar.low),
                    "close": float(bar.close),
                    "volume": 0,
                    "sma_fast": None,
                    "sma_slow": None,
                    "final": False,
                }
            self._candles[key] = {
                **open_candle,
                "high": max(open_candle["high"], float(bar.high)),
                "low": min(open_candle["low"], float(bar.low)),
                "close": float(bar.close),
                "volume": open_candle["volume"] + bar.volume,
            }
            self._changed_candles.add(key)

    def candle_closed(self, record: CandleClosed) -> None:
        """A completed candle with its averages."""
        if not record.is_live or record.candle.symbol not in self._shown:
            return
        candle, averages = record.candle, record.indicators
        key = (candle.symbol, record.interval_minutes)
        self._candles[key] = {
            "symbol": candle.symbol,
            "interval": record.interval_minutes,
            "timestamp": timestamp(candle.timestamp),
            "open": float(candle.open),
            "high": float(candle.high),
            "low": float(candle.low),
            "close": float(candle.close),
            "volume": candle.volume,
            "sma_fast": number(averages.sma_fast),
            "sma_slow": number(averages.sma_slow),
            "final": True,
        }
        self._changed_candles.add(key)

    def streams(self, *, bars: bool, trade_updates: bool, detail: str = "", retry_seconds: float | None = None) -> None:
        """Which streams are up; `detail` says why one is not, and `retry_seconds` how soon it is tried again."""
        status = "connected" if bars and trade_updates else "reconnecting"
        retry_at = None
        if status == "reconnecting" and retry_seconds is not None:
            retry_at = timestamp(datetime.now(UTC) + timedelta(seconds=retry_seconds))  # the page counts down to it
        self._connection |= {
            "status": status,
            "bar_stream": bars,
            "trade_stream": trade_updates,
            "detail": detail,
            "retry_at": retry_at,
        }
        self.changed()

    def clock_drift(self, drift: timedelta) -> None:
        """How far the broker's clock is ahead of ours."""
        self._connection["clock_drift_seconds"] = round(drift.total_seconds(), 1)
        self.changed()

    def ledger(self, problem: str) -> None:
        """Why the ledger cannot be written; empty once it can."""
        self._connection["ledger_problem"] = problem
        self.changed()

    def shutting_down(self) -> None:
        """The engine is about to stop."""
        self._connection["status"] = "shutting_down"
        self.changed()

    # --- sending ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Sends what changed, at most `UPDATES_PER_SECOND` times a second, and a heartbeat."""
        loop = asyncio.get_running_loop()
        next_heartbeat = loop.time() + HEARTBEAT_SECONDS
        while True:
            try:
                # Not `asyncio.wait_for`: before Python 3.12 it loses a cancellation that comes together with the news.
                async with asyncio.timeout_at(next_heartbeat):
                    await self._wake.wait()
            except TimeoutError:
                next_heartbeat = loop.time() + HEARTBEAT_SECONDS
                self._say("heartbeat", {"server_time": timestamp(datetime.now(UTC))})
                await self._send()
                continue
            self._wake.clear()
            await self._give_way()
            await self.flush()
            await asyncio.sleep(1 / UPDATES_PER_SECOND)

    async def flush(self) -> None:
        """Sends what changed since the last time."""
        while self._pending_activities:
            self._say("activity", self._pending_activities.popleft())
        if self._trader is not None:
            self._say_what_changed()
        await self._send()
        while self._unseen_fills:
            correlation_id, since = self._unseen_fills.popleft()
            log.info("fill.shown", correlation_id=correlation_id, after_ms=round((monotonic() - since) * 1000, 3))

    def _say_what_changed(self) -> None:
        if self._is_dirty:
            self._is_dirty = False
            self._choose_shown()
            self._say_if_new("position_update", self.positions())
            self._say_if_new("pnl_update", self.pnl())
            for state in self.strategies():
                self._say_if_new("strategy_state", state, key=f"{state['name']}|{state['symbol']}")
            self._say_if_new("connection_status", self.connection())
        for key in sorted(self._changed_candles):
            self._say("candle", self._candles[key])
        self._changed_candles.clear()

    async def say_goodbye(self) -> None:
        """Sends the last changes before the end, which waits for no channel layer."""
        try:
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await self.flush()
        except (TimeoutError, *LAYER_ERRORS) as error:
            log.warning("broadcast.lost", reason=str(error))

    async def answer_snapshot_requests(self) -> None:
        """Sends a snapshot to every page that asks for one."""
        while True:
            request = await self._layer.receive(ENGINE_CHANNEL)
            if request.get("type") == "snapshot.request":
                await self._layer.send(
                    request["reply"],
                    {"type": "dashboard.messages", "texts": [self._envelope("snapshot", self.snapshot())]},
                )

    def _say_if_new(self, kind: str, data: Any, *, key: str = "") -> None:
        topic = f"{kind}|{key}"
        if self._sent.get(topic) != data:
            self._sent[topic] = data
            self._say(kind, data)

    def _say(self, kind: str, data: Any) -> None:
        self._seq += 1
        self._outgoing.append(self._envelope(kind, data))

    async def _send(self) -> None:
        """All that was said goes to the pages as one message of the channel layer, which is work for each page."""
        texts, self._outgoing = self._outgoing, []
        if texts:
            await self._layer.group_send(GROUP, {"type": "dashboard.messages", "texts": texts})

    async def _give_way(self) -> None:
        """What the engine is at comes first: many pages would take it the processor."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_WAY_GIVEN_SECONDS):
                await self._idle()

    def _envelope(self, kind: str, data: Any) -> str:
        message = {
            "version": 1,
            "timestamp": timestamp(self._clock()),
            "type": kind,
            "run_id": self._run_id,
            "seq": self._seq,
            "data": data,
        }
        return json.dumps(message, separators=(",", ":"))

    def _choose_shown(self) -> None:
        trader = self._known_trader()
        if len(trader.books) <= MOST_SYMBOLS_SHOWN:
            self._shown = trader.books.keys()
            return
        busy = {order.symbol for order in trader.orders.values() if not order.is_terminal}
        first = dict.fromkeys(sorted(busy | trader.portfolio.positions.keys()))
        others = (symbol for symbol in trader.books if symbol not in first)
        self._shown = [*first, *islice(others, max(MOST_SYMBOLS_SHOWN - len(first), 0))]

    # --- the state as the pages read it -------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Everything a page shows."""
        if self._trader is None:
            raise RuntimeError("there is no trader yet")
        pnl = self.pnl()
        return {
            "account": {
                "equity": pnl["total_equity"],
                "buying_power": pnl["buying_power"],
                "cash": float(self._trader.portfolio.cash),
                "account_id": self._trader.account_id,
            },
            "positions": self.positions(),
            "pnl": pnl,
            "strategies": self.strategies(),
            "recent_activity": list(self._recent_activities),
            "connection": self.connection(),
        }

    def positions(self) -> list[dict[str, Any]]:
        """All open positions."""
        trader = self._known_trader()
        ours = [self._position(position) for _, position in sorted(trader.portfolio.positions.items())]
        return ours + [self._foreign(held) for _, held in sorted(trader.foreign.items())]

    def _foreign(self, held: ForeignHeld) -> dict[str, Any]:
        """Shares that are not ours: shown, never touched."""
        last = self._known_trader().last_prices.get(held.symbol, held.price)
        return {
            "symbol": held.symbol,
            "qty": float(abs(held.qty)),
            "avg_entry_price": float(held.price),
            "current_price": float(last),
            "unrealized_pnl": float(held.qty * (last - held.price)),
            "side": "long" if held.qty > 0 else "short",
            "stop_price": None,
            "initial_stop_price": None,
            "entry_at": None,
            "strategy": "foreign",
        }

    def _position(self, position: Position) -> dict[str, Any]:
        trader = self._known_trader()
        last = trader.last_prices.get(position.symbol, position.avg_entry_price)
        stop = trader.stop_of(position.symbol)
        cover = self._cover.open(self._clock()).get(position.symbol) if self._cover else None
        return {
            "symbol": position.symbol,
            "qty": float(position.qty),
            "avg_entry_price": float(position.avg_entry_price),
            "current_price": float(last),
            "unrealized_pnl": float(position.unrealized_pnl(last)),
            "side": str(position.side),
            "stop_price": number(stop.stop_price) if stop else None,
            "initial_stop_price": number(position.initial_stop_price),
            "entry_at": timestamp(position.entry_at),
            "strategy": position.strategy,
            "leaving": trader.books[position.symbol].exit_reason,
            "stop_moving_to": number(stop.requested_stop_price) if stop else None,
            "naked_seconds": round(cover.seconds, 3) if cover else None,
            "naked_dollars": number(cover.dollars) if cover else None,
            "naked_since": timestamp(cover.since) if cover and cover.since else None,
        }

    def pnl(self) -> dict[str, Any]:
        """Today's result."""
        trader = self._known_trader()
        equity = trader.equity()
        today = equity - trader.start_equity
        unrealized = sum(
            (
                position.unrealized_pnl(trader.last_prices.get(symbol, position.avg_entry_price))
                for symbol, position in trader.portfolio.positions.items()
            ),
            Decimal(0),
        )
        return {
            "today_pnl": float(today),
            "today_pnl_pct": float(today / trader.start_equity) if trader.start_equity else 0.0,
            "unrealized_pnl": float(unrealized),
            "realized_pnl": float(today - unrealized),
            "total_equity": float(equity),
            "buying_power": float(trader.buying_power()),
            "cash": float(trader.portfolio.cash),
            "limits": self._limits(today),
        }

    def _limits(self, today: Decimal) -> dict[str, dict[str, float]]:
        """How much of each limit of the session is used."""
        trader = self._known_trader()
        risk = trader.settings.risk
        return {
            "daily_loss": {
                "used": float(max(-today, Decimal(0))),
                "limit": float(risk.max_daily_loss_pct * trader.start_equity),
            },
            "losses_in_a_row": {"used": trader.losses_in_a_row, "limit": risk.consecutive_loss_pause},
            "positions": {
                "used": len(trader.portfolio.positions) + trader.working_entries(),
                "limit": risk.max_open_positions,
            },
        }

    def strategies(self) -> list[dict[str, Any]]:
        """Each strategy's state per symbol."""
        trader = self._known_trader()
        return [
            {
                "name": strategy.name,
                "symbol": symbol,
                "enabled": bool(strategy.parameters["enabled"]),
                "status": status,
                "indicators": {
                    "sma_fast": number(averages.sma_fast) if averages else None,
                    "sma_slow": number(averages.sma_slow) if averages else None,
                },
                "bar_count": averages.bar_count if averages else 0,
                "bars_needed": int(strategy.parameters["sma_slow"]),
                "interval": int(strategy.parameters["candle_interval_minutes"]),
                "last_price": number(trader.last_prices.get(symbol)),
                "conditions": self._why(symbol, strategy, averages, candle),
                "blocked": trader.books[symbol].blocked,
            }
            for symbol, strategy, averages, candle, status in trader.lines(self._shown)
        ]

    def _why(
        self, symbol: str, strategy: Strategy, averages: IndicatorSet | None, candle: Candle | None
    ) -> list[dict[str, Any]]:
        """The conditions of an entry at the last completed candle: why not now. Worked out once a candle."""
        if averages is None or candle is None:
            return []
        key = (symbol, strategy.name)
        known = self._conditions.get(key)
        if known is None or known[0] is not candle:
            conditions = [
                {"name": each.name, "met": each.met, "value": each.value, "needed": each.needed}
                for each in strategy.conditions(candle, averages)
            ]
            self._conditions[key] = known = candle, conditions
        return known[1]

    def connection(self) -> Mapping[str, Any]:
        """Streams, market and risk switches."""
        trader = self._known_trader()
        session = trader.session
        is_open = session is not None and session.open <= self._clock() < session.close
        return {
            **self._connection,
            "market_open": is_open,
            "session_open": timestamp(session.open) if session else None,
            "session_close": timestamp(session.close) if session else None,
            "half_day": session is not None and session.close - session.open < FULL_SESSION,
            "next_open": timestamp(next_open) if (next_open := self._next_open()) else None,
            "halted": trader.halted,
            "breakers": sorted(trader.tripped),
            "problems": sorted(trader.entry_blocks.values()),
        }

    def _known_trader(self) -> Trader:
        if self._trader is None:
            raise RuntimeError("there is no trader yet")
        return self._trader


def activity_line(activity_id: int, record: ActivityRecorded) -> dict[str, Any]:
    """An activity as the pages read it."""
    return {
        "id": str(activity_id),
        "timestamp": timestamp(record.at),
        "type": str(record.type),
        "symbol": record.symbol,
        "message": record.message,
        "correlation_id": record.correlation_id,
        "level": str(record.level),
    }


def timestamp(moment: datetime) -> str:
    """A moment as all our messages write it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def number(value: Decimal | None) -> float | None:
    """A decimal for display."""
    return None if value is None else float(value)


def account_mode(*, provider: str, paper: bool) -> str:
    """Which banner the pages show."""
    return "built_in" if provider == "simulator" else "paper" if paper else "live"
