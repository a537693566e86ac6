"""An engine with a worker, to be killed: `python worker_program.py COMMAND...` prints the worker's process group."""

import asyncio
import sys

from trading.live.worker import Worker


async def main() -> None:
    """Go on until killed."""
    worker = Worker(sys.argv[1:])
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(0)
    print(worker.pid, flush=True)  # noqa: T201
    await running


asyncio.run(main())
