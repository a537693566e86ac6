"""Every kind of page in a real browser: nothing on it is refused by its own Content-Security-Policy."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Browser, StorageState, expect
from pytest_django import DjangoDbBlocker

from tests.browser.conftest import Server, browsing, login_at, server
from tests.browser.test_pages_without_engine import write_history

PAGES = (
    "/", "/orders/", "/trades/", "/start/", "/replay/", "/admin/trading/notificationchannel/",
    "/backtests/", "/backtests/new/", "/sweeps/", "/nowhere/", "/api/docs",
    "/admin/", "/admin/risk/settingsoverride/", "/admin/orders/orderstate/", "/admin/orders/orderstate/1/change/",
    "/admin/orders/tradenote/add/", "/admin/auth/user/", "/admin/auth/user/add/", "/admin/auth/user/1/change/",
    "/admin/auth/group/add/", "/admin/axes/accessattempt/", "/admin/django_q/schedule/add/", "/admin/django_q/success/",
    "/admin/password_change/",
)  # fmt: skip


def write_history_of_a_superuser() -> None:
    """As `write_history`, and the operator may enter every page of the admin."""
    write_history()
    User.objects.update(is_superuser=True)


@pytest.fixture(scope="module")
def pages(
    migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker
) -> Iterator[Server]:
    """The web server alone."""
    folder = tmp_path_factory.mktemp("pages")
    with server(migrated_sqlite, folder, django_db_blocker, fill=write_history_of_a_superuser) as program:
        process = program.start("-m", "daphne", "-p", str(program.port), "algotrader.asgi:application")
        yield program
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def login(pages: Server, chromium: Browser) -> StorageState:
    """The operator has signed in."""
    return login_at(chromium, pages.url)


@pytest.mark.parametrize("path", PAGES)
def test_a_page_needs_nothing_that_the_policy_forbids(
    pages: Server, chromium: Browser, login: StorageState, path: str
) -> None:
    complaints: list[str] = []
    with browsing(chromium, complaints=complaints, login=login) as page:
        answer = page.goto(f"{pages.url}{path}", wait_until="networkidle" if path == "/api/docs" else "load")
        assert answer is not None
        assert answer.status in (200, 404)
        if path == "/api/docs":
            expect(page.locator(".opblock").first).to_be_visible()
    assert [line for line in complaints if "status of 404" not in line] == []
