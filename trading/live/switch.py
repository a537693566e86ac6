"""Halting and resuming from the command line: by the engine if one runs, else in the ledger for its next start."""

import time
from datetime import UTC, datetime

from orders.command import UserError
from risk import store as risk_store
from trading import store

DONE_SECONDS = 15.0
POLL_SECONDS = 0.1


def switch(kind: str, *, by: str) -> str:
    """Halts (`halt`) or resumes (`resume`) trading; what was done, in one line.

    Raises:
        UserError: the engine does not do it, or there is no account yet.
    """
    try:
        request = store.ask(kind, {}, by=by)
    except store.NoLiveEngine:
        return _write(halted=kind == "halt")
    deadline = time.monotonic() + DONE_SECONDS
    while request.done_at is None:
        if time.monotonic() > deadline:
            raise UserError(
                f"The engine has not done it within {DONE_SECONDS:g} s: look at its log. `manage.py flatten` works "
                "past an engine that hangs."
            )
        time.sleep(POLL_SECONDS)
        request = store.find_request(request.id)
    if request.error:
        raise UserError(request.error)
    return f"The engine has {'halted' if kind == 'halt' else 'resumed'}: {_meaning(kind == 'halt')}"


def _write(*, halted: bool) -> str:
    run = store.last_run()
    if run is None:
        raise UserError("There is no account yet: no engine ever ran on this database.")
    now = datetime.now(UTC)
    risk_store.set_halted(run.account_id, halted, day=now.astimezone(store.NEW_YORK).date(), real_at=now)
    verb = "halted" if halted else "resumed"
    return f"No engine is running. {run.account_id} is {verb} in the ledger: {_meaning(halted)}"


def _meaning(is_halted: bool) -> str:
    return "no new entries, positions keep their stops." if is_halted else "new entries are allowed again."
