"""Fifty dashboards, ten of which never read: what they cost the engine, and what the others get.

    .venv/bin/python benchmarks/many_pages.py [--orders 20]

First without pages, then with them, five symbols give signals again and again, as in `bar_to_order.py`. The ten open
their WebSocket and read nothing, not even pings; one that the server has dropped is replaced. Prints one JSON object:
from a bar to its orders in milliseconds without and with pages, memory in megabytes, and of the forty readers how many
messages each got, how long after the first one that had it, how many went missing (numbers that no snapshot made up
for), and whether all ended with the same message.
"""

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bar_to_order import SETTINGS, SPEED, Signals
from benchmarks.engine_process import MANAGE, Engine, machine, percentiles, running
from benchmarks.market_process import play

READERS, DEAF = 40, 10
SMALL_BUFFER_BYTES = 4096
LAST_WORDS_SECONDS = 2
LOG_IN = """
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
client = Client()
client.force_login(User.objects.create_user("reader"))
print(f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}")
"""


def main() -> int:
    """Measures and prints; exit status 1 when a reader missed anything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=20, help="each without and with pages; default: %(default)s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), options.orders)
    print(json.dumps(measured, indent=2))
    return 1 if measured["missing_messages"] or not measured["all_ended_alike"] else 0


def measure(folder: Path, orders: int = 20) -> dict[str, Any]:
    """Waits for so many orders without pages, and for as many with them."""
    market = partial(play, Signals(), SPEED)
    with running(folder, market, settings=SETTINGS | {"LOG_LEVEL": "INFO"}, arguments=()) as (engine, told):
        waits: list[float] = []

        def has(count: int) -> bool:
            while told.poll():
                match told.recv():
                    case ("order", seconds):
                        waits.append(seconds * 1000)
            return len(waits) >= count

        engine.until(engine.is_trading)
        engine.until(lambda: has(orders))
        alone, before = list(waits), engine.megabytes()
        waits.clear()
        pages = Pages(engine)
        pages.start()
        engine.until(lambda: has(orders))
        after, on = engine.megabytes(), machine()
        pages.stop()
        return {
            "machine": on,
            "readers": READERS,
            "that_never_read": DEAF,
            "of_these_dropped_and_replaced": pages.replaced,
            "bar_to_order_without_pages_ms": percentiles(alone),
            "bar_to_order_with_pages_ms": percentiles(waits),
            "megabytes_without_pages": before,
            "megabytes_with_pages": after,
            **pages.what_they_got(),
            "shutdown_seconds": engine.stop(),
        }


class Pages(threading.Thread):
    """All pages, in a thread of their own."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(daemon=True)
        self.replaced = 0
        self._host = f"127.0.0.1:{engine.environment['ALGO_WEB__PORT']}"
        made = subprocess.run(
            [*MANAGE, "shell", "--no-imports", "-c", LOG_IN],
            env=dict(engine.environment),
            check=True,
            capture_output=True,
            text=True,
        )
        self._headers = {"Cookie": made.stdout.strip(), "Origin": f"http://{self._host}"}
        self._readers = [Reader() for _ in range(READERS)]
        self._stopped = threading.Event()

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        url = f"ws://{self._host}/ws/dashboard"
        tasks = [asyncio.create_task(reader.read(url, self._headers)) for reader in self._readers]
        deaf = [self._open_deaf() for _ in range(DEAF)]
        while not self._stopped.is_set():
            await asyncio.sleep(1)
            for index, each in enumerate(deaf):
                if _is_dropped(each):
                    each.close()
                    deaf[index] = self._open_deaf()
                    self.replaced += 1
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in deaf:
            each.close()

    def _open_deaf(self) -> socket.socket:
        host, port = self._host.split(":")
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        deaf.connect((host, int(port)))
        lines = {
            "Host": self._host, "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", **self._headers,
        }  # fmt: skip
        deaf.sendall(_request("/ws/dashboard", lines))
        return deaf

    def stop(self) -> None:
        """The readers get a moment for what is on its way."""
        time.sleep(LAST_WORDS_SECONDS)
        self._stopped.set()
        self.join()

    def what_they_got(self) -> dict[str, Any]:
        """The readers' figures."""
        first: dict[int, float] = {}
        for reader in self._readers:
            for number, at in reader.arrivals.items():
                first[number] = min(at, first.get(number, at))
        behind = [(at - first[number]) * 1000 for reader in self._readers for number, at in reader.arrivals.items()]
        counts = [len(reader.arrivals) for reader in self._readers]
        return {
            "messages_each": {"fewest": min(counts), "most": max(counts)},
            "behind_the_first_reader_ms": percentiles(behind),
            "missing_messages": sum(reader.missing for reader in self._readers),
            "snapshots": sum(reader.snapshots for reader in self._readers),
            "connections_lost": sum(reader.lost for reader in self._readers),
            "all_ended_alike": len({reader.latest for reader in self._readers}) == 1,
        }


class Reader:
    """One page that reads."""

    def __init__(self) -> None:
        self.arrivals: dict[int, float] = {}  # of each numbered message, by a clock of this process
        self.missing = self.snapshots = self.lost = self.latest = 0

    async def read(self, url: str, headers: Mapping[str, str]) -> None:
        """Until it is cancelled."""
        try:
            async with connect(url, additional_headers=headers, open_timeout=60, max_queue=None) as page:
                async for text in page:
                    self._take(json.loads(text))
        except ConnectionClosed:
            self.lost += 1

    def _take(self, message: Mapping[str, Any]) -> None:
        number = message["seq"]
        if message["type"] == "snapshot":
            self.snapshots += 1
        elif number > self.latest:
            self.missing += number - self.latest - 1
            self.arrivals[number] = time.monotonic()
        self.latest = max(self.latest, number)


def _request(path: str, lines: Mapping[str, str]) -> bytes:
    return "\r\n".join(
        [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in lines.items()), "", ""]
    ).encode()


def _is_dropped(client: socket.socket) -> bool:
    """Whether the server has closed the connection; nothing of what it sent is read."""
    info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return info[0] != 1  # TCP_ESTABLISHED


if __name__ == "__main__":
    sys.exit(main())
