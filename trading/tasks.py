"""What the worker does by the exchange's calendar: an engine before the open, a summary after the close."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import structlog
from django.conf import settings
from django_q.models import Schedule

from orders import store as order_store
from risk import store as risk_store
from trading import store
from trading.live import calendar
from trading.live.notifier import deliver
from trading.market import Session
from trading.messages import ActivityRecorded, ActivityType
from trading.notices import notice_of, summary
from trading.store import NEW_YORK

log = structlog.get_logger("schedule")

TASK = "trading.tasks.follow_the_calendar"
NAME = "Market hours"
EVERY_MINUTES = 5
BEFORE_OPEN = timedelta(minutes=30)
AFTER_CLOSE = timedelta(minutes=15)
SUMMARY_IS_NEWS = timedelta(hours=4)


def have_calendar_followed() -> None:
    """Has the cluster look at the calendar every few minutes. Called by each worker that starts; one schedule stays."""
    Schedule.objects.update_or_create(
        name=NAME, defaults={"func": TASK, "schedule_type": Schedule.MINUTES, "minutes": EVERY_MINUTES, "repeats": -1}
    )


def follow_the_calendar(now: datetime | None = None) -> str:
    """Does what is due at this moment; what was done, in words, for the list of finished tasks."""
    now = now or datetime.now(UTC)
    session = calendar.session_on(now.astimezone(NEW_YORK).date())
    if session is None:
        return "no session today"
    if session.open - BEFORE_OPEN <= now < session.open:
        return _before_open()
    if session.close + AFTER_CLOSE <= now < session.close + SUMMARY_IS_NEWS:
        return _after_close(session, now)
    return "nothing is due"


def _before_open() -> str:
    if store.live_lease() is not None:
        return "an engine runs"
    if not settings.ALGO["schedule.start_engine"]:
        log.warning("schedule.no_engine", advice="start one, or set ALGO_SCHEDULE__START_ENGINE=true")
        return "no engine runs before the open"
    process = start_engine()
    log.info("schedule.engine_started", pid=process.pid)
    return f"started an engine, process {process.pid}"


def start_engine() -> "subprocess.Popen[bytes]":
    """An engine that outlives this worker; its log goes to a file in the data folder. Two are refused by its lock."""
    with (settings.DATA_DIR / "engine.log").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "manage.py", "runengine", "--no-web", "--no-worker"],
            cwd=settings.ROOT,
            env=os.environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _after_close(session: Session, now: datetime) -> str:
    run = store.last_run()
    if run is None:
        return "no engine has ever run"
    told: list[ActivityRecorded] = []

    def write_down() -> int:
        since = store.activities_between(run.account_id, since=session.close, until=session.close + SUMMARY_IS_NEWS)
        if by_the_engine := [number for number, record in since if record.type is ActivityType.SUMMARY]:
            return by_the_engine[0]
        told.append(_summary(run.account_id, session, now))
        return store.write(told, account_id=run.account_id, run_id=run.id, settings_hash="", real_at=now)[0]

    key = f"summary {run.account_id} {session.date}"
    risk_store.ask_once(write_down, by=NAME, key=key, fingerprint="", real_at=now)
    if not told:
        return "the summary was told before"
    log.info("session.summary", message=told[0].message)
    if notice := notice_of(told[0]):
        deliver(notice)
    return told[0].message


def _summary(account_id: str, session: Session, now: datetime) -> ActivityRecorded:
    """What the ledger knows of a session whose end no engine has seen."""
    trades = order_store.trades_of_session(account_id, since=session.open, until=session.close + AFTER_CLOSE)
    held = sorted({order.symbol for order, _ in order_store.open_round_trips(account_id)})
    return summary(session.date, trades, at=now, start_equity=None, equity=None, held=held)
