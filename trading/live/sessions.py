"""Trading days for the engine: when the next one opens, its start equity, and the history that warms up."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import structlog

from orders import store as order_store
from risk import store as risk_store
from trading.broker import BrokerError, DataProvider, MarketHours, NotAuthorized
from trading.live import calendar
from trading.live.calls import BrokerCalls, DataCalls
from trading.live.history import History
from trading.live.recovery import QUANTITY
from trading.market import Bar, Session
from trading.messages import HistoryDelivered, RequestHistory, SessionStarted
from trading.warmup import WarmUp, history_needs, sessions_to_fetch, warm_up

if TYPE_CHECKING:
    from trading.live.engine import Engine

log = structlog.get_logger("engine")

DAYS_AHEAD = timedelta(days=14)
PREPARATION = timedelta(minutes=5)  # before the open: calendar, clock and account are looked at
GAP_MARGIN = timedelta(minutes=2)
MOST_SESSIONS_OF_HISTORY = 64
WARMED_UP_TOGETHER = 250


class Sessions:
    """The sessions around the engine's market time: ours and the broker's calendar, the stricter hours win."""

    def __init__(
        self, *, data: DataProvider, data_calls: DataCalls, calls: BrokerCalls, history: History | None = None
    ) -> None:
        self.data = data
        self._data_calls = data_calls
        self._history = history or History(data_calls)
        self._calls = calls
        self._ahead: list[Session] = []
        self._windows: dict[tuple[datetime, datetime], list[RequestHistory]] = {}
        self._known: dict[date, Session] = {}
        self._prepared: date | None = None
        self._read_until: datetime | None = None  # until when the session's history was read as a whole
        self.current: Session | None = None

    @property
    def next_open(self) -> datetime | None:
        """When the next session begins."""
        return self._ahead[0].open if self._ahead else None

    @property
    def next_due(self) -> datetime | None:
        """When the next session begins, or is to be prepared if that has not been done."""
        if not self._ahead:
            return None
        opens = self._ahead[0].open
        return opens if self._prepared == self._ahead[0].date else opens - PREPARATION

    async def fire(self, engine: "Engine", now: datetime) -> None:
        """Does what is due: preparing the next session, or beginning it."""
        if self._ahead and self._prepared != self._ahead[0].date:
            self._prepared = self._ahead[0].date
            await self.prepare(engine, now)
        else:
            await self.begin(engine)

    async def prepare(self, engine: "Engine", now: datetime) -> None:
        """Before a session: the broker's calendar and clock are compared with ours, and the account with the ledger.

        What cannot be read is asked for again by whoever needs it; the calendar read before holds meanwhile.
        """
        await self.look_ahead(now)
        if self._ahead:
            self._prepared = self._ahead[0].date
        await engine.watch.check_clock()
        engine.recovery.ask(whole_day=True)

    async def look_ahead(self, now: datetime) -> Session | None:
        """Reads the broker's calendar for the next two weeks; the session that `now` lies in, if any.

        While it cannot be read, ours holds alone: it is read again before each session.
        """
        first, last = now.date() - timedelta(days=1), now.date() + DAYS_AHEAD.days * timedelta(days=1)
        ours = calendar.sessions(first, last)
        try:
            both = stricter(ours, await self._calls.calendar(start=first, end=last))
        except NotAuthorized:
            raise
        except BrokerError as error:
            log.warning("calendar.unavailable", reason=str(error))
            both = self._read_before(ours)
        self._known = {session.date: session for session in both}
        sessions = [session for session in both if session.close > now]
        if differing := [each.date.isoformat() for each in sessions if each not in ours]:
            log.warning("calendar.differs", dates=differing)
        running = sessions[0] if sessions and sessions[0].open <= now else None
        self._ahead = [session for session in sessions if session.open > now]
        return running

    def _read_before(self, ours: Sequence[Session]) -> list[Session]:
        """The hours read earlier, for days of which they are known."""
        if not self._known:
            return list(ours)
        first, last = min(self._known), max(self._known)
        return [
            self._known.get(session.date, session)
            for session in ours
            if session.date in self._known or not first <= session.date <= last
        ]

    async def begin(self, engine: "Engine", session: Session | None = None) -> None:
        """Starts a session: the next one at its open, or the one the engine finds itself in.

        Raises:
            LedgerUnavailable: what happened in it so far cannot be read; nothing was changed.
        """
        is_next = session is None
        if session is None:
            session = self._ahead[0]
        account_id, read = engine.trader.account_id, engine.writer.read
        row = await read(risk_store.load_session, account_id, session.date)
        trades = await read(order_store.trades_of_session, account_id, since=session.open, until=session.close)
        entries = await read(order_store.entries_submitted, account_id, since=session.open)
        standing = await engine.recovery.standing()
        last_equity = None if row else await self._last_equity()
        self.current = session
        if is_next:
            self._ahead.pop(0)
        if not self._ahead:
            await self.look_ahead(session.close)
        engine.log_told(standing)
        await engine.tell(
            SessionStarted(
                now=max(engine.clock(), session.open),
                session=session,
                start_equity=row.start_equity if row else last_equity,
                breaker=row.breaker if row else "",
                tripped_at=row.tripped_at if row else None,
                losses_in_a_row=_losses_in_a_row(trade.pnl for trade in trades),
                entries=entries,
            )
        )
        for symbol, causes in engine.trader.blocks().items():
            if QUANTITY in causes:  # the averages start anew from split-adjusted history
                await engine.block_symbol(symbol, "", cause=QUANTITY)
        for foreign in tuple(engine.trader.foreign.values()):
            await engine.tell(replace(foreign, now=engine.clock()))  # part of what this day is to be repeated with
        await self.warm_up(engine, engine.trader.managed_symbols())

    async def _last_equity(self) -> Decimal | None:
        """The broker's equity at the last close, None (our own counts) if it cannot be read."""
        try:
            return (await self._calls.account()).last_equity
        except NotAuthorized:
            raise
        except BrokerError as error:
            log.warning("account.unavailable", reason=str(error))
            return None

    # --- history ------------------------------------------------------------------------------------------------------

    async def warm_up(self, engine: "Engine", symbols: Sequence[str]) -> None:
        """Rebuilds the averages of the symbols from split-adjusted history, today's minutes so far included.

        Some at a time: history of the whole market does not fit into memory.
        """
        for first in range(0, len(symbols), WARMED_UP_TOGETHER):
            await self._warm_up(engine, symbols[first : first + WARMED_UP_TOGETHER])

    async def _warm_up(self, engine: "Engine", symbols: Sequence[str]) -> None:
        now, today = engine.clock(), self.current
        strategies = [strategy for _, strategy, *_ in engine.trader.lines(symbols[:1])]
        needs = history_needs(strategies)
        before = today.open if today else now
        earlier = [s for s in calendar.previous_sessions(before.date(), MOST_SESSIONS_OF_HISTORY) if s.close <= before]
        fetched: dict[str, list[Bar]] = {symbol: [] for symbol in symbols}
        found: dict[str, WarmUp] = {}
        count = 0
        while (more := sessions_to_fetch(earlier, needs, already=count)) > count:
            wanted = [symbol for symbol in symbols if symbol not in found or not found[symbol].is_enough]
            try:
                bars = await self._history.bars(wanted, earlier[len(earlier) - more : len(earlier) - count])
            except BrokerError as error:
                log.error("warm_up.failed", symbols=wanted, reason=str(error))
                break
            count = more
            for symbol in wanted:
                fetched[symbol] = bars.get(symbol, []) + fetched[symbol]
                found[symbol] = warm_up(fetched[symbol], earlier, needs)
            if all(each.is_enough for each in found.values()):
                break
        today_bars = await self._today(symbols, now)
        for symbol in symbols:
            history = found.get(symbol, WarmUp(bars=(), sessions=(), is_enough=False))
            if not history.is_enough:
                log.warning("warm_up.cold", symbol=symbol, sessions=len(history.sessions))
            await engine.tell(
                HistoryDelivered(
                    now=engine.clock(),
                    symbol=symbol,
                    bars=(*history.bars, *today_bars.get(symbol, ())),
                    rebuilds=True,
                    sessions=(*history.sessions, *([today] if today else [])),
                )
            )

    async def fill_gap(self, engine: "Engine") -> None:
        """After the bar stream was lost: what it missed comes from history and only updates state."""
        now = engine.clock()
        if self._read_until is not None and now.replace(second=0, microsecond=0) <= self._read_until:
            return  # no minute has ended since history was read
        latest = [book.latest_bar_at for book in engine.trader.books.values() if book.latest_bar_at is not None]
        since = max(latest) - GAP_MARGIN if latest else None
        await self._deliver(engine, engine.trader.managed_symbols(), since=since)

    async def fetch_missed(self, engine: "Engine", missed: Sequence[tuple[str, datetime]]) -> None:
        """Bars that had to be dropped, by symbol with the first minute of each, come from history."""
        await self._deliver(engine, [symbol for symbol, _ in missed], since=min(minute for _, minute in missed))

    async def _deliver(self, engine: "Engine", symbols: Sequence[str], *, since: datetime | None) -> None:
        for symbol, bars in (await self._today(symbols, engine.clock(), since=since)).items():
            if bars:
                await engine.tell(HistoryDelivered(now=engine.clock(), symbol=symbol, bars=tuple(bars)))

    async def bars_between(self, symbols: Sequence[str], since: datetime, until: datetime) -> dict[str, list[Bar]]:
        """What history has of some symbols now; nothing if it cannot be read."""
        return await self._today(symbols, until, since=since)

    async def _today(
        self, symbols: Sequence[str], now: datetime, *, since: datetime | None = None
    ) -> dict[str, list[Bar]]:
        if self.current is None or now <= self.current.open:
            return {}
        start = max(self.current.open, since or self.current.open)
        if since is None:
            self._read_until = now
        try:
            bars = await self._data_calls.bars(symbols, start=start, end=min(now, self.current.close))
        except BrokerError as error:
            log.error("history.failed", symbols=symbols, reason=str(error))
            return {}
        return {symbol: [bar for bar in those if bar.delivered_at <= now] for symbol, those in bars.items()}

    async def answer_window(self, engine: "Engine", request: RequestHistory) -> None:
        """Asks history once for a window without bars; requests for the same window travel together."""
        key = (request.start, request.end)
        waiting = self._windows.setdefault(key, [])
        waiting.append(request)
        if len(waiting) > 1:
            return
        await asyncio.sleep(0)
        asked = self._windows.pop(key)
        try:
            found = await self._data_calls.bars(
                sorted({each.symbol for each in asked}), start=request.start, end=request.end
            )
        except BrokerError as error:
            log.error("history.failed", start=request.start, reason=str(error))
            found = {}
        for each in asked:
            await engine.tell(
                HistoryDelivered(
                    now=engine.clock(),
                    symbol=each.symbol,
                    bars=tuple(found.get(each.symbol, ())),
                    interval_minutes=each.interval_minutes,
                    window_start=each.start,
                )
            )


def stricter(ours: Iterable[Session], theirs: Iterable[MarketHours]) -> list[Session]:
    """Sessions that both calendars have, from the later open to the earlier close."""
    hours = {each.date: each for each in theirs}
    both = [
        Session(date=s.date, open=max(s.open, hours[s.date].open), close=min(s.close, hours[s.date].close))
        for s in ours
        if s.date in hours
    ]
    return [session for session in both if session.open < session.close]


def _losses_in_a_row(results: Iterable[Decimal]) -> int:
    count = 0
    for pnl in results:
        count = count + 1 if pnl < 0 else 0 if pnl > 0 else count
    return count
