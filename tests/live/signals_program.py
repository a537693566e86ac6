"""An engine's loop with its signal handlers: `python signals_program.py idle|hangs|deaf`.

`hangs`: the loop never comes round again after the start. `deaf`: nobody reads its log. On stderr it says
`ready`, then the reason it was told to stop for, and two seconds later it stops.
"""

import asyncio
import logging
import sys
import time

from trading.live.signals import stop_on_signals


async def main(kind: str) -> int:
    """Wait for the signal."""
    reasons: asyncio.Queue[str] = asyncio.Queue()
    stop_on_signals(reasons.put_nowait)
    print("ready", file=sys.stderr)  # noqa: T201
    while kind == "hangs":
        time.sleep(0.01)  # noqa: ASYNC251  that is the point
    reason = await reasons.get()
    print("not flushed yet", end="")  # noqa: T201
    print(reason, file=sys.stderr)  # noqa: T201
    if kind == "deaf":
        logging.basicConfig(stream=sys.stdout)
        await asyncio.to_thread(logging.warning, "x" * 1_000_000)
    await asyncio.sleep(2)
    return 0


sys.exit(asyncio.run(main(sys.argv[1])))
