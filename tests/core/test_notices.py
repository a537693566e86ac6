"""What people are told of, and how a day is summed up."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from tests.db.samples import trade
from trading.messages import ActivityRecorded, ActivityType, Level
from trading.notices import Notice, notice_of, summary

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)


def record(kind: ActivityType, level: Level = Level.INFO) -> ActivityRecorded:
    return ActivityRecorded(at=NOW, type=kind, symbol="AAPL", message="bought 10 AAPL at $100.01", level=level)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (ActivityType.ORDER_FILLED, "fill"),
        (ActivityType.TRADE_CLOSED, "trade"),
        (ActivityType.CIRCUIT_BREAKER, "breaker"),
        (ActivityType.HALTED, "breaker"),
        (ActivityType.NAKED, "error"),
        (ActivityType.ORDER_REJECTED, "error"),
        (ActivityType.SIGNAL, None),
        (ActivityType.STOP_MOVED, None),
    ],
)
def test_each_activity_is_told_as_its_kind_or_not_at_all(kind: ActivityType, told: str | None) -> None:
    notice = notice_of(record(kind))
    assert (notice.kind if notice else None) == told


def test_whatever_is_critical_is_told_as_an_error() -> None:
    notice = notice_of(record(ActivityType.STOP_MOVED, Level.CRITICAL))
    assert notice == Notice(kind="error", title="algo-trader: stop moved", text="Bought 10 AAPL at $100.01")


CLOSE = datetime(2026, 3, 2, 21, 0, tzinfo=UTC)


def test_a_day_is_summed_up_in_a_few_lines_of_the_feed_that_are_told_as_a_summary() -> None:
    winner = trade("winner", symbol="TSLA", pnl=Decimal("10.40"), exit_reason="max_run")
    written = summary(
        date(2026, 3, 2),
        [trade(), winner],
        at=CLOSE,
        start_equity=Decimal(25_000),
        equity=Decimal("25005.20"),
        held=["AMD", "META"],
    )
    assert (written.at, written.type, written.level) == (CLOSE, ActivityType.SUMMARY, Level.INFO)
    assert written.message.splitlines() == [
        "2026-03-02: Result +$5.20 (+0.02%), equity $25,005.20.",
        "2 trades, 1 won.",
        "AAPL -$5.20 (stop loss)",
        "TSLA +$10.40 (max run)",
        "Held overnight: AMD, META.",
    ]
    assert notice_of(written) == Notice(kind="summary", title="algo-trader: summary", text=written.message)


def test_a_day_without_trades_says_so_and_without_equity_the_trades_make_the_result() -> None:
    written = summary(date(2026, 3, 2), [], at=CLOSE, start_equity=None, equity=None, held=[])
    assert written.message.splitlines() == ["2026-03-02: Result +$0.00.", "No trades."]
