"""What happens at the broker comes to an open dashboard by itself, and the whole day's work can be done by keyboard."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import steady_market
from tests.browser.conftest import PHONE, Serve, Server, browsing, fits, make_superuser, quietly_browsing
from tests.browser.every_page import PAGES
from tests.browser.servers import PASSWORD
from tests.browser.test_accessibility import AXE, serious
from tests.requirements_for_tests import require

SYMBOLS = ("AAPL", "TSLA")
FILLED_MS = 60_000


@pytest.fixture(scope="module")
def program(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """An engine that buys each symbol two minutes after the open, some seconds from now."""
    bars = steady_market.write_bars(tmp_path_factory.mktemp("still") / "bars", SYMBOLS)
    return serve(*steady_market.engine_arguments(bars, SYMBOLS), fill=make_superuser)


@pytest.fixture(scope="module")
def page(program: Server, chromium: Browser) -> Iterator[Page]:
    """One window for the whole day, in which nobody uses a mouse; at the end the console must have been quiet."""
    with quietly_browsing(chromium) as window:
        window.goto(program.url)
        yield window


def tab_to(page: Page, selector: str) -> None:
    """Goes on with the Tab key until the focus is there."""
    for _ in range(200):
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    pytest.fail(f"the Tab key does not lead to {selector}")


def test_fills_appear_on_the_open_page_without_loading_it_anew(page: Page) -> None:
    tab_to(page, "[name=username]")
    page.keyboard.type("operator")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Dashboard")).to_be_visible()
    page.evaluate("window.isTheSamePage = true")
    expect(page.get_by_text("Nothing has been traded here yet")).to_be_visible()
    expect(page.locator("#positions tbody tr")).to_have_count(2, timeout=FILLED_MS)
    expect(page.get_by_text("Nothing has been traded here yet")).to_have_count(0)
    expect(page.locator("#activity li[data-type=order_filled]")).to_have_count(2)
    expect(page.locator("#protection")).to_contain_text("2 of 2 stopped")
    assert page.evaluate("window.isTheSamePage")


def test_the_desk_with_positions_has_no_serious_finding_of_axe(page: Page) -> None:
    require(AXE.exists(), "axe is not installed: run `make setup`")
    expect(page.locator("#positions tbody tr")).to_have_count(2, timeout=FILLED_MS)
    dark = serious(page)
    page.keyboard.press("l")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    light = serious(page)
    page.keyboard.press("l")
    assert (dark, light) == ([], [])


def test_every_page_beside_an_engine_with_positions_fits_a_phone(
    page: Page, program: Server, chromium: Browser
) -> None:
    with browsing(chromium, PHONE, complaints=[], login=page.context.storage_state()) as window:
        for path in PAGES.values():
            window.goto(f"{program.url}{path}")
            expect(window.locator("h1").first).to_be_visible()
            assert fits(window), path


def test_a_position_is_closed_its_trade_noted_and_trading_halted_by_keyboard_alone(page: Page) -> None:
    expect(page.locator("#positions tbody tr")).to_have_count(2, timeout=FILLED_MS)
    page.evaluate("window.isTheSamePage = true")
    tab_to(page, "[aria-label='Move stop of TSLA']")
    page.keyboard.press("Enter")
    expect(page.get_by_label("New stop, dollars")).to_be_focused()
    page.keyboard.press("Control+A")
    page.keyboard.type("100.40")
    page.keyboard.press("Enter")
    row = page.locator("#positions tbody tr").filter(has_text="TSLA")
    expect(row.locator("[data-field=stop]")).to_have_text("100.40")
    expect(row.get_by_role("button", name="Move stop of TSLA")).to_be_focused()
    tab_to(page, "[aria-label='Close the position in AAPL']")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("Close")
    tab_to(page, "dialog[open] .button-danger")
    page.keyboard.press("Enter")
    expect(page.locator("#positions tbody tr")).to_have_count(1)
    expect(page.get_by_role("heading", name="Positions", exact=True)).to_be_focused()  # its button has gone
    expect(page.locator("#activity li[data-type=order_filled]")).to_have_count(3)
    assert page.evaluate("window.isTheSamePage")
    page.keyboard.press("g")
    page.keyboard.press("t")
    expect(page.get_by_role("heading", level=1, name="Trades")).to_be_visible()
    tab_to(page, "#results tbody a")
    page.keyboard.press("Enter")
    page.wait_for_url("**/trades/*/")
    tab_to(page, "textarea")
    page.keyboard.type("closed without a mouse")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".notes")).to_contain_text("closed without a mouse")
    page.keyboard.press("g")
    page.keyboard.press("d")
    expect(page.get_by_role("button", name="Halt trading")).to_be_visible()
    page.keyboard.press("h")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Halt")
    tab_to(page, "dialog[open] .button-danger")
    page.keyboard.press("Enter")
    expect(page.locator(".notice")).to_contain_text(re.compile("Trading is halted"))
    expect(page.get_by_role("button", name="Resume trading")).to_be_focused()
