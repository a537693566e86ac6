"""Drives one Trader from one event that matters to the next: the same results as the plain loop, far fewer events.

Candles and averages come in columns. While a symbol has neither a position nor a working order, nothing can happen at a
bar, nor at a candle that the strategy's hint rules out. While it has one, the Trader is told of every candle, and the
exchange sees the bars that can reach an order. Trader, strategy, risk rules and exchange are those of the plain loop.
"""

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import numpy as np

from backtests.desk import Desk, Result
from backtests.history import History
from backtests.marks import Closes, Marks
from orders.lifecycle import Side
from trading.columns import MINUTE_SECONDS, Integers, to_moment, to_price, to_seconds, to_units
from trading.exchange import ANY_PRICE, Exchange, Execution
from trading.market import Session
from trading.messages import CandlesDelivered, CloseDelivered, CompletedCandle, SessionStarted, TimerFired
from trading.timers import Kind
from trading.trader import Trader

# Keys put all moments of a run in one order: by time, within it bars before timers by their kind, then by watchlist.
BAR = 0
KINDS = 2 + max(Kind)
NEVER = 2**63 - 1
NO_BAR = -1
HIGHEST = 2**63 - 1  # of all prices
SECOND = timedelta(seconds=1)
LOOK_AHEAD = 8  # steps whose candles are made at once while a position is open


def leap(
    *,
    trader: Trader,
    exchange: Exchange,
    histories: Mapping[str, History],
    sessions: Sequence[Session],
    on_session: Callable[[Session], None] = lambda session: None,
) -> Result:
    """Works off `sessions`, each with a bar of some symbol, and closes what is left at the end.

    The Trader has one strategy and makes no candles. `histories` are by symbol, in watchlist order.

    Raises:
        TooLarge: the prices are too high for exact sums of integers.
    """
    return _Leaps(trader, exchange, histories).through(sessions, on_session)


