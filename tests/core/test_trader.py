"""The Trader against a broker that answers late, in part, or not as wished. Its rules on plain days: test_runner."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

import pytest

from orders.events import (
    Accepted,
    Canceled,
    Fact,
    Filled,
    Rejected,
    Replaced,
    ReplaceRefused,
    SubmitFailed,
    Submitted,
)
from orders.lifecycle import Order, OrderState, OrderType, Role, Side
from risk.rules import RiskSettings
from trading.candles import Candle
from trading.indicators import IndicatorSet
from trading.live import calendar
from trading.market import MINUTE, Bar, Session
from trading.messages import (
    AccountReported,
    ActivityRecorded,
    BarDelivered,
    CancelFailed,
    CancelOrder,
    CloseRequested,
    DecisionRecorded,
    EntriesBlocked,
    Event,
    Halted,
    HaltRecorded,
    HistoryDelivered,
    LedgerLost,
    LedgerRegained,
    Level,
    OrderChanged,
    OrdersRecalled,
    PositionAdopted,
    PositionGone,
    Reconciled,
    RefreshAccount,
    ReplaceStop,
    RequestHistory,
    Restored,
    Resumed,
    SessionStarted,
    ShuttingDown,
    StopMoveRequested,
    SubmitOrder,
    TimerFired,
    TradeRecorded,
    WatchlistChanged,
)
from trading.settings import TraderSettings
from trading.strategy import Holding, Strategy
from trading.trader import Trader

SESSION = calendar.sessions(date(2024, 3, 4), date(2024, 3, 4))[0]


class ByClose(Strategy):
    """Reads its orders from the candle's close: x.11 buys, x.22 wants the stop at the low, x.33 leaves, x.66 breaks."""

    name = "by_close"
    exit_reason = "max_run"
    hyperparameters: ClassVar[Mapping[str, Any]] = {
        "enabled": True,
        "allow_short": False,
        "candle_interval_minutes": 1,
        "sma_fast": 2,
        "sma_slow": 3,
        "buy_stop_expiry_candles": 2,
    }

    def should_long(self, candle: Candle, indicators: IndicatorSet) -> bool:
        if candle.close % 1 == Decimal("0.66"):
            raise ZeroDivisionError("a bug in somebody's strategy")
        return candle.close % 1 == Decimal("0.11")

    def entry_price(self, candle: Candle, side: Side) -> Decimal:
        return candle.high

    def stop_loss_price(self, candle: Candle, side: Side) -> Decimal:
        return candle.low

    def should_update_stop(self, candle: Candle, holding: Holding, indicators: IndicatorSet) -> Decimal | None:
        return candle.low if candle.close % 1 == Decimal("0.22") else None

    def should_exit(self, candle: Candle, holding: Holding, indicators: IndicatorSet) -> bool:
        return candle.close % 1 == Decimal("0.33")


class Twin(ByClose):
    """The same wishes under another name; remembers what it was told of each candle."""

    name = "twin"

    def __init__(self, symbol: str, parameters: Mapping[str, Any] | None = None) -> None:
        super().__init__(symbol, parameters)
        self.seen: list[str] = []

    def observe(self, candle: Candle, session: Session) -> None:
        self.seen.append(f"{session.date} {candle.timestamp:%H:%M}")


