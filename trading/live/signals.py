"""The first SIGINT or SIGTERM asks the engine to stop, the second one ends the process at once."""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

AT_ONCE_STATUS = 130
FLUSH_SECONDS = 0.5


def stop_on_signals(stop: Callable[[str], object]) -> None:
    """From now on the first signal calls `stop`, once, with its name ("SIGINT") in the running event loop.

    A second SIGINT or SIGTERM exits with status 130 even if the loop hangs: nothing is finished, the broker holds the
    stops, and the next start reconciles. A closed terminal (SIGHUP) stops gracefully too but is no first signal, since
    a logout may send others right after it; under nohup it stays ignored.
    """
    loop = asyncio.get_running_loop()
    is_second = was_asked = False

    def ask(name: str) -> None:
        nonlocal was_asked
        if not was_asked:
            was_asked = True
            stop(name)

    def count(number: int, frame: FrameType | None) -> None:
        nonlocal is_second
        if number != signal.SIGHUP:
            if is_second:
                _exit_at_once()
            is_second = True

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue
        # The loop's handler wakes the loop up, and runs when the loop comes round; Python's own runs between any two
        # instructions of the main thread.
        loop.add_signal_handler(number, ask, number.name)
        signal.signal(number, count)


def _exit_at_once() -> None:
    """Exit, after at most half a second for lines that are not written yet: whoever reads them may have stopped."""
    flushing = threading.Thread(target=_flush, daemon=True)
    with suppress(RuntimeError):  # no more threads
        flushing.start()
        flushing.join(FLUSH_SECONDS)
    os._exit(AT_ONCE_STATUS)


def _flush() -> None:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
