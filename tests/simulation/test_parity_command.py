"""`manage.py parity`: no difference where there is none, and the cause of each where the records were doctored."""

import json
import shutil
import sqlite3
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.management import call_command
from django.utils import timezone

from orders.command import UserError
from risk import store as risk_store
from tests import databases
from tests.simulation.engines import PATIENCE_SECONDS, REPLAYS, Engine
from trading.live import recording

SYMBOL = "TSLA"


class Records:
    """A data folder with the records of an engine, to be doctored."""

    def __init__(self, folder: Path, settings: LazySettings, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._settings = settings
        self._capsys = capsys

    def parity(self, run_or_day: str = "1", *options: str) -> str:
        """What the command prints. Raises UserError where it would say so on stderr and exit 1."""
        self._settings.DATA_DIR = self.folder
        self._capsys.readouterr()
        with databases.default_database(f"sqlite:///{self.folder / 'trading.db'}"):
            call_command("parity", run_or_day, *options)
        return self._capsys.readouterr().out

    def report(self) -> dict[str, Any]:
        """The JSON of a run that differs."""
        with pytest.raises(UserError, match=r"\d+ differences; the first: "):
            self.parity("1", "--json")
        printed = json.loads(self._capsys.readouterr().out)
        assert printed["equal"] is False
        (report,) = printed["runs"]
        return dict(report)

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Changes what must never be changed."""
        with sqlite3.connect(self.folder / "trading.db") as ledger:
            for (trigger,) in ledger.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                ledger.execute(f"DROP TRIGGER {trigger}")
            return ledger.execute(statement, values).fetchall()

    def first_trade(self) -> tuple[str, Decimal, Decimal, str, str]:
        """Correlation id, shares, dollars won, and times of the first trade of the symbol."""
        columns = "correlation_id, qty, pnl, entry_at, exit_at"
        query = f"SELECT {columns} FROM trade WHERE symbol = ? ORDER BY entry_at"
        correlation_id, qty, pnl, entry_at, exit_at = self.sql(query, SYMBOL)[0]
        return correlation_id, Decimal(qty), Decimal(pnl), entry_at, exit_at


@pytest.fixture
def records(
    replays: dict[str, Engine], tmp_path: Path, settings: LazySettings, capsys: pytest.CaptureFixture[str]
) -> Records:
    """A copy of what the engine on the day with missing minutes left behind."""
    shutil.copytree(replays["missing minutes"].ended().folder, tmp_path / "copy")
    return Records(tmp_path / "copy", settings, capsys)


# --- no difference ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REPLAYS)
def test_a_replayed_run_does_not_differ(
    name: str, replays: dict[str, Engine], settings: LazySettings, capsys: pytest.CaptureFixture[str]
) -> None:
    records = Records(replays[name].ended().folder, settings, capsys)
    _, _, first_day, last_day, _ = REPLAYS[name]
    assert records.parity().startswith("Run 1: 0 differences in ")
    for day in {first_day, last_day}:  # the second day begins with what was held over the night
        assert records.parity(day).startswith("Run 1: 0 differences in ")
    report = json.loads(records.parity("1", "--json"))
    assert report["equal"] is True
    (run,) = report["runs"]
    assert run["differences"] == []
    assert run["trades"]["engine"] == run["trades"]["backtest"] > 3
    assert run["signals"]["engine"] == run["signals"]["backtest"] > run["trades"]["engine"]


def test_neither_does_one_that_was_stopped_went_on_and_had_its_settings_changed(
    migrated_sqlite: Path, tmp_path: Path, settings: LazySettings, capsys: pytest.CaptureFixture[str]
) -> None:
    """A position is open when it stops in the middle of a day; the next run takes it over and closes it."""
    folder = tmp_path / "data"
    chosen = {"velez.allow_short": "true", "risk.consecutive_loss_pause": "10"}
    engine = Engine(migrated_sqlite, folder, "--seed", "3", settings=chosen)
    try:
        wait_for(engine, lambda: len(trades(folder)) >= 2)
        with databases.default_database(engine.url):
            config = settings.ALGO
            risk_store.set_override("risk.max_position_pct", "0.2", by="me", config=config, real_at=timezone.now())
        wait_for(engine, lambda: "SettingsChanged" in told(folder, 1))
        wait_for(engine, lambda: bool(held(folder)))
        engine.stopped()
        engine = Engine(migrated_sqlite, folder, "--seed", "3", settings=chosen)
        wait_for(engine, lambda: "DataEnded" not in told(folder, 2) and len(trades(folder, run=2)) >= 2)
        engine.stopped()
    finally:
        engine.process.kill()
        engine.process.wait()
    records = Records(folder, settings, capsys)
    for run in ("1", "2"):
        assert records.parity(run).startswith(f"Run {run}: 0 differences in ")
    for day in recording.days(2, data_dir=folder):
        if recording.all_bars(2, day, data_dir=folder):
            assert "Run 2: 0 differences in " in records.parity(day.isoformat())


def wait_for(engine: Engine, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert engine.process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)


def query(folder: Path, statement: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(folder / "trading.db", timeout=30) as ledger:
        return ledger.execute(statement).fetchall()


def trades(folder: Path, run: int = 1) -> list[tuple[Any, ...]]:
    return query(folder, f"SELECT id FROM trade WHERE run_id = {run}")


def held(folder: Path) -> list[tuple[Any, ...]]:
    """Stops that protect a position just now."""
    return query(folder, "SELECT id FROM order_state WHERE role = 'stop_loss' AND state = 'accepted'")


def told(folder: Path, run: int) -> str:
    return "".join(file.read_text() for file in folder.glob(f"runs/{run}/*/told.jsonl"))


# --- each cause -------------------------------------------------------------------------------------------------------


def only_cause(report: dict[str, Any], cause: str) -> Decimal:
    """The dollars of the cause, which must be all there is."""
    amounts = {name: Decimal(text) for name, text in report["pnl_difference"].items()}
    total = amounts.pop("total")
    assert total == Decimal(report["pnl"]["engine"]) - Decimal(report["pnl"]["backtest"])
    assert {name for name, amount in amounts.items() if amount} <= {cause}
    assert amounts[cause] == total
    return total


def test_a_bar_that_the_strategy_never_saw_so_is_data(records: Records) -> None:
    correlation_id, _, _, entry_at, _ = records.first_trade()
    (bars,) = (records.folder / "runs/1").glob("*/bars.csv")
    lines = bars.read_text().splitlines()
    # The last minute of the signal's candle closes 10 cents higher: another high, another entry.
    signal_at = records.sql("SELECT recorded_at FROM decision WHERE correlation_id = ?", correlation_id)[0][0]
    place = next(n for n, line in enumerate(lines) if line.startswith(SYMBOL) and line.endswith(signal_at))
    fields = lines[place].split(",")
    fields[3] = fields[5] = str(Decimal(fields[3]) + Decimal("0.10"))
    lines[place] = ",".join(fields)
    bars.write_text("\n".join(lines) + "\n")
    first = records.report()["differences"][0]
    assert first["correlation_id"] == correlation_id
    assert list(first["causes"]) == ["data"]
    assert first["candle"]["timestamp"] < entry_at
    assert {field["name"] for field in first["candle"]["fields"]} >= {"high", "close", "sma_fast"}


def test_a_worse_execution_is_the_fill_price(records: Records) -> None:
    correlation_id, qty, pnl, *_ = records.first_trade()
    worse = pnl - qty * Decimal("0.07")
    records.sql(
        "UPDATE trade SET exit_price = CAST(exit_price - 0.07 AS TEXT), pnl = ? WHERE correlation_id = ?",
        str(worse), correlation_id,
    )  # fmt: skip
    price = Decimal(records.sql("SELECT exit_price FROM trade WHERE correlation_id = ?", correlation_id)[0][0])
    records.sql("UPDATE trade SET exit_price = ? WHERE correlation_id = ?", str(round(price, 4)), correlation_id)
    assert only_cause(records.report(), "fill_price") == -qty * Decimal("0.07")


def test_an_order_that_was_sent_and_not_filled_is_a_missed_fill(records: Records) -> None:
    correlation_id, _, pnl, *_ = records.first_trade()
    records.sql("DELETE FROM trade WHERE correlation_id = ?", correlation_id)
    assert only_cause(records.report(), "missed_fill") == -pnl


def test_fewer_shares_are_the_size(records: Records) -> None:
    correlation_id, qty, pnl, *_ = records.first_trade()
    records.sql(
        "UPDATE trade SET qty = ?, pnl = ? WHERE correlation_id = ?", str(qty - 1), str(pnl * (qty - 1) / qty),
        correlation_id,
    )  # fmt: skip
    records.sql("UPDATE decision SET qty = ? WHERE correlation_id = ?", str(qty - 1), correlation_id)
    assert only_cause(records.report(), "size") == round(-pnl / qty, 6)


def test_an_entry_sent_a_minute_late_is_the_signals_time(records: Records) -> None:
    correlation_id, qty, pnl, *_ = records.first_trade()
    late = "strftime('%Y-%m-%dT%H:%M:%S', {0}, '+1 minute') || '.000000Z'"
    records.sql(
        f"UPDATE decision SET recorded_at = {late.format('recorded_at')} WHERE correlation_id = ?", correlation_id
    )
    records.sql(
        f"UPDATE order_state SET created_at = {late.format('created_at')} WHERE correlation_id = ? AND role = 'entry'",
        correlation_id,
    )
    entry_price = Decimal(records.sql("SELECT entry_price FROM trade WHERE correlation_id = ?", correlation_id)[0][0])
    records.sql(
        "UPDATE trade SET entry_price = ?, pnl = ? WHERE correlation_id = ?",
        str(entry_price + Decimal("0.05")), str(pnl - qty * Decimal("0.05")), correlation_id,
    )  # fmt: skip
    assert only_cause(records.report(), "signal_time") == -qty * Decimal("0.05")


def test_the_first_difference_is_shown_with_both_sides(records: Records, capsys: pytest.CaptureFixture[str]) -> None:
    correlation_id, *_ = records.first_trade()
    records.sql("UPDATE trade SET exit_reason = 'manual' WHERE correlation_id = ?", correlation_id)
    with pytest.raises(UserError, match=rf"^1 differences; the first: {SYMBOL} \(velez\) at 2018-02-21 .* UTC, "):
        records.parity()
    shown = capsys.readouterr().out
    assert "Run 1: 1 differences in " in shown
    (row,) = [line.split() for line in shown.splitlines() if line.strip().startswith("exit reason")]
    assert row[2] == "manual"
    assert row[3] in {"stop_loss", "trailing_stop", "max_run", "end_of_day"}
    assert correlation_id in shown


# --- what cannot be compared ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ("2", "there is no run 2 of the engine"),
        ("yesterday", "'yesterday' is neither the number of a run nor a date written as YYYY-MM-DD"),
        ("2018-02-22", "no run of the engine has recorded bars of 2018-02-22"),
    ],
)
def test_what_is_not_there_is_one_line(records: Records, asked: str, line: str) -> None:
    with pytest.raises(UserError) as refused:
        records.parity(asked)
    assert str(refused.value) == line


def test_a_run_without_its_recording_is_one_line(records: Records) -> None:
    (file,) = (records.folder / "runs/1").glob("*/told.jsonl")
    file.write_text("not ours\n")
    with pytest.raises(UserError, match="the recording of run 1 cannot be read"):
        records.parity()
    file.unlink()
    with pytest.raises(UserError, match="run 1 has no recording of a session"):
        records.parity()