class Floor:
    """A Trader and a broker in our hands: `orders` are what it sent, newest last; nothing answers by itself."""

    def __init__(
        self, *symbols: str, asks_broker: bool = False, strategies: Iterable[str] = ("by_close",), **risk: Any
    ) -> None:
        self.trader = Trader(
            settings=TraderSettings(risk=RiskSettings(**risk), strategies={name: {} for name in strategies}),
            symbols=symbols or ("AAPL",),
            cash=Decimal(25_000),
            account_id="floor",
            asks_broker=asks_broker,
        )
        self.now = SESSION.open
        self.answers: list[Any] = []
        self.minutes: dict[str, int] = {}
        self.tell(SessionStarted(now=self.now, session=SESSION))

    def tell(self, event: Event) -> list[Any]:
        self.now = max(self.now, event.now)
        self.answers = list(self.trader.handle(event))
        return self.answers

    def bar(self, minute: int, close: str, *, low: str = "99", high: str = "103", symbol: str = "AAPL") -> list[Any]:
        """One minute of a symbol, after quiet ones for those of its minutes that were not told yet."""
        for quiet in range(self.minutes.get(symbol, 0), minute):
            self.one_bar(quiet, "102", low="99", high="103", symbol=symbol)
        return self.one_bar(minute, close, low=low, high=high, symbol=symbol)

    def one_bar(self, minute: int, close: str, *, low: str, high: str, symbol: str) -> list[Any]:
        self.minutes[symbol] = minute + 1
        price = Decimal(close)
        bar = Bar(
            symbol=symbol,
            timestamp=SESSION.open + minute * MINUTE,
            open=price,
            high=Decimal(high),
            low=Decimal(low),
            close=price,
            volume=1000,
        )
        return self.tell(BarDelivered(now=bar.delivered_at, bar=bar))

    def fact(self, kind: type[Fact], order: Order, **fields: Any) -> list[Any]:
        return self.tell(OrderChanged(now=self.now, fact=kind(local_id=order.local_id, at=self.now, **fields)))

    def accept(self, order: Order) -> list[Any]:
        self.fact(Submitted, order)
        return self.fact(Accepted, order, broker_id=f"b-{order.local_id}")

    def fill(self, order: Order, qty: int | Decimal, price: str) -> list[Any]:
        return self.fact(
            Filled,
            order,
            qty=Decimal(qty),
            price=Decimal(price),
            filled_at=self.now,
            execution_id=f"{order.local_id}-{self.trader.orders[order.local_id].qty_filled}",
        )

    def timer(self) -> list[Any]:
        due = self.trader.next_due()
        assert due is not None
        return self.tell(TimerFired(now=due))

    def answers_of(self, kind: type[Any]) -> list[Any]:
        return [answer for answer in self.answers if isinstance(answer, kind)]

    def sent(self) -> list[Order]:
        return [answer.order for answer in self.answers if isinstance(answer, SubmitOrder)]

    def canceled(self) -> list[str]:
        return [answer.order.local_id for answer in self.answers if isinstance(answer, CancelOrder)]

    def refusals(self) -> list[str]:
        return [answer.refused_by for answer in self.answers if isinstance(answer, DecisionRecorded)]

    def critical(self) -> list[str]:
        return [a.message for a in self.answers if isinstance(a, ActivityRecorded) and a.level is Level.CRITICAL]

    # --- scenes ---

    def entry(self, minute: int = 0, symbol: str = "AAPL") -> Order:
        """A working entry: 12 shares, buy-stop at 103, stop planned at 99."""
        self.bar(minute, "102.11", symbol=symbol)
        (order,) = self.sent()
        self.accept(order)
        return order

    def long(self) -> tuple[Order, Order]:
        """An open position with its working stop at 99."""
        entry = self.entry()
        self.fill(entry, entry.qty_requested, "103")
        (stop,) = self.sent()
        self.accept(stop)
        return entry, self.trader.orders[stop.local_id]


def test_the_stop_goes_out_as_soon_as_the_entry_is_filled() -> None:
    floor = Floor()
    entry = floor.entry()
    assert (entry.role, entry.qty_requested, entry.stop_price) == (Role.ENTRY, Decimal(12), Decimal("103.00"))
    floor.fill(entry, 12, "103.01")
    (stop,) = floor.sent()
    assert (stop.role, stop.qty_requested, stop.stop_price) == (Role.STOP_LOSS, Decimal(12), Decimal("99.00"))
    assert stop.time_in_force == "gtc"
    assert stop.parent_id == entry.local_id


def test_the_same_intent_gets_the_same_id_in_another_process() -> None:
    assert Floor().entry().local_id == Floor().entry().local_id


def test_a_partly_filled_entry_is_cut_off_at_the_deadline_and_its_shares_protected() -> None:
    floor = Floor()
    entry = floor.entry()
    floor.fill(entry, 7, "103")
    assert floor.sent() == []  # Alpaca takes no opposite stop while the entry rests
    floor.timer()
    assert floor.now - SESSION.open == timedelta(minutes=1, seconds=2)
    assert floor.canceled() == [entry.local_id]
    floor.fact(Canceled, entry)
    (stop,) = floor.sent()
    assert (stop.role, stop.qty_requested) == (Role.STOP_LOSS, Decimal(7))


def test_an_entry_that_completes_before_the_deadline_gets_one_stop_for_all() -> None:
    floor = Floor()
    entry = floor.entry()
    floor.fill(entry, 7, "103")
    floor.fill(entry, 5, "103.02")
    (stop,) = floor.sent()
    assert stop.qty_requested == 12


