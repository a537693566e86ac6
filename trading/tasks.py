"""What the worker does by the exchange's calendar: an engine before the open, a summary after the close."""

import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import structlog
from django.conf import settings
from django_q.models import Schedule

from orders import store as order_store
from orders.encoding import decimal_text
from risk import store as risk_store
from trading import store
from trading.live import calendar
from trading.market import Session
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
    told: list[str] = []

    def tell() -> int:
        summary = session_summary(run.account_id, session)
        log.info("session.summary", **summary)
        told.append(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in summary.items()))
        return run.id

    key = f"summary {run.account_id} {session.date}"
    risk_store.ask_once(tell, by=NAME, key=key, fingerprint="", real_at=now)
    return told[0] if told else "the summary was told before"


def session_summary(account_id: str, session: Session) -> Mapping[str, Any]:
    """What came of a session: closed trades, their result in dollars, and what is still held."""
    recorded = order_store.recent_trades(account_id, since=session.open, until=session.close + AFTER_CLOSE, limit=None)
    results = [each.trade.pnl for each in recorded]
    unfinished = order_store.unfinished_orders(account_id)
    return {
        "date": session.date.isoformat(),
        "trades": len(results),
        "winners": sum(result > 0 for result in results),
        "pnl": decimal_text(sum(results, Decimal(0))),
        "unfinished_orders": len(unfinished),
        "symbols_with_orders": ",".join(sorted({order.symbol for order in unfinished})) or "none",
    }
