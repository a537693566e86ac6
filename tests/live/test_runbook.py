"""The commands of docs/runbook.md print what it says, on a market, an engine and a ledger of their own."""

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import databases
from tests.live.engine_process import PATIENCE_SECONDS, ROOT, Account, EngineProcess, environment, free_port

RUNBOOK = (ROOT / "docs/runbook.md").read_text()
KEYS = ("simulator", "simulator")
BLOCK = re.compile(r"<!-- engine (running|stopped) -->\n```console\n(.*?)```", re.DOTALL)


def steps() -> Iterator[tuple[str, str, str]]:
    """Engine running or stopped, the command, and what it prints."""
    for state, text in BLOCK.findall(RUNBOOK):
        for step in text.removeprefix("$ ").split("\n$ "):
            command, _, printed = step.partition("\n")
            yield state, command, printed.strip("\n")


def pattern(printed: str) -> str:
    """A regular expression for what is printed, line by line."""
    return "[^\n]+".join(re.escape(part) for part in printed.split("…"))


@pytest.fixture
def market(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A market in a process of its own, on whose account somebody has bought 10 AAPL; its addresses."""
    (tmp_path / "market").mkdir()
    process = subprocess.Popen(
        [sys.executable, "manage.py", "runmarket", "--port", "0", "--speed", "1", "--symbols", "AAPL"],
        cwd=ROOT,
        env=environment({}, tmp_path / "market", "", keys=("", ""), broker__provider="simulator"),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    urls = {}
    for line in process.stdout:
        name, _, value = line.strip().partition("=")
        if name.endswith("URL"):
            urls[name.removeprefix("ALGO_BROKER__").lower()] = value
        if name.endswith("SECRET_KEY"):
            break
    order = {"symbol": "AAPL", "qty": "10", "side": "buy", "type": "market", "time_in_force": "day"}
    account = Account(urls["trading_url"], KEYS)
    account.call("POST", "/v2/orders", json=order)
    wait_for(lambda: bool(account.call("GET", "/v2/positions")))
    yield urls
    process.kill()
    process.wait()
    process.stdout.close()


def wait_for(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_every_command_prints_what_the_page_says(market: dict[str, str], tmp_path: Path, migrated_sqlite: Path) -> None:
    url = databases.copied_sqlite(migrated_sqlite, tmp_path / "trading.db")
    engine = EngineProcess(market, tmp_path, url, "--no-worker", keys=KEYS, web__port=str(free_port()))
    account = Account(market["trading_url"], KEYS)
    done = []
    try:
        wait_for(lambda: [each["type"] for each in account.call("GET", "/v2/orders?status=open")] == ["stop"])
        wait_for(lambda: "stream=bars" in engine.log)
        for state, command, printed in steps():
            if state == "stopped":
                assert engine.process.wait(PATIENCE_SECONDS) == 0, engine.log
            words = shlex.split(command)
            assert words[0] == "manage.py"
            ran = subprocess.run(
                [sys.executable, *words],
                cwd=ROOT,
                env={**engine.variables, "ALGO_LOG_LEVEL": "CRITICAL"},
                capture_output=True,
                text=True,
                timeout=2 * PATIENCE_SECONDS,
            )
            said = (ran.stdout + ran.stderr).strip("\n")
            assert re.fullmatch(pattern(printed), said), f"{command}\n{said}\n{engine.log[-2000:]}"
            assert ran.returncode == (1 if printed.startswith("Engine is not running") else 0)
            done.append(words[1])
    finally:
        engine.kill()
    assert set(done) >= {"flatten", "halt", "resume", "backup", "stopengine"}
