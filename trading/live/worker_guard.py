"""Runs the command of its arguments until that ends or its own stdin does, and lets nothing of its group live on.

Its stdin is a pipe whose other end the engine holds: it ends when the engine closes it, and also when the engine is
killed, on every system. A program of its own, so that it needs nothing but Python and stays small.
"""

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress

LOOK_SECONDS = 0.5
GRACE_SECONDS = 3.0


def main() -> None:
    """Watch, then end the command politely and everything else of the process group at once, this process included."""
    worker = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    try:
        while worker.poll() is None and _engine_is_there():
            pass
        worker.terminate()
        with suppress(subprocess.TimeoutExpired):
            worker.wait(GRACE_SECONDS)
        line = {"event": "worker.ended", "level": "info", "logger": "worker", "status": worker.poll()}
        with suppress(OSError):  # nobody reads it when the engine was killed
            os.write(sys.stdout.fileno(), json.dumps(line).encode() + b"\n")
    finally:
        os.killpg(0, signal.SIGKILL)


def _engine_is_there() -> bool:
    """False once the pipe is closed; looks for half a second."""
    stdin = sys.stdin.fileno()
    readable, _, _ = select.select([stdin], [], [], LOOK_SECONDS)
    return not readable or os.read(stdin, 1) != b""


if __name__ == "__main__":
    main()
