"""Stops the running engine gracefully and waits for its end."""

import time
from typing import Any

from django.core.management.base import CommandParser

from dashboard import store
from dashboard.management import running_engine
from dashboard.management.running_engine import NoAnswer
from dashboard.templatetags.figures import price, quantity
from orders.command import OneLineCommand, UserError
from trading import store as trading_store
from trading.store import Lease

DEFAULT_TIMEOUT_SECONDS = 30.0
POLL_SECONDS = 0.2
ASKED_BY = "stopengine"


class Command(OneLineCommand):
    help = "Stop the running engine gracefully; open positions keep their stops at the broker."

    def add_arguments(self, parser: CommandParser) -> None:
        """How long to wait, and whether positions are closed first."""
        parser.add_argument(
            "--timeout", type=float, default=DEFAULT_TIMEOUT_SECONDS, metavar="S", help="seconds to wait for its end"
        )
        parser.add_argument("--flatten", action="store_true", help="close every position at market first")

    def handle(self, *args: Any, **options: Any) -> None:
        """Ask, wait, and say what was left open."""
        run, lease = trading_store.last_run(), trading_store.live_lease()
        ask_to_stop(flatten=options["flatten"])
        wait_for_end(lease, timeout_seconds=options["timeout"])
        ended = trading_store.load_run(run.id) if run else None
        if ended is not None and ended.outcome == "failed":
            raise UserError(f"The engine stopped, but not in good order: {ended.reason}.")
        self.stdout.write("Engine stopped.")
        for position, stop_price in store.open_positions(ended.account_id) if ended else []:
            stop = "WITHOUT a stop" if stop_price is None else f"with its stop at {price(stop_price)}"
            self.stdout.write(f"Left open: {quantity(position.qty)} {position.symbol} {position.side}, {stop}.")


def ask_to_stop(*, flatten: bool) -> None:
    """Ask over HTTP, else by a row for the lease's holder. Raises UserError when there is no engine."""
    try:
        status, _ = running_engine.call("POST", "shutdown", {"flatten": flatten})
        if status == 202:
            return
    except NoAnswer:
        pass
    try:
        trading_store.ask("shutdown", {"flatten": flatten}, by=ASKED_BY)
    except trading_store.NoLiveEngine:
        raise running_engine.not_running() from None


def wait_for_end(lease: Lease | None, *, timeout_seconds: float) -> None:
    """Return when the lease is given up and its holder's pages are closed. Raises UserError if that takes too long."""
    deadline = time.monotonic() + timeout_seconds
    while trading_store.live_lease() is not None or (lease is not None and _serves_pages(lease)):
        if time.monotonic() >= deadline:
            raise UserError(
                f"The engine has not stopped within {timeout_seconds:g} s: look at its log, ask again with a longer "
                "--timeout, or close everything with `manage.py flatten`."
            )
        time.sleep(POLL_SECONDS)


def _serves_pages(lease: Lease) -> bool:
    """Whether the engine's own pages still answer; they are closed after the lease, just before its process ends."""
    if lease.port is None:
        return False
    try:
        running_engine.call("GET", "health")
    except NoAnswer:
        return False
    return True
