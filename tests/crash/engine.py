"""The real engine in a process of its own, on a scripted market, with a point at which it kills itself."""

import asyncio
import os
import signal
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from django.conf import settings as django_settings

from risk.config import Config
from tests.crash import ledger
from tests.crash.days import SETTINGS, Day
from tests.crash.link import EngineEnd, SharedClock
from tests.crash.market import ADDRESS, CLOCK, KEYS, LINK
from tests.crash.points import Point, Points, Watched
from trading.live.alpaca import AlpacaBroker, AlpacaData
from trading.live.alpaca_workers import DEFAULT_TIMING
from trading.live.calls import RateLimiter
from trading.live.place import Place
from trading.live.process import EngineProcess, Options, Parts
from trading.live.signals import stop_on_signals

REQUESTS_PER_MINUTE = 60_000
FIRST_RETRY_SECONDS = 0.02


async def trade(day: Day, folder: Path, log: Path, fatal: Point | None, seen: Counter[str], last: int) -> int:
    """Runs the engine until it is asked to stop, or dies; its exit status."""
    points = Points(log, fatal, seen=seen, last=last)
    ledger.use(folder, points)
    django_settings.ALGO = django_settings.ALGO.with_overrides({**SETTINGS, **day.settings})

    async def opening(config: Config, options: Options, cleanup: AsyncExitStack) -> Place:
        return await _open_place(folder, points)

    options = Options(provider="simulator", symbols=day.symbols, web=False, worker=False)
    async with AsyncExitStack() as cleanup:
        process = EngineProcess(options, cleanup, Parts(place=opening))
        stop_on_signals(process.stop)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _tell_tasks)
        return await process.run()


def _tell_tasks() -> None:
    """Where every task of an engine that does not end is."""
    for task in asyncio.all_tasks():
        task.print_stack()


async def _open_place(folder: Path, points: Points) -> Place:
    url = (folder / ADDRESS).read_text()
    stream = url.replace("http", "ws")
    timing = replace(DEFAULT_TIMING, first_retry_seconds=FIRST_RETRY_SECONDS)
    link = EngineEnd()
    await link.connect(folder / LINK)
    broker = AlpacaBroker(*KEYS, trading_url=url, trading_stream_url=f"{stream}/stream", timing=timing)
    data = AlpacaData(*KEYS, data_url=url, data_stream_url=f"{stream}/v2/iex", timing=timing)
    return Place(
        broker=cast("Any", Watched(broker, "broker", points)),
        data=cast("Any", Watched(data, "data", points)),
        clock=SharedClock(folder / CLOCK),
        limiter=RateLimiter(REQUESTS_PER_MINUTE),
        data_limiter=RateLimiter(REQUESTS_PER_MINUTE),
        lockstep=link,
        begin=link.begin,
    )


def run(day: Day, folder: Path, log: Path, fatal: Point | None, seen: Counter[str], last: int) -> int:
    """As a process does it: its output goes to a file beside its points."""
    output = os.open(log.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    return asyncio.run(trade(day, folder, log, fatal, seen, last))
