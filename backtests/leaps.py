"""Drives one Trader from one event that matters to the next: the same results as the plain loop, far fewer events.

Candles and averages come in columns. Nothing can happen at a candle that the strategy's hints rule out, nor at a bar
that reaches no order. Signals of which the Trader says that they are refused until something happens are counted, where
nobody reads of them one by one. A strategy that gives no hint is told of every candle. Trader, strategy, risk rules and
exchange are those of the plain loop.
"""

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import numpy as np

from backtests.desk import Desk, Result
from backtests.history import HIGHEST, History
from backtests.marks import Closes, Marks
from backtests.round_trips import RoundTrip, RoundTrips
from orders.lifecycle import Side
from orders.portfolio import Position, trade_of
from orders.values import quick
from trading.candles import Candle
from trading.columns import MINUTE_SECONDS, PRICES, Integers, to_moment, to_seconds, to_units
from trading.exchange import ANY_PRICE, Exchange, Execution
from trading.indicators import IndicatorSet
from trading.market import Session
from trading.messages import CandlesDelivered, CloseDelivered, CompletedCandle, SessionStarted, TimerFired
from trading.strategy import Foresight
from trading.timers import Kind
from trading.trader import LATEST, Standing, Trader

# Keys put all moments of a run in one order: by time, within it bars before timers by their kind, then by watchlist.
BAR = 0
KINDS = 2 + max(Kind)
NEVER = 2**63 - 1
NO_BAR = -1
SECOND = timedelta(seconds=1)
# Refusals that tell nothing of a symbol that is free: the rules may let it in any moment.
OF_THE_SYMBOL = ("duplicate", "max_positions")
LOOK_AHEAD = 20  # steps at most that are looked through for the next event


