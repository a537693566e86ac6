"""`manage.py importbars`: what goes into the bar store, and that a file with a fault leaves it as it was."""

import gzip
import os
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.core.management import call_command

from orders.command import UserError
from trading.columns import BarColumns
from trading.live.barfiles import read_bar_file
from trading.live.barstore import BarStore, BrokenStore

ROOT = Path(__file__).parents[2]
HEADER = "timestamp,open,high,low,close,volume"
SOUND = ["2024-03-11T13:30:00Z,100,101,99,100.5,1000", "2024-03-11T13:31:00Z,100.5,102,100,101,900"]


@pytest.fixture(autouse=True)
def data_dir(settings: LazySettings, tmp_path: Path) -> Path:
    settings.DATA_DIR = tmp_path / "data"
    return tmp_path / "data"


@pytest.fixture
def store(data_dir: Path) -> BarStore:
    return BarStore(data_dir / "bars")


def write(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows, ""]))
    return path


def stored(store: BarStore, symbol: str = "AAPL", year: int = 2024) -> list[str]:
    """The symbol's bars as `13:30 100.5 1000`: time, close, volume."""
    return [
        f"{bar.timestamp:%H:%M} {bar.close.normalize():f} {bar.volume}" for bar in store.read(symbol, [year]).bars()
    ]


def test_a_sound_file_is_taken_in_whole(store: BarStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("importbars", str(write(tmp_path / "AAPL.csv", *SOUND)))
    assert stored(store) == ["13:30 100.5 1000", "13:31 101 900"]
    out, err = capsys.readouterr()
    assert out.startswith("AAPL: 2 bars in AAPL.csv, 2 new, 0 changed; 0 rows left out, 0 duplicates")
    assert err == ""


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["2024-03-11T13:32:00Z,100,101,99,NaN,1"], r"faults in 1 of 3 rows \(line 4: close 'NaN' is out of range\)"),
        (["2024-03-11T13:32:00Z,100,101,,100,1"], r"\(line 4: low '' is not a number\)"),
        (["2024-03-11T13:32:00Z,100,101,-99,100,1"], r"\(line 4: a price is not above 0\)"),
        (["2024-03-11T13:32:00Z,100,101,99,100,-1"], r"\(line 4: the volume is negative\)"),
        (["2024-03-11T13:32:00Z,100,99,99,100,1"], r"\(line 4: open or close lies outside low and high\)"),
        (["2024-03-11T13:32:00Z,100,101"], r"\(line 4: the number of columns differs from the first line's\)"),
        (["2024-03-11T13:31:00Z,100,101,99,100,1"], r"\(line 4: the minute of line 3 again\)"),
        (["2024-03-11T13:29:00Z,100,101,99,100,1"], r"\(line 4: earlier than the row before it\)"),
        (["x,1,1,1,1,1", "y,1,1,1,1,1", "z,1,1,1,1,1", "w,1,1,1,1,1"], r"faults in 4 of 6 rows \(.*; and 1 more\)"),
    ],
)
def test_a_file_with_a_faulty_row_is_refused_whole(store: BarStore, tmp_path: Path, rows: list[str], said: str) -> None:
    sound = write(tmp_path / "MSFT.csv", *SOUND)
    faulty = write(tmp_path / "AAPL.csv", *SOUND, *rows)
    with pytest.raises(UserError, match=rf"AAPL\.csv: .*{said}; nothing was imported: .* --repair"):
        call_command("importbars", str(sound), str(faulty))
    assert not store.folder.exists()


def test_every_faulty_file_has_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("AAPL", "MSFT"):
        write(tmp_path / f"{name}.csv", "x,1,1,1,1,1")
    with pytest.raises(UserError, match=r"MSFT\.csv: faults in 1 of 1 rows"):
        call_command("importbars", str(tmp_path))
    assert "AAPL.csv: faults in 1 of 1 rows" in capsys.readouterr().err


def test_what_is_sound_is_taken_on_request_and_the_rest_is_named_and_counted(
    store: BarStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [SOUND[1], SOUND[0], "2024-03-11T13:32:00Z,100,101,99,x,1", "2024-03-11T13:31:00Z,7,7,7,7,7"]
    call_command("importbars", "--repair", str(write(tmp_path / "AAPL.csv", *rows)))
    assert stored(store) == ["13:30 100.5 1000", "13:31 101 900"]
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        f"{tmp_path}/AAPL.csv line 3: earlier than the row before it",
        f"{tmp_path}/AAPL.csv line 4: close 'x' is not a number",
        f"{tmp_path}/AAPL.csv line 5: the minute of line 2 again",
    ]
    assert "1 rows left out, 1 duplicates, 1 out of order" in out