def test_fewer_than_five_shares_are_sold_at_market() -> None:
    floor = Floor()
    entry = floor.entry()
    floor.fill(entry, 4, "103")
    floor.timer()
    floor.fact(Canceled, entry)
    (exit_order,) = floor.sent()
    assert (exit_order.role, exit_order.order_type) == (Role.EXIT, OrderType.MARKET)
    assert exit_order.qty_requested == 4
    assert exit_order.exit_reason == "partial_entry"


def test_a_signal_on_the_candle_of_expiry_waits_for_the_cancellation() -> None:
    floor = Floor()
    first = floor.entry()
    floor.bar(1, "102")
    floor.bar(2, "102.11")  # two candles after the submission
    assert floor.canceled() == [first.local_id]
    assert floor.sent() == []
    floor.fact(Canceled, first)
    (second,) = floor.sent()
    assert second.role is Role.ENTRY
    assert second.local_id != first.local_id


def test_that_signal_is_dropped_when_the_old_entry_turns_out_to_be_filled() -> None:
    floor = Floor()
    first = floor.entry()
    floor.bar(1, "102")
    floor.bar(2, "102.11")
    floor.fill(first, 12, "103")
    assert floor.refusals() == ["duplicate"]
    assert [order.role for order in floor.sent()] == [Role.STOP_LOSS]


def test_a_signal_while_an_entry_works_is_a_duplicate() -> None:
    floor = Floor()
    floor.entry()
    floor.bar(1, "102.11")
    assert floor.refusals() == ["duplicate"]


def test_an_order_the_broker_has_not_confirmed_is_cancelled_as_soon_as_it_has() -> None:
    floor = Floor()
    floor.bar(0, "102.11")
    (entry,) = floor.sent()
    floor.fact(Submitted, entry)
    floor.tell(Halted(now=floor.now, reason="operator"))
    assert floor.canceled() == []
    floor.fact(Accepted, entry, broker_id="b")
    assert floor.canceled() == [entry.local_id]


def test_leaving_cancels_the_stop_and_sells_only_when_that_is_confirmed() -> None:
    floor = Floor()
    _, stop = floor.long()
    floor.bar(1, "102.33")
    assert floor.canceled() == [stop.local_id]
    assert floor.sent() == []
    floor.fact(Canceled, stop)
    (exit_order,) = floor.sent()
    assert (exit_order.role, exit_order.qty_requested, exit_order.exit_reason) == (Role.EXIT, Decimal(12), "max_run")


def test_nothing_is_sold_when_the_stop_filled_meanwhile() -> None:
    floor = Floor()
    _, stop = floor.long()
    floor.bar(1, "102.33")
    floor.fill(stop, 12, "98.99")
    assert floor.sent() == []
    (trade,) = [answer.trade for answer in floor.answers if isinstance(answer, TradeRecorded)]
    assert (trade.exit_reason, trade.pnl) == ("stop_loss", Decimal("-48.12"))


def test_a_better_stop_is_asked_for_once_and_counts_when_it_is_confirmed() -> None:
    floor = Floor()
    _, stop = floor.long()
    floor.bar(1, "102.22", low="100")
    (move,) = [answer for answer in floor.answers if isinstance(answer, ReplaceStop)]
    assert (move.stop_price, move.order.client_order_id) == (Decimal("100.00"), f"{stop.local_id}-r1")
    floor.bar(2, "102", low="100")
    assert not [answer for answer in floor.answers if isinstance(answer, ReplaceStop)]
    floor.fact(Replaced, stop, broker_id="new", old_broker_id="old", stop_price=Decimal("100.00"))
    stop_now = floor.trader.stop_of("AAPL")
    assert stop_now is not None
    assert stop_now.stop_price == Decimal("100.00")
    floor.fill(stop, 12, "99.99")
    (trade,) = [answer.trade for answer in floor.answers if isinstance(answer, TradeRecorded)]
    assert trade.exit_reason == "trailing_stop"


@pytest.mark.parametrize("moved", [True, False])
def test_leaving_waits_for_the_answer_to_a_move_of_the_stop(moved: bool) -> None:
    floor = Floor()
    _, stop = floor.long()
    floor.bar(1, "102.22", low="100")
    floor.bar(2, "102.33")
    assert floor.canceled() == []  # Alpaca cancels nothing that is being replaced
    if moved:
        floor.fact(Replaced, stop, broker_id="new", old_broker_id="old", stop_price=Decimal("100.00"))
    else:
        floor.fact(ReplaceRefused, stop, detail="order is not open")
    (cancel,) = [answer for answer in floor.answers if isinstance(answer, CancelOrder)]
    assert cancel.order.broker_id == ("new" if moved else stop.broker_id)


