"""The pages in a real browser while no engine runs."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, StorageState, expect

from tests.browser.conftest import (
    DESKTOP,
    PHONE,
    Serve,
    Server,
    browsing,
    fits,
    quietly_browsing,
    sign_in,
)
from tests.browser.history import write_history

PAGES = ("/", "/orders/", "/trades/", "/backtests/")


@pytest.fixture(scope="module")
def program(serve: Serve) -> Server:
    """The web server alone, on a ledger with a little history."""
    return serve(fill=write_history)


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, program: Server, chromium: Browser, login: StorageState) -> Iterator[Page]:
    """The operator's dashboard; at the end the console must have been quiet."""
    with quietly_browsing(chromium, request.param, login=login) as window:
        window.goto(program.url)
        yield window


def test_a_wrong_password_is_said_and_the_right_one_leads_where_one_wanted_to_go(
    program: Server, chromium: Browser
) -> None:
    with browsing(chromium, complaints=[]) as window:
        sign_in(window, f"{program.url}/trades/", password="guess")
        expect(window.get_by_role("alert")).to_contain_text("do not match")
        assert window.get_by_label("User name").input_value() == "operator"
        window.get_by_label("Password").fill("correct horse battery")
        window.keyboard.press("Enter")
        expect(window.get_by_role("heading", name="Trades", exact=True)).to_be_visible()


def test_the_dashboard_says_that_no_engine_runs_and_how_to_start_it(page: Page) -> None:
    notice = page.locator(".notice")
    expect(notice).to_contain_text("The engine is not running.")
    expect(notice.locator("code")).to_have_text("make run")
    expect(page.locator("#mode")).to_have_text("BUILT-IN MARKET")
    expect(page.locator("#halt")).to_be_hidden()


def test_the_dashboard_shows_what_the_ledger_knows(page: Page) -> None:
    row = page.locator("#positions tbody tr")
    expect(row).to_have_count(1)
    for text in ("TSLA", "long", "100.03", "99.50"):
        expect(row).to_contain_text(text)
    expect(page.locator("#strategies > li")).to_have_count(5)
    expect(page.locator("#chart-empty")).to_contain_text("No candles of AAPL yet")


def test_choosing_a_symbol_changes_chart_and_address_and_the_address_chooses_it_again(page: Page) -> None:
    row = page.locator("#strategies").get_by_role("link", name="AMD")
    row.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#chart-symbol")).to_have_text("AMD")
    expect(page).to_have_url(re.compile(r"\?symbol=AMD$"))
    page.reload()
    expect(page.locator("#chart-symbol")).to_have_text("AMD")
    expect(page.locator("#strategies").get_by_role("link", name="AMD")).to_have_attribute("aria-current", "true")
    page.goto(page.url.replace("AMD", "NVDA"))
    page.go_back()
    expect(page.locator("#chart-symbol")).to_have_text("AMD")


@pytest.mark.parametrize("path", PAGES)
def test_every_page_fits_the_window_and_has_one_title_and_labels_for_what_it_asks(
    program: Server, page: Page, path: str
) -> None:
    page.goto(program.url + path)
    assert fits(page)
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    for field in page.locator("main input:visible").all():
        assert field.evaluate("field => field.labels.length > 0")
    unnamed = "elements => elements.filter(element => !element.innerText.trim() && !element.ariaLabel).length"
    assert page.locator("a:visible, button:visible").evaluate_all(unnamed) == 0


def test_every_link_of_the_navigation_leads_somewhere(program: Server, page: Page) -> None:
    for link in page.locator("nav a").evaluate_all("links => links.map(link => link.href)"):
        answer = page.goto(link)
        assert answer is not None
        assert answer.status == 200, link


def test_orders_are_filtered_without_loading_the_page_anew(program: Server, page: Page) -> None:
    page.goto(f"{program.url}/orders/")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(4)
    page.evaluate("window.isTheSamePage = true")
    page.get_by_label("Working").check()
    expect(rows).to_have_count(1)
    expect(page).to_have_url(re.compile(r"/orders/\?show=working&symbol=&"))
    page.get_by_label("Symbol", exact=True).fill("aapl")
    expect(page.get_by_text("No such orders")).to_be_visible()
    assert page.evaluate("window.isTheSamePage")


def test_a_row_of_orders_leads_to_its_story(program: Server, page: Page) -> None:
    page.goto(f"{program.url}/orders/?symbol=TSLA")
    page.get_by_role("link", name="TSLA").last.click()
    expect(page.get_by_role("heading", name="TSLA entry")).to_be_visible()
    expect(page.get_by_text("10 shares at 100.03")).to_be_visible()
    assert fits(page)


def test_the_ledger_can_be_taken_home(program: Server, page: Page) -> None:
    page.goto(f"{program.url}/trades/")
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert download.value.suggested_filename == "trades.csv"
    assert "AAPL" in download.value.path().read_text()


def test_signing_out_closes_every_page(program: Server, chromium: Browser) -> None:
    with browsing(chromium, complaints=[]) as window:
        sign_in(window, program.url)
        window.get_by_role("button", name="Sign out").click()
        expect(window.get_by_role("heading", name="Sign in")).to_be_visible()
        window.goto(f"{program.url}/trades/")
        expect(window.get_by_role("heading", name="Sign in")).to_be_visible()