def test_of_many_faulty_rows_the_first_are_named_and_the_others_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("importbars", "--repair", str(write(tmp_path / "AAPL.csv", *SOUND, *["x,1,1,1,1,1"] * 25)))
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 21
    assert err.splitlines()[-1].endswith("AAPL.csv: 5 more rows like these")
    assert "25 rows left out" in out


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("AAPL.csv", b"", "the first line lacks timestamp, open, high, low, close, volume"),
        ("AAPL.csv", b"date,price\n2024-03-11,100\n", "the first line lacks timestamp, open"),
        ("AAPL.csv", HEADER.encode() + b"\n", "holds no sound bar"),
        ("AAPL.csv.gz", gzip.compress("\n".join([HEADER, *SOUND * 40]).encode())[:-20], "cannot be read"),
        (
            "AAPL.csv",
            "\n".join([HEADER, SOUND[0], SOUND[1].replace("Z", "-04:00")]).encode(),
            "the time in line 3 is of another zone than that in line 2",
        ),
        ("AAPL.parquet", b"no parquet", "is not a usable Parquet file"),
        (
            "apple.csv",
            HEADER.encode(),
            r"no bars of any US ticker symbol such as AAPL or BRK\.B \(looked for SYMBOL\.csv",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(
    store: BarStore, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    sound = write(tmp_path / "MSFT.csv", *SOUND)
    for options in ([], ["--repair"]):
        with pytest.raises(UserError, match=f"{name}.*{said}.*; nothing was imported"):
            call_command("importbars", *options, str(sound), str(tmp_path / name))
    assert not store.folder.exists()


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"/nowhere/AAPL\.csv: there is no such file or folder; nothing was imported"):
        call_command("importbars", "/nowhere/AAPL.csv")


def test_a_refusal_is_one_line_and_exit_status_1(tmp_path: Path) -> None:
    faulty = write(tmp_path / "AAPL.csv", *SOUND, "2024-03-11T13:32:00Z,100,101,99,NaN,1")
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("ALGO_", "DJANGO_"))}
    environment |= {"ALGO_ENV_FILE": os.devnull, "ALGO_DATA_DIR": str(tmp_path / "elsewhere")}
    command = [sys.executable, str(ROOT / "manage.py"), "importbars", str(faulty)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert not (tmp_path / "elsewhere" / "bars").exists()


# --- the store itself -------------------------------------------------------------------------------------------------


def columns(folder: Path, *rows: str, symbol: str = "AAPL") -> BarColumns:
    return read_bar_file(write(folder / f"{symbol}.csv", *rows), symbol)[0]


def test_a_year_that_cannot_be_read_leaves_all_the_others_as_they_were(store: BarStore, tmp_path: Path) -> None:
    both_years = columns(tmp_path, "2023-03-13T13:30:00Z,1,1,1,1,1", "2024-03-11T13:30:00Z,2,2,2,2,2")
    (store.folder / "AAPL").mkdir(parents=True)
    (store.folder / "AAPL" / "2024.parquet").write_bytes(b"no parquet")
    with pytest.raises(BrokenStore, match=r"2024\.parquet cannot be read"):
        store.merge(both_years)
    assert [path.name for path in (store.folder / "AAPL").iterdir()] == ["2024.parquet"]


def test_two_parts_of_one_symbol_are_laid_over_each_other_in_turn(store: BarStore, tmp_path: Path) -> None:
    one = columns(tmp_path, "2024-03-11T13:30:00Z,1,1,1,1,1", "2024-03-11T13:31:00Z,1,1,1,1,1")
    two = columns(tmp_path, "2024-03-11T13:31:00Z,2,2,2,2,2", "2024-03-11T13:32:00Z,2,2,2,2,2")
    done = store.merge(one, two)
    assert [(each.added, each.changed) for each in done] == [(2, 0), (1, 1)]
    assert stored(store) == ["13:30 1 1", "13:31 2 2", "13:32 2 2"]


def test_which_sessions_were_fetched_whole_is_remembered(store: BarStore) -> None:
    monday, tuesday = date(2024, 3, 11), date(2024, 3, 12)
    assert store.fetched("AAPL") == {}
    store.mark_fetched("AAPL", [tuesday], source="iex")
    store.mark_fetched("AAPL", [monday], source="sip")
    assert store.fetched("AAPL") == {monday: "sip", tuesday: "iex"}
    assert store.fetched("MSFT") == {}
    assert store.symbols() == []  # marks are no bars
    (store.folder / "AAPL" / "fetched.json").write_text("[")
    with pytest.raises(BrokenStore, match=r"fetched\.json cannot be read .*: delete it"):
        store.fetched("AAPL")


def test_what_a_killed_writer_left_is_no_bar(store: BarStore, tmp_path: Path, data_dir: Path) -> None:
    store.merge(columns(tmp_path, *SOUND))
    (store.folder / "AAPL" / "2023.unfinished").write_bytes(b"half a file")
    assert store.years("AAPL") == [2024]
    store.merge(columns(tmp_path, "2023-03-13T13:30:00Z,1,1,1,1,1"))
    assert store.years("AAPL") == [2023, 2024]
    assert datetime.fromtimestamp(int(store.read("AAPL", [2023]).timestamps[0]), UTC).year == 2023
