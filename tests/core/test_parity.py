"""Two tellings of the same day compared, and a day told again: what counts as a difference and where its money went."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from backtests.parity import Cause, Deeds, Difference, Report, Verdict, compare, document
from backtests.rerun import Recorded, Rerun
from orders.lifecycle import Order, OrderState, OrderType, Role, Side
from orders.portfolio import Trade
from risk.config import resolve
from trading.live import calendar
from trading.logbook import Standing
from trading.market import MINUTE, Bar
from trading.messages import (
    CloseRequested,
    DataEnded,
    Event,
    Halted,
    HistoryDelivered,
    SessionStarted,
    SettingsChanged,
)
from trading.settings import trader_settings

MONDAY = calendar.sessions(date(2024, 3, 4), date(2024, 3, 4))[0]
REAL = datetime(2026, 11, 20, 9, 15, tzinfo=UTC)


def at(minute: float) -> datetime:
    return MONDAY.open + timedelta(minutes=minute)


# --- comparing --------------------------------------------------------------------------------------------------------

VERDICT = Verdict(
    at=at(10),
    symbol="AAPL",
    strategy="velez",
    side=Side.LONG,
    candle_start=at(8),
    refused_by="",
    qty=Decimal(10),
    entry_price=Decimal(100),
    stop_price=Decimal(99),
)
TRADE = Trade(
    correlation_id="one",
    symbol="AAPL",
    side=Side.LONG,
    qty=Decimal(10),
    entry_price=Decimal("100.01"),
    exit_price=Decimal("101.01"),
    entry_at=at(10),
    exit_at=at(20),
    pnl=Decimal(10),
    pnl_pct=Decimal(1),
    commission=Decimal(0),
    strategy="velez",
    exit_reason="trailing_stop",
    initial_stop_price=Decimal(99),
    planned_risk=Decimal(10),
)
ENTRY = Order(
    local_id="entry",
    correlation_id="one",
    symbol="AAPL",
    side=Side.LONG,
    role=Role.ENTRY,
    order_type=OrderType.STOP,
    qty_requested=Decimal(10),
    strategy="velez",
    created_at=at(10),
    updated_at=at(11),
    stop_price=Decimal(100),
    state=OrderState.FILLED,
)
CANDLE = (*map(Decimal, (100, 101, 99, 100, 5000)), None, None, Decimal(3))
STOP = replace(ENTRY, local_id="stop", role=Role.STOP_LOSS, created_at=at(11), stop_price=Decimal("101.02"))


def deeds(
    verdict: Verdict | None = VERDICT,
    trade: Trade | None = TRADE,
    orders: tuple[Order, ...] = (ENTRY, STOP),
    more: Mapping[str, Verdict] | None = None,
) -> Deeds:
    return Deeds(
        verdicts={**({"one": verdict} if verdict else {}), **(more or {})},
        trades={"one": trade} if trade else {},
        orders={order.local_id: order for order in orders},
        candles={("AAPL", "velez", at(8)): CANDLE},
    )


def traded(**changes: Any) -> Trade:
    """The trade with other values and the profit that follows from them."""
    changed = replace(TRADE, **changes)
    sign = 1 if changed.side is Side.LONG else -1
    pnl = (changed.exit_price - changed.entry_price) * changed.qty * sign - changed.commission
    return replace(changed, pnl=pnl)


def only(report: Report) -> Difference:
    (difference,) = report.differences
    return difference


def test_equal_deeds_have_no_difference() -> None:
    report = compare(deeds(), deeds(), is_exact=True)
    assert report.differences == ()
    assert set(report.causes.values()) == {Decimal(0)}


@pytest.mark.parametrize(
    ("changes", "causes"),
    [
        ({"qty": Decimal(8)}, {Cause.SIZE: "-2"}),
        ({"entry_price": Decimal("100.05")}, {Cause.FILL_PRICE: "-0.4"}),
        ({"exit_price": Decimal("101.11")}, {Cause.FILL_PRICE: "1"}),
        ({"commission": Decimal(1)}, {Cause.FILL_PRICE: "-1"}),
        ({"qty": Decimal(8), "entry_price": Decimal("100.05")}, {Cause.SIZE: "-2", Cause.FILL_PRICE: "-0.32"}),
        ({"qty": Decimal(5), "commission": Decimal("0.5")}, {Cause.SIZE: "-5.5"}),
    ],
)
def test_a_trade_that_both_made_is_taken_apart_to_the_cent(changes: dict[str, Any], causes: dict[Cause, str]) -> None:
    ours = traded(**changes)
    report = compare(deeds(trade=ours), deeds(), is_exact=True)
    assert only(report).causes == {cause: Decimal(text) for cause, text in causes.items()}
    assert sum(only(report).causes.values()) == ours.pnl - TRADE.pnl


def test_for_a_short_a_higher_entry_is_a_gain() -> None:
    short = traded(side=Side.SHORT)
    better = traded(side=Side.SHORT, entry_price=Decimal("100.11"))
    assert only(compare(deeds(trade=better), deeds(trade=short), is_exact=True)).causes == {
        Cause.FILL_PRICE: Decimal(1)
    }


def test_orders_sent_at_another_time_make_it_the_signals_time() -> None:
    late = replace(ENTRY, created_at=at(12))
    ours = traded(entry_price=Decimal("100.11"), exit_price=Decimal("101.11"))
    report = compare(deeds(trade=ours, orders=(late, STOP)), deeds(), is_exact=True)
    assert only(report).causes == {Cause.SIGNAL_TIME: Decimal(-1), Cause.FILL_PRICE: Decimal(1)}
    moved_later = replace(STOP, stop_price=Decimal("100.50"))
    report = compare(
        deeds(trade=traded(exit_price=Decimal("100.49")), orders=(ENTRY, moved_later)), deeds(), is_exact=True
    )
    assert only(report).causes == {Cause.SIGNAL_TIME: Decimal("-5.2")}


def test_a_real_brokers_seconds_are_no_difference() -> None:
    ours = deeds(
        verdict=replace(VERDICT, at=at(10.01)),
        trade=replace(TRADE, entry_at=at(10.7), exit_at=at(20.9)),
        orders=(replace(ENTRY, created_at=at(10.02)), STOP),
    )
    assert compare(ours, deeds(), is_exact=False).differences == ()
    assert [field.name for field in only(compare(ours, deeds(), is_exact=True)).fields] == ["at", "entry at", "exit at"]
    much_later = deeds(trade=replace(TRADE, exit_at=at(21.1)))
    assert [field.name for field in only(compare(much_later, deeds(), is_exact=False)).fields] == ["exit at"]


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({}, Cause.MISSED_FILL),
        ({"refused_by": "account", "qty": Decimal(0)}, Cause.MISSED_FILL),
        ({"refused_by": "size", "qty": Decimal(0)}, Cause.SIZE),
        ({"refused_by": "stale", "qty": Decimal(0)}, Cause.SIGNAL_TIME),
        ({"qty": Decimal(3)}, Cause.SIZE),
        ({"at": at(12)}, Cause.SIGNAL_TIME),
    ],
)
def test_a_signal_that_came_to_no_trade(changes: dict[str, Any], cause: Cause) -> None:
    report = compare(deeds(verdict=replace(VERDICT, **changes), trade=None), deeds(), is_exact=True)
    assert only(report).causes == {cause: Decimal(-10)}
    assert not only(report).follows


def test_another_candle_makes_it_the_data_whatever_else_differs() -> None:
    ours = deeds(trade=traded(qty=Decimal(8)))
    other = Deeds(
        verdicts=ours.verdicts,
        trades=ours.trades,
        orders=ours.orders,
        candles={("AAPL", "velez", at(8)): (Decimal("100.10"), *CANDLE[1:])},
    )
    difference = only(compare(other, deeds(), is_exact=True))
    assert difference.causes == {Cause.DATA: Decimal(-2)}
    assert difference.candle is not None
    start, (field,) = difference.candle
    assert (start, field.name, field.engine, field.backtest) == (at(8), "open", "100.1", "100")


def test_what_follows_from_an_earlier_difference_is_counted_with_it() -> None:
    """One missed fill, and the breaker trips on one side only: the signal after it is refused there."""
    after = replace(VERDICT, at=at(30), candle_start=at(28))
    tripped = replace(after, refused_by="consecutive_losses", qty=Decimal(0))
    report = compare(deeds(trade=None, more={"two": tripped}), deeds(more={"two": after}), is_exact=True)
    first, second = report.differences
    assert (first.causes, first.follows) == ({Cause.MISSED_FILL: Decimal(-10)}, False)
    assert (second.causes, second.follows) == ({Cause.MISSED_FILL: Decimal(0)}, True)
    only_here = compare(deeds(trade=None, more={"two": after}), deeds(), is_exact=True)
    assert [difference.follows for difference in only_here.differences] == [False, True]


def test_the_document_adds_up() -> None:
    told = document(compare(deeds(trade=traded(qty=Decimal(8))), deeds(), is_exact=True))
    assert told["trades"] == {"engine": 1, "backtest": 1}
    assert told["pnl"] == {"engine": "8", "backtest": "10"}
    assert told["pnl_difference"] == {
        "total": "-2", "data": "0", "signal_time": "0", "fill_price": "0", "missed_fill": "0", "size": "-2",
    }  # fmt: skip
    (difference,) = told["differences"]
    assert difference["at"] == "2024-03-04T14:40:00.000000Z"
    assert difference["fields"] == [{"name": "qty", "engine": "8", "backtest": "10"}]


# --- telling again ----------------------------------------------------------------------------------------------------

SETTINGS = resolve([]).with_overrides(
    {"velez.candle_interval_minutes": "1", "velez.sma_fast": "5", "velez.sma_slow": "100"}
)
RISING = [Decimal("100.00") + minute * Decimal("0.01") for minute in range(110)]  # every candle red or doji: no signal
SIGNAL = "101.2 101.6 101.2 101.6"


def bar(minute: int, text: str) -> Bar:
    opened, high, low, close = map(Decimal, text.split())
    return Bar(
        symbol="AAPL", timestamp=at(minute), open=opened, high=high, low=low, close=close, volume=1000
    )  # fmt: skip


def quiet(minutes: range) -> list[Bar]:
    return [bar(minute, " ".join([str(RISING[minute])] * 4)) for minute in minutes]


def told_again(
    bars: list[Bar],
    events: list[tuple[float, Event]],
    *,
    late: Mapping[int, float] | None = None,
    history: list[Bar] | None = None,
) -> Rerun:
    """A day told again; `events` with the minute of their wall clock, `late` bars with the minute they came."""
    standing = Standing(
        now=at(0), settings=SETTINGS.as_texts(), symbols=("AAPL",), cash=Decimal(25_000),
        orders=(), fills=(), halted="", blocked={},
    )  # fmt: skip
    begins: list[tuple[float, Event]] = [(0, SessionStarted(now=at(0), session=MONDAY))]
    if history:
        rebuilt = HistoryDelivered(
            now=history[-1].delivered_at, symbol="AAPL", bars=tuple(history), rebuilds=True, sessions=(MONDAY,)
        )
        begins.append((len(history), rebuilt))
    came = late or {}
    rerun = Rerun(
        Recorded(
            account_id="test",
            standing=standing,
            told=[(REAL + timedelta(minutes=minute), event) for minute, event in [*begins, *events]],
            bars=[
                (REAL + timedelta(minutes=came.get(number, number + 1.001)), each)
                for each in bars
                for number in [(each.timestamp - MONDAY.open) // MINUTE]
            ],
        )
    )
    rerun.run()
    return rerun


def test_a_day_told_again_trades_as_a_backtest_does() -> None:
    bars = [*quiet(range(101)), bar(101, SIGNAL), bar(102, "101.6 101.8 101.5 101.7"), bar(103, "101.7 101.7 90 90")]
    rerun = told_again(bars, [])
    (trade,) = rerun.trades
    assert (trade.entry_at, trade.entry_price, trade.exit_reason) == (at(102), Decimal("101.61"), "stop_loss")
    assert [decision.refused_by for decision in rerun.decisions.values()] == [""]
    assert ("AAPL", "velez", at(101)) in rerun.candles
    assert {order.role for order in rerun.orders.values()} == {Role.ENTRY, Role.STOP_LOSS}


def test_a_late_bar_counts_as_delivered_on_time() -> None:
    bars = [*quiet(range(101)), bar(101, SIGNAL), bar(102, "101.6 101.8 101.5 101.7")]
    (decision,) = told_again(bars, [], late={101: 102.5}).decisions.values()
    assert decision.at == at(102)


def test_history_comes_again_as_history() -> None:
    bars = [bar(101, SIGNAL), bar(102, "101.6 101.8 101.5 101.7")]
    rerun = told_again(bars, [(104, DataEnded(now=at(103)))], history=quiet(range(101)))
    (trade,) = rerun.trades
    assert (trade.exit_reason, trade.exit_price) == ("end_of_data", Decimal("101.69"))


@pytest.mark.parametrize(("came", "refusals"), [(102.0005, ["halted"]), (102.002, [""])])
def test_the_operators_wishes_come_again_in_the_order_in_which_they_came(came: float, refusals: list[str]) -> None:
    """The bar of minute 101 came at 102.001 of the wall clock; market time is the same for both."""
    bars = [*quiet(range(101)), bar(101, SIGNAL), bar(102, "101.6 101.8 101.5 101.7")]
    rerun = told_again(bars, [(came, Halted(now=at(102), reason="me"))])
    assert [decision.refused_by for decision in rerun.decisions.values()] == refusals
    assert rerun.trades == []


def test_changed_settings_and_a_manual_close_come_again() -> None:
    bars = [*quiet(range(101)), bar(101, SIGNAL), bar(102, "101.6 101.8 101.5 101.7"), bar(103, "101.7 102 101.7 102")]
    smaller = trader_settings(SETTINGS.with_overrides({"risk.max_position_pct": "0.01"}))
    events = [(50, SettingsChanged(now=at(50), settings=smaller)), (103.5, CloseRequested(now=at(103.5)))]
    (trade,) = told_again(bars, events).trades
    assert trade.qty == 2  # 1 % of 25 000 dollars at 101.60
    assert (trade.exit_reason, trade.exit_at, trade.exit_price) == ("manual", at(103.5), Decimal("101.69"))
