"""Shows what the running engine is doing."""

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.core.management.base import CommandParser
from rich import box
from rich.console import Console
from rich.table import Table

from dashboard.management.running_engine import snapshot
from dashboard.templatetags.figures import gain, money, new_york, percent, price, quantity, words
from orders.command import OneLineCommand

MARKETS = {"built_in": "the built-in market", "paper": "Alpaca's paper account", "live": "a LIVE account"}
PIPED_WIDTH_COLUMNS = 160


class Command(OneLineCommand):
    help = "Show positions, P&L, streams and state of the running engine; exit status 1 when there is none."

    def add_arguments(self, parser: CommandParser) -> None:
        """Nothing but the form of the output."""
        parser.add_argument("--json", action="store_true", help="print one JSON object, as GET /api/dashboard does")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the state, or fail when no engine runs."""
        state = snapshot()
        if options["json"]:
            self.stdout.write(json.dumps(state, indent=2))
            return
        console = Console(file=sys.stdout, markup=False, width=None if sys.stdout.isatty() else PIPED_WIDTH_COLUMNS)
        for line in summary(state):
            console.print(line, highlight=False)
        if state["positions"]:
            console.print(positions_table(state["positions"]))
        if "engine" not in state["connection"]:  # else nobody knows what the strategies do
            console.print(strategies_table(state["strategies"]))


def summary(state: dict[str, Any]) -> Iterator[str]:
    """Market, streams, switches and money, a line each."""
    connection, pnl = state["connection"], state["pnl"]
    status = "running without pages, figures are from the database" if "engine" in connection else connection["status"]
    market = MARKETS[connection["account_mode"]]
    yield f"Engine on {market} ({state['account']['account_id']}): {words(status).lower()}."
    last_bar = connection["last_bar_at"]
    yield (
        f"Prices {_up(connection['bar_stream'])}, order updates {_up(connection['trade_stream'])}, last bar "
        f"{new_york(datetime.fromisoformat(last_bar), 'minute') + ' New York' if last_bar else 'none yet'}."
    )
    if connection["halted"]:
        yield f"Trading is HALTED ({connection['halted']}): no new entries until it is resumed."
    for breaker in connection["breakers"]:
        yield f"Circuit breaker: {words(breaker).lower()}. No new entries until the next session."
    yield (
        f"Equity {money(pnl['total_equity'])}, today {gain(pnl['today_pnl'])} ({percent(pnl['today_pnl_pct'])}), "
        f"unrealized {gain(pnl['unrealized_pnl'])}, realized {gain(pnl['realized_pnl'])}, "
        f"buying power {money(pnl['buying_power'])}."
    )
    if not state["positions"]:
        yield "No open positions."


def positions_table(positions: list[dict[str, Any]]) -> Table:
    """Open positions with their stops."""
    table = Table("position", "side", box=box.SIMPLE)
    for name in ("shares", "entry", "last", "stop", "unrealized"):
        table.add_column(name, justify="right")
    for each in positions:
        stop = "NO STOP" if each["stop_price"] is None else price(each["stop_price"])
        entry, last = price(each["avg_entry_price"]), price(each["current_price"])
        row = (each["symbol"], each["side"], quantity(each["qty"]), entry, last, stop, gain(each["unrealized_pnl"]))
        table.add_row(*row)
    return table


def strategies_table(strategies: list[dict[str, Any]]) -> Table:
    """What each strategy does with each symbol."""
    table = Table("symbol", "strategy", "state", box=box.SIMPLE)
    for name in ("fast average", "slow average", "candles"):
        table.add_column(name, justify="right")
    for each in strategies:
        averages = [price(each["indicators"][name]) for name in ("sma_fast", "sma_slow")]
        state = words(each["status"]) if each["enabled"] else f"{words(each['status'])}, off"
        candles = f"{each['bar_count']} of {each['bars_needed']}"
        table.add_row(each["symbol"], each["name"], state, *averages, candles)
    return table


def _up(is_up: bool) -> str:
    return "connected" if is_up else "not connected"
