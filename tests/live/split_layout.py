"""The layout of several processes: engine, web processes on one socket, worker, PostgreSQL, Redis and a market."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import requests
from django.conf import settings
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from trading.live import calendar

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 90.0
LOOK_SECONDS = 0.2
WEB_PROCESSES = ("web 1", "web 2")
WARM_UP_DAY, PLAYED_DAY = date(2024, 3, 4), date(2024, 3, 5)
SYMBOLS = ("AAPL", "TSLA", "AMD")
RISE_AND_FALL_CENTS = (6, 5, 7, -5, 6, -9, -7)
MARKET_KEYS = {"APCA-API-KEY-ID": "simulator", "APCA-API-SECRET-KEY": "simulator"}
BUSY_STRATEGY = {
    "ALGO_WATCHLIST": ",".join(SYMBOLS),
    "ALGO_VELEZ__SMA_FAST": "5",
    "ALGO_VELEZ__SMA_SLOW": "100",
    "ALGO_VELEZ__CANDLE_INTERVAL_MINUTES": "1",
    "ALGO_RISK__CONSECUTIVE_LOSS_PAUSE": "10",
    "ALGO_RISK__MAX_DAILY_LOSS_PCT": "0.10",
}


class Layout:
    """The processes by name. `start` one, `kill` one as the system would, or `stop` it in good order."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.door = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.door.getsockname()[1])
        redis_port, self.market_port = free_port(), free_port()
        market = f"127.0.0.1:{self.market_port}"
        write_bars(folder / "bars")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ALGO_")},
            **BUSY_STRATEGY,
            "DJANGO_SETTINGS_MODULE": "algotrader.settings",
            "ALGO_ENV_FILE": os.devnull,
            "ALGO_DATA_DIR": str(folder / "data"),
            "ALGO_DATABASE_URL": database_url,
            "ALGO_REDIS_URL": f"redis://127.0.0.1:{redis_port}",
            "ALGO_SECRET_KEY": settings.SECRET_KEY,
            "ALGO_WEB__PORT": str(self.port),
            "ALGO_BROKER__API_KEY": "simulator",
            "ALGO_BROKER__SECRET_KEY": "simulator",
            "ALGO_BROKER__TRADING_URL": f"http://{market}",
            "ALGO_BROKER__TRADING_STREAM_URL": f"ws://{market}/stream",
            "ALGO_BROKER__DATA_URL": f"http://{market}",
            "ALGO_BROKER__DATA_STREAM_URL": f"ws://{market}/v2/iex",
        }
        manage = (sys.executable, "manage.py")
        day = str(PLAYED_DAY)
        web = (sys.executable, "-m", "daphne", "--fd", str(self.door.fileno()), "algotrader.asgi:application")
        self.commands: dict[str, tuple[str, ...]] = {
            "redis": (
                "redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder),
            ),
            "market": (
                *manage, "runmarket", "--port", str(self.market_port), "--speed", "60",
                "--data", str(folder / "bars"), "--start-date", day, "--end-date", day,
            ),
            "engine": (*manage, "runengine", "--no-web", "--no-worker"),
            "worker": (*manage, "qcluster"),
            **dict.fromkeys(WEB_PROCESSES, web),
        }  # fmt: skip

    def start(self, name: str) -> None:
        """Run the process; it comes up at its own pace."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                self.commands[name], cwd=ROOT, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                pass_fds=[self.door.fileno()] if name in WEB_PROCESSES else [], start_new_session=True,
            )  # fmt: skip
        if name == "market":
            until(lambda: self._market_answers(), "the market does not answer")

    def kill(self, name: str) -> None:
        """Ends the process and its children without a warning."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self, name: str) -> int:
        """Asks the process to end, and returns its exit status."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        for name in list(self.processes):
            self.kill(name)
        self.door.close()

    def manage(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a management command in this layout's environment."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments], cwd=ROOT, env=self.environment,
            capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
        )  # fmt: skip

    def log(self, name: str) -> str:
        """What the process wrote."""
        return (self.folder / f"{name}.log").read_text()

    def _market_answers(self) -> bool:
        try:
            return bool(self.at_the_broker("account"))
        except requests.RequestException:
            return False

    def at_the_broker(self, what: str, **query: str) -> Any:
        """What the market's trading API says."""
        url = f"http://127.0.0.1:{self.market_port}/v2/{what}"
        answer = requests.get(url, params=query, headers=MARKET_KEYS, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def market_time(self) -> datetime:
        """The market's clock, a minute of which passes in a second."""
        return datetime.fromisoformat(self.at_the_broker("clock")["timestamp"])


@contextmanager
def running(folder: Path, database_url: str) -> Iterator[Layout]:
    """The whole layout, up; nothing of it is left behind."""
    layout = Layout(folder, database_url)
    try:
        for name in layout.commands:
            layout.start(name)
        yield layout
    finally:
        layout.close()


class PageSocket:
    """A page's WebSocket: like the page it connects again when it is closed. `state` is the latest snapshot's data."""

    def __init__(self, port: int, cookie: str) -> None:
        self._address, self._origin = f"ws://127.0.0.1:{port}/ws/dashboard", f"http://127.0.0.1:{port}"
        self._headers = {"Cookie": f"{settings.SESSION_COOKIE_NAME}={cookie}"}
        self._socket: ClientConnection | None = None
        self.connects = 0

    def until_engine_speaks(self, *, run_id: int) -> None:
        """Returns when this engine has sent a snapshot that says that it is connected, and an update after it."""
        while self._next(wait_seconds=0) is not None:
            pass  # what was said before
        self._ask_again()
        deadline = time.monotonic() + PATIENCE_SECONDS
        seen = False
        while time.monotonic() < deadline:
            message = self._next()
            if message is None or message["run_id"] != run_id:
                seen = False
            elif message["type"] == "snapshot":
                seen = message["data"]["connection"]["status"] == "connected"
                if not seen:
                    self._ask_again()
            elif message["type"] == "connection_status" and message["data"]["status"] == "connected":
                self._ask_again()
            elif seen and message["type"] == "candle":
                return
        raise AssertionError("the page never heard of the engine again")

    def until_engine_is_missed(self) -> None:
        """Returns when the page is told that no engine answers."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            message = self._next()
            if message and message["type"] == "snapshot" and message["data"]["connection"]["status"] == "disconnected":
                return
        raise AssertionError("the page never noticed that the engine is gone")

    def until_ledger_is_lost(self, lost: bool) -> None:
        """Returns when the page is told by the engine that the ledger cannot be written, or that it can again."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            message = self._next()
            if message and message["type"] == "connection_status" and bool(message["data"]["ledger_problem"]) is lost:
                return
        raise AssertionError("the page never heard of it")

    def close(self) -> None:
        if self._socket is not None:
            with suppress(OSError, WebSocketException):
                self._socket.close()
            self._socket = None

    def _ask_again(self) -> None:
        if self._socket is not None:
            time.sleep(LOOK_SECONDS)
            with suppress(OSError, WebSocketException):  # the next receive finds out
                self._socket.send('{"type": "snapshot"}')

    def _next(self, wait_seconds: float = 5.0) -> dict[str, Any] | None:
        try:
            if self._socket is None:
                self._socket = connect(
                    self._address,
                    origin=Origin(self._origin),
                    additional_headers=self._headers,
                    open_timeout=10,
                    ping_interval=None,
                    proxy=None,
                    legacy=True,
                )
                self.connects += 1
            message: dict[str, Any] = json.loads(self._socket.recv(timeout=wait_seconds))
            return message
        except TimeoutError:
            return None
        except (OSError, WebSocketException):
            self.close()
            time.sleep(LOOK_SECONDS)
            return None


def write_bars(folder: Path) -> None:
    """Two sessions that rise and fall by cents, so that a strategy with short averages trades every few minutes."""
    folder.mkdir(parents=True)
    for seed, symbol in enumerate(SYMBOLS):
        chance, lines, cents = random.Random(seed), ["timestamp,open,high,low,close,volume"], 10_000
        for session in calendar.sessions(WARM_UP_DAY, PLAYED_DAY):
            for minute in range(390):
                closes = cents + RISE_AND_FALL_CENTS[minute % 7] + chance.randint(-1, 1)
                prices = (cents, max(cents, closes) + 1, min(cents, closes) - 1, closes)
                stamp = f"{session.open + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%SZ}"
                lines.append(",".join([stamp, *(f"{price // 100}.{price % 100:02}" for price in prices), "10000"]))
                cents = closes
        (folder / f"{symbol}.csv").write_text("\n".join([*lines, ""]))


def until(condition: Callable[[], object], otherwise: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Returns when the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(LOOK_SECONDS)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
