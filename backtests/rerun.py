"""Tells a Trader again what an engine's was told, with the simulated exchange in the broker's place.

Bars count as delivered at their minute's end, however late they came; everything else at the market time it had.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from backtests.desk import Desk
from orders.lifecycle import WORKING, Order
from trading.exchange import Exchange, WorkingOrder
from trading.logbook import Standing, config_of
from trading.market import Bar
from trading.messages import (
    BarDelivered,
    CandleClosed,
    Command,
    DataEnded,
    DecisionRecorded,
    EntriesBlocked,
    Event,
    Halted,
    HistoryDelivered,
    OrderRecorded,
    Record,
    RequestHistory,
    Restored,
    SessionStarted,
    SymbolBlocked,
    TimerFired,
)
from trading.settings import trader_settings
from trading.trader import Trader

CandleKey = tuple[str, str, datetime]  # symbol, strategy, start


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What an engine was given from `standing` on, in the order in which it came, each with the wall clock."""

    account_id: str
    standing: Standing
    told: Sequence[tuple[datetime, Event]]
    bars: Sequence[tuple[datetime, Bar]]


class Rerun(Desk):
    """One repetition: `decisions` by correlation id, `orders` by local id, `candles` as they were known first."""

    def __init__(self, recorded: Recorded) -> None:
        standing = recorded.standing
        config = config_of(standing.settings)
        super().__init__(
            Trader(
                settings=trader_settings(config),
                symbols=standing.symbols,
                cash=standing.cash,
                account_id=recorded.account_id,
                asks_broker=False,
            ),
            Exchange(
                slippage_per_share=config["backtest.slippage_per_share"],
                commission_per_share=config["backtest.commission_per_share"],
                max_volume_share=config["backtest.max_volume_share"],
            ),
        )
        self.decisions: dict[str, DecisionRecorded] = {}
        self.orders: dict[str, Order] = {}
        self.candles: dict[CandleKey, CandleClosed] = {}
        self._standing = standing
        self._answers: dict[tuple[str, int, datetime], tuple[Bar, ...]] = {}
        self._happened = self._in_order(recorded)

    def run(self) -> None:
        """Everything again, from the standing to the end of what was recorded."""
        self._begin()
        at: datetime | None = None
        for index, (moment, happened) in enumerate(self._happened):
            if isinstance(happened, Bar):
                if moment != at:
                    at = moment
                    self._fire_timers(before=at)
                self._match(happened, at)
                self.tell(BarDelivered(now=at, bar=happened))
            else:
                # Timers of this moment come after all of its bars.
                bars_follow = any(isinstance(each, Bar) for each in self._rest_of_moment(index))
                self._take(happened, timers_are_due=not bars_follow)

    def tell(self, event: Event) -> list[Command | Record]:
        """Keeps what is compared."""
        answers = super().tell(event)
        for answer in answers:
            match answer:
                case DecisionRecorded():
                    self.decisions[answer.correlation_id] = answer
                case OrderRecorded():
                    known = self.orders.get(answer.order.local_id)
                    if known is None or known.version < answer.order.version:
                        self.orders[answer.order.local_id] = answer.order
                case CandleClosed():
                    key = answer.candle.symbol, answer.strategy, answer.candle.timestamp
                    self.candles.setdefault(key, answer)
        return answers

    # --- the order of events ------------------------------------------------------------------------------------------

    def _in_order(self, recorded: Recorded) -> list[tuple[datetime, Bar | Event]]:
        """Bars and events by market time, then as they came; answers to requests for a window are kept apart."""
        happened: list[tuple[datetime, datetime, Bar | Event]] = []
        for real_at, event in recorded.told:
            if isinstance(event, HistoryDelivered) and event.window_start is not None:
                self._answers[event.symbol, event.interval_minutes, event.window_start] = event.bars
            else:
                happened.append((event.now, real_at, event))
        minutes: set[tuple[str, datetime]] = set()
        for real_at, bar in recorded.bars:
            if bar.fault is None and (bar.symbol, bar.timestamp) not in minutes:
                minutes.add((bar.symbol, bar.timestamp))
                happened.append((bar.delivered_at, real_at, bar))
        happened.sort(key=lambda each: each[:2])
        return [(moment, each) for moment, _, each in happened]

    def _rest_of_moment(self, index: int) -> Iterable[Bar | Event]:
        moment = self._happened[index][0]
        for later, each in self._happened[index + 1 :]:
            if later != moment:
                return
            yield each

    def _take(self, event: Event, *, timers_are_due: bool) -> None:
        if isinstance(event, SessionStarted):
            self._end_session(event)
        elif timers_are_due:
            self._fire_timers(until=event.now)
        else:
            self._fire_timers(before=event.now)
        if isinstance(event, DataEnded):
            self.end_data(event.now)
            return
        if isinstance(event, HistoryDelivered) and not event.rebuilds:
            for bar in event.bars:  # the stream missed them, the market did not
                self._match(bar, event.now)
        self.tell(event)

    def _end_session(self, begins: SessionStarted) -> None:
        session = self.trader.session
        if session is not None and session != begins.session:
            self._fire_timers(until=session.close)
            self.end_day(session)
        self._fire_timers(before=begins.now)

    def _fire_timers(self, *, before: datetime | None = None, until: datetime | None = None) -> None:
        while (due := self.trader.next_due()) is not None and (
            (before is not None and due < before) or (until is not None and due <= until)
        ):
            self.tell(TimerFired(now=due))

    def _match(self, bar: Bar, now: datetime) -> None:
        for execution in self.exchange.match(bar):
            self.fill(execution, now)

    def _answer_without_bars(self, request: RequestHistory, now: datetime) -> None:
        """The answer that the engine got, if it got one."""
        key = request.symbol, request.interval_minutes, request.start
        self.tell(
            HistoryDelivered(
                now=now,
                symbol=request.symbol,
                bars=self._answers.get(key, ()),
                interval_minutes=request.interval_minutes,
                window_start=request.start,
            )
        )

    # --- where it begins ----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Orders and positions as they were, and the prices of the day before."""
        standing = self._standing
        for _, event in self._happened:
            if isinstance(event, HistoryDelivered) and event.rebuilds and event.bars:
                self.exchange.last_close.setdefault(event.symbol, event.bars[-1].close)
        orders = tuple(map(_at_the_exchange, standing.orders))
        self.tell(Restored(now=standing.now, orders=orders, fills=standing.fills, cash=standing.cash))
        for order in orders:
            if order.state in WORKING:
                self._put_to_work(order)
        if standing.halted:
            self.tell(Halted(now=standing.now, reason=standing.halted))
        for symbol, reasons in standing.blocked.items():
            for cause, reason in reasons.items():
                if symbol:
                    self.tell(SymbolBlocked(now=standing.now, symbol=symbol, reason=reason, cause=cause))
                else:
                    self.tell(EntriesBlocked(now=standing.now, reason=reason, cause=cause))

    def _put_to_work(self, order: Order) -> None:
        executions = self.exchange.submit(
            WorkingOrder(
                order_id=order.client_order_id,
                symbol=order.symbol,
                buys=order.buys,
                order_type=order.order_type,
                qty=order.qty_left,
                limit_price=order.limit_price,
                stop_price=order.stop_price,
            ),
            now=order.updated_at,
        )
        for execution in executions:
            self.fill(execution, self._standing.now)


def _at_the_exchange(order: Order) -> Order:
    """The order under the id that the exchange of a backtest would give it."""
    return replace(order, broker_id=order.broker_id and order.client_order_id, requested_stop_price=None)
