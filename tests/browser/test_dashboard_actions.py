"""Acting on positions from the dashboard: moving a stop, closing one, flattening; on a market that stands still."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, StorageState, expect

from tests.browser import steady_market
from tests.browser.conftest import (
    PHONE,
    Serve,
    Server,
    add_login,
    browsing,
    fits,
    quietly_browsing,
    sign_in,
)

SYMBOLS = ("AAPL", "TSLA")
FILLED_MS = 40_000


@pytest.fixture(scope="module")
def program(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """An engine that soon holds a position in each symbol."""
    bars = steady_market.write_bars(tmp_path_factory.mktemp("still") / "bars", SYMBOLS)
    return serve(*steady_market.engine_arguments(bars, SYMBOLS), fill=lambda: add_login("viewer"))


@pytest.fixture
def page(program: Server, chromium: Browser, login: StorageState) -> Iterator[Page]:
    """The dashboard; at the end the console must have been quiet."""
    with quietly_browsing(chromium, login=login) as window:
        window.goto(program.url)
        yield window


def position(page: Page, symbol: str) -> Locator:
    row = page.locator("#positions tbody tr").filter(has_text=symbol)
    expect(row).to_be_visible(timeout=FILLED_MS)
    return row


def test_a_position_shows_price_result_r_stop_and_distance(page: Page) -> None:
    row = position(page, "AAPL")
    expect(row.locator("[data-field=entry]")).to_have_text(steady_market.ENTRY_PRICE)
    expect(row.locator("[data-field=price]")).to_have_text(steady_market.LAST_PRICE)
    expect(row.locator("[data-field=stop]")).to_have_text(steady_market.FIRST_STOP)
    expect(row.locator("[data-field=distance]")).to_have_text("$1.10 · 1.09%")
    expect(row.locator("[data-field=pnl]")).to_have_text("+$5.88")  # 12 shares of $0.49
    expect(row.locator("[data-field=return]")).to_have_text("+0.49% · +0.80 R")  # 0.49 of 0.61 at risk
    expect(page.locator("[data-gauge=positions]")).to_contain_text("2 of 5")
    expect(page.locator("[data-gauge=daily_loss]")).to_contain_text("of $750.00")
    expect(page.locator("#risk-gauge")).to_contain_text("$14.64")
    expect(page.locator("#protection")).to_contain_text("2 of 2 stopped")


def test_a_stop_moves_towards_the_price_and_no_other_way(page: Page) -> None:
    row = position(page, "AAPL")
    dialog = page.get_by_role("dialog")

    def ask_for(price: str) -> None:
        row.get_by_role("button", name="Move stop of AAPL").click()
        dialog.get_by_label("New stop, dollars").fill(price)
        dialog.get_by_role("button", name="Move stop").click()

    row.get_by_role("button", name="Move stop of AAPL").click()
    expect(dialog).to_contain_text("It is at 99.90, the last price is 101.00")
    dialog.get_by_role("button", name="Leave it").click()
    ask_for("99.50")
    expect(page.locator(".toast").last).to_contain_text("only ever moves towards the price")
    ask_for("101.50")
    expect(page.locator(".toast").last).to_contain_text("close the position instead")
    expect(row.locator("[data-field=stop]")).to_have_text("99.90")
    ask_for("100.40")
    expect(row.locator("[data-field=stop]")).to_have_text("100.40")
    page.get_by_role("button", name="Stops").click()
    expect(page.locator("#activity li:visible")).to_have_count(1)
    expect(page.locator("#activity li:visible")).to_contain_text("stop moved to $100.40")


def test_who_may_only_look_sees_the_position_without_buttons(program: Server, chromium: Browser) -> None:
    with browsing(chromium, complaints=[]) as window:
        sign_in(window, program.url, name="viewer")
        row = position(window, "AAPL")
        assert row.get_by_role("button").count() == 0
        assert window.get_by_role("button", name=re.compile("Halt|Flatten")).count() == 0
        answer = window.request.post(
            f"{program.url}/api/positions/AAPL/close",
            headers={"X-CSRFToken": window.locator("body").get_attribute("data-csrf") or ""},
        )
        assert answer.status == 403
        expect(row).to_be_visible()


def test_a_position_is_closed_after_a_question_and_the_rest_is_flattened(page: Page) -> None:
    position(page, "TSLA")
    row = position(page, "AAPL")
    row.get_by_role("button", name="Close the position in AAPL").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("12 shares at about 101.00")
    dialog.get_by_role("button", name="Keep it").click()
    expect(row).to_be_visible()
    row.get_by_role("button", name="Close the position in AAPL").click()
    dialog.get_by_role("button", name="Close at market").click()
    expect(page.locator("#positions tbody tr")).to_have_count(1)
    expect(page.locator("#activity")).to_contain_text("long closed: +$5.76 (manual)")
    page.get_by_role("button", name="Flatten everything").click()
    expect(dialog).to_contain_text("12 TSLA")
    dialog.get_by_role("button", name="Halt and close all").click()
    expect(page.locator("#positions-empty")).to_be_visible()
    expect(page.locator(".notice")).to_contain_text("Trading is halted. Flattened by operator.")
    expect(page.locator("#protection")).to_contain_text("Flat")


def test_the_flight_recorder_tells_signal_checks_requests_and_stop_moves(page: Page) -> None:
    page.goto(f"{page.url}orders/?role=stop_loss&symbol=AAPL")
    page.locator("#results tbody tr").first.get_by_role("link").click()
    expect(page.get_by_role("region", name="Signal", exact=True)).to_contain_text("needed: below 2.0 %")
    expect(page.get_by_role("region", name="Risk checks").locator("li")).to_have_count(11)
    expect(page.get_by_role("region", name="Stop moves")).to_contain_text("99.90100.40Replaced")
    expect(page.locator(".timeline")).to_contain_text("Sell 12 AAPL, stop at 99.90, GTC")
    expect(page.get_by_role("region", name="Resulting trade")).to_contain_text("+$5.76")


def test_a_trade_is_drawn_with_its_entry_exit_and_stop_and_takes_a_note(page: Page) -> None:
    page.goto(f"{page.url}trades/?symbol=AAPL")
    page.get_by_role("link", name="AAPL").click()
    expect(page.locator("#trade-chart canvas").first).to_be_visible()
    drawn = page.locator("#trade-chart").get_attribute("aria-label")
    assert drawn == "AAPL from entry at 100.51 to exit at 100.99; stop 99.90, stop 100.40, stop 100.40"
    page.get_by_label("Add a note").fill("closed by hand, to see it happen")
    page.get_by_role("button", name="Keep note").click()
    expect(page.locator(".notes")).to_contain_text("to see it happen")


def test_the_day_can_be_gone_through_again_as_it_was(page: Page) -> None:
    page.goto(f"{page.url}replay/?symbol=AAPL")
    expect(page.locator("#replay-chart canvas").first).to_be_visible()
    scrub = page.get_by_label("Minute of the session")

    def at(minute: int) -> None:
        scrub.fill(str(minute))

    at(0)
    expect(page.locator("#now")).to_have_text("09:30")
    expect(page.locator("#positions")).to_contain_text("No open positions at that time.")
    expect(page.locator("#activity li")).to_have_count(0)
    at(3)
    expect(page.locator("#positions tbody tr")).to_have_count(2)
    expect(page.locator("#positions tbody tr").first).to_contain_text("100.51101.0099.90+$5.88")
    expect(page.locator("#orders tbody tr")).to_have_count(2)
    expect(page.locator("[data-limit=positions]")).to_contain_text("2 of 5")
    at(390)
    expect(page.locator("#positions")).to_contain_text("No open positions at that time.")
    expect(page.locator("#trades-so-far")).to_have_text("2 trades closed")
    expect(page.locator("#activity")).to_contain_text("stop moved to $100.40")
    scrub.focus()
    page.keyboard.press("Home")
    expect(page.locator("#now")).to_have_text("09:30")
    page.get_by_role("button", name="Play").click()
    expect(page.locator("#positions")).to_contain_text("AAPL")
    page.get_by_role("button", name="Pause").click()


def test_the_symbols_can_be_walked_through_with_the_keyboard(page: Page) -> None:
    expect(page.locator("#chart-symbol")).to_have_text("AAPL")
    expect(page.locator("#strategies > li")).to_have_count(2)
    page.keyboard.press("j")
    expect(page.locator("#chart-symbol")).to_have_text("TSLA")
    expect(page.locator("#activity-symbol")).to_have_text("Only TSLA")
    page.keyboard.press("k")
    expect(page.locator("#chart-symbol")).to_have_text("AAPL")


def test_the_activity_feed_can_be_narrowed_to_fills_and_to_one_symbol(page: Page) -> None:
    lines = page.locator("#activity li:visible")
    page.get_by_role("button", name="Fills", exact=True).click()
    expect(lines.first).to_contain_text(re.compile("Bought|Sold|closed"))
    both = lines.count()
    page.get_by_role("button", name="Only AAPL").click()
    expect(lines).not_to_have_count(both)
    assert all("TSLA" not in text for text in lines.all_inner_texts())


def test_the_dashboard_with_everything_on_it_fits_a_phone(
    program: Server, chromium: Browser, login: StorageState
) -> None:
    with browsing(chromium, PHONE, complaints=[], login=login) as window:
        window.goto(program.url)
        expect(window.locator("#strategies > li")).to_have_count(2)
        assert fits(window)
