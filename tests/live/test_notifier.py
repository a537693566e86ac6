"""Notifications through Apprise to a real receiver over HTTP; and receivers that are slow, broken or not there."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoDbBlocker

from tests import databases
from tests.browser import steady_market
from tests.browser.servers import Server
from tests.live.notice_receiver import SECRET, Receiver
from tests.web.conftest import signed_in
from trading import notification_store as store
from trading import store as trading_store
from trading.live.notifier import NOT_SENT, Notifier, send
from trading.messages import ActivityType
from trading.models import NotificationChannel
from trading.notices import KINDS, Notice

FILL = Notice(kind="fill", title="algo-trader: order filled", text="Bought 10 AAPL at $100.01")
PAGE = "admin:trading_notificationchannel_changelist"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.close()


@pytest.fixture
def notifier(ledger: str) -> Iterator[Notifier]:
    running = Notifier(most_waiting=3)
    running.start()
    yield running
    running.stop()


def channel(url: str, *events: str, name: str = "phone", **changes: Any) -> store.Channel:
    row = NotificationChannel.objects.create(name=name, url=url, events=list(events), **changes)
    found = store.find_channel(row.pk)
    assert found is not None
    return found


def outcome(channel_id: int) -> store.Channel:
    """The channel once its latest message has been noted."""
    for _ in range(200):
        found = store.find_channel(channel_id)
        assert found is not None
        if found.sent or found.failed:
            return found
        time.sleep(0.05)
    raise AssertionError("nothing was noted")


def test_a_fill_reaches_the_channels_that_want_fills_and_no_others(notifier: Notifier, receiver: Receiver) -> None:
    wanted = channel(receiver.url, "fill")
    channel(receiver.url, "error", name="mail")
    channel(receiver.url, "fill", name="off", is_enabled=False)
    notifier.tell(FILL)
    (told,) = receiver.wait_for(1)
    assert (told["title"], told["message"]) == (FILL.title, FILL.text)
    assert outcome(wanted.id).sent == 1
    notifier.tell(Notice(kind="error", title="t", text="x"))
    assert len(receiver.wait_for(2)) == 2


def test_a_receiver_that_refuses_is_noted_and_the_next_notice_goes_out(
    notifier: Notifier, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = 500
    found = channel(receiver.url, "fill")
    notifier.tell(FILL)
    noted = outcome(found.id)
    assert (noted.failed, noted.last_error) == (1, NOT_SENT)
    receiver.status = 200
    notifier.tell(FILL)
    receiver.wait_for(2)
    assert SECRET not in caplog.text


def test_a_receiver_that_hangs_holds_up_nobody_and_what_does_not_fit_is_dropped_and_counted(
    notifier: Notifier, receiver: Receiver
) -> None:
    channel(receiver.url, "fill")
    receiver.may_answer.clear()
    notifier.tell(FILL)
    receiver.wait_for(1)  # the thread now waits for the receiver
    for _ in range(5):
        notifier.tell(FILL)  # would never return if it waited
    assert notifier.dropped == 2
    receiver.may_answer.set()
    assert len(receiver.wait_for(4)) == 4


def test_nobody_there_and_no_such_service_are_told_as_such(ledger: str) -> None:
    assert send(channel("json://127.0.0.1:9/", "fill"), FILL) == NOT_SENT
    assert send(channel("nonsense://x", "fill", name="b"), FILL) == "the address is not one that Apprise understands"


def test_an_engine_tells_of_its_fills_and_sums_up_the_day(
    receiver: Receiver, migrated_sqlite: Path, tmp_path: Path, django_db_blocker: DjangoDbBlocker
) -> None:
    url = databases.copied_sqlite(migrated_sqlite, tmp_path / "trading.db")
    with django_db_blocker.unblock(), databases.default_database(url):
        channel(receiver.url, "fill", "summary")
    bars = steady_market.write_bars(tmp_path / "bars-to-replay", ("AAPL",))
    program = Server(tmp_path)
    process = program.start(
        "manage.py", "runengine", "--provider", "simulator", "--no-worker", "--symbols", "AAPL", "--data", str(bars),
        "--start-date", "2024-03-06", "--end-date", steady_market.DAY, "--speed", "3000", "--stay",
    )  # fmt: skip
    try:
        summed_up, filled = receiver.first("algo-trader: summary"), receiver.first("algo-trader: order filled")
    finally:
        process.terminate()
        process.wait(30)
    assert re.match(
        r"2024-03-06: Result [+-]\$\d+\.\d\d \([+-]0\.\d\d%\), equity \$2\d,\d{3}\.\d\d\.\n", summed_up["message"]
    )
    with django_db_blocker.unblock(), databases.default_database(url):
        run = trading_store.last_run()
        assert run is not None
        feed = [record for _, record in trading_store.activities(run.account_id, limit=1000)]
    assert summed_up["message"] in [record.message for record in feed if record.type is ActivityType.SUMMARY]
    told = [filled["message"][1:], ActivityType.ORDER_FILLED]  # a notice begins with a capital letter
    assert told in [[record.message[1:], record.type] for record in feed]


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def admin(ledger: str) -> Client:
    """Somebody in the group `admin`."""
    user = User.objects.create_user("ann")
    user.groups.add(Group.objects.get(name="admin"))
    return signed_in(user)


def test_a_channel_is_added_tried_changed_and_removed_and_its_address_never_shown(
    admin: Client, receiver: Receiver
) -> None:
    page = reverse(PAGE)
    form = {"add": "Add", "name": "phone", "url": receiver.url, "events": ["fill", "summary"]}
    assert admin.post(page, form).status_code == 302
    (found,) = store.channels()
    assert found.events == ("fill", "summary")
    assert SECRET not in repr(found)
    tried = admin.post(page, {"test": str(found.id)}, follow=True).content.decode()
    assert "Phone was told" in tried
    assert receiver.wait_for(1)[0]["message"] == "This channel works."
    shown = admin.get(page).content.decode()
    assert "json://********" in shown
    assert SECRET not in shown + tried
    assert admin.post(page, {"save": "Save", f"events-{found.id}": ["error", "rubbish"]}).status_code == 302
    (changed,) = store.channels()
    assert (changed.events, changed.is_enabled) == (("error",), False)
    assert admin.post(page, {"remove": str(found.id)}).status_code == 302
    assert store.channels() == []


def test_an_address_that_apprise_does_not_understand_is_refused_without_repeating_it(admin: Client) -> None:
    answer = admin.post(reverse(PAGE), {"add": "Add", "name": "x", "url": f"nonsense://{SECRET}", "events": ["fill"]})
    assert "does not understand this address" in answer.content.decode()
    assert SECRET not in answer.content.decode()
    assert store.channels() == []


def test_a_failed_test_says_so_on_the_page(admin: Client) -> None:
    found = channel(f"json://user:{SECRET}@127.0.0.1:9/", *KINDS)
    shown = admin.post(reverse(PAGE), {"test": str(found.id)}, follow=True).content.decode()
    assert f"Phone was not told: {NOT_SENT}" in shown
    assert "0 sent, 1 failed" in shown
    assert SECRET not in shown


def test_a_trader_does_not_get_near_the_addresses(ledger: str) -> None:
    user = User.objects.create_user("tom", is_staff=True)
    user.groups.add(Group.objects.get(name="trader"))
    trader = signed_in(user)
    assert trader.post(reverse(PAGE), {"add": "Add", "name": "x", "url": "json://h", "events": []}).status_code == 403
    assert store.channels() == []
