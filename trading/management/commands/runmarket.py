"""`manage.py runmarket`: the built-in market alone, for an engine in another process."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from orders.command import OneLineCommand, UserError
from risk.config import Config
from trading.live.signals import stop_on_signals
from trading.management.arguments import BAD_USAGE, add_market_arguments, check_market_arguments, symbols
from trading.simulator.faults import NO_FAULTS, BadSchedule, find_schedule

if TYPE_CHECKING:
    from trading.simulator.market import Market

DEFAULT_PORT = 8900


class Command(OneLineCommand):
    """Serves Alpaca's protocol on loopback until stopped. The account is kept in a file below the data folder."""

    help = "Run the built-in market alone; an engine elsewhere trades on it as it would at Alpaca."

    def add_arguments(self, parser: CommandParser) -> None:
        """Where it listens, and what it plays."""
        parser.add_argument("--port", type=int, default=DEFAULT_PORT, metavar="N", help="0: any free one")
        parser.add_argument("--symbols", type=symbols, default=(), metavar="A,B", help="instead of the watchlist")
        add_market_arguments(parser)
        parser.add_argument(
            "--faults",
            metavar="SEED|FILE",
            default="",
            help="what goes wrong: a number gives a handful of faults, a file of JSON names them (docs/reliability.md)",
        )

    def handle(self, **options: Any) -> None:
        """Runs until SIGINT or SIGTERM."""
        check_market_arguments(options)
        if options["faults"]:
            try:
                options["faults"] = find_schedule(options["faults"])
            except BadSchedule as error:
                raise CommandError(str(error), returncode=BAD_USAGE) from error
            for fault in options["faults"].faults:
                self.stderr.write(f"fault: {fault}")
        if options["speed"] == 0:
            raise CommandError(
                "--speed 0 needs the engine in the market's process (`manage.py runengine --speed 0`): "
                "alone the market cannot tell when the engine is ready.",
                returncode=BAD_USAGE,
            )
        asyncio.run(self._run(options))

    async def _run(self, options: dict[str, Any]) -> None:
        stopped = asyncio.Event()
        stop_on_signals(lambda name: stopped.set())
        market = await self._open(settings.ALGO, options)
        running = asyncio.create_task(market.run())
        ended = asyncio.create_task(self._tell_end(market))
        waiting = asyncio.create_task(stopped.wait())
        market.begin()
        try:
            await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()  # an error of the market ends the program; the end of the bars does not
                await waiting
        finally:
            for task in (running, ended, waiting):
                task.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await market.stop()

    async def _open(self, config: Config, options: dict[str, Any]) -> "Market":
        from trading.simulator.market import DEFAULT_KEYS
        from trading.simulator.opening import market_bars, open_market

        keys = config["broker.api_key"], config["broker.secret_key"]
        has_own_keys = all(keys)
        name = "replay" if options["data"] else f"synthetic-{options['seed']}"
        market = open_market(
            config,
            bars=market_bars(
                options["data"],
                symbols=options["symbols"] or (() if options["data"] else config["watchlist"]),
                start_date=options["start_date"],
                end_date=options["end_date"],
                seed=options["seed"],
            ),
            account_number="REPLAY" if options["data"] else f"SIM-{options['seed']}",
            account_path=Path(settings.DATA_DIR) / "market" / f"{name}.db",
            initial_capital=options["initial_capital"],
            speed=options["speed"],
            keys=keys if has_own_keys else DEFAULT_KEYS,
            faults=options["faults"] or NO_FAULTS,
        )
        try:
            await market.start(port=options["port"])
        except (OSError, OverflowError) as error:
            await market.stop()
            raise UserError(f"Port {options['port']} cannot be used: {error}. Choose another with --port.") from error
        self._tell_settings(market, keys=None if has_own_keys else DEFAULT_KEYS)
        return market

    def _tell_settings(self, market: "Market", *, keys: tuple[str, str] | None) -> None:
        """What an engine needs to find this market, to paste into its environment; own keys are never printed."""
        lines = {"provider": "alpaca", **market.urls}
        if keys is not None:
            lines |= {"api_key": keys[0], "secret_key": keys[1]}
        for name, value in lines.items():
            self.stdout.write(f"ALGO_BROKER__{name.upper()}={value}")
        self.stdout.flush()

    async def _tell_end(self, market: "Market") -> None:
        await market.ended.wait()
        self.stdout.write("The recorded bars are over. The market still answers; stop it with Ctrl-C.")
        self.stdout.flush()