def test_a_refused_move_keeps_the_old_stop_and_is_tried_again() -> None:
    floor = Floor()
    _, stop = floor.long()
    floor.bar(1, "102.22", low="100")
    floor.fact(ReplaceRefused, stop, detail="order is not open")
    kept = floor.trader.stop_of("AAPL")
    assert kept is not None
    assert kept.stop_price == Decimal("99.00")
    floor.timer()
    assert [answer.stop_price for answer in floor.answers if isinstance(answer, ReplaceStop)] == [Decimal("100.00")]


def test_a_stop_only_ever_moves_in_our_favour() -> None:
    floor = Floor()
    floor.long()
    floor.bar(1, "102.22", low="98")
    assert not [answer for answer in floor.answers if isinstance(answer, ReplaceStop)]


def test_a_stop_that_the_price_has_passed_becomes_a_market_exit() -> None:
    floor = Floor()
    _, stop = floor.long()
    floor.bar(1, "102.22", low="102.22", high="102.22")  # the new stop would lie at the last price
    assert floor.canceled() == [stop.local_id]
    floor.fact(Canceled, stop)
    (exit_order,) = floor.sent()
    assert exit_order.exit_reason == "trailing_stop"


def test_a_refused_stop_is_critical_and_asked_for_again_under_a_new_id() -> None:
    floor = Floor()
    entry = floor.entry()
    floor.fill(entry, 12, "103")
    (stop,) = floor.sent()
    floor.fact(Submitted, stop)
    floor.fact(Rejected, stop, detail="insufficient qty available")
    assert floor.critical()
    assert floor.sent() == []
    floor.timer()
    (again,) = floor.sent()
    assert (again.role, again.stop_price) == (Role.STOP_LOSS, Decimal("99.00"))
    assert again.local_id != stop.local_id


def test_a_refused_exit_puts_the_stop_back_and_the_exit_is_tried_again() -> None:
    floor = Floor()
    _, stop = floor.long()
    floor.tell(CloseRequested(now=floor.now, symbol="AAPL"))
    floor.fact(Canceled, stop)
    (exit_order,) = floor.sent()
    floor.fact(Submitted, exit_order)
    floor.fact(Rejected, exit_order, detail="halted")
    assert floor.critical()
    roles = [order.role for order in floor.sent()]
    while Role.STOP_LOSS not in roles:
        floor.timer()
        roles += [order.role for order in floor.sent()]
    assert floor.trader.stop_of("AAPL") is not None


def test_a_cancellation_that_failed_is_asked_for_again() -> None:
    floor = Floor()
    entry = floor.entry()
    floor.bar(1, "102")
    floor.bar(2, "102")
    assert floor.canceled() == [entry.local_id]
    floor.tell(CancelFailed(now=floor.now, local_id=entry.local_id))
    floor.timer()
    assert floor.canceled() == [entry.local_id]


def test_halting_cancels_entries_leaves_positions_and_refuses_signals() -> None:
    floor = Floor("AAPL", "TSLA")
    floor.long()
    entry = floor.entry(1, "TSLA")
    floor.tell(Halted(now=floor.now, reason="operator"))
    assert floor.canceled() == [entry.local_id]
    floor.fact(Canceled, entry)
    floor.bar(2, "102.11", symbol="TSLA")
    assert floor.refusals() == ["halted"]
    assert floor.trader.stop_of("AAPL") is not None
    floor.tell(Resumed(now=floor.now))
    floor.bar(3, "102.11", symbol="TSLA")
    assert len(floor.sent()) == 1


def test_only_the_operators_halt_is_recorded_as_one_and_only_he_lifts_it() -> None:
    floor = Floor()
    floor.long()

    def recorded(event: Event) -> list[bool]:
        floor.tell(event)
        return [each.halted for each in floor.answers_of(HaltRecorded)]

    assert recorded(Halted(now=floor.now, reason="operator")) == [True]
    assert recorded(EntriesBlocked(now=floor.now, cause="clock", reason="the clock is off")) == []
    assert recorded(EntriesBlocked(now=floor.now, cause="clock", reason="")) == []
    assert recorded(Resumed(now=floor.now)) == [False]


