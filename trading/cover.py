"""How long, and for how many dollars, open shares were without a stop: measured from what the broker said.

A position is *naked* while the shares that its working stops would sell are fewer than those held; a market exit on its
way is no stop. Cover begins when the broker has accepted a stop and ends when it is filled or has ended.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from orders.events import Accepted, Canceled, Expired, Fact, Filled, Rejected, SubmitFailed
from orders.lifecycle import Order, Role

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """One position's cover. `uncovered_qty` shares, worth `dollars` at their entry price, are naked since `since`.

    `seconds` adds up all stretches, the present one up to the time of asking included; `latest_seconds` is the present
    or last one alone. `most_dollars` is the largest naked value there was at any time.
    """

    correlation_id: str
    symbol: str
    uncovered_qty: Decimal
    dollars: Decimal
    since: datetime | None
    seconds: float
    longest_seconds: float
    latest_seconds: float
    most_dollars: Decimal
    stretches: int


@dataclass(slots=True, kw_only=True)
class _Stop:
    """What one protective order would still sell."""

    qty_left: Decimal
    works: bool = False


@dataclass(slots=True, kw_only=True)
class _RoundTrip:
    symbol: str
    held: Decimal = ZERO
    bought: Decimal = ZERO
    value: Decimal = ZERO
    stops: dict[str, _Stop] = field(default_factory=dict)
    since: datetime | None = None
    latest: datetime | None = None
    ended: timedelta = timedelta(0)
    longest: timedelta = timedelta(0)
    last: timedelta = timedelta(0)
    most_dollars: Decimal = ZERO
    stretches: int = 0

    @property
    def uncovered(self) -> Decimal:
        covered = sum((stop.qty_left for stop in self.stops.values() if stop.works), ZERO)
        return max(self.held - covered, ZERO)

    @property
    def dollars(self) -> Decimal:
        return round(self.uncovered * self.value / self.bought, 2) if self.bought else ZERO


class CoverMeter:
    """Measures every round trip whose orders it is told of, in the order in which their facts became known.

    `times_fills` says whether the broker tells the moment of a fill. The built-in market only knows the minute of the
    bar; then the moment at which we learned of it counts.
    """

    def __init__(self, *, times_fills: bool) -> None:
        self._times_fills = times_fills
        self._round_trips: dict[str, _RoundTrip] = {}

    def start_again(self, histories: Iterable[tuple[Order, Iterable[Fact]]]) -> None:
        """Measures anew, from what earlier processes recorded of these orders."""
        self._round_trips.clear()
        told = [(fact.at, order, fact) for order, facts in histories for fact in facts]
        for _, order, fact in sorted(told, key=lambda each: each[0]):
            self.take(order, fact)

    def take(self, order: Order, fact: Fact) -> Cover | None:
        """Takes in what happened to an order; the whole measurement of its position if that is closed by it."""
        trip = self._round_trips.get(order.correlation_id)
        if trip is None:
            trip = self._round_trips[order.correlation_id] = _RoundTrip(symbol=order.symbol)
        was_held = trip.held
        self._change(trip, order, fact)
        at = fact.filled_at if self._times_fills and isinstance(fact, Filled) else fact.at
        trip.latest = at = max(at, trip.latest or at)
        self._follow(trip, at)
        if trip.held > 0 or was_held <= 0:
            return None
        measured = self._cover(order.correlation_id, trip, at)
        del self._round_trips[order.correlation_id]
        return measured

    def forget(self, correlation_id: str) -> None:
        """A signal of which nothing can come any more."""
        trip = self._round_trips.get(correlation_id)
        if trip is not None and not trip.held:
            del self._round_trips[correlation_id]

    def open(self, now: datetime) -> dict[str, Cover]:
        """The positions that are open, by symbol, as of `now`."""
        return {trip.symbol: self._cover(key, trip, now) for key, trip in self._round_trips.items() if trip.held > 0}

    def _change(self, trip: _RoundTrip, order: Order, fact: Fact) -> None:
        if isinstance(fact, Filled):
            if order.role is Role.ENTRY:
                trip.held += fact.qty
                trip.bought += fact.qty
                trip.value += fact.qty * fact.price
            else:
                trip.held -= fact.qty
        if order.role is not Role.STOP_LOSS:
            return
        stop = trip.stops.setdefault(order.local_id, _Stop(qty_left=order.qty_requested))
        if isinstance(fact, Filled):
            stop.qty_left = max(stop.qty_left - fact.qty, ZERO)
        elif isinstance(fact, Accepted):
            stop.works = True
        elif isinstance(fact, Canceled | Expired | Rejected | SubmitFailed):
            stop.works = False

    def _follow(self, trip: _RoundTrip, at: datetime) -> None:
        if trip.uncovered > 0:
            if trip.since is None:
                trip.since = at
                trip.stretches += 1
            trip.most_dollars = max(trip.most_dollars, trip.dollars)
        elif trip.since is not None:
            trip.last = at - trip.since
            trip.ended += trip.last
            trip.longest = max(trip.longest, trip.last)
            trip.since = None

    def _cover(self, correlation_id: str, trip: _RoundTrip, now: datetime) -> Cover:
        is_naked = trip.since is not None
        present = max(now - trip.since, timedelta(0)) if trip.since is not None else timedelta(0)
        return Cover(
            correlation_id=correlation_id,
            symbol=trip.symbol,
            uncovered_qty=trip.uncovered,
            dollars=trip.dollars,
            since=trip.since,
            seconds=(trip.ended + present).total_seconds(),
            longest_seconds=max(trip.longest, present).total_seconds(),
            latest_seconds=(present if is_naked else trip.last).total_seconds(),
            most_dollars=trip.most_dollars,
            stretches=trip.stretches,
        )
