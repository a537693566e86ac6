"""`backtest --report`: one page that holds everything it shows and needs nothing else."""

import base64
import gzip
import json
import re
import shutil
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.management import call_command

from backtests import store
from backtests.report import CHART_LIBRARY
from orders.command import UserError
from tests.db.test_backtest_command import BASIC, MONDAY, QUIET, TRADE, TUESDAY, three_days, write
from tests.requirements_for_tests import require

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "static" / CHART_LIBRARY


@pytest.fixture(autouse=True)
def data_dir(settings: LazySettings, tmp_path: Path) -> Path:
    settings.DATA_DIR = tmp_path / "data"
    return tmp_path / "data"


def page(tmp_path: Path, *options: str, symbols: str = "AAPL") -> str:
    """The report of Monday's one trade and quiet Tuesday."""
    for symbol in symbols.split(","):
        write(tmp_path / f"{symbol}.csv", three_days([*TRADE, QUIET]))
    dates = ("--start-date", "2024-03-11", "--end-date", "2024-03-12")
    basic = [symbols if word == "AAPL" else word for word in BASIC]
    report = tmp_path / "report.html"
    call_command("backtest", *basic, *dates, "--data", str(tmp_path), "--no-save", "--report", str(report), *options)
    return report.read_text()


def embedded(html: str) -> dict[str, Any]:
    """What the page's script draws from."""
    found = re.search(r'<script id="report-data" type="application/json">(.*?)</script>', html)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def candles(html: str, symbol: str) -> list[tuple[datetime, float, float, float, float]]:
    """The candles of a symbol, unpacked as the page's script does it: start, open, high, low, close."""
    found = re.search(rf'data-candles="{symbol}">([^<]*)<', html)
    assert found is not None
    packed = json.loads(gzip.decompress(base64.b64decode(found[1])))
    minute = last = 0
    unpacked = []
    for since, opened, high, low, close in zip(
        *(packed[n] for n in ("start", "open", "high", "low", "close")), strict=True
    ):
        minute += since
        opened += last
        last = opened + close
        prices = (opened, max(opened, last) + high, min(opened, last) - low, last)
        unpacked.append((datetime.fromtimestamp(minute * 60, UTC), *(price / packed["units"] for price in prices)))
    return unpacked


class Addresses(HTMLParser):
    """Every address a page would load something from."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = ("src", "srcset", "data", "poster", *(("href",) if tag != "a" else ()))
        self.loaded += [value or "" for name, value in attributes if name in names]


def test_it_loads_nothing(tmp_path: Path) -> None:
    html = page(tmp_path)
    parser = Addresses()
    parser.feed(html)
    assert parser.loaded == []
    style = html[html.index("<style>") : html.index("</style>")]
    assert "@import" not in style
    assert set(re.findall(r"url\(\"(.{5})", style)) <= {"data:"}


def test_it_says_what_the_run_came_to(tmp_path: Path) -> None:
    html = page(tmp_path, "--set", "velez.max_run_candles=4")
    for text in (
        "2024-03-11 to 2024-03-12",
        "$24,986.56",
        "−0.05%",  # noqa: RUF001
        "Pessimistic",
        "$0.03 slippage",
        "Stop loss",
        "velez.max_run_candles",
        "<small>not 3</small>",
        '<span class="grade grade-d">D</span>',
        "385 of 780 minutes missing",
        "2024-03-11 09:32",  # the entry, in New York
    ):
        assert text in html, text
    assert html.count('<td class="symbol">AAPL</td>') == 3  # by symbol, data, trade


def test_equity_trade_and_stop_are_there_to_be_drawn(tmp_path: Path) -> None:
    data = embedded(page(tmp_path))
    assert (data["capital"], data["minutes"]) == (25000, 2)
    assert [equity for _, equity in data["equity"]] == [25000, 24986.56, 24986.56, 24986.56]
    (trade,) = data["trades"]
    entered = int(MONDAY.open.timestamp()) + 120
    assert (trade["symbol"], trade["entry_at"], trade["exit_at"], trade["pnl"]) == (
        "AAPL",
        entered,
        entered + 60,
        -13.44,
    )
    assert trade["stops"] == [[entered, 99.9]]


def test_prices_are_there_to_be_drawn(tmp_path: Path) -> None:
    require(LIBRARY.exists(), "the chart library is not installed: run `make setup`")
    html = page(tmp_path, symbols="AAPL,MSFT")
    drawn = candles(html, "AAPL")
    assert drawn == candles(html, "MSFT")
    assert len(drawn) == 3 + 195
    assert drawn[:3] == [
        (MONDAY.open, 100, 101, 100, 101),
        (MONDAY.open.replace(minute=32), 101, 102, 99, 99),
        (MONDAY.open.replace(minute=34), 100, 100, 100, 100),
    ]
    assert drawn[3][0] == TUESDAY.open


def test_without_the_chart_library_it_says_so_and_shows_the_rest(tmp_path: Path, settings: LazySettings) -> None:
    static = tmp_path / "static"
    shutil.copytree(ROOT / "static", static, ignore=shutil.ignore_patterns("vendor"))
    settings.STATICFILES_DIRS = [static]
    html = page(tmp_path)
    assert "The chart library was not installed when this page was made" in html
    assert 'data-candles="AAPL"' not in html
    assert embedded(html)["trades"]


def test_without_scenarios_the_result_stands_alone(tmp_path: Path) -> None:
    html = page(tmp_path, "--no-range")
    assert "What it would have been otherwise" not in html


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    html = page(tmp_path)
    assert html.count("</script>") == html.count("<script")


def test_a_page_that_cannot_be_written_is_one_line_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(UserError, match=r"the report cannot be written: .*report\.html"):
        page(tmp_path)
    assert list(tmp_path.glob("*.unfinished")) == []


def test_a_report_into_a_folder_that_is_not_there_is_refused_before_anything_is_run_and_saved(
    ledger: str, tmp_path: Path
) -> None:
    write(tmp_path / "AAPL.csv", three_days([*TRADE, QUIET]))
    report = tmp_path / "nowhere" / "report.html"
    dates = ("--start-date", "2024-03-11", "--end-date", "2024-03-12")
    with pytest.raises(UserError, match=r"the report cannot be written: .*nowhere/report\.html"):
        call_command("backtest", *BASIC, *dates, "--data", str(tmp_path), "--report", str(report))
    assert store.runs() == []