def test_without_a_ledger_nothing_is_entered_or_trailed_and_what_is_held_stays_protected() -> None:
    floor = Floor("AAPL", "TSLA")
    _, stop = floor.long()
    entry = floor.entry(1, "TSLA")
    floor.tell(LedgerLost(now=floor.now, reason="disk full"))
    assert floor.canceled() == [entry.local_id]
    assert floor.critical() == [
        "the ledger cannot be written (disk full): no entries and no trailing until it can; stops stay"
    ]
    floor.fact(Canceled, entry)
    floor.bar(2, "102.11", symbol="TSLA")
    assert floor.refusals() == ["halted"]
    floor.bar(2, "102.22", low="101")  # a better stop
    assert floor.answers_of(ReplaceStop) == []
    floor.fact(Canceled, stop)
    (again,) = floor.sent()
    assert (again.role, again.qty_requested) == (Role.STOP_LOSS, Decimal(12))
    floor.accept(again)
    floor.bar(3, "102.33")  # the strategy leaves
    assert floor.canceled() == [again.local_id]
    floor.fact(Canceled, again)
    (leaving,) = floor.sent()
    assert leaving.role is Role.EXIT


def test_with_the_ledger_back_the_better_stop_that_was_wanted_is_asked_for() -> None:
    floor = Floor()
    _, stop = floor.long()
    floor.tell(LedgerLost(now=floor.now, reason="locked"))
    floor.bar(2, "102.22", low="101")
    floor.tell(LedgerRegained(now=floor.now))
    (move,) = floor.answers_of(ReplaceStop)
    assert (move.order.local_id, move.stop_price) == (stop.local_id, Decimal("101.00"))
    floor.bar(3, "102.11")
    assert floor.refusals() == ["duplicate"]


def test_shutting_down_takes_no_signals_and_keeps_the_stops() -> None:
    floor = Floor("AAPL", "TSLA")
    floor.long()
    floor.tell(ShuttingDown(now=floor.now))
    assert floor.canceled() == []
    floor.bar(1, "102.11", symbol="TSLA")
    assert floor.refusals() == ["halted"]


def test_losses_in_a_row_stop_the_day_and_a_new_session_starts_afresh() -> None:
    floor = Floor(consecutive_loss_pause=2)
    for minute in (0, 2):
        entry = floor.entry(minute)
        floor.fill(entry, 12, "103")
        (stop,) = floor.sent()
        floor.accept(stop)
        floor.fill(stop, 12, "99")
    floor.bar(4, "102.11")
    assert floor.refusals() == ["consecutive_losses"]
    tomorrow = calendar.sessions(date(2024, 3, 5), date(2024, 3, 5))[0]
    floor.tell(SessionStarted(now=tomorrow.open, session=tomorrow))
    assert floor.trader.tripped == {}


def test_a_restart_inside_the_session_keeps_the_breaker() -> None:
    floor = Floor()
    floor.tell(
        SessionStarted(now=floor.now, session=SESSION, start_equity=Decimal(25_000), breaker="consecutive_losses")
    )
    floor.bar(0, "102.11")
    assert floor.refusals() == ["consecutive_losses"]


def test_the_daily_loss_is_checked_at_an_entry_and_stays_tripped() -> None:
    floor = Floor("AAPL", "TSLA", max_daily_loss_pct=Decimal("0.01"))
    entry = floor.entry()
    floor.fill(entry, 12, "103")
    (stop,) = floor.sent()
    floor.accept(stop)
    floor.fill(stop, 12, "80")
    floor.bar(1, "102.11", symbol="TSLA")
    assert floor.refusals() == ["daily_loss"]
    assert "daily_loss" in floor.trader.tripped


def test_before_an_entry_the_brokers_account_is_asked_for() -> None:
    floor = Floor(asks_broker=True)
    answers = floor.bar(0, "102.11")
    assert [answer for answer in answers if isinstance(answer, RefreshAccount)]
    assert floor.sent() == []
    floor.tell(AccountReported(now=floor.now, equity=Decimal(25_000), buying_power=Decimal(300)))
    (entry,) = floor.sent()
    assert entry.qty_requested == 2  # 300 dollars of buying power at 103


def test_no_entry_when_the_brokers_equity_is_another() -> None:
    floor = Floor(asks_broker=True)
    floor.bar(0, "102.11")
    floor.tell(AccountReported(now=floor.now, equity=Decimal(24_000), buying_power=Decimal(24_000)))
    assert floor.refusals() == ["account"]


