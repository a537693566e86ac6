"""Users, a ledger with a little history, and an engine's lease for tests of pages, API and WebSocket."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client

from orders.events import Submitted
from orders.fields import utc_now
from orders.lifecycle import Order
from risk import tokens
from risk.roles import Role
from tests.db.samples import ACCOUNT, at, fill, order, record, record_new, record_trade, record_working, stop, trade
from trading import store
from trading.market import Session
from trading.messages import ActivityRecorded, ActivityType, SessionRecorded

SYMBOLS = ("AAPL", "TSLA")


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What the ledger holds: a closed trade in AAPL, an open position in TSLA with its stop, an order on its way."""

    run_id: int
    entry: Order
    held: Order
    protection: Order
    submitted: Order
    trade_id: str


@pytest.fixture
def page(ledger: str) -> Client:
    """A browser in which an operator has signed in."""
    return signed_in(User.objects.create_user("operator", is_staff=True))


@pytest.fixture
def onlooker(ledger: str) -> Client:
    """A browser in which somebody has signed in who may look but not act."""
    return signed_in(User.objects.create_user("onlooker"))


@pytest.fixture
def script(ledger: str) -> Client:
    """A program that has an admin's bearer token."""
    token = tokens.make(name="token", role=Role.ADMIN, seconds=60)
    return Client(enforce_csrf_checks=True, headers={"Authorization": f"Bearer {token}"})


@pytest.fixture
def history(ledger: str) -> History:
    """A ledger after a morning's work."""
    run_id = start_run(ACCOUNT)
    session = Session(date=at(0).date(), open=at(0), close=at(390))
    started = SessionRecorded(
        session=session, start_equity=trade().entry_price * 250, breaker="", tripped_at=None, halted=False
    )
    bought = ActivityRecorded(
        at=at(1), type=ActivityType.ORDER_FILLED, symbol="AAPL", message="bought 10 AAPL at 100.01"
    )
    store.write([started, bought], account_id=ACCOUNT, run_id=run_id, settings_hash="abc", real_at=utc_now())

    entry = record_working(order())
    entry = record(entry, fill(entry, "10", "100.01"))
    stopped = record_working(stop())
    record(stopped, fill(stopped, "10", "99.49", minute=5))
    trade_id = record_trade(trade())

    held = record_working(order("tsla", signal="tsla", symbol="TSLA"))
    held = record(held, fill(held, "10", "100.03", minute=20))
    protection = record_working(stop("tsla-stop", signal="tsla", symbol="TSLA", parent_id=held.local_id))
    on_its_way = record_new(order("late", signal="late"))
    submitted = record(on_its_way, Submitted(local_id=on_its_way.local_id, at=at(30)))
    return History(run_id=run_id, entry=entry, held=held, protection=protection, submitted=submitted, trade_id=trade_id)


@pytest.fixture
def lease(history: History) -> Iterator[str]:
    """An engine runs: its lease is alive; yields the lease's token."""
    token = "11111111-1111-4111-8111-111111111111"
    store.take_lease(token=token, pid=1, host="test", port=None, real_at=utc_now())
    store.beat(token, state="running", run_id=history.run_id, account_id=ACCOUNT)
    yield token
    store.drop_lease(token)


def start_run(account_id: str, *, mode: str = "built_in") -> int:
    """Writes down a start of the engine on an account."""
    return store.start_run(
        account_id=account_id,
        provider=account_id.partition(":")[0],
        account_mode=mode,
        strategies=["velez"],
        symbols=SYMBOLS,
        settings={},
        settings_hash="abc",
        options={},
        real_at=utc_now() - timedelta(hours=1),
    )


def signed_in(user: User) -> Client:
    """A browser in which this user has signed in."""
    browser = Client()
    browser.force_login(user)
    return browser
