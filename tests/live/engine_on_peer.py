"""A whole engine, its database included, on a broker that answers as the test says: `tests.live.alpaca_peer`."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from aiohttp import web

from orders import store as order_store
from orders.lifecycle import Order
from risk.config import resolve
from tests.core.test_trader import ByClose
from tests.live.alpaca_peer import ACCOUNT, Answer, Peer, authorize, greet, order_message, send_json, send_msgpack, stay
from trading import store
from trading.live.alpaca import AlpacaBroker, AlpacaData
from trading.live.alpaca_workers import Timing
from trading.live.broadcast import Broadcaster
from trading.live.calls import BrokerCalls, DataCalls, Waits
from trading.live.desk import Pauses
from trading.live.emergency import EmergencyJournal
from trading.live.engine import Engine
from trading.live.ledger import Ledger
from trading.live.recording import Recorder
from trading.live.sessions import Sessions
from trading.live.supervisor import Supervisor
from trading.market import MINUTE, Bar
from trading.messages import BarDelivered, SessionStarted
from trading.settings import trader_settings
from trading.trader import Trader

OPEN = datetime(2026, 8, 12, 13, 30, tzinfo=UTC)
STRATEGY = ByClose.name
TOKEN = "8b0d5a86-52e1-4d0f-9d5c-6c2f8f3f1a44"
FAST = Timing(first_retry_seconds=0.05, longest_retry_seconds=0.1)
AT_ONCE = Waits(broker_seconds=0.01, data_seconds=0.01, jitter_seconds=0.0)
PATIENCE_SECONDS = 30.0


class Stage:
    """The engine, the broker's script and the market's clock, which stands until the test moves it."""

    def __init__(self, peer: Peer, folder: Path, **settings: str) -> None:
        self.peer = peer
        self.now = OPEN
        self.pauses = Pauses()
        self._minutes: dict[str, int] = {}  # of each symbol, worked off
        self.updates: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.bars: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.config = resolve([]).with_overrides({"watchlist": "AAPL,TSLA", "strategies": STRATEGY, **settings})
        self._folder = folder
        self.orders: dict[str, dict[str, Any]] = {}
        self.positions: list[dict[str, Any]] = []
        self.fills: list[dict[str, Any]] = []
        self.account: Any = {**ACCOUNT, "equity": "25000", "last_equity": "25000", "cash": "25000"}

    # --- the broker ---------------------------------------------------------------------------------------------------

    def script(self) -> None:
        """What the broker answers unless a test says otherwise: an account, and what the lists of this object hold."""
        peer = self.peer
        peer.on("GET", "/v2/account", self._says(lambda: self.account))
        peer.on("GET", "/v2/orders", self._listed)
        peer.on("GET", "/v2/orders:by_client_order_id", self._by_client_id)
        peer.on("GET", "/v2/positions", self._says(lambda: self.positions))
        peer.on("GET", "/v2/account/activities/FILL", self._says(lambda: self.fills))
        peer.on("GET", "/v2/clock", self._says(lambda: clock(self.now)))
        peer.on("GET", "/v2/calendar", [{"date": "2026-08-12", "open": "09:30", "close": "16:00"}])
        peer.on("GET", "/v2/stocks/bars", {"bars": {}, "next_page_token": None})
        peer.on("POST", "/v2/orders", self._taken)
        peer.stream = self._stream

    def _says(self, what: Callable[[], Any]) -> Any:
        async def answer(_request: web.Request) -> Any:
            return what()

        return answer

    async def _listed(self, request: web.Request) -> Any:
        wanted = request.query.get("status")
        ended = ("filled", "canceled", "expired", "rejected", "replaced")
        return [each for each in self.orders.values() if wanted == "all" or each["status"] not in ended]

    async def _by_client_id(self, request: web.Request) -> Any:
        wanted = request.query["client_order_id"]
        found = [each for each in self.orders.values() if each["client_order_id"] == wanted]
        return found[0] if found else Answer(status=404, body={"code": 40410000, "message": "order not found"})

    async def _taken(self, request: web.Request) -> Any:
        wish = await request.json()
        return self.works(
            f"00000000-0000-4000-8000-{len(self.orders) + 1:012d}",
            **{
                name: str(wish[name]) if name in ("qty", "stop_price") else wish[name]
                for name in ("symbol", "side", "type", "qty", "stop_price", "client_order_id", "time_in_force")
                if name in wish
            },
        )

    def works(self, broker_id: str, **changes: Any) -> dict[str, Any]:
        """The broker has an order: a resting one unless `changes` say otherwise."""
        plain = {"submitted_at": "2026-08-12T13:00:00Z", "updated_at": "2026-08-12T13:00:00Z", "limit_price": None}
        self.orders[broker_id] = order_message(id=broker_id, **{"type": "stop", "status": "new", **plain, **changes})
        self.peer.on("GET", f"/v2/orders/{broker_id}", self._says(lambda: self.orders[broker_id]))
        return self.orders[broker_id]

    def executes(self, broker_id: str, qty: str, price: str) -> dict[str, Any]:
        """The broker fills an order whole, and notes that in the account's activities."""
        order, at = self.orders[broker_id], self.now.isoformat()
        order |= {"status": "filled", "filled_qty": qty, "filled_avg_price": price, "filled_at": at, "updated_at": at}
        self.fills.append(
            {
                "id": f"20260812::exec-{len(self.fills) + 1}", "activity_type": "FILL", "type": "fill",
                "order_id": broker_id, "symbol": order["symbol"], "side": order["side"], "qty": qty, "price": price,
                "cum_qty": qty, "leaves_qty": "0", "order_status": "filled", "transaction_time": at,
            }
        )  # fmt: skip
        return order

    def holds(self, symbol: str, qty: str, price: str) -> None:
        """The broker has a position, and no other of that symbol."""
        self.positions = [each for each in self.positions if each["symbol"] != symbol]
        if Decimal(qty):
            side = "long" if Decimal(qty) > 0 else "short"
            self.positions.append({"symbol": symbol, "qty": qty, "side": side, "avg_entry_price": price})

    async def _stream(self, socket: web.WebSocketResponse) -> None:
        is_bars = socket._req is not None and socket._req.path != "/stream"
        queue = self.bars if is_bars else self.updates
        await (greet(socket) if is_bars else authorize(socket))
        reading = asyncio.create_task(stay(socket))
        while not reading.done():
            waiting = asyncio.create_task(queue.get())
            await asyncio.wait({waiting, reading}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                await (send_msgpack if is_bars else send_json)(socket, waiting.result())
            else:
                waiting.cancel()

    def tells(self, event: str, broker_id: str, **more: Any) -> None:
        """One message on the trade update stream, about an order as it is now."""
        data = {"event": event, "timestamp": self.now.isoformat(), "order": dict(self.orders[broker_id]), **more}
        self.updates.put_nowait({"stream": "trade_updates", "data": data})

    # --- the engine ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def engine(self, *, streams: bool = True) -> AsyncIterator[Engine]:
        """An engine that has started: reconciled, with both streams up unless they are not wanted, inside a session."""
        ledger = Ledger()
        self.ledger = ledger
        broker = AlpacaBroker(
            "key", "secret", trading_url=self.peer.url, trading_stream_url=self.peer.trading_stream_url, timing=FAST
        )
        data = AlpacaData(
            "key", "secret", data_url=self.peer.url, data_stream_url=self.peer.data_stream_url, timing=FAST
        )
        calls, data_calls = BrokerCalls(broker, waits=AT_ONCE), DataCalls(data, waits=AT_ONCE)
        run_id = await ledger.run(
            store.start_run, account_id="test:PA1", provider="alpaca", account_mode="paper", strategies=(STRATEGY,),
            symbols=self.config["watchlist"], settings={}, settings_hash="", options={}, real_at=datetime.now(UTC),
        )  # fmt: skip
        await ledger.run(store.take_lease, token=TOKEN, pid=1, host="here", port=None, real_at=datetime.now(UTC))
        journal = EmergencyJournal(self._folder / "journal")
        trader = Trader(
            settings=trader_settings(self.config), symbols=self.config["watchlist"], cash=Decimal(25_000),
            account_id="test:PA1", asks_broker=True,
        )  # fmt: skip
        broadcaster = Broadcaster(clock=lambda: self.now, account_mode="paper", run_id=run_id)
        broadcaster.attach(trader, [])
        engine = Engine(
            config=self.config, trader=trader, calls=calls, ledger=ledger, journal=journal, token=TOKEN,
            recorder=Recorder(self._folder, run_id), broadcaster=broadcaster,
            sessions=Sessions(data=data, data_calls=data_calls, calls=calls), clock=lambda: self.now, run_id=run_id,
        )  # fmt: skip
        engine.desk.pauses = self.pauses
        supervisor = Supervisor(lambda reason: engine.stop(reason, failed=True))
        supervisor.start("engine", engine.work)
        try:
            await engine.recovery.restore()
            running = await engine.sessions.look_ahead(self.now)
            assert running is not None
            engine.sessions.current = running
            await engine.tell(SessionStarted(now=self.now, session=running, start_equity=Decimal(25_000)))
            if streams:
                supervisor.start("trade updates", engine.follow_trade_updates)
                supervisor.start("bars", engine.follow_bars)
                await until(lambda: engine.trade_stream_up.is_set() and engine.bar_stream_up.is_set())
            await engine.landed()
            yield engine
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await engine.landed()
            await engine.desk.close()
            await supervisor.stop()
            await broker.disconnect()
            await data.disconnect()
            journal.close()
            ledger.close()

    def passes(self, **span: float) -> None:
        """Market time goes on."""
        self.now += timedelta(**span)

    async def bar(self, engine: Engine, close: str, *, symbol: str = "AAPL", low: str = "99") -> None:
        """A minute passes; this is the symbol's bar of it, after quiet ones for those that were not told yet.

        What its close says is in `ByClose`.
        """
        self.passes(minutes=1)
        minutes = (self.now - OPEN) // MINUTE
        for minute in range(self._minutes.get(symbol, 0), minutes):
            price = Decimal(close) if minute == minutes - 1 else Decimal(102)
            bar = Bar(
                symbol=symbol, timestamp=OPEN + minute * MINUTE, open=price, high=Decimal(103), low=Decimal(low),
                close=price, volume=1000,
            )  # fmt: skip
            await engine.tell(BarDelivered(now=self.now, bar=bar))
        self._minutes[symbol] = minutes

    async def entry(self, engine: Engine, *, symbol: str = "AAPL") -> Order:
        """An entry of ours that the broker has taken: 12 shares, buy-stop at 103, stop planned at 99."""
        await self.bar(engine, "102.11", symbol=symbol)
        await until(lambda: (order := engine.trader.entry_of(symbol)) is not None and order.state == "accepted")
        order = engine.trader.entry_of(symbol)
        assert order is not None
        return order

    async def position(self, engine: Engine, *, symbol: str = "AAPL") -> tuple[Order, Order]:
        """A position of ours, 12 shares at 103, with its stop at 99: the entry and the stop."""
        entry = await self.entry(engine, symbol=symbol)
        assert entry.broker_id is not None
        self.executes(entry.broker_id, "12", "103")
        self.holds(symbol, "12", "103")
        execution = self.fills[-1]["id"].partition("::")[2]
        self.tells("fill", entry.broker_id, execution_id=execution, price="103", qty="12", position_qty="12")
        await until(lambda: (stop := engine.trader.stop_of(symbol)) is not None and stop.state == "accepted")
        stop = engine.trader.stop_of(symbol)
        assert stop is not None
        return engine.trader.orders[entry.local_id], stop

    async def events(self, engine: Engine, order: Order) -> list[str]:
        """What the ledger says has happened to an order."""
        events = await engine.ledger.run(order_store.events_of, "test:PA1", order.local_id)
        return [event.event_type for event in events]


def clock(now: datetime) -> dict[str, Any]:
    """The broker's clock."""
    return {"timestamp": now.isoformat(), "is_open": True, "next_open": now.isoformat(), "next_close": now.isoformat()}


async def until(happened: Callable[[], Any], *, seconds: float = PATIENCE_SECONDS) -> None:
    """Returns once it has happened."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.01)