def test_no_entry_when_the_account_cannot_be_read() -> None:
    floor = Floor(asks_broker=True)
    floor.bar(0, "102.11")
    floor.tell(AccountReported(now=floor.now, equity=Decimal(0), buying_power=Decimal(0), is_current=False))
    assert floor.refusals() == ["account"]
    floor.bar(1, "102.11")
    assert [answer for answer in floor.answers if isinstance(answer, RefreshAccount)]


@pytest.mark.parametrize("asks_broker", [False, True])
def test_of_two_signals_on_one_candle_the_strategy_named_first_gets_the_symbol(asks_broker: bool) -> None:
    floor = Floor(asks_broker=asks_broker, strategies=("twin", "by_close"))
    answers = floor.bar(0, "102.11")
    if asks_broker:
        answers = floor.tell(
            AccountReported(now=floor.now, equity=Decimal(25_000), buying_power=Decimal(25_000), is_current=True)
        )
    told = [(answer.strategy, answer.refused_by) for answer in answers if isinstance(answer, DecisionRecorded)]
    assert told == [("twin", ""), ("by_close", "duplicate")]
    assert [order.strategy for order in floor.sent()] == ["twin"]


def test_a_strategy_sees_every_candle_also_of_history_and_while_another_holds_the_symbol() -> None:
    floor = Floor(strategies=("by_close", "twin"))
    yesterday = calendar.previous_sessions(SESSION.date, 1)[0]
    price = Decimal(102)
    bar = Bar(symbol="AAPL", timestamp=yesterday.open, open=price, high=price, low=price, close=price, volume=10)
    floor.tell(
        HistoryDelivered(now=floor.now, symbol="AAPL", bars=(bar,), rebuilds=True, sessions=(yesterday, SESSION))
    )
    entry = floor.entry()
    floor.fill(entry, 12, "103")
    floor.bar(1, "102")
    twin = next(strategy for _, strategy, *_ in floor.trader.lines() if isinstance(strategy, Twin))
    assert twin.seen == ["2024-03-01 14:30", "2024-03-04 14:30", "2024-03-04 14:31"]


def test_a_strategy_that_raises_pauses_its_symbol_and_nothing_else() -> None:
    floor = Floor("AAPL", "TSLA")
    answers = floor.bar(0, "102.66")
    assert any(isinstance(a, ActivityRecorded) and "ZeroDivisionError" in a.message for a in answers)
    floor.bar(1, "102.11")
    assert floor.refusals() == ["symbol_state"]
    floor.bar(1, "102.11", symbol="TSLA")
    assert len(floor.sent()) == 1


def test_a_window_without_bars_is_asked_for_once_and_brings_no_entry() -> None:
    floor = Floor()
    floor.bar(0, "102")
    floor.minutes["AAPL"] = 2  # nobody trades in the second minute
    floor.bar(2, "102")
    due = floor.trader.next_due()
    assert due == SESSION.open + timedelta(minutes=2, seconds=90)
    (request,) = [answer for answer in floor.timer() if isinstance(answer, RequestHistory)]
    bar = Bar(
        symbol="AAPL",
        timestamp=request.start,
        open=Decimal(102),
        high=Decimal(103),
        low=Decimal(99),
        close=Decimal("102.11"),
        volume=1,
    )
    floor.tell(
        HistoryDelivered(now=floor.now, symbol="AAPL", bars=(bar,), interval_minutes=1, window_start=request.start)
    )
    assert floor.refusals() == ["stale"]


def test_what_a_lost_stream_missed_raises_the_stop_once_to_its_final_value() -> None:
    floor = Floor()
    _, _stop = floor.long()
    missed = tuple(
        Bar(
            symbol="AAPL",
            timestamp=SESSION.open + minute * MINUTE,
            open=Decimal(102),
            high=Decimal(103),
            low=Decimal(low),
            close=Decimal("102.22"),
            volume=1,
        )
        for minute, low in ((1, "100"), (2, "101"), (3, "100.5"))
    )
    floor.tell(HistoryDelivered(now=SESSION.open + 4 * MINUTE, symbol="AAPL", bars=missed))
    assert [answer.stop_price for answer in floor.answers if isinstance(answer, ReplaceStop)] == [Decimal("101.00")]


def test_a_missed_exit_is_carried_out_at_once() -> None:
    floor = Floor()
    _, stop = floor.long()
    bar = Bar(
        symbol="AAPL",
        timestamp=SESSION.open + MINUTE,
        open=Decimal(102),
        high=Decimal(103),
        low=Decimal(99),
        close=Decimal("102.33"),
        volume=1,
    )
    floor.tell(HistoryDelivered(now=SESSION.open + 4 * MINUTE, symbol="AAPL", bars=(bar,)))
    assert floor.canceled() == [stop.local_id]


