"""An engine as a process of its own, trading on a market that the test conducts, with everything it said and did."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import requests

from tests.built_in_market import KEYS

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60


class EngineProcess:
    """`manage.py runengine` on `market`, with the database at `url` and a data folder."""

    def __init__(
        self,
        urls: Mapping[str, str],
        folder: Path,
        url: str,
        *arguments: str,
        keys: tuple[str, str] = KEYS,
        **settings: str,
    ) -> None:
        self.folder = folder
        self.url = url
        self._token = ""
        self.variables = environment(urls, folder, url, keys=keys, **settings)
        self.log_file = folder / f"engine-{len(list(folder.glob('engine-*.log')))}.log"
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "runengine", "--no-worker", *(arguments or ("--no-web",))],
                cwd=ROOT,
                env=self.variables,
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    async def says(self, text: str, *, times: int = 1) -> None:
        """Returns when its log has that text."""
        await self.until(lambda: self.log.count(text) >= times, f"never said {text!r}")

    async def until(self, condition: Callable[[], bool], otherwise: str) -> None:
        """Returns when the condition holds; fails when the engine ends or too much time passes."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.log[-3000:]}"
            assert time.monotonic() < deadline, f"{otherwise}: {self.log[-3000:]}"
            await asyncio.sleep(0.05)

    async def stops(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit status after the signal."""
        self.process.send_signal(number)
        return await self.ends()

    async def ends(self) -> int:
        """Its exit status."""
        return await asyncio.to_thread(self.process.wait, PATIENCE_SECONDS)

    async def api(self, method: str, path: str) -> Any:
        """What its HTTP API answers to somebody who may trade."""
        if not self._token:
            made = await asyncio.to_thread(self.manage, "apitoken", "--role", "trader")
            self._token = made.stdout.strip()
        url = f"http://127.0.0.1:{self.variables['ALGO_WEB__PORT']}/api/{path}"
        headers = {"Authorization": f"Bearer {self._token}"}
        answer = await asyncio.to_thread(requests.request, method, url, headers=headers, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def kill(self) -> None:
        """Whatever it does, it ends now."""
        self.process.kill()
        self.process.wait()

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another command on the same settings."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )


def environment(
    urls: Mapping[str, str], folder: Path, url: str, *, keys: tuple[str, str] = KEYS, **settings: str
) -> dict[str, str]:
    """The variables of an engine, or a command, on that market and database."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("ALGO_", "DJANGO_"))}
    chosen = {
        "broker__provider": "alpaca",
        "broker__api_key": keys[0],
        "broker__secret_key": keys[1],
        **{f"broker__{name}": text for name, text in urls.items()},
        "watchlist": "AAPL",
        "database_url": url,
        "data_dir": str(folder),
        "env_file": os.devnull,
        "web__port": str(free_port()),
        **settings,
    }
    return kept | {f"ALGO_{name.upper()}": text for name, text in chosen.items()}


def free_port() -> int:
    """A port on which nobody listens just now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Account:
    """The account at the market, over the market's own HTTP."""

    def __init__(self, trading_url: str, keys: tuple[str, str] = KEYS) -> None:
        self._url = trading_url
        self._headers = {"APCA-API-KEY-ID": keys[0], "APCA-API-SECRET-KEY": keys[1]}

    async def ask(self, method: str, path: str, **request: Any) -> Any:
        """The JSON of the market's answer."""
        return await asyncio.to_thread(self.call, method, path, **request)

    def call(self, method: str, path: str, **request: Any) -> Any:
        """As `ask`, for those who wait."""
        answer = requests.request(method, f"{self._url}{path}", headers=self._headers, timeout=10, **request)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    async def buy(self, qty: int, symbol: str = "AAPL") -> None:
        """Bought at market by somebody else."""
        order = {"symbol": symbol, "qty": str(qty), "side": "buy", "type": "market", "time_in_force": "day"}
        await self.ask("POST", "/v2/orders", json=order)

    async def working(self) -> list[dict[str, Any]]:
        """Orders that have not ended."""
        found: list[dict[str, Any]] = await self.ask("GET", "/v2/orders?status=open")
        return found

    async def held(self) -> dict[str, int]:
        """Shares by symbol."""
        return {each["symbol"]: int(each["qty"]) for each in await self.ask("GET", "/v2/positions")}

    async def cancel(self, order: Mapping[str, Any]) -> None:
        """Cancelled by somebody else."""
        await self.ask("DELETE", f"/v2/orders/{order['id']}")

    async def one_stop(self, engine: EngineProcess, qty: int, *, other_than: str = "") -> dict[str, Any]:
        """The only working order, once it is a stop for so many shares, and not that one."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            orders = await self.working()
            found = [(each["type"], each["qty"]) for each in orders if each["id"] != other_than]
            if found == [("stop", str(qty))]:
                return orders[0]
            assert time.monotonic() < deadline, f"{orders} {engine.log[-3000:]}"
            assert engine.process.poll() is None, engine.log[-3000:]
            await asyncio.sleep(0.05)
