"""How far two clocks are apart when reading the other one takes time."""

from datetime import UTC, datetime, timedelta

import pytest

from trading.live.watch import drift_of

NOON = datetime(2024, 3, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize(("told", "drift"), [(-1, -1), (0, 0), (1, 0), (2, 0), (5, 3)])
def test_what_lies_between_question_and_answer_is_no_difference(told: int, drift: int) -> None:
    told_at, answered_at = NOON + timedelta(seconds=told), NOON + timedelta(seconds=2)
    assert drift_of(told_at, asked_at=NOON, answered_at=answered_at) == timedelta(seconds=drift)
