"""Bar files: what is read, what is left out and why, and that no price ever goes through a float."""

import gzip
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from trading.columns import BarColumns, to_price, to_units
from trading.live import barfiles
from trading.live.barfiles import BarFileError, ReadReport, find_bar_files, read_bar_file

HEADER = "timestamp,open,high,low,close,volume"


def read(folder: Path, *rows: str, header: str = HEADER) -> tuple[BarColumns, ReadReport]:
    path = folder / "AAPL.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return read_bar_file(path, "AAPL")


def told(columns: BarColumns) -> list[str]:
    return [f"{bar.timestamp:%H:%M} {bar.open} {bar.high} {bar.low} {bar.close} {bar.volume}" for bar in columns.bars()]


def reasons(report: ReadReport) -> list[str]:
    return [f"{row.line}: {row.reason}" for row in report.faults]


def test_a_sound_file_is_read_exactly(tmp_path: Path) -> None:
    columns, report = read(
        tmp_path, "2024-03-04T14:30:00Z,248.93,248.99,248.0101,248.2,100", "2024-03-04T14:31:00Z,248,249,247.5,248.5,0"
    )
    assert told(columns) == ["14:30 248.93 248.99 248.0101 248.20 100", "14:31 248.00 249.00 247.50 248.50 0"]
    assert columns.bar(0).timestamp == datetime(2024, 3, 4, 14, 30, tzinfo=UTC)
    assert (report.rows, report.faults, report.rounded) == (2, [], 0)
    assert columns.index_at(datetime(2024, 3, 4, 14, 30, 1, tzinfo=UTC)) == 1


def test_times_may_be_written_with_an_offset_or_as_plain_utc(tmp_path: Path) -> None:
    one, _ = read(tmp_path, "2024-03-04T09:30:00-05:00,1,1,1,1,1")
    two, _ = read(tmp_path, "2024-03-04 14:30:00,1,1,1,1,1")
    assert told(one) == told(two) == ["14:30 1.00 1.00 1.00 1.00 1"]


def test_the_clock_change_is_no_mixture_of_time_zones(tmp_path: Path) -> None:
    columns, report = read(tmp_path, "2024-03-08T09:30:00-05:00,1,1,1,1,1", "2024-03-11T09:30:00-04:00,1,1,1,1,1")
    assert [f"{bar.timestamp:%d %H:%M}" for bar in columns.bars()] == ["08 14:30", "11 13:30"]
    assert report.faults == []


@pytest.mark.parametrize(
    "other", ["2024-03-04 14:32:00", "2024-03-04T14:32:00Z", "2024-03-04T14:32:00+00:00", "2024-03-04T15:32:00+01:00"]
)
def test_times_of_several_zones_are_refused_whatever_else_is_wrong(tmp_path: Path, other: str) -> None:
    rows = ["2024-03-04T09:30:00-05:00,1,1,1,1,1", "2024-03-04T09:31:00-05:00,1,1,1,x,1", f"{other},1,1,1,1,1"]
    with pytest.raises(BarFileError, match=r"AAPL\.csv: the time in line 4 is of another zone than that in line 2: "):
        read(tmp_path, *rows)
    with pytest.raises(BarFileError, match=r"AAPL\.csv: the time in line 3 is of another zone than that in line 2: "):
        read(tmp_path, rows[0], rows[2])


