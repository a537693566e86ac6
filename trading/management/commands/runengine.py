"""`manage.py runengine`: the engine, the dashboard and, with the built-in market, the market, in one process."""

import sys
from typing import Any

from django.core.management.base import CommandParser

from orders.guards import GuardedCommand
from trading.management.arguments import add_market_arguments, check_market_arguments, symbols


class Command(GuardedCommand):
    """Trades until stopped by Ctrl-C, by SIGTERM, by `stopengine`, or by the end of replayed data."""

    help = "Run the trading engine with its dashboard. Without keys it trades the built-in market."

    def add_arguments(self, parser: CommandParser) -> None:
        """What belongs to one run; everything else is configuration (`showconfig`)."""
        parser.add_argument("--provider", choices=("alpaca", "simulator"), default="", help="overrides the setting")
        parser.add_argument("--no-web", action="store_true", help="no dashboard in this process")
        parser.add_argument("--no-worker", action="store_true", help="no background worker beside this process")
        parser.add_argument("--symbols", type=symbols, default=(), metavar="A,B", help="instead of the watchlist")
        add_market_arguments(parser)
        parser.add_argument("--stay", action="store_true", help="keep running after the last replayed bar")

    def handle(self, **options: Any) -> None:
        """Runs the engine in the event loop that also serves the pages."""
        check_market_arguments(options)
        from trading.live.process import Options, run_engine
        from trading.live.web import run_with_twisted

        wanted = Options(
            provider=options["provider"],
            symbols=options["symbols"],
            web=not options["no_web"],
            worker=not options["no_worker"],
            speed=options["speed"],
            data=options["data"],
            start_date=options["start_date"],
            end_date=options["end_date"],
            initial_capital=options["initial_capital"],
            seed=options["seed"],
            stay=options["stay"],
        )
        sys.exit(run_with_twisted(lambda: run_engine(wanted)))
