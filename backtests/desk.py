"""The broker's part of a backtest: carries out what the Trader asks for on the simulated exchange, and keeps count."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from orders.events import Accepted, Canceled, Expired, Fact, Filled, Replaced, ReplaceRefused, Submitted
from orders.lifecycle import Order, OrderType, TimeInForce, local_id_of
from orders.portfolio import Trade
from orders.values import quick
from trading.exchange import Exchange, Execution, WorkingOrder
from trading.market import Session
from trading.messages import (
    CancelFailed,
    CancelOrder,
    Command,
    DataEnded,
    Event,
    HistoryDelivered,
    OrderChanged,
    Record,
    RefreshAccount,
    ReplaceStop,
    RequestHistory,
    SubmitOrder,
    TradeRecorded,
)
from trading.trader import Trader


@dataclass(frozen=True, slots=True, kw_only=True)
class EquityPoint:
    """Dollars in the account at `timestamp`: at the end of every session and after every trade."""

    timestamp: datetime
    equity: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class StopMove:
    """A protective stop was moved to `stop_price`, for bars from `at` on."""

    symbol: str
    at: datetime
    stop_price: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run did. Trades are ordered by exit time, symbol, entry time; `daily_equity` has one value per session.

    `max_drawdown` is a fraction. `decisions` counts the signals by the risk code that refused them, "" for those that
    became orders. `path_mattered`: another path inside some bar could have come to something else.
    """

    trades: tuple[Trade, ...]
    equity_curve: tuple[EquityPoint, ...]
    daily_equity: tuple[Decimal, ...]
    final_equity: Decimal
    max_drawdown: Decimal
    sessions: tuple[Session, ...]
    bars: int
    decisions: Mapping[str, int]
    stop_moves: tuple[StopMove, ...] = ()
    path_mattered: bool = False


_submitted, _accepted, _filled = quick(Submitted), quick(Accepted), quick(Filled)
_canceled, _replaced = quick(Canceled), quick(Replaced)
_order_changed, _working_order = quick(OrderChanged), quick(WorkingOrder)


