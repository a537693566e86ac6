"""The frame around every page: state of trading, alarms, shortcuts, theme; on a real engine."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, StorageState, expect

from tests.browser.conftest import PHONE, Serve, Server, browsing, fits, quietly_browsing

ENGINE = ("manage.py", "runengine", "--provider", "simulator", "--no-worker")


@pytest.fixture(scope="module")
def program(serve: Serve) -> Server:
    """An engine with its pages on the built-in market."""
    return serve(*ENGINE)


@pytest.fixture
def page(program: Server, chromium: Browser, login: StorageState) -> Iterator[Page]:
    """The list of orders, so that nothing here is the dashboard's own; at the end the console must have been quiet."""
    with quietly_browsing(chromium, login=login) as window:
        window.goto(f"{program.url}/orders/")
        yield window


def test_every_page_tells_market_time_result_protection_and_streams(page: Page) -> None:
    expect(page.locator("#mode")).to_have_text("BUILT-IN MARKET")
    expect(page.locator("#market-clock")).to_contain_text("Open")
    expect(page.locator("#market-clock [data-field=until]")).to_have_text(re.compile(r"closes in \d h \d\d min"))
    expect(page.locator("#day-result [data-field=pnl]")).to_have_text(re.compile(r"^[+−]?\$\d"))  # noqa: RUF001
    expect(page.locator("#protection")).to_contain_text(re.compile("Flat|stopped"))
    expect(page.locator("#bar-stream")).to_contain_text("connected")
    expect(page.get_by_role("button", name="Halt trading")).to_be_visible()


def test_the_bar_fits_a_phone(program: Server, chromium: Browser, login: StorageState) -> None:
    with browsing(chromium, PHONE, complaints=[], login=login) as window:
        window.goto(f"{program.url}/orders/")
        expect(window.locator("#market-clock")).to_contain_text("Open")
        assert fits(window)


def test_a_halt_is_an_alarm_on_every_page_and_its_end_clears_it(page: Page) -> None:
    expect(page.get_by_role("button", name="Halt trading")).to_be_visible()
    page.keyboard.press("h")
    page.get_by_role("dialog").get_by_role("button", name="Halt trading").click()
    expect(page.locator("#alarms-count")).to_have_text("1")
    page.keyboard.press("a")
    expect(page.locator("#alarms")).to_contain_text("Trading is halted. Halted by operator.")
    expect(page.locator("#announcer")).to_have_text("Trading is halted.")
    page.keyboard.press("Escape")
    expect(page.locator("#alarms")).to_be_hidden()
    page.keyboard.press("h")
    page.get_by_role("dialog").get_by_role("button", name="Resume trading").click()
    expect(page.locator("#alarms-count")).to_be_hidden()


def test_shortcuts_lead_to_every_page_and_the_sheet_lists_them(page: Page) -> None:
    expect(page.locator("#market-clock")).to_contain_text("Open")
    page.keyboard.press("?")
    sheet = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(sheet).to_contain_text("Dashboard")
    page.keyboard.press("Escape")
    expect(sheet).to_be_hidden()
    for key, heading in (("t", "Trades"), ("b", "Backtests"), ("o", "Orders"), ("d", "Dashboard")):
        page.keyboard.press("g")
        page.keyboard.press(key)
        expect(page.get_by_role("heading", level=1, name=heading)).to_be_visible()
        expect(page.locator("#market-clock")).to_contain_text("Open")


def test_letters_typed_into_a_field_are_no_shortcuts(page: Page) -> None:
    expect(page.get_by_role("button", name="Halt trading")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("h?")
    expect(page.get_by_label("Symbol")).to_have_value("h?")
    assert page.locator("dialog[open]").count() == 0


def test_who_wants_no_motion_gets_none(page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    lasting = """all => all.filter((each) => {
        const style = getComputedStyle(each);
        return Math.max(parseFloat(style.transitionDuration), parseFloat(style.animationDuration)) > 0.01;
    }).length"""
    assert page.locator("body *").evaluate_all(lasting) == 0


def test_light_is_remembered_by_the_server(page: Page) -> None:
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Switch between dark and light").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    assert 'data-theme="light"' in page.request.get(page.url).text()
