"""Bars from files as a market's sessions."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from trading.live.barfiles import BarFileError
from trading.simulator.recorded import RecordedBars, read_recorded_bars

HEADER = "timestamp,open,high,low,close,volume\n"
FRIDAY, MONDAY, TUESDAY = date(2024, 3, 1), date(2024, 3, 4), date(2024, 3, 5)


def write(folder: Path, symbol: str, *stamps: str) -> None:
    rows = [f"{stamp}:00Z,10,99,9,{number + 10},100\n" for number, stamp in enumerate(stamps)]
    (folder / f"{symbol}.csv").write_text(HEADER + "".join(rows))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """AAPL on Friday, Monday and Tuesday, with minutes outside the session; TSLA on Monday only."""
    write(
        tmp_path,
        "AAPL",
        *("2024-03-01T15:00", "2024-03-04T14:29", "2024-03-04T14:30", "2024-03-04T14:32"),
        *("2024-03-04T21:00", "2024-03-05T14:30"),
    )
    write(tmp_path, "TSLA", "2024-03-04T14:30")
    return tmp_path


def recorded(folder: Path, start_date: date | None = None, end_date: date | None = None) -> RecordedBars:
    return read_recorded_bars(folder, start_date=start_date, end_date=end_date)[0]


def test_sessions_are_those_with_a_bar_of_any_symbol(folder: Path) -> None:
    bars = recorded(folder)
    assert [session.date for session in bars.sessions(date(2024, 1, 1), date(2024, 12, 31))] == [
        FRIDAY,
        MONDAY,
        TUESDAY,
    ]
    monday = bars.next_session(bars.first)
    assert monday is not None
    assert monday.date == MONDAY
    assert [bar.timestamp.minute for bar in bars.session_bars("AAPL", monday)] == [30, 32]
    assert len(bars.session_bars("TSLA", monday)) == 1


def test_the_replay_starts_and_ends_with_its_dates_and_what_is_earlier_is_history(folder: Path) -> None:
    bars = recorded(folder, start_date=MONDAY, end_date=MONDAY)
    (monday,) = bars.sessions(MONDAY, TUESDAY)
    assert (bars.first, bars.next_session(monday.open)) == (monday.open, None)
    assert [session.date for session in bars.sessions(FRIDAY, TUESDAY)] == [FRIDAY, MONDAY]
    assert bars.next_session(monday.open - timedelta(days=9)) == monday


def test_dates_without_a_bar_are_an_error_that_says_what_there_is(folder: Path) -> None:
    with pytest.raises(BarFileError, match="there are: 2024-03-01 to 2024-03-05"):
        recorded(folder, start_date=date(2024, 3, 9))
    (folder / "TSLA.csv").write_text(HEADER)
    with pytest.raises(BarFileError, match="there are: none at all"):
        read_recorded_bars(folder, symbols=["TSLA"])


def test_the_order_of_the_symbols_is_kept(folder: Path) -> None:
    assert read_recorded_bars(folder, symbols=["TSLA", "AAPL"])[0].symbols == ("TSLA", "AAPL")
    assert read_recorded_bars(folder)[0].symbols == ("AAPL", "TSLA")


def test_its_description_tells_other_bars_apart(folder: Path) -> None:
    one = recorded(folder).description
    assert recorded(folder).description == one
    write(folder, "TSLA", "2024-03-04T14:31")
    assert recorded(folder).description != one


def test_bad_rows_are_reported(folder: Path) -> None:
    with (folder / "TSLA.csv").open("a") as file:
        file.write("2024-03-04T14:31:00Z,1,2\n")
    _, reports = read_recorded_bars(folder)
    assert [len(report.rejected) for report in reports] == [0, 1]
