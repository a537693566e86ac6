"""Every kind of page in a real browser: nothing on it is refused by its own Content-Security-Policy."""

import pytest
from playwright.sync_api import Browser, StorageState, expect

from tests.browser.conftest import Serve, Server, browsing
from tests.browser.history import write_history_of_a_superuser

PAGES = (
    "/", "/orders/", "/trades/", "/start/", "/replay/", "/admin/trading/notificationchannel/",
    "/backtests/", "/backtests/new/", "/sweeps/", "/nowhere/", "/api/docs",
    "/admin/", "/admin/risk/settingsoverride/", "/admin/orders/orderstate/", "/admin/orders/orderstate/1/change/",
    "/admin/orders/tradenote/add/", "/admin/auth/user/", "/admin/auth/user/add/", "/admin/auth/user/1/change/",
    "/admin/auth/group/add/", "/admin/axes/accessattempt/", "/admin/django_q/schedule/add/", "/admin/django_q/success/",
    "/admin/password_change/",
)  # fmt: skip


@pytest.fixture(scope="module")
def program(serve: Serve) -> Server:
    """The web server alone."""
    return serve(fill=write_history_of_a_superuser)


@pytest.mark.parametrize("path", PAGES)
def test_a_page_needs_nothing_that_the_policy_forbids(
    program: Server, chromium: Browser, login: StorageState, path: str
) -> None:
    complaints: list[str] = []
    with browsing(chromium, complaints=complaints, login=login) as page:
        answer = page.goto(f"{program.url}{path}", wait_until="networkidle" if path == "/api/docs" else "load")
        assert answer is not None
        assert answer.status in (200, 404)
        if path == "/api/docs":
            expect(page.locator(".opblock").first).to_be_visible()
    assert [line for line in complaints if "status of 404" not in line] == []
