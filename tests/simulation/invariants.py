"""Watches ledger and broker while a story is played, and says which invariant does not hold.

The broker's own books, read in this process, are the truth; the ledger is read from its file as any other program
would read it. docs/reliability.md names the invariants.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg

from orders import store as order_store
from orders.lifecycle import OrderType, local_id_of
from trading.simulator.faults import Fault, Kind, On
from trading.simulator.market import Market
from trading.simulator.orders import BrokerOrder, Status

ZERO = Decimal(0)
CENT = Decimal("0.01")
ROUND_TRIPS_SECONDS = 2.0  # two round trips, and the clock's grain of a second
PROTECT_SECONDS = 2.0
METER_GRAIN_SECONDS = 2.0  # both clocks know whole seconds only
CALL_COST_SECONDS = 4.0  # one more attempt, its pause and a look-up
STREAM_COST_SECONDS = 66.0  # until an order that the stream kept quiet about is looked at: its candle, and some
START_SECONDS = 40.0  # streams and rate limits included
FLATTEN_BEFORE = timedelta(minutes=5)
FLATTEN_GRACE = timedelta(seconds=30)  # what was decided before may still be on its way
MOST_POSITIONS = 5
LARGEST_SHARE = Decimal("0.0505")
LOSSES = (Kind.DROP, Kind.MUTE, Kind.HALF_OPEN)
STATES = {
    Status.FILLED: {"filled"},
    Status.CANCELED: {"canceled"},
    Status.EXPIRED: {"expired", "canceled"},
    Status.REJECTED: {"rejected"},
    Status.NEW: {"accepted"},
    Status.PARTIALLY_FILLED: {"partially_filled"},
}


FILLS = (
    "SELECT s.symbol, s.side, s.role, e.qty_filled, e.fill_price FROM order_event e "
    "JOIN order_state s ON s.local_id = e.order_local_id WHERE e.qty_filled IS NOT NULL"
)


def read_only(url: str) -> Any:
    """A connection to a ledger beside Django's."""
    if url.startswith("sqlite:///"):
        path = url.removeprefix("sqlite:///")
        return sqlite3.connect(f"file:{path}?mode=ro", uri=True, check_same_thread=False, timeout=10)
    return psycopg.connect(url, autocommit=True, options="-c default_transaction_read_only=on")


class Violation(Exception):
    """An invariant does not hold; the text begins with its name."""


