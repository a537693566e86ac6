"""`manage.py runmarket`: the market in a process of its own, killed and started again."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from django.core.management import CommandError, call_command

ROOT = Path(__file__).parents[2]
HEADERS = {"APCA-API-KEY-ID": "simulator", "APCA-API-SECRET-KEY": "simulator"}
START_SECONDS = 60
KILLS = 2


class Process:
    """A running market and the requests it answers."""

    def __init__(self, data_dir: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "runmarket", "--port", "0", *arguments],
            env=environment(data_dir),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.settings: dict[str, str] = {}
        for line in self.process.stdout:
            name, _, value = line.strip().partition("=")
            self.settings[name.removeprefix("ALGO_BROKER__")] = value
            if name.endswith("SECRET_KEY"):
                break

    def ask(self, method: str, path: str, **request: Any) -> Any:
        url = f"{self.settings['TRADING_URL']}{path}"
        answer = requests.request(method, url, headers=HEADERS, timeout=10, **request)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=20)


def environment(data_dir: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ALGO_", "DJANGO_"))}
    return kept | {"ALGO_ENV_FILE": os.devnull, "ALGO_DATA_DIR": str(data_dir)}


@pytest.fixture
def markets(tmp_path: Path) -> Iterator[Any]:
    """Starts markets on one data folder, and leaves none behind."""
    started: list[Process] = []

    def start(*arguments: str) -> Process:
        started.append(Process(tmp_path, *arguments))
        return started[-1]

    yield start
    for market in started:
        if market.process.poll() is None:
            market.process.kill()
        market.process.wait()
        if market.process.stdout is not None:
            market.process.stdout.close()


def test_it_prints_what_an_engine_needs_holds_its_account_and_stops_on_a_signal(markets: Any, tmp_path: Path) -> None:
    market = markets("--seed", "5", "--symbols", "AAPL,MSFT", "--initial-capital", "30000")
    url = market.settings["TRADING_URL"]
    assert url.startswith("http://127.0.0.1:")
    stream = url.replace("http", "ws")
    assert market.settings == {
        "PROVIDER": "alpaca",
        "TRADING_URL": url,
        "TRADING_STREAM_URL": f"{stream}/stream",
        "DATA_URL": url,
        "DATA_STREAM_URL": f"{stream}/v2/iex",
        "API_KEY": "simulator",
        "SECRET_KEY": "simulator",
    }
    assert market.ask("GET", "/market/clock")["speed"] == 30
    account = market.ask("GET", "/v2/account")
    assert (account["account_number"], account["cash"]) == ("SIM-5", "30000")
    assert [asset["symbol"] for asset in market.ask("GET", "/v2/assets")] == ["AAPL", "MSFT"]
    second = failure(tmp_path, "--seed", "5", "--port", "0")
    assert second.endswith("another market is running on this account")
    assert market.stop() == 0


def test_what_was_confirmed_outlives_kill_9(markets: Any) -> None:
    chance = random.Random(1)
    confirmed: dict[str, dict[str, Any]] = {}
    for life in range(KILLS + 1):
        market = markets("--speed", "600")
        kept = {order["client_order_id"]: order for order in market.ask("GET", "/v2/orders?status=all&limit=500")}
        assert confirmed.keys() <= kept.keys()
        assert all(kept[name]["id"] == order["id"] for name, order in confirmed.items())
        fills = market.ask("GET", "/v2/account/activities/FILL")
        cash = 25_000 - sum(float(fill["qty"]) * float(fill["price"]) for fill in fills)
        assert float(market.ask("GET", "/v2/account")["cash"]) == pytest.approx(cash)
        held = {position["symbol"]: float(position["qty"]) for position in market.ask("GET", "/v2/positions")}
        assert held.get("AAPL", 0) == sum(float(fill["qty"]) for fill in fills)
        assert {fill["order_id"] for fill in fills} <= {order["id"] for order in kept.values()}
        if life == KILLS:
            break
        for number in range(chance.randint(3, 12)):
            name = f"{life}-{number}"
            order = {"symbol": "AAPL", "qty": "1", "side": "buy", "time_in_force": "gtc", "client_order_id": name}
            price = {"type": "market"} if chance.random() < 0.5 else {"type": "limit", "limit_price": "150"}
            confirmed[name] = market.ask("POST", "/v2/orders", json=order | price)
        assert market.stop(signal.SIGKILL) == -signal.SIGKILL
    with pytest.raises(requests.HTTPError, match="422"):
        market.ask("POST", "/v2/orders", json=order | price)


def test_a_replay_ends_and_still_answers(markets: Any, tmp_path: Path) -> None:
    rows = "".join(f"2024-03-04T14:{minute}:00Z,10,11,9,10,100\n" for minute in range(30, 34))
    (tmp_path / "AAPL.csv").write_text("timestamp,open,high,low,close,volume\n" + rows)
    market = markets("--data", str(tmp_path / "AAPL.csv"), "--speed", "6000")
    assert market.process.stdout.readline().startswith("The recorded bars are over.")
    assert market.ask("GET", "/market/clock")["now"] == "2024-03-04T14:34:00Z"
    assert market.stop(signal.SIGINT) == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--speed", "0"], "--speed 0 needs the engine in the market's process"),
        (["--speed", "-1"], "--speed is 0 or more"),
        (["--initial-capital", "0"], "--initial-capital is above 0"),
        (["--start-date", "2024-01-01"], "--start-date and --end-date belong to a replay"),
        (["--data", "x", "--start-date", "2024-01-02", "--end-date", "2024-01-01"], "--end-date lies before"),
    ],
)
def test_bad_usage(arguments: list[str], complaint: str) -> None:
    with pytest.raises(CommandError, match=complaint) as caught:
        call_command("runmarket", *arguments)
    assert caught.value.returncode == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--data", "nowhere"], "nowhere: there is no such file or folder"),
        (["--port", "99999"], "Port 99999 cannot be used"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    assert complaint in failure(tmp_path, *arguments)


def failure(data_dir: Path, *arguments: str) -> str:
    """The one line with which a market fails to start."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "runmarket", *arguments],
        env=environment(data_dir),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    return line