class Desk:
    """Carries out each command to its end before the next. `trades` and `curve` grow in the order of time."""

    def __init__(self, trader: Trader, exchange: Exchange) -> None:
        self.trader = trader
        self._handle = trader.handle
        self.exchange = exchange
        self.trades: list[Trade] = []
        self.curve: list[EquityPoint] = []
        self.stop_moves: list[StopMove] = []
        self._executions = 0
        self._carry_out: dict[type, Callable[[Any, datetime], None]] = {
            SubmitOrder: self._submit,
            CancelOrder: self._cancel,
            ReplaceStop: self._replace,
            RequestHistory: self._answer_without_bars,
            RefreshAccount: self._refuse,
            TradeRecorded: self._keep,
        }

    def tell(self, event: Event) -> list[Command | Record]:
        """Feeds one event and carries out what the Trader asks for; gives back its answers."""
        answers = self._handle(event)
        if answers:
            self.carry_out(answers)
        return answers

    def carry_out(self, answers: Iterable[Command | Record]) -> None:
        """Does what the Trader asked for in one answer."""
        now = self.trader.now
        for answer in answers:
            if carry_out := self._carry_out.get(type(answer)):
                carry_out(answer, now)

    def fill(self, execution: Execution, now: datetime) -> None:
        """Tells of an execution."""
        self._executions += 1
        closed = len(self.trades)
        self._tell_fact(
            _filled(
                local_id=local_id_of(execution.order_id),
                at=now,
                qty=execution.qty,
                price=execution.price,
                filled_at=execution.at,
                execution_id=f"{execution.order_id}|{self._executions}",
                broker_id=execution.order_id,
                commission=execution.commission,
            )
        )
        if len(self.trades) > closed:
            self.note_equity(now)

    def end_day(self, session: Session) -> None:
        """At the close, orders for the day that are still working expire."""
        for working in self.exchange.working():
            order = self.trader.orders[local_id_of(working.order_id)]
            if order.time_in_force is TimeInForce.DAY and self.exchange.cancel(working.order_id):
                self._tell_fact(Expired(local_id=order.local_id, at=session.close))

    def end_data(self, now: datetime) -> None:
        """Closes what is open at the last price, whatever the volume allows."""
        self.exchange.lift_volume_limit()
        self.tell(DataEnded(now=now))
        for working in self.exchange.working():
            if working.order_type is OrderType.MARKET and self.exchange.cancel(working.order_id):
                for execution in self.exchange.submit(working, now=now):
                    self.fill(execution, now)

    def note_equity(self, timestamp: datetime) -> Decimal:
        """Adds the equity of this moment to the curve."""
        equity = self.trader.equity()
        if self.curve and self.curve[-1].timestamp >= timestamp:
            timestamp = self.curve.pop().timestamp
        self.curve.append(EquityPoint(timestamp=timestamp, equity=equity))
        return equity

    def result(
        self, *, sessions: Sequence[Session], daily_equity: Sequence[Decimal], bars: int, max_drawdown: Decimal
    ) -> Result:
        """What the run did, when it is over."""
        return Result(
            trades=tuple(sorted(self.trades, key=lambda trade: (trade.exit_at, trade.symbol, trade.entry_at))),
            equity_curve=tuple(self.curve),
            daily_equity=tuple(daily_equity),
            final_equity=self.trader.equity(),
            max_drawdown=max_drawdown,
            sessions=tuple(sessions),
            bars=bars,
            decisions=dict(self.trader.decisions),
            stop_moves=tuple(self.stop_moves),
            path_mattered=self.exchange.path_mattered,
        )

    # --- commands -----------------------------------------------------------------------------------------------------

    def _tell_fact(self, fact: Fact) -> None:
        self.tell(_order_changed(now=fact.at, fact=fact))

    def _submit(self, command: SubmitOrder, now: datetime) -> None:
        order = command.order
        self._tell_fact(_submitted(local_id=order.local_id, at=now))
        executions = self.exchange.submit(
            _working_order(
                order_id=order.local_id,
                symbol=order.symbol,
                buys=order.buys,
                order_type=order.order_type,
                qty=order.qty_requested,
                limit_price=order.limit_price,
                stop_price=order.stop_price,
            ),
            now=now,
        )
        self._tell_fact(_accepted(local_id=order.local_id, at=now, broker_id=order.local_id))
        for execution in executions:
            self.fill(execution, now)

    def _cancel(self, command: CancelOrder, now: datetime) -> None:
        order = command.order
        if self.exchange.cancel(_broker_id(order)):
            self._tell_fact(_canceled(local_id=order.local_id, at=now))
        else:
            self.tell(CancelFailed(now=now, local_id=order.local_id))

    def _replace(self, command: ReplaceStop, now: datetime) -> None:
        order, stop_price = command.order, command.stop_price
        old_id, new_id = _broker_id(order), order.client_order_id
        if self.exchange.replace(old_id, now=now, stop_price=stop_price, new_id=new_id):
            self.stop_moves.append(StopMove(symbol=order.symbol, at=now, stop_price=stop_price))
            self._tell_fact(
                _replaced(
                    local_id=order.local_id, at=now, broker_id=new_id, old_broker_id=old_id, stop_price=stop_price
                )
            )
        else:
            detail = "the order is gone or its stop was reached"
            self._tell_fact(ReplaceRefused(local_id=order.local_id, at=now, detail=detail))

    def _answer_without_bars(self, request: RequestHistory, now: datetime) -> None:
        self.tell(
            HistoryDelivered(
                now=now,
                symbol=request.symbol,
                bars=(),
                interval_minutes=request.interval_minutes,
                window_start=request.start,
            )
        )

    def _refuse(self, command: RefreshAccount, now: datetime) -> None:
        raise AssertionError("the Trader of a backtest has no broker's account to ask for")

    def _keep(self, record: TradeRecorded, now: datetime) -> None:
        self.trades.append(record.trade)


def _broker_id(order: Order) -> str:
    """The id under which the exchange has the order: a replacement that was only asked for has not changed it."""
    return order.broker_id or order.local_id
