"""What an engine saw is in the files of its run, exactly, whatever happened to the process or to the disk."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from trading.candles import Candle
from trading.indicators import IndicatorSet
from trading.live import recording
from trading.live.recording import Recorder
from trading.market import Bar
from trading.messages import CandleClosed, Halted, Resumed

PROGRAM = Path(__file__).with_name("recording_program.py")
ROOT = Path(__file__).resolve().parents[2]
MONDAY = date(2026, 3, 2)
WALL_CLOCK = datetime(2026, 11, 20, 9, 15, 2, 123456, tzinfo=UTC)
RUN = 7


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def bar(time_text: str = "2026-03-02 14:30", *, symbol: str = "AAPL", close: str = "100.2", volume: int = 1200) -> Bar:
    price = Decimal(close)
    return Bar(
        symbol=symbol,
        timestamp=at(time_text),
        open=price,
        high=price,
        low=Decimal("0.0001"),
        close=price,
        volume=volume,
    )


def add_bar(recorder: Recorder, recorded: Bar) -> None:
    recorder.add_bar(recorded, recorded.delivered_at, WALL_CLOCK)


def closed(
    time_text: str,
    *,
    symbol: str = "AAPL",
    close: str = "100.5",
    sma: str | None = None,
    strategy: str = "velez",
    interval: int = 2,
    is_live: bool = True,
) -> CandleClosed:
    start, price = at(time_text), Decimal(close)
    average = None if sma is None else Decimal(sma)
    return CandleClosed(
        candle=Candle(
            symbol=symbol,
            timestamp=start,
            end=start + timedelta(minutes=interval),
            open=price,
            high=price,
            low=price,
            close=price,
            volume=900,
            bars=interval,
        ),
        interval_minutes=interval,
        strategy=strategy,
        indicators=IndicatorSet(sma_fast=average, sma_slow=None, prev_sma_fast=None, prev_sma_slow=None, bar_count=20),
        is_live=is_live,
    )


async def recorded_candles(data_dir: Path, *events: CandleClosed) -> None:
    recorder = Recorder(data_dir, RUN)
    for event in events:
        recorder.add_candle(event)
    await recorder.flush()


def bars_of_monday(data_dir: Path) -> list[Bar]:
    return [recorded.bar for recorded in recording.bars(RUN, "AAPL", MONDAY, data_dir=data_dir)]


@contextmanager
def no_file_larger_than(size_bytes: int) -> Iterator[None]:
    """A disk that is full as soon as a file would grow beyond the size; part of a write may still fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- bars -------------------------------------------------------------------------------------------------------------


async def test_a_bar_comes_back_exactly_with_both_its_times(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, RUN)
    delivered = bar(close="123456789.1230")
    recorder.add_bar(delivered, at("2026-03-02 14:31"), WALL_CLOCK)
    await recorder.flush()
    (found,) = recording.bars(RUN, "AAPL", MONDAY, data_dir=tmp_path)
    assert found.bar == delivered
    assert str(found.bar.close) == "123456789.1230"
    assert found.delivered_at == at("2026-03-02 14:31")
    assert found.received_real_at == WALL_CLOCK


async def test_the_file_is_plain_text_that_other_programs_read(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, RUN)
    add_bar(recorder, bar())
    recorder.add_candle(closed("2026-03-02 14:30", sma="100.0000000000000000000000001"))
    await recorder.flush()
    folder = tmp_path / "runs/7/2026-03-02"
    assert (folder / "bars.csv").read_text().splitlines() == [
        "symbol,timestamp,open,high,low,close,volume,received_real_at,delivered_at",
        (
            "AAPL,2026-03-02T14:30:00.000000Z,100.2,100.2,0.0001,100.2,1200,"
            "2026-11-20T09:15:02.123456Z,2026-03-02T14:31:00.000000Z"
        ),
    ]
    assert (folder / "candles.csv").read_text().splitlines() == [
        "symbol,strategy,interval,timestamp,open,high,low,close,volume,sma_fast,sma_slow,bar_count,is_live",
        "AAPL,velez,2,2026-03-02T14:30:00.000000Z,100.5,100.5,100.5,100.5,900,100.0000000000000000000000001,,20,1",
    ]


async def test_a_day_is_the_session_of_new_york(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, RUN)
    add_bar(recorder, bar("2026-03-03 01:59"))  # 20:59 in New York
    add_bar(recorder, bar("2026-03-03 14:30"))
    await recorder.flush()
    assert [found.timestamp for found in bars_of_monday(tmp_path)] == [at("2026-03-03 01:59")]


async def test_bars_are_appended_and_symbols_kept_apart(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, RUN)
    for number in range(3):
        add_bar(recorder, bar(volume=number))
        add_bar(recorder, bar(symbol="A", volume=number))
        add_bar(recorder, bar(symbol="AAPLX", volume=number))
        await recorder.flush()
    assert [found.volume for found in bars_of_monday(tmp_path)] == [0, 1, 2]


