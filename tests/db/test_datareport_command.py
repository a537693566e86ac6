"""`manage.py datareport`: what the bars of the store, or of files, are worth."""

import json
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.core.management import call_command

from orders.command import UserError
from trading.live import calendar
from trading.live.barfiles import read_bar_file
from trading.live.barstore import BarStore
from trading.market import Session

HEADER = "timestamp,open,high,low,close,volume"
FRIDAY, MONDAY = calendar.sessions(date(2023, 11, 24), date(2023, 11, 27))  # Friday is a half day


@pytest.fixture(autouse=True)
def data_dir(settings: LazySettings, tmp_path: Path) -> Path:
    settings.DATA_DIR = tmp_path / "data"
    return tmp_path / "data"


def bars(folder: Path, *sessions: Session, without: Sequence[int] = (), symbol: str = "AAPL") -> Path:
    """A file with quiet sessions, from which some minutes are missing."""
    minutes = [
        session.open + timedelta(minutes=minute)
        for session in sessions
        for minute in range((session.close - session.open) // timedelta(minutes=1))
    ]
    rows = [f"{m:%Y-%m-%dT%H:%M:%SZ},10,10,10,10,5" for number, m in enumerate(minutes) if number not in without]
    path = folder / f"{symbol}.csv"
    path.write_text("\n".join([HEADER, *rows, ""]))
    return path


def test_all_that_the_store_holds_is_graded(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = BarStore(data_dir / "bars")
    missing = (5, 6, 7, 8, 9, 10)
    for symbol, without in {"AAPL": missing, "MSFT": ()}.items():
        store.merge(read_bar_file(bars(tmp_path, FRIDAY, MONDAY, without=without, symbol=symbol), symbol)[0])
    store.mark_fetched("AAPL", [MONDAY.date], source="iex")
    call_command("datareport", "--json")
    found = json.loads(capsys.readouterr().out)
    assert {symbol: report["grade"] for symbol, report in found.items()} == {"AAPL": "B", "MSFT": "A"}
    assert found["AAPL"]["gaps"] == [{"date": "2023-11-24", "missing": 6, "longest": 6}]
    assert (found["AAPL"]["half_days"], found["AAPL"]["sources"]) == (["2023-11-24"], {"iex": 1})
    call_command("datareport", "--symbols", "AAPL")
    out = capsys.readouterr().out
    assert "AAPL: grade B for 6 of 600 minutes missing\n" in out
    assert "AAPL: minutes missing in 1 sessions, most of them on 2023-11-24 6 (6 in a row)\n" in out
    assert "MSFT" not in out


def test_a_file_is_reported_with_the_rows_that_were_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bars(tmp_path, MONDAY)
    path.write_text(path.read_text() + "nonsense,1,1,1,1,1\n2023-11-27T14:30:00Z,9,9,9,9,9\n")
    call_command("datareport", "--data", str(path), "--json")
    (report,) = json.loads(capsys.readouterr().out).values()
    assert (report["rejected"], report["duplicates"], report["bars"], report["grade"]) == (1, 1, 390, "C")


def test_the_range_may_be_longer_than_the_bars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = bars(tmp_path, MONDAY)
    call_command("datareport", "--data", str(path), "--start-date", "2023-11-24", "--end-date", "2023-11-28", "--json")
    (report,) = json.loads(capsys.readouterr().out).values()
    assert (report["sessions"], report["absent"], report["grade"]) == (3, ["2023-11-24", "2023-11-28"], "D")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "the bar store is empty: get bars with `manage.py importbars`"),
        (("--symbols", "TSLA"), "no bars of TSLA in the bar store"),
        (("--data", "/nowhere"), "/nowhere: there is no such file or folder"),
        (("--start-date", "2024-01-03", "--end-date", "2024-01-02"), "the end date 2024-01-02 lies before the start"),
    ],
)
def test_an_error_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError) as error:
        call_command("datareport", *arguments)
    assert str(error.value).startswith(said)


def test_dates_without_bars_are_told_what_there_is(tmp_path: Path) -> None:
    path = bars(tmp_path, MONDAY)
    with pytest.raises(UserError, match="its bars go from 2023-11-27 to 2023-11-27"):
        call_command("datareport", "--data", str(path), "--start-date", "2023-12-01")
    path.write_text(HEADER + "\n")
    with pytest.raises(UserError, match="holds no sound bar"):
        call_command("datareport", "--data", str(path))
