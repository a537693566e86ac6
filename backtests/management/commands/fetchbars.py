"""Fetches history from the provider into the local bar store."""

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from functools import partial
from typing import Any, NoReturn

from django.conf import settings
from django.core.management.base import CommandParser
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from backtests.fetching import Fetched, fetch
from orders.command import OneLineCommand, UserError
from risk.config import Config
from trading.broker import BrokerError, NotAuthorized, OrderRefused
from trading.live import calendar
from trading.live.barstore import BarStore, BrokenStore
from trading.live.calls import DataCalls
from trading.management.arguments import day, symbols
from trading.market import Session

BARS_NAMED = 20
RECENT_SIP = (
    "the last 15 minutes of the sip feed are for subscribers alone: ask again 15 minutes after the close, name an "
    "earlier --end-date, or set ALGO_BROKER__FEED=iex"
)


class Command(OneLineCommand):
    """A fetch that was interrupted, however, goes on where it was when it is asked for again."""

    help = (
        "Fetch minute bars, as they were traded, from the provider into the local bar store. Sessions that were "
        "fetched whole before are not asked for again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """What to fetch."""
        parser.add_argument("--symbols", required=True, type=symbols, metavar="A,B")
        parser.add_argument("--start-date", required=True, type=day, metavar="YYYY-MM-DD", help="first session")
        parser.add_argument("--end-date", required=True, type=day, metavar="YYYY-MM-DD", help="last one, included")

    def handle(self, *args: Any, **options: Any) -> None:
        """Symbol by symbol; what could be fetched before something went wrong stays in the store."""
        config: Config = settings.ALGO
        if config["broker.provider"] == "simulator":
            raise UserError(
                "there is no provider to fetch from: set ALGO_BROKER__API_KEY and ALGO_BROKER__SECRET_KEY, "
                "or import files with `manage.py importbars`"
            )
        # Both bring alpaca-py or requests.
        from trading.live.place import alpaca_data, clock_of, data_source

        now = clock_of(config["broker.trading_url"])
        sessions = _sessions(options["start_date"], options["end_date"], now())
        calls = DataCalls(alpaca_data(config))
        done: list[Fetched] = []
        fetching = self._fetch(calls, options["symbols"], sessions, source=data_source(config), now=now, done=done)
        try:
            asyncio.run(fetching)
        except (BrokerError, BrokenStore, OSError) as error:
            _explain(error, feed=config["broker.feed"])
        finally:  # when the progress bar is gone
            for fetched in done:
                self._tell(fetched)
        nothing = [fetched.symbol for fetched in done if fetched.sessions == len(fetched.empty) and not fetched.kept]
        if nothing:
            span = f"from {options['start_date']} to {options['end_date']}"
            raise UserError(f"the provider has no bars of {', '.join(nothing)} {span}")

    async def _fetch(
        self,
        calls: DataCalls,
        chosen: Sequence[str],
        sessions: Sequence[Session],
        *,
        source: str,
        now: Callable[[], datetime],
        done: list[Fetched],
    ) -> None:
        store = BarStore(settings.DATA_DIR / "bars")
        try:
            await calls.data.connect()
            with _progress(len(chosen) * len(sessions)) as advance:
                for symbol in chosen:
                    advance(symbol, 0)
                    fetched = await fetch(
                        calls,
                        store,
                        symbol,
                        sessions,
                        source=source,
                        now=now,
                        on_sessions=partial(advance, symbol),
                    )
                    done.append(fetched)
        finally:
            await calls.data.disconnect()

    def _tell(self, fetched: Fetched) -> None:
        for line in fetched.faulty[:BARS_NAMED]:
            self.stderr.write(f"left out: {line}")
        if (more := len(fetched.faulty) - BARS_NAMED) > 0:
            self.stderr.write(f"left out: {more:,} more bars of {fetched.symbol} that cannot be true")
        self.stdout.write(
            f"{fetched.symbol}: {fetched.sessions:,} sessions with {fetched.bars:,} bars fetched, "
            f"{fetched.added:,} new, {fetched.changed:,} changed; {len(fetched.empty):,} sessions without a bar, "
            f"{len(fetched.faulty):,} bars left out, {fetched.kept:,} sessions were there"
        )


def _sessions(start: date, end: date, now: datetime) -> list[Session]:
    """The sessions asked for that have begun. Raises UserError if there is none."""
    if end < start:
        raise UserError(f"the end date {end} lies before the start date {start}")
    try:
        sessions = calendar.sessions(start, end)
    except calendar.OutsideCalendar as error:
        raise UserError(str(error)) from error
    if not sessions:
        raise UserError(f"there is no trading session from {start} to {end}")
    begun = [session for session in sessions if session.open < now]
    if not begun:
        raise UserError(f"no session from {start} to {end} has begun: it is {now:%Y-%m-%d %H:%M} UTC")
    return begun


def _explain(error: Exception, *, feed: str) -> NoReturn:
    """The error in words that say what to do."""
    stays = "What was fetched stays; ask again to go on."
    if isinstance(error, OrderRefused) and "recent sip data" in str(error).lower():
        raise UserError(f"Refused: {RECENT_SIP}. {stays}") from error
    if isinstance(error, NotAuthorized):
        raise UserError(f"The provider refuses the keys: {error}") from error
    if isinstance(error, OrderRefused):
        raise UserError(f"The provider refuses the request for the {feed} feed: {error}. {stays}") from error
    if isinstance(error, BrokerError):
        raise UserError(f"The provider does not answer: {error}. {stays}") from error
    raise UserError(str(error)) from error


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str, int], None]]:
    """A bar on a terminal's stderr that counts sessions of all symbols, gone when all is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    is_shown = sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not is_shown) as progress:
        task = progress.add_task("sessions", total=total)
        yield lambda symbol, count: progress.update(task, description=f"{symbol} sessions", advance=count)