def test_every_bad_row_is_named_by_its_line(tmp_path: Path) -> None:
    columns, report = read(
        tmp_path,
        "2024-03-04T14:30:00Z,10,11,9,10,100",
        "",
        "yesterday,10,11,9,10,100",
        "2024-03-04T14:32:30Z,10,11,9,10,100",
        "2024-03-04T14:33:00Z,ten,11,9,10,100",
        "2024-03-04T14:34:00Z,10,11,9,12,100",
        "2024-03-04T14:35:00Z,10,11,0,10,100",
        "2024-03-04T14:36:00Z,10,11,9,10,-1",
        "2024-03-04T14:37:00Z,10,11,9,10,1.5",
        "2024-03-04T14:38:00Z,10,11,9,10",
        "2024-03-04T14:39:00Z,NaN,11,9,10,100",
        "2024-03-04T14:40:00Z,10,11,9,10,100.0",
    )
    assert told(columns) == ["14:30 10.00 11.00 9.00 10.00 100", "14:40 10.00 11.00 9.00 10.00 100"]
    assert reasons(report) == [
        "4: timestamp 'yesterday' is not a time",
        "5: timestamp '2024-03-04T14:32:30Z' is not the start of a minute",
        "6: open 'ten' is not a number",
        "7: open or close lies outside low and high",
        "8: a price is not above 0",
        "9: the volume is negative",
        "10: volume '1.5' is not a whole number",
        "11: the number of columns differs from the first line's",
        "12: open 'NaN' is out of range",
    ]
    assert report.rows == 11


def test_prices_are_rounded_half_even_and_counted(tmp_path: Path) -> None:
    columns, report = read(tmp_path, "2024-03-04T14:30:00Z,10.00005,10.00015000,10.00000,10.000149999999999999,1")
    assert told(columns) == ["14:30 10.00 10.0002 10.00 10.0001 1"]
    assert report.rounded == 3


def test_rows_are_sorted_and_a_minute_seen_twice_counts_once(tmp_path: Path) -> None:
    columns, report = read(
        tmp_path,
        "2024-03-04T14:31:00Z,2,2,2,2,1",
        "2024-03-04T14:30:00Z,1,1,1,1,1",
        "2024-03-04T14:31:00Z,3,3,3,3,1",
        "2024-03-04T14:31:00Z,2,2,2,2,1",
    )
    assert told(columns) == ["14:30 1.00 1.00 1.00 1.00 1", "14:31 2.00 2.00 2.00 2.00 1"]
    assert reasons(report) == [
        "3: earlier than the row before it",
        "4: the minute of line 2 again",
        "5: the minute of line 2 again",
    ]
    assert (report.rows, len(report.misplaced), len(report.repeated), report.rejected) == (4, 1, 2, ())


def test_compressed_and_parquet_files_say_the_same(tmp_path: Path) -> None:
    rows = ["2024-03-04T14:30:00Z,248.93,248.99,248.01,248.2,100", "2024-03-04T14:31:00Z,248.1,249,247.5,248.5,7"]
    plain, _ = read(tmp_path, *rows)
    packed = tmp_path / "AAPL.csv.gz"
    packed.write_bytes(gzip.compress("\n".join([HEADER, *rows]).encode()))
    assert told(read_bar_file(packed, "AAPL")[0]) == told(plain)
    half = packed.read_bytes()[: packed.stat().st_size // 2]
    stamps = [datetime(2024, 3, 4, 14, 30, tzinfo=UTC), datetime(2024, 3, 4, 14, 31, tzinfo=UTC)]
    for to_cell in (float, Decimal, str):
        assert told(read_bar_file(write_parquet(tmp_path, stamps, to_cell), "AAPL")[0]) == told(plain)
    naive = [stamp.replace(tzinfo=None) for stamp in stamps]
    assert told(read_bar_file(write_parquet(tmp_path, naive, Decimal), "AAPL")[0]) == told(plain)
    local = [stamp.astimezone(ZoneInfo("America/New_York")) for stamp in stamps]
    assert told(read_bar_file(write_parquet(tmp_path, local, Decimal), "AAPL")[0]) == told(plain)
    packed.write_bytes(half)
    with pytest.raises(BarFileError, match=r"AAPL\.csv\.gz: cannot be read: .*"):
        read_bar_file(packed, "AAPL")


def write_parquet(folder: Path, stamps: list[datetime], to_cell: Callable[[str], object]) -> Path:
    prices = {"open": ["248.93", "248.1"], "high": ["248.99", "249"], "low": ["248.01", "247.5"]}
    columns = {
        name: [to_cell(text) for text in texts] for name, texts in (prices | {"close": ["248.2", "248.5"]}).items()
    }
    path = folder / "AAPL.parquet"
    parquet.write_table(pa.table({"timestamp": stamps, **columns, "volume": [100, 7]}), path)
    return path


def test_a_bad_row_of_a_parquet_file_is_named_too(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, [datetime(2024, 3, 4, 14, 30, 1), datetime(2024, 3, 4, 14, 31)], str)  # noqa: DTZ001
    columns, report = read_bar_file(path, "AAPL")
    assert (len(columns), [row.line for row in report.rejected]) == (1, [1])


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("AAPL.csv", b"", "the first line lacks timestamp, open, high, low, close, volume"),
        ("AAPL.csv", b"timestamp,open,high,low,close\n", "the first line lacks volume"),
        ("AAPL.csv", b"\xff\xfe\x00", "cannot be read"),
        ("AAPL.csv.gz", b"no gzip", "cannot be read"),
        ("AAPL.parquet", b"no parquet", "is not a usable Parquet file"),
    ],
)
def test_a_file_that_is_no_bar_file_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, complaint: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BarFileError, match=complaint):
        read_bar_file(tmp_path / name, "AAPL")