def test_a_day_without_files_has_no_bars(tmp_path: Path) -> None:
    assert recording.bars(RUN, "AAPL", MONDAY, data_dir=tmp_path) == []
    assert recording.candles(RUN, "AAPL", data_dir=tmp_path) == []
    assert recording.runs(data_dir=tmp_path) == []


async def test_a_day_is_read_back_in_the_order_in_which_it_came(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, RUN)
    for symbol in ("TSLA", "AAPL", "TSLA"):
        add_bar(recorder, bar(symbol=symbol))
    monday, after_midnight = at("2026-03-02 15:00"), at("2026-03-03 02:00")  # both of Monday in New York
    recorder.add_told(Halted(now=monday, reason="lunch"), WALL_CLOCK, {})
    recorder.add_told(Resumed(now=after_midnight), WALL_CLOCK, {})
    await recorder.flush()
    with (tmp_path / "runs/7/2026-03-02/told.jsonl").open("a") as crashed:
        crashed.write('{"told":"DataEn')
    assert [each.bar.symbol for each in recording.all_bars(RUN, MONDAY, data_dir=tmp_path)] == ["TSLA", "AAPL", "TSLA"]
    assert recording.told(RUN, MONDAY, data_dir=tmp_path) == [
        (WALL_CLOCK, Halted(now=monday, reason="lunch")),
        (WALL_CLOCK, Resumed(now=after_midnight)),
    ]
    assert recording.days(RUN, data_dir=tmp_path) == [MONDAY]


async def test_a_candle_counts_as_it_was_known_first(tmp_path: Path) -> None:
    await recorded_candles(
        tmp_path,
        closed("2026-03-02 14:30", close="1.10", sma="1.05"),
        closed("2026-03-02 14:30", close="2", is_live=False),
    )
    found = recording.first_candles(RUN, MONDAY, data_dir=tmp_path)
    assert list(found) == [("AAPL", "velez", at("2026-03-02 14:30"))]
    assert [(row["close"], row["sma_fast"], row["is_live"]) for row in found.values()] == [("1.10", "1.05", "1")]


# --- crashes and full disks -------------------------------------------------------------------------------------------


def test_after_kill_9_every_line_but_the_last_is_there_and_recording_goes_on(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
    ) as engine:
        assert engine.stdout is not None
        assert engine.stdout.readline() == "False\n"  # pandas costs 100 MB and a second
        time.sleep(0.5)
        engine.kill()
    volumes = [found.volume for found in bars_of_monday(tmp_path)]
    assert len(volumes) > 10
    assert volumes == list(range(len(volumes)))


@pytest.mark.parametrize("torn", ["A", "AAPL,2026-03-02T14:30:00.000000Z,100", "AAPL,{},1,1,1,1,5,{},2026-03-02T14:3"])
async def test_a_torn_line_is_neither_read_nor_built_upon(tmp_path: Path, torn: str) -> None:
    recorder = Recorder(tmp_path, RUN)
    add_bar(recorder, bar(volume=1))
    await recorder.flush()
    file = tmp_path / "runs/7/2026-03-02/bars.csv"
    with file.open("a") as crashed:
        crashed.write(torn.replace("{}", "2026-03-02T14:30:00.000000Z"))
    assert [found.volume for found in bars_of_monday(tmp_path)] == [1]
    next_process = Recorder(tmp_path, RUN)
    add_bar(next_process, bar(volume=2))
    await next_process.flush()
    assert [found.volume for found in bars_of_monday(tmp_path)] == [1, 2]
    assert len(file.read_text().splitlines()) == 3


async def test_garbage_that_a_power_cut_left_is_skipped(tmp_path: Path) -> None:
    file = tmp_path / "runs/7/2026-03-02/bars.csv"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"AAPL,never,a,b,c,d,e,f,g\nAAPL,\xff\xfe\n" + bytes(10_000))
    recorder = Recorder(tmp_path, RUN)
    add_bar(recorder, bar(volume=1))
    await recorder.flush()
    assert [found.volume for found in bars_of_monday(tmp_path)] == [1]


async def test_what_a_full_disk_refused_is_written_once_there_is_room(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, RUN)
    add_bar(recorder, bar(volume=0))
    await recorder.flush()
    with no_file_larger_than(500):
        for number in range(1, 100):
            add_bar(recorder, bar(volume=number))
        await recorder.flush()
        await recorder.flush()
        assert recorder.failures == 2
        assert recorder.problem.startswith(f"{tmp_path}/runs/7/2026-03-02/bars.csv: ")
        assert [found.volume for found in bars_of_monday(tmp_path)] == [0]
    add_bar(recorder, bar(volume=100))
    await recorder.flush()
    assert recorder.problem == ""
    assert recorder.dropped_lines == 0
    assert [found.volume for found in bars_of_monday(tmp_path)] == list(range(101))


