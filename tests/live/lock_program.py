"""An engine's lock in a process of its own: `python lock_program.py DATABASE` does what its stdin says, line by line.

DATABASE is Django's entry for the database as JSON. Each line names a method of EngineLock; the answer is its result or
its error, as a line of JSON.
"""

import json
import subprocess
import sys

from django.conf import settings

settings.configure(DATABASES={"default": json.loads(sys.argv[1])})

from trading.live.lock import EngineLock, LockFailed  # noqa: E402  after the settings

lock = EngineLock()
# A child like the worker, which may outlive the engine for a moment.
with subprocess.Popen(["sleep", "15"], stdout=subprocess.DEVNULL) as child:
    for line in sys.stdin:
        try:
            answer = getattr(lock, line.strip())()
        except LockFailed as error:
            answer = [type(error).__name__, str(error)]
        print(json.dumps(answer), flush=True)  # noqa: T201
    child.kill()