class Watch:
    """Looks after every piece of work, and thoroughly at rest. `clock` tells virtual seconds."""

    def __init__(
        self,
        market: Market,
        url: str,
        *,
        clock: Callable[[], float],
        say: Callable[[str, str], None],
    ) -> None:
        self.naked_seconds: list[float] = []
        self.naked_and_served_seconds: list[float] = []  # the part of it during which an engine ran
        self.retry_seconds: list[tuple[str, float]] = []
        self._market = market
        self._book = market.book
        self._clock = clock
        self._say = say
        self._ledger = read_only(url)
        self._capital = self._book.account.cash
        self._seen_orders = 0
        self._seen_fills = 0
        self._intents: dict[str, BrokerOrder] = {}
        self._naked_since: dict[str, float] = {}
        self._struck: list[tuple[float, Fault]] = []
        self._downtime: list[list[float]] = []
        self._rows: dict[str, dict[int, str]] = {"order_event": {}, "trade": {}}
        self._unhandled: list[BaseException] = []
        self._had_stream: set[str] = set()
        self._lost_at: dict[str, tuple[str, float]] = {}
        self._position_naked: dict[str, float] = {}
        self._naked_and_served: defaultdict[str, float] = defaultdict(float)
        self._naked_of: defaultdict[str, float] = defaultdict(float)

    def close(self) -> None:
        """Lets go of the ledger."""
        self._ledger.close()

    # --- told by the world --------------------------------------------------------------------------------------------

    def engine_starts(self) -> None:
        """An engine is being started."""
        self._say("sim", "an engine starts")
        if self._downtime and len(self._downtime[-1]) == 1:
            self._downtime[-1].append(self._clock() + START_SECONDS)
        if not self._downtime:
            self._downtime.append([self._clock(), self._clock() + START_SECONDS])

    def engine_ends(self) -> None:
        """It is gone."""
        self._had_stream.clear()
        self._lost_at.clear()
        self._downtime.append([self._clock()])

    def unhandled(self, error: Any) -> None:
        """Something raised what nobody expected."""
        if isinstance(error, BaseException):
            self._unhandled.append(error)

    # --- after every piece of work ------------------------------------------------------------------------------------

    def look(self) -> None:
        """Raises Violation."""
        self._struck += [(self._clock(), fault) for fault in self._market.faults.struck[len(self._struck) :]]
        self._look_at_new_orders()
        self._look_at_cover()
        self._look_at_streams()
        for fill in self._book.fills[self._seen_fills :]:
            side = "buys" if fill.buys else "sells"
            self._say("broker", f"{fill.symbol} {side} {fill.qty} at {fill.price}, position {fill.position_qty}")
        self._seen_fills = len(self._book.fills)
        if self._unhandled:
            raise Violation(f"I6 unhandled: {self._unhandled[0]!r}")

    def _look_at_new_orders(self) -> None:
        orders = list(self._book.orders.values())[self._seen_orders :] if self._is_new() else []
        for order in orders:
            self._seen_orders += 1
            kind = f"{'buy' if order.buys else 'sell'} {order.order_type} {order.qty} at {order.price}"
            self._say("broker", f"{order.symbol} order {order.client_order_id[:8]}{order.client_order_id[36:]}: {kind}")
            self._check_intent(order)
            self._check_row(order)
            if order.opens and order.replaces is None:
                self._check_entry(order)

    def _is_new(self) -> bool:
        return len(self._book.orders) > self._seen_orders

    def _check_intent(self, order: BrokerOrder) -> None:
        """I2: one intent is one order, with its replacements."""
        local_id = local_id_of(order.client_order_id)
        if order.replaces is None:
            if local_id in self._intents:
                raise Violation(f"I2 intent {local_id} was sent as two orders")
            self._intents[local_id] = order

    def _check_row(self, order: BrokerOrder) -> None:
        """I2: no order at the broker without its row here, written before it was sent."""
        local_id = local_id_of(order.client_order_id)
        row = self._one("SELECT state, role, correlation_id FROM order_state WHERE local_id = ?", local_id)
        if row is None or row[0] == "pending_submit":
            raise Violation(f"I2 order {order.client_order_id} is at the broker, the ledger says {row}")
        if order.replaces is not None:
            wanted = self._one(
                "SELECT count(*) FROM order_event WHERE order_local_id = ? AND event_type = 'replace_requested' "
                "AND client_order_id = ?",
                local_id,
                order.client_order_id,
            )
            if wanted != (1,):
                raise Violation(f"I2 replacement {order.client_order_id} was sent before it was written down")
        if row[1] == "entry":
            twins = self._one("SELECT count(*) FROM order_state WHERE correlation_id = ? AND role = 'entry'", row[2])
            if twins != (1,):
                raise Violation(f"I2 one signal led to {twins} entries")

    def _check_entry(self, entry: BrokerOrder) -> None:
        """I2 and I5: an entry where none may be."""
        book, market = self._book, self._market
        others = [each for each in book.open_orders() if each.opens and each.id != entry.id]
        if any(other.symbol == entry.symbol for other in others) or entry.symbol in book.account.positions:
            raise Violation(f"I2 a second entry for {entry.symbol}")
        if len({*book.account.positions, *(other.symbol for other in others)}) >= MOST_POSITIONS:
            raise Violation("I5 an entry beyond the most positions")
        session = market._session
        if session is None or not session.open <= entry.created_at < session.close - FLATTEN_BEFORE + timedelta(
            seconds=30
        ):
            raise Violation(f"I5 an entry at {entry.created_at:%H:%M:%S}, outside the session")
        local_id = local_id_of(entry.client_order_id)
        written = self._one("SELECT created_at, run_id FROM order_state WHERE local_id = ?", local_id)
        if written is not None:
            self._check_halts(*written)
        worth = entry.qty * (entry.stop_price or ZERO)
        if worth > book.account.equity(book.prices) * LARGEST_SHARE:
            raise Violation(f"I5 an entry worth {worth}, beyond the largest position")

    def _check_halts(self, written_at: Any, run_id: int) -> None:
        """A halt of the operator's holds until he lifts it; what stops entries for a while is known to its engine."""
        last = "SELECT message, recorded_at FROM activity WHERE (message LIKE ? OR message LIKE ?)"
        halt = self._one(f"{last} ORDER BY id DESC", "new entries are halted:%", "new entries are allowed again")
        if halt is not None and halt[0].startswith("new entries are halted") and written_at > halt[1]:
            raise Violation("I5 an entry while halted")
        block = self._one(
            f"{last} AND run_id = ? ORDER BY id DESC", "no entries:%", "entries are possible again", run_id
        )
        if block is not None and block[0].startswith("no entries") and written_at > block[1]:
            raise Violation(f"I5 an entry in spite of: {block[0]}")

    # --- cover --------------------------------------------------------------------------------------------------------

    def _look_at_cover(self) -> None:
        """I1: every open share has one working stop, or an exit on its way."""
        now = self._clock()
        for symbol, position in self._book.account.positions.items():
            exits = [
                order
                for order in self._book.open_orders(symbol)
                if order.buys == (position.qty < 0) and not self._book.families.replaces_open(order)
            ]
            covered = sum((order.leaves for order in exits), ZERO)
            stops = sum((order.leaves for order in exits if order.order_type is not OrderType.MARKET), ZERO)
            size = abs(position.qty)
            self._position_naked.setdefault(symbol, 0.0)
            if stops > size:
                raise Violation(f"I1 {symbol}: stops for {stops} shares, {size} are held")
            if covered < size:
                self._naked_since.setdefault(symbol, now)
            else:
                self._is_covered(symbol)
        for symbol in [symbol for symbol in self._position_naked if symbol not in self._book.account.positions]:
            self._is_covered(symbol)
            seconds = self._position_naked.pop(symbol)
            self.naked_seconds.append(seconds)
            self._naked_of[symbol] += seconds
            self.naked_and_served_seconds.append(self._naked_and_served.pop(symbol, 0.0))
        for symbol, since in self._naked_since.items():
            allowed = self._allowance(since, now)
            if now - since > allowed:
                raise Violation(f"I1 {symbol} without full cover for {now - since:.1f} s, {allowed:.1f} s are allowed")

    def _is_covered(self, symbol: str) -> None:
        since = self._naked_since.pop(symbol, None)
        if since is not None:
            now = self._clock()
            self._position_naked[symbol] += now - since
            self._naked_and_served[symbol] += max(now - since - self._down_seconds(since, now), 0.0)

    def _allowance(self, since: float, now: float) -> float:
        """So long shares may be naked: the deadline of a partial fill, two round trips, and what faults cost."""
        faults = sum(cost_seconds(fault) for at, fault in self._struck if at + span_seconds(fault) >= since)
        return PROTECT_SECONDS + ROUND_TRIPS_SECONDS + faults + self._down_seconds(since, now)

    def _down_seconds(self, since: float, until: float) -> float:
        """So much of a time no engine ran, or one was being started."""
        return sum(max(min([*span, until][1], until) - max(span[0], since), 0.0) for span in self._downtime)

    def _look_at_streams(self) -> None:
        """How long a stream that an engine had and lost takes to come back, from when the broker allows it."""
        now = self._clock()
        for stream in (self._market._updates, self._market._data):
            if stream.client is not None:
                if stream.kind in self._lost_at:
                    cause, since = self._lost_at.pop(stream.kind)
                    self.retry_seconds.append((cause, max(now - max(since, stream._slot_taken_until), 0.0)))
                self._had_stream.add(stream.kind)
            elif stream.kind in self._had_stream:
                self._had_stream.discard(stream.kind)
                on = On.UPDATE if stream.kind == "update" else On.BAR
                losses = [fault.kind for fault in self._market.faults.struck if fault.on is on and fault.kind in LOSSES]
                if losses:
                    self._lost_at[stream.kind] = f"{stream.kind} stream {losses[-1]}", now

    # --- at rest ------------------------------------------------------------------------------------------------------

    def check_at_rest(self) -> None:
        """Nothing has gone wrong for minutes: everything agrees."""
        if self._naked_since:
            raise Violation(f"I1 at rest: {', '.join(self._naked_since)} without full cover")
        self.check_ledger()

    def check_after_stop(self) -> None:
        """The engine has stopped gracefully: positions have their stops, and no entry works."""
        entries = [order.symbol for order in self._book.open_orders() if order.opens]
        if entries:
            raise Violation(f"I2 after the stop: entries still work: {entries}")
        if self._naked_since:
            raise Violation(f"I1 after the stop: {', '.join(self._naked_since)} without full cover")
        self.check_ledger()

    def check_ledger(self) -> None:
        """I3 and I4, and the meter of I1."""
        self._check_meter()
        self._check_orders()
        self._check_positions()
        self._check_history()

    def _check_orders(self) -> None:
        for local_id in self._intents:
            chain = [o for o in self._book.orders.values() if local_id_of(o.client_order_id) == local_id]
            last = next(o for o in reversed(chain) if o.status is not Status.REJECTED or o.replaces is None)
            filled = sum((order.filled_qty for order in chain), ZERO)
            value = sum((order.filled_value for order in chain), ZERO)
            row = self._one("SELECT state, qty_filled, avg_fill_price FROM order_state WHERE local_id = ?", local_id)
            expected = STATES.get(last.status)
            if row is None or expected is None or row[0] not in expected:
                raise Violation(f"I3 order {local_id} of {last.symbol} is {last.status} at the broker, here {row}")
            if Decimal(row[1]) != filled:
                raise Violation(f"I3 order {local_id}: {filled} filled at the broker, here {row[1]}")
            if filled and abs(Decimal(row[2]) - value / filled) > Decimal("1e-6"):
                raise Violation(f"I3 order {local_id}: average {value / filled} at the broker, here {row[2]}")

    def _check_positions(self) -> None:
        """I3: shares by symbol, and the cash that went through them."""
        held: defaultdict[str, Decimal] = defaultdict(Decimal)
        for symbol, side, role, qty, _ in self._ledger.execute(FILLS):
            held[symbol] += _signed(side, role, qty)
        cash = self._cash_of(FILLS)
        theirs = {symbol: position.qty for symbol, position in self._book.account.positions.items()}
        ours = {symbol: qty for symbol, qty in held.items() if qty}
        if ours != theirs:
            raise Violation(f"I3 positions: {theirs} at the broker, here {ours}")
        change = self._book.account.cash - self._capital
        if abs(change - cash) > CENT:
            raise Violation(f"I3 cash changed by {change} at the broker, here by {cash}")
        made = sum((Decimal(row[0]) for row in self._ledger.execute("SELECT pnl FROM trade")), ZERO)
        # What is open has cost or brought in what its own executions say, partial exits included.
        made += self._cash_of(f"{FILLS} AND s.correlation_id NOT IN (SELECT correlation_id FROM trade)")
        if abs(change - made) > CENT:
            raise Violation(f"I3 cash changed by {change}; trades and what is open make {made}")

    def _cash_of(self, query: str) -> Decimal:
        rows = self._ledger.execute(query)
        return sum((-_signed(side, role, qty) * Decimal(price) for _, side, role, qty, price in rows), ZERO)

    def _check_meter(self) -> None:
        """I1: where nothing went wrong the engine's own count of naked seconds is what it was at the broker.

        Elsewhere it may differ: this market tells no times of its own, so the engine counts from when it learned.
        """
        if self._struck or len(self._downtime) > 1:
            return
        query = "SELECT symbol, count(*), sum(naked_seconds) FROM position_cover GROUP BY symbol"
        for symbol, count, seconds in self._ledger.execute(query):
            if abs(seconds - self._naked_of[symbol]) > METER_GRAIN_SECONDS * count:
                raise Violation(
                    f"I1 the meter says {seconds} naked seconds in {count} positions of {symbol}, "
                    f"they were {self._naked_of[symbol]:.1f}"
                )

    def _check_history(self) -> None:
        """I4: events make the states, and what was written stays as it was."""
        for table, seen in self._rows.items():
            query = f"SELECT * FROM {table} ORDER BY id"
            rows = {row[0]: json.dumps(row, default=str) for row in self._ledger.execute(query)}
            if any(rows.get(key) != text for key, text in seen.items()):
                raise Violation(f"I4 {table} was changed")
            self._rows[table] = rows
        for (account_id,) in self._ledger.execute("SELECT DISTINCT account_id FROM order_state").fetchall():
            for order in order_store.rebuild(account_id):
                stored = order_store.find_order(account_id, order.local_id)
                if stored != order:
                    raise Violation(f"I4 order {order.local_id}: its events make {order}, stored is {stored}")

    def _one(self, query: str, *values: Any) -> Any:
        placeholder = "?" if isinstance(self._ledger, sqlite3.Connection) else "%s"
        return self._ledger.execute(query.replace("?", placeholder), values).fetchone()


def _signed(side: str, role: str, qty: str) -> Decimal:
    """Shares bought, negative for those sold."""
    return Decimal(qty) if (side == "long") == (role == "entry") else -Decimal(qty)


def span_seconds(fault: Fault) -> float:
    """How long after it struck a fault may still matter: with the retries of what it struck."""
    return fault.seconds + (120.0 if fault.on in (On.UPDATE, On.MINUTE) else 60.0)


def cost_seconds(fault: Fault) -> float:
    """How much longer shares may be naked because of a fault that struck."""
    match fault.on:
        case On.UPDATE | On.CANCELING | On.REPLACING:
            return STREAM_COST_SECONDS + min(fault.seconds, 120)
        case On.BAR:
            return 0.0
        case On.MINUTE:
            return 120.0 if fault.kind is Kind.RATE_LIMIT else 30.0 if fault.kind is Kind.THIN else 0.0
        case _:
            return CALL_COST_SECONDS + (30.0 if fault.kind in (Kind.HANG, Kind.RATE_LIMITED) else fault.seconds)
