"""The report of a backtest in a real browser, opened as a file: it asks the network for nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.utils import timezone
from playwright.sync_api import Browser, Page, expect

from backtests.execution import execute_on, load
from backtests.outcome import Outcome
from backtests.report import CHART_LIBRARY, write_report
from backtests.request import make_request
from tests.browser.conftest import DESKTOP, PHONE, browsing, fits
from tests.browser.every_page import write_synthetic_bars
from tests.requirements_for_tests import require
from trading.live.barstore import BarStore

ROOT = Path(__file__).parents[2]
SYMBOLS = ("AAPL", "TSLA")
FIRST_DAY, LAST_DAY = date(2025, 2, 18), date(2025, 3, 4)


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with some sessions of two symbols."""
    require((ROOT / "static" / CHART_LIBRARY).exists(), "the chart library is not installed: run `make setup`")
    folder = tmp_path_factory.mktemp("bars")
    write_synthetic_bars(folder, SYMBOLS, seed=3, first=FIRST_DAY, last=LAST_DAY)
    return folder


def written(bars: Path, path: Path, *, start: str, capital: str = "25000") -> Outcome:
    """Writes the report of a run until 4 March, and says what it came to."""
    request = make_request(
        strategy="velez",
        symbols=SYMBOLS,
        start_date=start,
        end_date="2025-03-04",
        initial_capital=capital,
        params={},
        config=django_settings.ALGO,
        data=str(bars),
    )
    loaded = load(request, BarStore(path.parent / "none"))
    outcome = execute_on(loaded, request, with_scenarios=True)
    bars_of = {symbol: history.traded for symbol, history in loaded.histories.items()}
    write_report(path, outcome, bars_of, run_id=7, made_at=timezone.now())
    return outcome


@pytest.fixture(scope="module")
def report(bars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page about some trades in two symbols."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert {trade.symbol for trade in written(bars, path, start="2025-02-20").result.trades} == set(SYMBOLS)
    return path


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, report: Path, chromium: Browser) -> Iterator[Page]:
    """The page without a network."""
    with opened(report, chromium, request.param) as window:
        yield window


@contextmanager
def opened(report: Path, chromium: Browser, size: tuple[int, int]) -> Iterator[Page]:
    """A report without a network; at the end nothing was complained about and nothing asked for but the file itself."""
    complaints: list[str] = []
    asked: list[str] = []
    with browsing(chromium, size, complaints=complaints) as window:
        window.context.set_offline(True)
        window.on("request", lambda each: asked.append(each.url))
        window.goto(report.as_uri())
        expect(window.locator("#price canvas").first).to_be_visible()
        yield window
        assert fits(window)
    assert complaints == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [report.as_uri()]


def test_it_draws_equity_drawdown_and_prices(page: Page) -> None:
    expect(page.get_by_role("heading", name="Velez backtest #7")).to_be_visible()
    assert page.locator("#equity path.line").get_attribute("d") != ""
    expect(page.locator("#equity path.fall")).to_be_visible()
    box = page.locator("#equity svg").bounding_box()
    assert box is not None
    page.locator("#equity").hover()
    expect(page.locator("#equity-legend")).to_contain_text("Equity $")


def test_one_can_go_from_trade_to_trade_and_symbol_to_symbol(page: Page) -> None:
    page.get_by_role("button", name="Next trade").click()
    expect(page.locator("#trade-place")).to_contain_text("1 of ")
    page.get_by_role("button", name="Next trade").click()
    expect(page.locator("#trade-place")).to_contain_text("2 of ")
    expect(page.locator("#trades tr.is-shown .symbol")).to_have_text("AAPL")
    page.get_by_label("Symbol", exact=True).select_option("TSLA")
    expect(page.locator("#trade-place")).not_to_contain_text("of")
    page.get_by_label("Length of a candle").select_option("1 day")
    row = page.locator("#trades tbody tr", has_text="AAPL").last
    row.locator("td").nth(1).click()
    expect(page.get_by_label("Symbol", exact=True)).to_have_value("AAPL")
    expect(row).to_have_class("can-show is-shown")


def test_trades_sort_by_any_column_both_ways(page: Page) -> None:
    def results() -> list[float]:
        cells = page.locator("#trades tbody tr td:nth-child(9)")
        return [float(value) for value in cells.evaluate_all("cells => cells.map(cell => cell.dataset.value)")]

    header = page.locator("#trades th", has_text="Profit")
    unsorted = results()
    header.click()
    assert results() == sorted(unsorted)
    expect(header).to_have_attribute("aria-sort", "ascending")
    header.press("Enter")
    assert results() == sorted(unsorted, reverse=True)
    page.locator("#trades th", has_text="#").click()
    assert results() == unsorted


def test_it_is_read_in_the_dark_in_daylight_and_on_paper(page: Page) -> None:
    def ground() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    page.emulate_media(color_scheme="dark")
    assert ground() == "rgb(10, 12, 16)"
    page.get_by_role("button", name="Light").click()
    assert ground() == "rgb(245, 246, 248)"
    page.get_by_role("button", name="Dark").click()
    assert ground() == "rgb(10, 12, 16)"
    paper = page.pdf(format="A4")
    assert paper.startswith(b"%PDF")
    page.emulate_media(media="print")
    assert ground() == "rgb(255, 255, 255)"
    assert page.locator(".price-picture").count() == 0  # it was for the paper alone
    page.emulate_media(media="screen")


def test_what_it_would_have_been_is_beside_the_result(page: Page) -> None:
    rows = page.locator("table.range tbody tr")
    expect(rows).to_have_count(3)
    expect(page.locator("table.range .is-result")).to_have_count(1)
    expect(page.locator(".range-note")).to_contain_text(" to ")


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_run_without_trades_says_so_and_still_shows_prices(
    bars: Path, chromium: Browser, tmp_path: Path, size: tuple[int, int]
) -> None:
    outcome = written(bars, tmp_path / "report.html", start="2025-03-04", capital="1")  # not one share can be bought
    assert not outcome.result.trades
    with opened(tmp_path / "report.html", chromium, size) as window:
        expect(window.get_by_role("heading", name="It made no trade")).to_be_visible()
        expect(window.locator("#trade-place")).to_have_text("no trades")
        expect(window.get_by_role("button", name="Next trade")).to_be_disabled()
        expect(window.locator(".report-title")).to_contain_text("1 session ")
        assert "NaN" not in window.locator("body").inner_text()
        assert "NaN" not in (window.locator("#equity svg").inner_html())


def test_its_own_policy_lets_no_other_script_run_and_nothing_be_loaded(report: Path, chromium: Browser) -> None:
    complaints: list[str] = []
    with browsing(chromium, complaints=complaints) as window:
        window.goto(report.as_uri())
        assert complaints == []
        window.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))"
        )
        window.evaluate("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/picture.png'}))")
        assert window.evaluate("window.ran") is None
        expect(window.locator("body")).to_be_visible()
        assert window.evaluate("fetch('http://127.0.0.1:9/').then(() => 'loaded', () => 'refused')") == "refused"
    assert sum("Content Security Policy" in each for each in complaints) >= 3
