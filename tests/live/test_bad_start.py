"""What a user can get wrong when starting the engine: one line that says what to do, the right status, no traceback."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from trading.management.commands.runengine import Command
from trading.simulator.market import Market
from trading.simulator.synthetic import SyntheticBars

ROOT = Path(__file__).parents[2]
SECONDS = 60


def environment(data_dir: Path, **settings: str) -> dict[str, str]:
    """A fresh installation in `data_dir`: nothing of this machine's own settings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ALGO_")}
    return {**clean, "ALGO_DATA_DIR": str(data_dir), "ALGO_ENV_FILE": os.devnull, **settings}


def engine(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """`manage.py runengine` to its end."""
    data_dir = Path(settings.pop("data_dir"))
    return subprocess.run(
        [sys.executable, "manage.py", "runengine", "--no-worker", *arguments],
        cwd=ROOT,
        env=environment(data_dir, **settings),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def assert_one_line(ended: "subprocess.CompletedProcess[str]", *words: str, status: int = 1) -> None:
    """The last line tells the user, and it is the only thing said besides the log."""
    told = [line for line in ended.stderr.splitlines() if line and "[info" not in line and "[warning" not in line]
    assert ended.returncode == status, ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout
    line = told[-1]
    for word in words:
        assert word in line


@pytest.fixture
def data_dir(tmp_path: Path, migrated_sqlite: Path) -> Path:
    """A data folder with a migrated database."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "trading.db").write_bytes(migrated_sqlite.read_bytes())
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_value_out_of_bounds(data_dir: Path) -> None:
    ended = engine(data_dir=str(data_dir), ALGO_RISK__MAX_DAILY_LOSS_PCT="0.5")
    assert_one_line(ended, "ALGO_RISK__MAX_DAILY_LOSS_PCT", "0.5", "0.01 to 0.10")


def test_one_key_without_the_other(data_dir: Path) -> None:
    assert_one_line(engine(data_dir=str(data_dir), ALGO_BROKER__API_KEY="k"), "ALGO_BROKER__SECRET_KEY")


def test_live_trading_without_the_second_switch(data_dir: Path) -> None:
    keys = {"ALGO_BROKER__API_KEY": "k", "ALGO_BROKER__SECRET_KEY": "s", "ALGO_BROKER__PAPER": "false"}
    assert_one_line(engine(data_dir=str(data_dir), **keys), "ALGO_ALLOW_LIVE_TRADING")


def test_a_strategy_that_does_not_exist(data_dir: Path) -> None:
    assert_one_line(engine("--no-web", data_dir=str(data_dir), ALGO_STRATEGIES="astrology"), "astrology", "velez")


def test_a_database_without_tables(tmp_path: Path) -> None:
    assert_one_line(engine("--no-web", data_dir=str(tmp_path)), "migrate")


def test_a_busy_port(data_dir: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert_one_line(engine(data_dir=str(data_dir), ALGO_WEB__PORT=str(port)), str(port), "ALGO_WEB__PORT")


def test_a_missing_data_folder(data_dir: Path) -> None:
    assert_one_line(engine("--no-web", "--data", "nowhere", data_dir=str(data_dir)), "nowhere")


def test_an_unreadable_csv(data_dir: Path) -> None:
    bad = data_dir / "AAPL.csv"
    bad.write_text("when,what\n1,2\n")
    ended = engine("--no-web", "--data", str(bad), "--symbols", "AAPL", data_dir=str(data_dir))
    assert_one_line(ended, "AAPL.csv", "timestamp")


def test_a_symbol_the_data_does_not_have(data_dir: Path) -> None:
    good = data_dir / "AAPL.csv"
    good.write_text("timestamp,open,high,low,close,volume\n2024-03-04T14:30:00Z,1,1,1,1,1\n")
    ended = engine("--no-web", "--data", str(data_dir), "--symbols", "ZZZZ", data_dir=str(data_dir))
    assert_one_line(ended, "ZZZZ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--symbols", "aapl"),
        ("--speed", "-1"),
        ("--speed", "fast"),
        ("--start-date", "2018-02-16"),
        ("--data", ".", "--start-date", "yesterday"),
        ("--provider", "robinhood"),
    ],
)
def test_bad_usage(ledger: str, arguments: Sequence[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        Command().run_from_argv(["manage.py", "runengine", *arguments])
    assert left.value.code == 2
    assert "Traceback" not in capfd.readouterr().err


async def test_keys_the_broker_refuses(data_dir: Path) -> None:
    market = Market(bars=SyntheticBars(seed=1), account_number="SIM-1", keys=("right", "secret"))
    await market.start()
    try:
        urls = {f"ALGO_BROKER__{name.upper()}": url for name, url in market.urls.items()}
        ended = await asyncio.to_thread(
            engine,
            "--no-web",
            data_dir=str(data_dir),
            ALGO_BROKER__API_KEY="wrong",
            ALGO_BROKER__SECRET_KEY="planted-secret",
            **urls,
        )
        assert_one_line(ended, "refuses the keys")
        assert "planted-secret" not in ended.stderr + ended.stdout
    finally:
        await market.stop()


def test_no_market_at_that_address(data_dir: Path) -> None:
    port = free_port()
    urls = {
        "ALGO_BROKER__TRADING_URL": f"http://127.0.0.1:{port}",
        "ALGO_BROKER__TRADING_STREAM_URL": f"ws://127.0.0.1:{port}/stream",
        "ALGO_BROKER__DATA_URL": f"http://127.0.0.1:{port}",
        "ALGO_BROKER__DATA_STREAM_URL": f"ws://127.0.0.1:{port}/v2/iex",
    }
    keys = {"ALGO_BROKER__API_KEY": "k", "ALGO_BROKER__SECRET_KEY": "s"}
    assert_one_line(engine("--no-web", data_dir=str(data_dir), **urls, **keys), f"127.0.0.1:{port}", "runmarket")


async def test_a_second_engine_on_the_same_database(data_dir: Path) -> None:
    first = await asyncio.create_subprocess_exec(
        sys.executable,
        "manage.py",
        "runengine",
        "--no-worker",
        "--no-web",
        cwd=ROOT,
        env=environment(data_dir),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert first.stderr is not None
    try:
        async with asyncio.timeout(SECONDS):
            while b"reconciled" not in await first.stderr.readline():
                pass
        ended = await asyncio.to_thread(engine, "--no-web", data_dir=str(data_dir))
        assert_one_line(ended, "Another engine", str(first.pid), "stopengine")
    finally:
        first.terminate()
        await first.communicate()
    assert first.returncode == 0