def test_positions_are_closed_before_the_close_and_entries_cancelled() -> None:
    floor = Floor("AAPL", "TSLA")
    _, stop = floor.long()
    floor.bar(383, "102")
    entry = floor.entry(383, "TSLA")
    flatten_at = SESSION.close - timedelta(minutes=5)
    canceled: list[str] = []
    while (due := floor.trader.next_due()) is not None and due <= flatten_at:
        floor.timer()
        canceled += floor.canceled()
    assert floor.now == flatten_at
    assert canceled == [stop.local_id, entry.local_id]
    floor.fact(Canceled, stop)
    (exit_order,) = floor.sent()
    assert exit_order.exit_reason == "end_of_day"


# --- starting again ---


def restarted(orders: tuple[Order, ...], fills: tuple[tuple[Order, Filled], ...]) -> Floor:
    floor = Floor()
    floor.now = SESSION.open + timedelta(minutes=30)
    floor.tell(Restored(now=floor.now, orders=orders, fills=fills, cash=Decimal(25_000)))
    return floor


def held(qty: int = 12) -> tuple[Order, Filled]:
    """What the ledger says of a filled entry."""
    floor = Floor()
    entry = floor.entry()
    floor.fill(entry, qty, "103")
    fill = Filled(
        local_id=entry.local_id,
        at=floor.now,
        qty=Decimal(qty),
        price=Decimal(103),
        filled_at=floor.now,
        execution_id="x",
    )
    return floor.trader.orders[entry.local_id], fill


def test_a_position_found_without_a_stop_gets_its_planned_one_at_once() -> None:
    entry, fill = held()
    floor = restarted((entry,), ((entry, fill),))
    floor.tell(Reconciled(now=floor.now, cash=Decimal(23_764)))
    (stop,) = floor.sent()
    assert (stop.role, stop.qty_requested, stop.stop_price) == (Role.STOP_LOSS, Decimal(12), Decimal("99.00"))
    assert floor.critical()
    assert floor.trader.portfolio.cash == Decimal(23_764)


def test_a_stop_that_a_crash_kept_from_being_sent_is_placed_without_a_pause() -> None:
    before = Floor()
    entry = before.entry()
    before.fill(entry, 12, "103")
    (unsent,) = before.sent()
    _, fill = held()
    floor = restarted((before.trader.orders[entry.local_id], unsent), ((before.trader.orders[entry.local_id], fill),))
    floor.fact(SubmitFailed, unsent, detail="never sent: the broker does not know it")
    (stop,) = floor.sent()
    assert (stop.role, stop.qty_requested, stop.stop_price) == (Role.STOP_LOSS, Decimal(12), Decimal("99.00"))


def test_a_position_found_with_its_stop_is_left_alone() -> None:
    scene = Floor()
    entry, stop = scene.long()
    entry = scene.trader.orders[entry.local_id]
    fill = Filled(
        local_id=entry.local_id,
        at=scene.now,
        qty=Decimal(12),
        price=Decimal(103),
        filled_at=scene.now,
        execution_id="x",
    )
    floor = restarted((entry, stop), ((entry, fill),))
    floor.tell(Reconciled(now=floor.now))
    assert floor.sent() == []
    assert floor.canceled() == []


def test_a_stale_entry_is_cancelled_at_the_start() -> None:
    scene = Floor()
    entry = scene.entry()
    floor = restarted((scene.trader.orders[entry.local_id],), ())
    floor.tell(Reconciled(now=floor.now))
    assert floor.canceled() == [entry.local_id]


def test_shares_nobody_knows_of_are_adopted_with_a_default_stop() -> None:
    floor = Floor()
    floor.tell(PositionAdopted(now=floor.now, symbol="MSFT", side=Side.LONG, qty=Decimal(10), price=Decimal("400.00")))
    floor.tell(Reconciled(now=floor.now))
    stop = floor.trader.stop_of("MSFT")
    assert stop is not None
    assert (stop.qty_requested, stop.stop_price) == (Decimal(10), Decimal("392.00"))  # 2 % below


