"""The worker follows the exchange's calendar: an engine before the open, one summary after the close."""

import logging
import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django_q.models import Schedule

from orders.fields import utc_now
from tests.db.samples import ACCOUNT, record_trade, trade
from tests.live.notice_receiver import Receiver
from tests.web.conftest import start_run
from trading import notification_store, store, tasks
from trading.live import calendar
from trading.messages import ActivityType
from trading.models import NotificationChannel
from trading.notices import summary

OPEN = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)  # a Monday; after the change to summer time it is an hour earlier
CLOSE = datetime(2026, 3, 2, 21, 0, tzinfo=UTC)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.close()


def summaries() -> list[str]:
    """Those in the feed."""
    return [record.message for _, record in store.activities(ACCOUNT) if record.type is ActivityType.SUMMARY]


def minutes(count: int) -> timedelta:
    return timedelta(minutes=count)


def test_nothing_is_due_on_a_holiday_at_night_or_while_the_market_runs(ledger: str) -> None:
    assert tasks.follow_the_calendar(datetime(2026, 1, 1, 14, 15, tzinfo=UTC)) == "no session today"
    assert tasks.follow_the_calendar(datetime(2026, 2, 28, 14, 15, tzinfo=UTC)) == "no session today"
    for moment in (OPEN - minutes(31), OPEN, CLOSE, CLOSE + minutes(14)):
        assert tasks.follow_the_calendar(moment) == "nothing is due"


def test_a_missing_engine_is_reported_before_the_open_by_new_yorks_clock(
    ledger: str, caplog: pytest.LogCaptureFixture
) -> None:
    summer = datetime(2026, 3, 9, 13, 30, tzinfo=UTC)
    with caplog.at_level(logging.WARNING):
        assert tasks.follow_the_calendar(OPEN - minutes(30)) == "no engine runs before the open"
        assert tasks.follow_the_calendar(summer - minutes(5)) == "no engine runs before the open"
        assert tasks.follow_the_calendar(summer) == "nothing is due"
    assert len(caplog.records) == 2


def test_an_engine_that_runs_is_left_alone(ledger: str) -> None:
    store.take_lease(token="11111111-1111-4111-8111-111111111111", pid=1, host="x", port=None, real_at=utc_now())
    assert tasks.follow_the_calendar(OPEN - minutes(10)) == "an engine runs"


def test_the_summary_after_the_close_is_told_once(ledger: str) -> None:
    assert tasks.follow_the_calendar(CLOSE + minutes(20)) == "no engine has ever run"
    start_run(ACCOUNT)
    record_trade(trade())
    told = tasks.follow_the_calendar(CLOSE + minutes(20))
    assert told.splitlines() == ["2026-03-02: Result -$5.20.", "1 trade, 0 won.", "AAPL -$5.20 (stop loss)"]
    assert summaries() == [told]
    assert tasks.follow_the_calendar(CLOSE + minutes(25)) == "the summary was told before"
    next_close = calendar.next_session(CLOSE).close
    assert "No trades." in tasks.follow_the_calendar(next_close + minutes(20))
    assert len(summaries()) == 2


def test_what_the_engine_has_summed_up_is_not_told_again(ledger: str) -> None:
    run_id = start_run(ACCOUNT)
    record = summary(CLOSE.date(), [], at=CLOSE + minutes(2), start_equity=None, equity=None, held=[])
    store.write([record], account_id=ACCOUNT, run_id=run_id, settings_hash="", real_at=utc_now())
    assert tasks.follow_the_calendar(CLOSE + minutes(20)) == "the summary was told before"
    assert summaries() == [record.message]


def test_the_summary_goes_out_through_the_channels_that_want_it(ledger: str, receiver: Receiver) -> None:
    start_run(ACCOUNT)
    for name, events in (("phone", ["summary"]), ("mail", ["error"])):
        NotificationChannel.objects.create(name=name, url=receiver.url, events=events)
    told = tasks.follow_the_calendar(CLOSE + minutes(20))
    assert [each["message"] for each in receiver.told] == [told]
    assert {each.name: each.sent for each in notification_store.channels()} == {"phone": 1, "mail": 0}


def test_a_half_day_is_over_earlier(ledger: str) -> None:
    start_run(ACCOUNT)
    day_after_thanksgiving = datetime(2025, 11, 28, 18, 0, tzinfo=UTC)  # one o'clock in New York
    assert tasks.follow_the_calendar(day_after_thanksgiving + minutes(16)).startswith("2025-11-28: ")


def test_workers_keep_one_schedule_however_many_start(ledger: str) -> None:
    for _ in range(3):
        tasks.have_calendar_followed()
    (found,) = Schedule.objects.filter(func=tasks.TASK)
    assert (found.schedule_type, found.minutes, found.repeats) == (Schedule.MINUTES, 5, -1)


def test_an_engine_is_started_before_the_open_if_that_is_wanted(
    ledger: str, tmp_path: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.ALGO = settings.ALGO.with_overrides({"schedule.start_engine": "true"})
    settings.DATA_DIR = tmp_path
    for name, value in {"ALGO_DATABASE_URL": ledger, "ALGO_DATA_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "algotrader.settings")
    told = tasks.follow_the_calendar(OPEN - minutes(10))
    assert told.startswith("started an engine, process ")
    pid = int(told.split()[-1])
    try:
        deadline = utc_now() + minutes(1)
        while not ((lease := store.live_lease()) and lease.pid == pid):
            time.sleep(0.2)
            assert utc_now() < deadline, (tmp_path / "engine.log").read_text()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
