"""How market time runs against real time."""

from datetime import UTC, datetime, timedelta

from trading.simulator.pace import Pace

TEN = datetime(2024, 3, 4, 15, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def test_a_minute_at_thirty_times_takes_two_seconds() -> None:
    pace = Pace(30)
    pace.anchor(TEN, 100.0)
    assert pace.real_at(TEN + MINUTE) == 102.0
    assert pace.market_at(101.0) == TEN + timedelta(seconds=30)


def test_a_late_step_does_not_delay_the_next_one() -> None:
    pace = Pace(60)
    pace.anchor(TEN, 100.0)
    pace.keep_up(TEN + MINUTE, 101.5)
    assert pace.real_at(TEN + 2 * MINUTE) == 102.0


def test_what_is_very_late_is_not_hurried_after() -> None:
    pace = Pace(60)
    pace.anchor(TEN, 100.0)
    pace.keep_up(TEN + MINUTE, 160.0)
    assert pace.real_at(TEN + 2 * MINUTE) == 161.0