async def test_a_disk_that_stays_full_costs_the_oldest_lines_and_no_more_memory(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, RUN, max_pending_lines=10)
    (tmp_path / "runs").write_text("not a folder")
    for number in range(8):
        add_bar(recorder, bar(volume=number))
    await recorder.flush()
    for number in range(8, 15):
        add_bar(recorder, bar(volume=number))
    await recorder.flush()
    assert recorder.dropped_lines == 5
    (tmp_path / "runs").unlink()
    await recorder.flush()
    assert [found.volume for found in bars_of_monday(tmp_path)] == list(range(5, 15))


# --- candles ----------------------------------------------------------------------------------------------------------


async def test_a_candle_is_shown_with_its_averages(tmp_path: Path) -> None:
    await recorded_candles(tmp_path, closed("2026-03-02 14:30", close="100.50", sma="99.33333333333333333333333333"))
    assert recording.candles(RUN, "AAPL", data_dir=tmp_path) == [
        {
            "symbol": "AAPL",
            "strategy": "velez",
            "interval": 2,
            "timestamp": "2026-03-02T14:30:00.000000Z",
            "open": 100.5,
            "high": 100.5,
            "low": 100.5,
            "close": 100.5,
            "volume": 900,
            "sma_fast": 99.333333,
            "sma_slow": None,
            "bar_count": 20,
            "is_live": True,
        }
    ]


async def test_the_newest_candles_come_last_across_days_however_they_were_written(tmp_path: Path) -> None:
    await recorded_candles(
        tmp_path,
        closed("2026-03-03 14:32"),
        closed("2026-03-03 14:34"),
        closed("2026-02-27 14:30", is_live=False),
        closed("2026-03-02 14:30", is_live=False),
        closed("2026-03-03 14:30", is_live=False),
        closed("2026-03-03 14:30", symbol="TSLA"),
    )
    times = [candle["timestamp"] for candle in recording.candles(RUN, "AAPL", 4, data_dir=tmp_path)]
    assert [text[:16] for text in times] == [
        "2026-03-02T14:30",
        "2026-03-03T14:30",
        "2026-03-03T14:32",
        "2026-03-03T14:34",
    ]
    assert len(recording.candles(RUN, "AAPL", data_dir=tmp_path)) == 5
    assert recording.candles(RUN, "AAPL", 1, data_dir=tmp_path)[0]["timestamp"] == times[-1]


async def test_a_candle_built_again_from_history_replaces_the_first(tmp_path: Path) -> None:
    await recorded_candles(tmp_path, closed("2026-03-02 14:30", close="1"), closed("2026-03-02 14:30", close="2"))
    assert [candle["close"] for candle in recording.candles(RUN, "AAPL", data_dir=tmp_path)] == [2.0]


async def test_a_chart_never_mixes_two_strategies_or_intervals(tmp_path: Path) -> None:
    await recorded_candles(
        tmp_path,
        closed("2026-03-02 14:30", interval=5),
        closed("2026-03-02 14:30", strategy="other", close="7"),
        closed("2026-03-02 14:32", strategy="other", close="8"),
        closed("2026-03-02 14:34"),
    )
    newest = recording.candles(RUN, "AAPL", data_dir=tmp_path)
    assert [(candle["strategy"], candle["interval"]) for candle in newest] == [("velez", 2)]
    other = recording.candles(RUN, "AAPL", strategy="other", data_dir=tmp_path)
    assert [candle["close"] for candle in other] == [7.0, 8.0]


# --- retention --------------------------------------------------------------------------------------------------------


async def test_old_recordings_go_and_a_new_replay_of_old_sessions_stays(tmp_path: Path) -> None:
    for run in (7, 8, 10):
        recorder = Recorder(tmp_path, run)
        add_bar(recorder, bar())
        add_bar(recorder, bar("2026-03-03 14:30"))
        await recorder.flush()
    long_ago = time.time() - 31 * 86_400
    for old in ("7/2026-03-02", "7/2026-03-03", "8/2026-03-02"):
        os.utime(tmp_path / "runs" / old / "bars.csv", (long_ago, long_ago))
    (tmp_path / "runs/notes.txt").write_text("not ours")
    assert recording.remove_older_than(30, data_dir=tmp_path) == 3
    assert recording.runs(data_dir=tmp_path) == [10, 8]
    assert [day.name for day in (tmp_path / "runs/8").iterdir()] == ["2026-03-03"]
    assert (tmp_path / "runs/notes.txt").exists()
    assert recording.remove_older_than(30, data_dir=tmp_path) == 0