class _Leaps(Desk):
    """One run in progress."""

    def __init__(self, trader: Trader, exchange: Exchange, histories: Mapping[str, History]) -> None:
        super().__init__(trader, exchange)
        self._width = len(histories)
        self._second = KINDS * self._width  # so many keys belong to one second
        self._tracks = {
            symbol: _Track(trader, symbol, history, place=place, width=self._width)
            for place, (symbol, history) in enumerate(histories.items())
        }
        self._by_place = [*self._tracks.values()]
        self._active: set[_Track] = set()
        # Every track's place with the key of its next event; an entry with another key is a leftover.
        self._queue = [(track.key, track.place) for track in self._by_place]
        heapq.heapify(self._queue)
        self._marks = Marks(trader.portfolio.cash)
        self._timer = NEVER  # key of the Trader's next timer
        self._key = 0  # of what is being worked off

    def through(self, sessions: Sequence[Session], on_session: Callable[[Session], None]) -> Result:
        daily_equity: list[Decimal] = []
        for number, session in enumerate(sessions):
            if number == 0:
                self._warm_up(session.open)
                self.note_equity(session.open)
            self._session = session
            self._go_to(session.open)
            self.tell(SessionStarted(now=session.open, session=session))
            self._refresh_active()
            if number + 1 < len(sessions):
                self._work_off(until=session.close)
                self.end_day(session)
                self._refresh_active()
                self._work_off(until=sessions[number + 1].open - SECOND)
                daily_equity.append(self.note_equity(session.close))
            else:
                last = max(track.bar_keys.item(-1) for track in self._by_place if len(track.bars))
                now = to_moment(last // self._second)
                self._work_off(until=now)
                self.end_data(now)
                self._marks.add(self._key, self.trader.equity())
                daily_equity.append(self.note_equity(now))
            on_session(session)
        return self.result(
            sessions=sessions,
            daily_equity=daily_equity,
            bars=sum(len(track.bars) - track.first_bar for track in self._by_place),
            max_drawdown=self._largest_drawdown(),
        )

    def fill(self, execution: Execution, now: datetime) -> None:
        """Keeps account of cash and shares besides."""
        super().fill(execution, now)
        portfolio = self.trader.portfolio
        position = portfolio.positions.get(execution.symbol)
        qty = Decimal(0) if position is None else position.qty if position.side is Side.LONG else -position.qty
        self._marks.change(self._key, cash=portfolio.cash, symbol=execution.symbol, qty=qty)

    # --- the order of events ------------------------------------------------------------------------------------------

    def _warm_up(self, now: datetime) -> None:
        """A strategy that wants to see every candle has seen those of the sessions before, too."""
        for track in self._by_place:
            for session, candles in track.seen_before():
                self.tell(
                    CandlesDelivered(now=now, symbol=track.symbol, session=session, candles=candles, is_live=False)
                )

    def _work_off(self, *, until: datetime) -> None:
        """All that matters up to a moment and in it, in order."""
        end = (to_seconds(until) + 1) * self._second
        while (first := min(self._first_key(), self._timer)) < end:
            if first == self._timer:
                self._fire_timer()
                continue
            entry = heapq.heappop(self._queue)
            while self._queue and self._queue[0] == entry:
                heapq.heappop(self._queue)
            track = self._by_place[entry[1]]
            if track.touched == NO_BAR:
                self._deliver_candles(track, before=min(self._first_key(), self._timer, end))
            else:
                self._deliver_bar(track)
            heapq.heappush(self._queue, (track.key, track.place))
        self._go_to(until + SECOND)

    def _first_key(self) -> int:
        """The key of the first event of all tracks."""
        while self._queue:
            key, place = self._queue[0]
            if key == self._by_place[place].key:
                return key
            heapq.heappop(self._queue)  # the track has moved on
        return NEVER

    def _go_to(self, moment: datetime) -> None:
        """What comes now comes before everything of that moment."""
        self._key = to_seconds(moment) * self._second - 1
        self._know_prices()

    def _deliver_candles(self, track: "_Track", *, before: int) -> None:
        """The track's next candles before a key, until one of them leads to something."""
        now = to_moment(track.key // self._second)
        candles = self._candles(track, before)
        if self.tell(CandlesDelivered(now=now, symbol=track.symbol, session=self._session, candles=candles)):
            self._refresh(track)

    def _candles(self, track: "_Track", before: int) -> Iterator[CompletedCandle]:
        """The candles before a key and a bar that matters; who asks for another has nothing to carry out."""
        last_close, symbol, positions = self.exchange.last_close, track.symbol, self.trader.portfolio.positions
        while track.key < before and track.touched == NO_BAR:
            self._key = track.key
            if len(positions) > (symbol in positions):
                self._know_prices(but=symbol)
            candles = track.pass_step()
            if candles[0].late_at is None:
                last_close[symbol] = candles[0].candle.close
            else:
                self._know_price(track, track.bar)
            yield from candles
            track.look()

    def _deliver_bar(self, track: "_Track") -> None:
        """The exchange sees a bar, and the Trader is told if there is anything to tell."""
        self._key = key = track.key
        now = to_moment(key // self._second)
        self._know_prices()
        self._know_price(track, track.touched)  # the bar itself is not over
        has_changed = False
        for execution in self.exchange.match(track.bars.bar(track.touched)):
            self.fill(execution, now)
            has_changed = True
        is_expiry = key == track.expiry_key
        track.pass_bar()
        if key == track.step_key:
            self._deliver_candles(track, before=key + 1)
        elif is_expiry or track.book.is_waiting:
            close = self._know_price(track, track.bar)
            if self.tell(CloseDelivered(now=now, symbol=track.symbol, close=close)):
                has_changed = True
        if has_changed:
            self._refresh(track)
        else:
            track.look()

    def _fire_timer(self) -> None:
        due = self.trader.next_due()
        if due is None:
            return
        self._key = self._timer
        self._know_prices()
        closed = len(self.trades)
        self.tell(TimerFired(now=due))
        if any(trade.exit_reason == "end_of_day" for trade in self.trades[closed:]):
            self._marks.add(self._key, self.trader.equity())
        self._refresh_active()

    def _refresh_active(self) -> None:
        """After something that may have changed any symbol."""
        for track in tuple(self._active):
            self._refresh(track)
            heapq.heappush(self._queue, (track.key, track.place))
        self._look_for_timer()

    def _refresh(self, track: "_Track") -> None:
        """After something has changed: what comes next there, and the Trader's next timer."""
        (self._active.add if track.refresh(self.trader, self.exchange) else self._active.discard)(track)
        self._look_for_timer()

    def _look_for_timer(self) -> None:
        timer = self.trader.next_timer()
        if timer is None:
            self._timer = NEVER
        else:
            due, kind, place = timer
            self._timer = (to_seconds(due) * KINDS + 1 + kind) * self._width + place

    # --- what Trader and exchange would know by now -------------------------------------------------------------------

    def _know_prices(self, *, but: str = "") -> None:
        """The last close of every symbol that is held."""
        for symbol in self.trader.portfolio.positions:
            if symbol != but:
                track = self._tracks[symbol]
                self._know_price(track, track.bars_before(self._key))

    def _know_price(self, track: "_Track", bars: int) -> Decimal:
        """The last close when so many bars were delivered."""
        price = to_price(track.bars.close.item(bars - 1))
        self.trader.last_prices[track.symbol] = self.exchange.last_close[track.symbol] = price
        return price

    def _largest_drawdown(self) -> Decimal:
        steps = np.concatenate([track.step_keys[track.first_step : -1] for track in self._by_place])
        steps.sort(kind="stable")
        closes = {track.symbol: Closes(keys=track.bar_keys, prices=track.bars.close) for track in self._by_place}
        return self._marks.largest_drawdown(steps[: np.searchsorted(steps, self._key, side="right")], closes)


class _Track:
    """One symbol's columns, and the place reached in them.

    `key` is that of the next event: a step of candles, or a bar that the exchange is to see, `touched`. While the
    symbol is active - it has a position or a working order - every step is one, else those that the strategy wants.
    """

    def __init__(self, trader: Trader, symbol: str, history: History, *, place: int, width: int) -> None:
        self.book = trader.books[symbol]
        strategy = self.book.feeds[0].lines[0].strategy
        parameters = strategy.parameters
        interval, grace = parameters["candle_interval_minutes"], trader.settings.grace_seconds
        steps = history.steps(interval_minutes=interval, grace_seconds=grace)
        self.symbol, self.place = symbol, place
        self.bars = history.bars
        self._history = history
        self._candles = steps.candles
        self._averages = history.averages(
            interval_minutes=interval, grace_seconds=grace, fast=parameters["sma_fast"], slow=parameters["sma_slow"]
        )
        self._first = steps.first
        firsts = steps.first[:-1]
        self._second = KINDS * width
        self.bar_keys: Integers = (self.bars.timestamps + MINUTE_SECONDS) * self._second + place
        self._is_late = self._candles.waited[firsts]
        kinds = np.where(self._is_late, 1 + Kind.GRACE, BAR)
        keys = (self._candles.completed_at[firsts] * KINDS + kinds) * width + place
        self.step_keys: Integers = np.append(keys, NEVER)
        self.first_bar = self.bars.index_at(history.begins)
        self.first_step = int(np.searchsorted(self._candles.start[firsts], to_seconds(history.begins)))
        # What the bars span that are delivered from one step to the next, and after the last one.
        self._bars_known = np.append(self._candles.bars_known[firsts], len(self.bars))
        since = np.append(0, self._bars_known[:-1])
        self._low = np.minimum.reduceat(np.append(self.bars.low, HIGHEST), since)
        self._high = np.maximum.reduceat(np.append(self.bars.high, 0), since)

        hint = strategy.candidates(self._candles, self._averages)
        self._sees_all = hint is None
        self._may_signal = np.ones(len(self._candles), dtype=bool) if hint is None else hint
        wanted = np.unique(np.searchsorted(steps.first, np.nonzero(self._may_signal)[0], side="right") - 1)
        self._wanted = [*wanted[wanted >= self.first_step].tolist(), len(keys)]
        self._next_wanted = 0
        self._ahead: list[Sequence[CompletedCandle]] = []
        self._ahead_from = 0
        self._is_active = False
        self._step = self.first_step
        self.key, self.touched = NEVER, NO_BAR
        self.bar = self.first_bar
        self.expiry_key = NEVER
        self._sells_at, self._buys_at = 0, HIGHEST
        self.look()

    @property
    def step_key(self) -> int:
        """The key of the next step."""
        key: int = self.step_keys.item(self._step)
        return key

    def pass_bar(self) -> None:
        """The bar has been seen."""
        self.bar, self.touched = self.touched + 1, NO_BAR

    def pass_step(self) -> Sequence[CompletedCandle]:
        """The candles of the next step, which thereby is passed."""
        step = self._step
        self._step, self.bar = step + 1, self._bars_known.item(step)
        if not self._ahead_from <= step < self._ahead_from + len(self._ahead):
            self._ahead_from = step
            self._ahead = self._made(step, min(step + LOOK_AHEAD if self._is_active else step + 1, len(self._is_late)))
        return self._ahead[step - self._ahead_from]

    def seen_before(self) -> Iterator[tuple[Session, Sequence[CompletedCandle]]]:
        """The candles before the run, step by step with their session, for a strategy that wants to see all."""
        for candles in self._made(0, self.first_step if self._sees_all else 0):
            yield self._history.session_at(candles[0].candle.timestamp), candles

    def _made(self, step: int, until: int) -> list[Sequence[CompletedCandle]]:
        """The candles of some steps; to make several at once takes little longer than to make one."""
        first, end = self._first.item(step), self._first.item(until)
        may_signal = self._may_signal[first:end].tolist() if step >= self.first_step else [False] * (end - first)
        candles = list(
            map(
                CompletedCandle,
                self._candles.candles(first, end),
                map(self._averages.indicators, range(first, end)),
                may_signal,
            )
        )
        if end - first == until - step and not self._is_late[step:until].any():
            return [(candle,) for candle in candles]
        steps: list[Sequence[CompletedCandle]] = []
        for number in range(step, until):
            some = candles[self._first.item(number) - first : self._first.item(number + 1) - first]
            if self._is_late.item(number):
                late_at = to_moment(self.step_keys.item(number) // self._second)
                some = [candle._replace(late_at=late_at, more_follow=candle is not some[-1]) for candle in some]
            steps.append(some)
        return steps

    def bars_before(self, key: int) -> int:
        """How many bars are delivered before a key that is not later than the next event."""
        bar = self.bar
        while bar < len(self.bars) and self.bar_keys.item(bar) < key:
            bar += 1
        return bar

    def refresh(self, trader: Trader, exchange: Exchange) -> bool:
        """Finds out where orders wait, when the entry expires, and what comes next; whether the symbol is active."""
        falling, rising = exchange.reach(self.symbol)
        if self.book.is_waiting:
            falling = ANY_PRICE
        self._sells_at = 0 if falling is None else HIGHEST if falling == ANY_PRICE else to_units(falling)
        self._buys_at = HIGHEST if rising is None else to_units(rising)
        entry = trader.entry_of(self.symbol)
        expires_at = entry.expires_at if entry else None
        self.expiry_key = NEVER if expires_at is None else to_seconds(expires_at) * self._second + self.place
        has_order = falling is not None or rising is not None
        self._is_active = has_order or self.symbol in trader.portfolio.positions
        self.look()
        return self._is_active

    def look(self) -> None:
        """Finds the next event."""
        self.touched = NO_BAR
        if not self._is_active:
            while (step := self._wanted[self._next_wanted]) < self._step:
                self._next_wanted += 1
            self._step = step
            self.key = self.step_keys.item(step)
            return
        step = self._step
        self.key = self.step_keys.item(step)
        if (
            self._low.item(step) <= self._sells_at
            or self._high.item(step) >= self._buys_at
            or self.expiry_key < self.key
        ):
            for bar in range(self.bar, self._bars_known.item(step)):
                key = self.bar_keys.item(bar)
                if (
                    self.bars.low.item(bar) <= self._sells_at
                    or self.bars.high.item(bar) >= self._buys_at
                    or key == self.expiry_key
                ):
                    self.key, self.touched = key, bar
                    break
