"""A program like the engine's for the tests of the web server: a task that ticks and the pages, in one event loop.

`python web_program.py HOST PORT` prints a line of JSON when it serves, and another one when it has stopped, which it
does as soon as its stdin ends.
"""

import asyncio
import json
import os
import sys
import time
from typing import Any

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "algotrader.settings"
django.setup()

from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from channels.layers import get_channel_layer  # noqa: E402
from channels.routing import ProtocolTypeRouter  # noqa: E402

from algotrader.asgi import http_application  # noqa: E402
from trading.live.web import CannotServe, WebServer, run_with_twisted  # noqa: E402

TICK_SECONDS = 0.01
EXIT_STATUS = 7


class Page(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels comes without types
    """What a browser is connected to: it gets whatever is broadcast."""

    groups = ("dashboard",)

    async def dashboard_message(self, message: dict[str, Any]) -> None:
        """One broadcast."""
        await self.send(message["text"])


async def slow_or_django(scope: Any, receive: Any, send: Any) -> None:
    """`/slow?SECONDS` answers after so many seconds, everything else is Django's."""
    if scope["path"] != "/slow":
        await http_application(scope, receive, send)
        return
    await asyncio.sleep(float(scope["query_string"]))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


async def main() -> int:
    """Tick, broadcast and serve until stdin ends."""
    server = WebServer(ProtocolTypeRouter({"http": slow_or_django, "websocket": Page.as_asgi()}))
    try:
        await server.start(sys.argv[1], int(sys.argv[2]))
    except CannotServe as error:
        print(json.dumps({"error": type(error).__name__, "text": str(error)}), flush=True)  # noqa: T201
        return 1
    ticks: list[float] = []
    ticking = asyncio.create_task(tick(ticks))
    print(json.dumps({"port": server.port}), flush=True)  # noqa: T201
    await asyncio.to_thread(sys.stdin.read)
    ticking.cancel()
    await broadcast("shutting_down")
    await server.stop()
    print(json.dumps({"ticks": len(ticks)}), flush=True)  # noqa: T201
    return EXIT_STATUS


async def tick(ticks: list[float]) -> None:
    """The engine's part: regular work, and a broadcast each time."""
    while True:
        await asyncio.sleep(TICK_SECONDS)
        ticks.append(time.monotonic())
        await broadcast(f"{ticks[-1]}")


async def broadcast(text: str) -> None:
    """Send one message to every page."""
    await get_channel_layer().group_send("dashboard", {"type": "dashboard.message", "text": text})


if __name__ == "__main__":
    sys.exit(run_with_twisted(main))