_candles_delivered = quick(CandlesDelivered)


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
        # The session's answers of the Trader, by what they depend on, with the equity down to which they are good.
        self._standings: dict[object, tuple[tuple[str, int], Decimal]] = {}
        self._latest_basis: object = None
        self._latest_standing = "", 0
        self._taken: Standing | None = None  # what refuses the signals of the only symbol while it is taken
        self._tracks = {
            symbol: _Track(trader, symbol, history, place=place, width=self._width, standing=self._standing)
            for place, (symbol, history) in enumerate(histories.items())
        }
        self._by_place = [*self._tracks.values()]
        self._active: set[_Track] = set()
        # Every track's place with the key of its next event; an entry with another key is a leftover.
        self._queue = [(track.key, track.place) for track in self._by_place]
        heapq.heapify(self._queue)
        self._marks = Marks(trader.portfolio.cash)
        self._timer = NEVER  # key of the Trader's next timer
        self._flatten_key = self._flatten_end = NEVER  # that of the session's flatten, and the first after its moment
        self._timer_known: tuple[datetime, Kind, int] | None = None
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
            self._know_flatten(self.trader.flatten_due())
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
        result = self.result(
            sessions=sessions,
            daily_equity=daily_equity,
            bars=sum(len(track.bars) - track.first_bar for track in self._by_place),
            max_drawdown=self._largest_drawdown(),
        )
        for tracks in (self._tracks, self._by_place, self._active):
            tracks.clear()  # they know this run, which knows them: their columns would stay until somebody cleans up
        return result

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
            track = self._take_first()
            if track.round_trips is not None and self._take_short_cut(track, track.round_trips, end):
                continue
            if track.touched == NO_BAR:
                others = NEVER if self._width == 1 else self._first_key()
                self._deliver_candles(track, before=min(others, self._timer, end))
            else:
                self._deliver_bar(track)
            self._enqueue(track)
        self._go_to(until + SECOND)

    def _first_key(self) -> int:
        """The key of the first event of all tracks."""
        if self._width == 1:
            return self._by_place[0].key
        while self._queue:
            key, place = self._queue[0]
            if key == self._by_place[place].key:
                return key
            heapq.heappop(self._queue)  # the track has moved on
        return NEVER

    def _take_first(self) -> "_Track":
        """The track of the first event."""
        if self._width == 1:
            return self._by_place[0]
        entry = heapq.heappop(self._queue)
        while self._queue and self._queue[0] == entry:
            heapq.heappop(self._queue)
        return self._by_place[entry[1]]

    def _enqueue(self, track: "_Track") -> None:
        if self._width > 1:
            heapq.heappush(self._queue, (track.key, track.place))

    def _go_to(self, moment: datetime) -> None:
        """What comes now comes before everything of that moment."""
        self._be_at(to_seconds(moment) * self._second - 1)

    def _be_at(self, key: int) -> None:
        """Everything before the key is over; what comes now may touch any symbol."""
        self._key = key
        for track in self._by_place:
            if track.relies_on is not None or track in self._active:
                track.catch_up(key)
        self._know_prices()

    def _take_short_cut(self, track: "_Track", round_trips: RoundTrips, end: int) -> bool:
        """Works off a signal of a free symbol with all that becomes of it before a key; False if it cannot."""
        trader, exchange = self.trader, self.exchange
        if not track.has_simple_signal or exchange.limits_volume:
            return False
        step, candle, indicators = track.signal()
        proposal = trader.proposal(track.symbol, candle, indicators)
        if proposal is None or proposal.refused_by == "daily_loss":
            return False  # the breaker is the Trader's
        if proposal.refused_by:
            trader.decisions[proposal.refused_by] += 1
            track.resume(step + 1)
            return True
        course = round_trips.course(
            step=step,
            side=proposal.side,
            entry_price=proposal.entry_price,
            stop_price=proposal.stop_price,
            end_key=min(self._flatten_end, end),
            flatten_key=self._flatten_key if self._flatten_end <= end else None,
            path_rule=exchange.path_rule,
        )
        if course is None or track.signals(course.in_flatten, course.taken_until):
            return False
        trip, cash, position = course.trip, trader.portfolio.cash, None
        if trip is not None:
            position = Position(
                symbol=track.symbol,
                side=proposal.side,
                correlation_id=trader.correlation_id(track.strategy, candle),
                strategy=track.strategy.name,
                entry_order_id="",
                entry_at=trip.entry_at,
                initial_stop_price=proposal.stop_price,
            )
            cash += self._book(position, proposal.qty, trip.entry_price, is_entry=True)
        if signals := track.signals_after(step, course.taken_until):
            # No stop is reached before the last of them, so that the equity is never lower.
            lowest = cash if position is None else cash + position.market_value(proposal.stop_price)
            if self._taken is None or lowest < self._taken.floor:
                self._taken = trader.refusal_once_taken(candle.end, lowest)
                if not self._taken.code:
                    self._taken = None
                    return False
            trader.decisions[self._taken.code] += signals
        trader.decisions[""] += 1
        track.book.entries_today += 1
        if trip is not None and position is not None:
            self._settle(position, trip, cash)
        track.resume(course.step, course.bar)
        return True

    def _settle(self, position: Position, trip: RoundTrip, cash: Decimal) -> None:
        """Writes down a round trip; `cash` is that after the entry."""
        symbol, qty = position.symbol, position.qty
        held = qty if position.side is Side.LONG else -qty
        self._marks.change(trip.entry_key, cash=cash, symbol=symbol, qty=held)
        self.stop_moves += trip.moves
        self.trader.portfolio.cash = cash = cash + self._book(position, qty, trip.exit_price, is_entry=False)
        self._marks.change(trip.exit_key, cash=cash, symbol=symbol, qty=Decimal(0))
        trade = trade_of(position, exit_at=trip.exit_at, exit_reason=trip.exit_reason)
        self.carry_out(self.trader.round_trip_over(trip.known_at, trade))
        equity = self.note_equity(trip.known_at)
        if trip.exit_key == self._flatten_key:
            self._marks.add(trip.exit_key, equity)
        if trip.path_mattered:
            self.exchange.path_mattered = True

    def _book(self, position: Position, qty: Decimal, price: Decimal, *, is_entry: bool) -> Decimal:
        """Executes an order for the position at a price of the market, before slippage; the dollars that it brings."""
        price = self.exchange.price_against_us(price, buys=(position.side is Side.LONG) is is_entry)
        return position.book(is_entry=is_entry, qty=qty, price=price, commission=self.exchange.commission_on(qty))

    def _deliver_candles(self, track: "_Track", *, before: int) -> None:
        """The track's next candles before a key, until one of them leads to something."""
        now = to_moment(track.key // self._second)
        candles = self._candles(track, before)
        if self.tell(_candles_delivered(now=now, symbol=track.symbol, session=self._session, candles=candles)):
            self._refresh(track)

    def _candles(self, track: "_Track", before: int) -> Iterator[CompletedCandle]:
        """The candles before a key and a bar that matters; who asks for another has nothing to carry out."""
        last_close, symbol, positions = self.exchange.last_close, track.symbol, self.trader.portfolio.positions
        while track.key < before and track.touched == NO_BAR:
            self._key = track.key
            if len(positions) > (symbol in positions):
                self._know_prices(but=symbol)
            candles = track.take_step()
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
        self._know_prices(but=track.symbol)
        track.come_to_bar()
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
        expected, due = self._timer, self.trader.next_due()
        self._look_for_timer()
        if due is None or self._timer != expected:
            return  # the one that was expected has lost its reason
        self._be_at(expected)
        closed = len(self.trades)
        self.tell(TimerFired(now=due))
        if any(trade.exit_reason == "end_of_day" for trade in self.trades[closed:]):
            self._marks.add(self._key, self.trader.equity())
        self._refresh_active()

    def _refresh_active(self) -> None:
        """After something that may have changed any symbol."""
        self._standings.clear()
        self._latest_basis = self._taken = None
        for track in self._by_place:
            if track.relies_on is not None or track in self._active:
                self._refresh(track)
                self._enqueue(track)
        self._look_for_timer()

    def _refresh(self, track: "_Track") -> None:
        """After something has changed: what comes next there, and the Trader's next timer."""
        (self._active.add if track.refresh(self.trader, self.exchange) else self._active.discard)(track)
        if self._width > 1:
            self._look_again(but=track)
        self._look_for_timer()

    def _look_again(self, *, but: "_Track") -> None:
        """Where signals are counted because they are refused anyway, the refusal may be another one from now on."""
        relying = [track for track in self._by_place if track.relies_on is not None and track is not but]
        if relying:
            standing = self._standing()
            for track in relying:
                if track.relies_on != standing:
                    track.catch_up(self._key)
                    track.look()
                    self._enqueue(track)

    def _standing(self) -> tuple[str, int]:
        """The code with which all signals are refused that come now, and the key before which they are."""
        trader, portfolio = self.trader, self.trader.portfolio
        counts = len(portfolio.positions), trader.working_entries(), len(trader.tripped)
        if (counts, portfolio.cash) == self._latest_basis:
            return self._latest_standing  # stops that were moved since then only leave more
        known = self._standings.get(counts)
        if known is not None and (equity := trader.equity_at_stops()) is not None and equity >= known[1]:
            standing = known[0]
        else:
            code, until, floor = trader.standing_refusal()
            standing = code, NEVER if until is LATEST else to_seconds(until) * self._second
            if not code:
                return standing
            self._standings[counts] = standing, floor
        self._latest_basis, self._latest_standing = (counts, portfolio.cash), standing
        return standing

    def _look_for_timer(self) -> None:
        timer = self.trader.next_timer()
        if timer != self._timer_known:
            self._timer_known = timer
            self._timer = NEVER if timer is None else self._timer_key(*timer)

    def _timer_key(self, due: datetime, kind: Kind, place: int) -> int:
        return (to_seconds(due) * KINDS + 1 + kind) * self._width + place

    def _know_flatten(self, due: datetime | None) -> None:
        self._flatten_key = self._flatten_end = NEVER
        if due is not None:
            self._flatten_key = self._timer_key(due, Kind.FLATTEN, 0)
            self._flatten_end = (to_seconds(due) + 1) * self._second

    # --- what Trader and exchange would know by now -------------------------------------------------------------------

    def _know_prices(self, *, but: str = "") -> None:
        """The last close of every symbol that is held."""
        for symbol in self.trader.portfolio.positions:
            if symbol != but:
                track = self._tracks[symbol]
                self._know_price(track, track.bars_before(self._key))

    def _know_price(self, track: "_Track", bars: int) -> Decimal:
        """The last close when so many bars were delivered."""
        price = PRICES[track.bars.close.item(bars - 1)]
        self.trader.last_prices[track.symbol] = self.exchange.last_close[track.symbol] = price
        return price

    def _largest_drawdown(self) -> Decimal:
        steps = np.concatenate([track.step_keys[track.first_step : -1] for track in self._by_place])
        steps.sort(kind="stable")
        closes = {track.symbol: Closes(keys=track.bar_keys, prices=track.bars.close) for track in self._by_place}
        return self._marks.largest_drawdown(steps[: np.searchsorted(steps, self._key, side="right")], closes)


class _Track:
    """One symbol's columns, and the place reached in them.

    `key` is that of the next event: a step of candles, or a bar that the exchange is to see, `touched`. `bar` and the
    step come next after what is over; while nothing can happen neither moves.
    """

    def __init__(
        self,
        trader: Trader,
        symbol: str,
        history: History,
        *,
        place: int,
        width: int,
        standing: Callable[[], tuple[str, int]],
    ) -> None:
        self.book = trader.books[symbol]
        self.strategy = strategy = self.book.feeds[0].lines[0].strategy
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
        self._second = KINDS * width
        self.bar_keys: Integers = (self.bars.timestamps + MINUTE_SECONDS) * self._second + place
        kinds = np.where(steps.is_late, 1 + Kind.GRACE, BAR)
        keys = (self._candles.completed_at[steps.first[:-1]] * KINDS + kinds) * width + place
        self.step_keys: Integers = np.append(keys, NEVER)
        self.first_bar = self.bars.index_at(history.begins)
        self.first_step = int(np.searchsorted(self._candles.start[steps.first[:-1]], to_seconds(history.begins)))
        # Single values come three times as fast out of these.
        self._keys, self._bar_keys = self.step_keys.data, self.bar_keys.data
        self._first, self._bars_known = steps.first.data, steps.bars_known.data
        self._low, self._high = steps.low.data, steps.high.data
        self._bar_low, self._bar_high = self.bars.low.data, self.bars.high.data

        hint = strategy.candidates(self._candles, self._averages)
        self._sees_all = hint is None
        may_signal = np.ones(len(self._candles), dtype=bool) if hint is None else hint
        self._may_signal = may_signal.data
        wanted = steps.containing(np.flatnonzero(may_signal))
        self._wanted: list[int] = [*wanted[wanted >= self.first_step].tolist(), len(keys)]
        self._next_wanted = 0
        # Where every candidate is a signal and nobody wants to read of it, those that are refused anyway are counted.
        self._takes_shorts = parameters["allow_short"]
        self._counts = strategy.candidates_are_signals and parameters["enabled"] and not trader.keeps_records
        self._signals_before = np.append(0, np.cumsum(may_signal)).data
        # Where other symbols have a say in what becomes of an entry, that cannot be worked out in advance.
        self.round_trips: RoundTrips | None = None
        if width == 1:
            self.round_trips = history.derived(
                (interval, grace, strategy.name, strategy.after_signals()),
                lambda: RoundTrips(
                    history, steps, strategy, step_keys=self.step_keys, bar_keys=self.bar_keys, second=self._second
                ),
            )
        self._trader = trader
        self._standing = standing
        self.relies_on: tuple[str, int] | None = None
        self._is_late = steps.is_late.data
        self._late = [*np.flatnonzero(steps.is_late).tolist(), len(keys)]
        self._foresight: Foresight | None = None
        self._position: Position | None = None
        self._is_active = False
        self._step = self._event_step = self.first_step
        self.key, self.touched = NEVER, NO_BAR
        self.bar = self.first_bar
        self.expiry_key = NEVER
        self._sells_at, self._buys_at = 0, HIGHEST
        self.look()

    @property
    def step_key(self) -> int:
        """The key of the next step."""
        return self._keys[self._step]

    @property
    def has_simple_signal(self) -> bool:
        """Whether a signal comes next that is on time and finds a symbol at which nothing is at work."""
        if not self._counts or self._is_active or self.relies_on is not None or self._is_late[self._event_step]:
            return False
        return not (self.book.signals or self.book.exit_reason)

    def signal(self) -> tuple[int, Candle, IndicatorSet | None]:
        """The signal that comes next, with its step; without averages where it can only be a long one."""
        step = self._event_step
        at = self._first[step]
        indicators = self._averages.indicators(at) if self._takes_shorts else None
        return step, self._candles.candle(at), indicators

    def signals_after(self, step: int, end: int) -> int:
        """How many come at the candles after a step's and before position `end`."""
        return self.signals(self._first[step + 1], end)

    def signals(self, start: int, end: int) -> int:
        """How many come at the candles from one position up to another one."""
        count: int = self._signals_before[end] - self._signals_before[start]
        return count

    def resume(self, step: int, bar: int | None = None) -> None:
        """Everything before this step, and before this bar, is over, and the symbol is free."""
        self._step, self.bar = step, self._bars_known[step - 1] if bar is None else bar
        self.look()

    def pass_bar(self) -> None:
        """The bar has been seen."""
        self.bar, self.touched = self.touched + 1, NO_BAR

    def come_to_bar(self) -> None:
        """The steps before the bar that matters are over."""
        self._skip_to(self._event_step)

    def take_step(self) -> Sequence[CompletedCandle]:
        """The candles of the step that is the next event, which thereby is over."""
        step = self._event_step
        self._skip_to(step)
        self._step, self.bar = step + 1, self._bars_known[step]
        first, end = self._first[step], self._first[step + 1]
        candles = [
            CompletedCandle(self._candles.candle(at), self._averages.indicators(at), bool(self._may_signal[at]))
            for at in range(first, end)
        ]
        if self._is_late[step]:
            late_at = to_moment(self._keys[step] // self._second)
            return [candle._replace(late_at=late_at, more_follow=candle is not candles[-1]) for candle in candles]
        return candles

    def seen_before(self) -> Iterator[tuple[Session, Sequence[CompletedCandle]]]:
        """The candles before the run with their session, for a strategy that wants to see all."""
        for at in range(self._first[self.first_step] if self._sees_all else 0):
            candle = self._candles.candle(at)
            yield (
                self._history.session_at(candle.timestamp),
                [CompletedCandle(candle, self._averages.indicators(at), may_signal=False)],
            )

    def bars_before(self, key: int) -> int:
        """How many bars are delivered before a key that is not later than the next event."""
        return bisect_left(self._bar_keys, key, self.bar)

    def catch_up(self, key: int) -> None:
        """What comes before a key that is not later than the next event is over."""
        self._skip_to(bisect_left(self._keys, key, self._step, self._event_step))

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
        self._position = trader.portfolio.positions.get(self.symbol)
        self._is_active = falling is not None or rising is not None or self._position is not None
        self.look()
        return self._is_active

    def look(self) -> None:
        """Finds the next event."""
        wanted = self._next_wanted_step()
        if not self._is_active:
            self.touched, self._event_step, self.key = NO_BAR, wanted, self._keys[wanted]
            return
        first_step = self._step
        step, self.touched = self._first_reached(first_step, self._last_to_look_at(first_step, wanted))
        if step > first_step and self._position is not None:
            self._foresight = self._foresee(first_step, step)
            ahead = first_step + self._foresight.place - self._first[first_step]  # every step before has one candle
            if ahead < step:
                step, self.touched = ahead, NO_BAR
        self._event_step = step
        self.key = self._keys[step] if self.touched == NO_BAR else self._bar_keys[self.touched]

    def _next_wanted_step(self) -> int:
        """The first step of which the Trader must be told because of a signal."""
        self._next_wanted = place = bisect_left(self._wanted, self._step, self._next_wanted)
        wanted = self._wanted[place]
        self.relies_on = None
        is_free, book = self._position is None, self.book
        if not self._counts or (is_free and (self._is_active or not self._trader.tripped)):
            return wanted
        if book.exit_reason or book.signals or book.blocks:
            return wanted
        code, until = standing = self._standing()
        if code == "" or (is_free and code in OF_THE_SYMBOL) or self._keys[wanted] >= until:
            return wanted
        self.relies_on = standing
        return self._wanted[bisect_left(self._wanted, bisect_left(self._keys, until), self._next_wanted)]

    def _last_to_look_at(self, step: int, wanted: int) -> int:
        """The first step from this one on of which the Trader is told in any case."""
        last = min(wanted, step + LOOK_AHEAD)
        if self._position is not None:
            if self.book.exit_reason:
                return step
            last = min(last, self._late[bisect_left(self._late, step)])
        if self.expiry_key < self._keys[last]:
            last = bisect_left(self._keys, self.expiry_key, step, last)
        return last

    def _first_reached(self, first_step: int, last: int) -> tuple[int, int]:
        """The first step, up to the last one, on the way to which a bar matters, and that bar; else the last one."""
        low, high, sells_at, buys_at = self._low, self._high, self._sells_at, self._buys_at
        expires = self.expiry_key < self._keys[last]
        if (
            not expires
            and (sells_at == 0 or min(low[first_step : last + 1]) > sells_at)
            and (buys_at == HIGHEST or max(high[first_step : last + 1]) < buys_at)
        ):
            return last, NO_BAR
        for step in range(first_step, last + 1):
            if low[step] <= sells_at or high[step] >= buys_at or (expires and step == last):
                since = self.bar if step == first_step else self._bars_known[step - 1]
                for bar in range(since, self._bars_known[step]):
                    if (
                        self._bar_low[bar] <= sells_at
                        or self._bar_high[bar] >= buys_at
                        or self._bar_keys[bar] == self.expiry_key
                    ):
                        return step, bar
        return last, NO_BAR

    def _skip_to(self, step: int) -> None:
        """The steps before this one, of which the Trader need not be told, are over."""
        if step == self._step:
            return
        first, end = self._first[self._step], self._first[step]
        if self.relies_on is not None and (signals := self._signals_before[end] - self._signals_before[first]):
            self._trader.decisions[self.relies_on[0]] += signals
        if self._position is not None:
            if self._foresight is None or self._foresight.place != end:
                self._foresight = self._foresee(self._step, step)
            self.strategy.skip(self._foresight)
            self._foresight = None
        self._step, self.bar = step, self._bars_known[step - 1]

    def _foresee(self, step: int, until: int) -> Foresight:
        """How far managing the position comes to nothing."""
        side = Side.LONG if self._position is None else self._position.side
        return self.strategy.foresee(self._candles, first=self._first[step], end=self._first[until], side=side)