def test_shares_that_are_gone_are_closed_here_and_marked_estimated() -> None:
    floor = Floor()
    _, stop = floor.long()
    answers = floor.tell(PositionGone(now=floor.now, symbol="AAPL", qty=Decimal(12), price=Decimal(101)))
    (trade,) = [answer.trade for answer in answers if isinstance(answer, TradeRecorded)]
    assert (trade.estimated, trade.exit_reason) == (True, "manual")
    floor.tell(Reconciled(now=floor.now))
    assert stop.local_id in floor.canceled() or floor.trader.orders[stop.local_id].state is not OrderState.ACCEPTED


def test_a_symbol_off_the_watchlist_stays_managed_until_it_is_flat() -> None:
    floor = Floor("AAPL", "TSLA")
    floor.long()
    floor.tell(WatchlistChanged(now=floor.now, symbols=("MSFT",)))
    assert set(floor.trader.managed_symbols()) == {"AAPL", "MSFT"}
    floor.bar(1, "102.22", low="100")
    assert [answer.stop_price for answer in floor.answers if isinstance(answer, ReplaceStop)] == [Decimal("100.00")]


@pytest.mark.parametrize(("price", "moved"), [("101", True), ("98", False)])
def test_the_operator_may_only_tighten_a_stop(price: str, moved: bool) -> None:
    floor = Floor()
    floor.long()
    floor.tell(StopMoveRequested(now=floor.now, symbol="AAPL", stop_price=Decimal(price)))
    assert bool([answer for answer in floor.answers if isinstance(answer, ReplaceStop)]) is moved


def test_time_never_goes_back() -> None:
    floor = Floor()
    floor.bar(5, "102")
    floor.tell(Halted(now=datetime(2020, 1, 1, tzinfo=UTC), reason="late"))
    assert floor.trader.now == SESSION.open + 6 * MINUTE


def test_a_late_minute_does_not_become_the_last_price() -> None:
    floor = Floor()
    floor.bar(0, "102")
    floor.one_bar(2, "105", low="99", high="106", symbol="AAPL")
    floor.one_bar(1, "101", low="99", high="103", symbol="AAPL")
    assert floor.trader.last_prices["AAPL"] == Decimal(105)


def test_shares_bought_by_an_order_long_forgotten_are_protected_all_the_same() -> None:
    floor = Floor()
    entry = floor.entry()
    floor.fact(Canceled, entry)
    ended = floor.trader.orders[entry.local_id]
    tomorrow = calendar.sessions(date(2024, 3, 5), date(2024, 3, 5))[0]
    floor.tell(SessionStarted(now=tomorrow.open, session=tomorrow))
    assert entry.local_id not in floor.trader.orders
    floor.tell(OrdersRecalled(now=floor.now, orders=(ended,)))
    floor.fact(
        Filled,
        entry,
        forced=True,
        qty=Decimal(12),
        price=Decimal(103),
        filled_at=floor.now,
        execution_id="late",
    )
    (stop,) = floor.sent()
    assert (stop.role, stop.qty_requested, stop.stop_price) == (Role.STOP_LOSS, Decimal(12), Decimal("99.00"))


def test_a_signal_in_a_position_is_judged_and_can_trip_the_daily_loss() -> None:
    floor = Floor(max_daily_loss_pct=Decimal("0.01"))
    floor.long()
    floor.bar(1, "102.11")
    assert floor.refusals() == ["duplicate"]
    floor.bar(2, "80.11", low="80", high="103")  # 12 shares, 275 dollars down: more than 1 % of 25 000
    assert floor.refusals() == ["daily_loss"]
    assert "daily_loss" in floor.trader.tripped


def test_the_candle_that_closes_a_position_is_not_one_to_enter_on_and_the_next_one_is() -> None:
    floor = Floor()
    _, stop = floor.long()
    floor.minutes["AAPL"] = 2  # the second minute is missing: what follows is held back until its grace is over
    floor.one_bar(2, "102.33", low="99", high="103", symbol="AAPL")
    floor.timer()
    (request,) = [answer for answer in floor.answers if isinstance(answer, RequestHistory)]
    floor.one_bar(3, "102.11", low="99", high="103", symbol="AAPL")
    floor.tell(HistoryDelivered(now=floor.now, symbol="AAPL", bars=(), interval_minutes=1, window_start=request.start))
    assert floor.canceled() == [stop.local_id]  # both candles came at once: the first leaves, the second waits
    floor.fact(Canceled, stop)
    (exit_order,) = floor.sent()
    floor.accept(exit_order)
    floor.fill(exit_order, 12, "102")
    assert [order.role for order in floor.sent()] == [Role.ENTRY]
