"""Every page, asked badly, with nothing to show, by logins that may not enter, and after the login has ended."""

import pytest
from playwright.sync_api import Browser, Page, StorageState, expect

from tests.browser.conftest import Serve, Server, add_login, browsing, make_superuser, quietly_browsing, sign_in
from tests.browser.every_page import BACKTEST_PAGES, PAGES
from tests.db.samples import uuid_of

HEARTBEAT_MS = 40_000  # the server looks at the login every 15 s
FOR_TRADERS = ("/backtests/new/", "/sweeps/new/")
ONE_OF_NONE = (*BACKTEST_PAGES.values(), f"/orders/{uuid_of('none')}/", f"/trades/{uuid_of('none')}/")
ASKED = {
    "/": ("symbol",),
    "/orders/": ("page", "signal", "symbol", "role", "state", "from", "to", "show"),
    "/trades/": ("page", "symbol", "from", "to", "strategy", "reason", "result"),
    "/backtests/": ("page",),
    "/backtests/new/": ("like", "sweep", "point", "strategy", "symbols"),
    "/backtests/compare/": ("a", "b"),
    "/sweeps/": ("page",),
    "/sweeps/new/": ("like", "sweep", "point", "strategy", "symbols"),
    "/walkforwards/": ("page",),
    "/replay/": ("day", "symbol"),
}
NONSENSE = (
    "", "0", "-1", "999999", "99999999999999999999", "1.5", "%00", "%FF", "%C2%B2", "9999-12-31", "0001-01-01",
    "2026-02-30", "'--", "<script>alert(1)</script>", "A" * 900,
)  # fmt: skip


def everybody() -> None:
    """The operator may do everything; two more may look, and trade."""
    make_superuser()
    add_login("viewer")
    add_login("trader")


@pytest.fixture(scope="module")
def program(serve: Serve) -> Server:
    """The web server alone, on an installation in which nothing has happened yet."""
    return serve(fill=everybody)


def status_of(page: Page, url: str) -> int:
    answer = page.goto(url)
    assert answer is not None
    return answer.status


def test_every_page_with_nothing_to_show_says_so_and_what_does_not_exist_is_not_found(
    program: Server, chromium: Browser, login: StorageState
) -> None:
    with quietly_browsing(chromium, login=login) as page:
        for path in PAGES.values():
            assert status_of(page, f"{program.url}{path}") == 200, path
            expect(page.locator("h1").first).to_be_visible()
    with browsing(chromium, complaints=[], login=login) as page:
        for path in ONE_OF_NONE:
            assert status_of(page, f"{program.url}{path}") == 404, path
            expect(page.get_by_role("heading", name="Nothing is here")).to_be_visible()


@pytest.mark.parametrize("path", ASKED)
def test_nonsense_in_an_address_is_taken_as_not_asked(
    program: Server, chromium: Browser, login: StorageState, path: str
) -> None:
    expected = 404 if path == "/backtests/compare/" else 200
    complaints: list[str] = []
    with browsing(chromium, complaints=complaints, login=login) as page:
        for value in NONSENSE:
            query = "&".join(f"{name}={value}" for name in ASKED[path])
            assert status_of(page, f"{program.url}{path}?{query}") == expected, value
    assert [line for line in complaints if "status of 404" not in line] == []


@pytest.mark.parametrize("name", ["viewer", "trader"])
def test_who_may_not_enter_a_page_is_told_so_and_sees_no_way_to_it(
    program: Server, chromium: Browser, name: str
) -> None:
    closed = ("/admin/", *(FOR_TRADERS if name == "viewer" else ()))
    complaints: list[str] = []
    with browsing(chromium, complaints=complaints) as page:
        sign_in(page, program.url, name=name)
        expect(page.get_by_role("heading", name="Dashboard")).to_be_visible()
        for path in PAGES.values():
            status = status_of(page, f"{program.url}{path}")
            if path.startswith(closed):
                assert status == 403, path
                expect(page.get_by_role("heading", name="Not allowed")).to_be_visible()
            else:
                assert status == 200, path
                assert [page.locator(f"a[href^='{door}']").count() for door in closed] == [0] * len(closed), path
    assert [line for line in complaints if "status of 403" not in line] == []


def test_after_its_login_has_ended_every_page_asks_for_it_and_comes_back(
    program: Server, chromium: Browser, login: StorageState
) -> None:
    with quietly_browsing(chromium) as page:
        for path in (*PAGES.values(), "/orders/?show=working&symbol=AMD"):
            page.goto(f"{program.url}{path}")
            expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        sign_in(page, f"{program.url}/orders/?show=working&symbol=AMD")
        expect(page).to_have_url(f"{program.url}/orders/?show=working&symbol=AMD")


def sign_out_elsewhere(page: Page, url: str) -> None:
    """In another window of the same browser."""
    other = page.context.new_page()
    other.goto(f"{url}/start/")
    other.get_by_role("button", name="Sign out").click()
    expect(other.get_by_role("heading", name="Sign in")).to_be_visible()
    other.close()


def test_a_filter_changed_after_the_login_has_ended_leads_to_the_login_and_back(
    program: Server, chromium: Browser
) -> None:
    with browsing(chromium, complaints=[]) as page:  # what was asked for in vain is in the console
        sign_in(page, f"{program.url}/orders/?show=working")
        expect(page.get_by_role("heading", level=1, name="Orders")).to_be_visible()
        sign_out_elsewhere(page, program.url)
        page.get_by_label("Order", exact=True).select_option("entry")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        expect(page.locator(".sidebar")).to_have_count(0)  # it is a page of its own, not a part of the old one
        sign_in(page, page.url)
        expect(page).to_have_url(f"{program.url}/orders/?show=working")


def test_the_live_connection_of_an_ended_login_leads_to_the_login_and_back(program: Server, chromium: Browser) -> None:
    with browsing(chromium, complaints=[]) as page:  # what was asked for in vain is in the console
        sign_in(page, f"{program.url}/?symbol=AMD")
        expect(page.locator(".notice")).to_contain_text("The engine is not running.")  # so the connection is made
        sign_out_elsewhere(page, program.url)
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible(timeout=HEARTBEAT_MS)
        sign_in(page, page.url)
        expect(page).to_have_url(f"{program.url}/?symbol=AMD")
        expect(page.locator("#chart-symbol")).to_have_text("AMD")