def test_a_header_alone_gives_no_bars(tmp_path: Path) -> None:
    columns, report = read(tmp_path)
    assert (len(columns), report.rows, report.faults) == (0, 0, [])


def test_files_are_found_by_symbol(tmp_path: Path) -> None:
    for name in ("AAPL.csv.gz", "BRK.B.parquet", "AAPL_ext.csv.gz", "notes.txt"):
        (tmp_path / name).touch()
    assert [*find_bar_files(tmp_path)] == ["AAPL", "BRK.B"]
    assert [*find_bar_files(tmp_path, ["BRK.B", "AAPL"])] == ["BRK.B", "AAPL"]
    assert [*find_bar_files(tmp_path / "AAPL.csv.gz")] == ["AAPL"]
    with pytest.raises(BarFileError, match=r"no bars of TSLA \(looked for SYMBOL.csv, SYMBOL.csv.gz, SYMBOL.parquet\)"):
        find_bar_files(tmp_path, ["TSLA"])
    with pytest.raises(BarFileError, match="there is no such file or folder"):
        find_bar_files(tmp_path / "nowhere")
    (tmp_path / "AAPL.csv").touch()
    with pytest.raises(BarFileError, match="holds AAPL twice"):
        find_bar_files(tmp_path)


prices = st.one_of(
    st.decimals(min_value="0.0001", max_value="700000", places=4),
    st.decimals(min_value="0.001", max_value="1000", places=9),
)
rows = st.lists(
    st.tuples(st.integers(0, 2000), prices, prices, prices, prices, st.integers(0, 2**40)),
    min_size=1,
    max_size=30,
    unique_by=lambda row: row[0],
)


@given(rows)
def test_reading_whole_columns_gives_what_reading_row_by_row_gives(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, Decimal, Decimal, Decimal, Decimal, int]]
) -> None:
    path = tmp_path_factory.mktemp("bars") / "X.csv"
    lines = [
        f"{datetime.fromtimestamp(1_700_000_040 + minute * 60, UTC):%Y-%m-%dT%H:%M:00Z},"
        f"{opened},{max(opened, a, b, close)},{min(opened, a, b, close)},{close},{volume}"
        for minute, opened, a, b, close, volume in sorted(rows)
    ]
    path.write_text("\n".join([HEADER, *lines]))
    whole, rejected = barfiles._read_text(path)
    careful, also_rejected = barfiles._read_with_care(path, barfiles._text_rows(path))
    assert rejected == also_rejected == []
    assert whole.lines is None
    assert whole.rounded == careful.rounded
    for one, other in zip(
        (whole.timestamps, *whole.prices, whole.volume),
        (careful.timestamps, *careful.prices, careful.volume),
        strict=True,
    ):
        assert one.tolist() == other.tolist()


@given(st.integers(1, 10**13))
def test_a_price_and_its_units_are_one(units: int) -> None:
    assert to_units(to_price(units)) == units
    assert to_price(units) == Decimal(units) / 10_000
