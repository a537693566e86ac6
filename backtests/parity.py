"""Compares what an engine did with what a backtest of its own bars does, and names the cause of each difference.

A signal has the same correlation id on both sides, since ids follow from account, strategy, symbol and candle.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from backtests.outcome import average, exact, timestamp
from backtests.rerun import CandleKey
from orders.lifecycle import Order, Role, Side
from orders.portfolio import Trade
from trading.market import MINUTE

ZERO = Decimal(0)
FOLLOWS_FROM_EARLIER = frozenset({"max_positions", "duplicate", "daily_loss", "consecutive_losses", "order_rate"})
NOTHING = "-"


class Cause(StrEnum):
    """What a difference in profit comes from."""

    DATA = "data"
    SIGNAL_TIME = "signal_time"
    FILL_PRICE = "fill_price"
    MISSED_FILL = "missed_fill"
    SIZE = "size"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a signal: `refused_by` a risk code, or an order of `qty` shares."""

    at: datetime
    symbol: str
    strategy: str
    side: Side
    candle_start: datetime
    refused_by: str
    qty: Decimal
    entry_price: Decimal
    stop_price: Decimal


CandleValues = tuple[Decimal | None, ...]  # in the order of CANDLE_FIELDS
CANDLE_FIELDS = ("open", "high", "low", "close", "volume", "sma_fast", "sma_slow", "bar_count")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deeds:
    """What one side did: verdicts and closed trades by correlation id, orders by local id, and the candles it saw."""

    verdicts: Mapping[str, Verdict]
    trades: Mapping[str, Trade]
    orders: Mapping[str, Order]
    candles: Mapping[CandleKey, CandleValues]

    @property
    def pnl(self) -> Decimal:
        """Dollars won and lost in all trades."""
        return sum((trade.pnl for trade in self.trades.values()), ZERO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One value that differs, as text."""

    name: str
    engine: str
    backtest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One signal that came out differently. `causes` are dollars the engine made more than the backtest, by cause.

    `follows`: nothing of its own differs, it is a consequence of the first difference. `candle` names the first candle
    that differs, with its values on both sides, if the cause is the data.
    """

    at: datetime
    symbol: str
    strategy: str
    correlation_id: str
    fields: tuple[Field, ...]
    causes: Mapping[Cause, Decimal]
    follows: bool = False
    candle: "tuple[datetime, tuple[Field, ...]] | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The comparison of one run, differences in the order of time."""

    engine: Deeds
    backtest: Deeds
    differences: tuple[Difference, ...]

    @property
    def causes(self) -> dict[Cause, Decimal]:
        """Dollars that the engine made more than the backtest, by cause."""
        return {
            cause: sum((difference.causes.get(cause, ZERO) for difference in self.differences), ZERO) for cause in Cause
        }


def compare(engine: Deeds, backtest: Deeds, *, is_exact: bool) -> Report:
    """All differences. Unless `is_exact` times within a minute are equal: a real broker's are not on the minute."""
    return _Comparison(engine, backtest, is_exact=is_exact).report()


class _Comparison:
    def __init__(self, engine: Deeds, backtest: Deeds, *, is_exact: bool) -> None:
        self._engine = engine
        self._backtest = backtest
        self._is_exact = is_exact
        self._orders = {True: _by_correlation(engine.orders), False: _by_correlation(backtest.orders)}
        self._root: Cause | None = None

    def report(self) -> Report:
        sides = (self._engine, self._backtest)
        ids = {each for side in sides for each in (*side.verdicts, *side.trades)}
        found = []
        for correlation_id in sorted(ids, key=lambda each: (self._at(each), each)):
            if difference := self._difference(correlation_id):
                found.append(difference)
                self._root = self._root or next(iter(difference.causes))
        return Report(engine=self._engine, backtest=self._backtest, differences=tuple(found))

    def _at(self, correlation_id: str) -> datetime:
        sides = (self._engine, self._backtest)
        verdicts = [side.verdicts[correlation_id].at for side in sides if correlation_id in side.verdicts]
        trades = [side.trades[correlation_id].entry_at for side in sides if correlation_id in side.trades]
        return min(verdicts or trades)

    def _difference(self, correlation_id: str) -> Difference | None:
        ours, theirs = (side.verdicts.get(correlation_id) for side in (self._engine, self._backtest))
        traded, would = (side.trades.get(correlation_id) for side in (self._engine, self._backtest))
        fields = (*self._fields("signal", ours, theirs, _VERDICT), *self._fields("trade", traded, would, _TRADE))
        if not fields:
            return None
        named = ours or theirs or traded or would
        if named is None:
            return None
        gained = (traded.pnl if traded else ZERO) - (would.pnl if would else ZERO)
        follows = False
        candle = self._candle(named.symbol, named.strategy, [each for each in (ours, theirs, traded, would) if each])
        if candle is not None:
            causes = {Cause.DATA: gained}
        elif traded is not None and would is not None:
            causes = self._split(correlation_id, traded, would, ours, theirs)
        else:
            cause, follows = self._reason(ours, theirs)
            causes = {cause: gained}
        return Difference(
            at=self._at(correlation_id),
            symbol=named.symbol,
            strategy=named.strategy,
            correlation_id=correlation_id,
            fields=fields,
            causes=causes,
            follows=follows,
            candle=candle,
        )

    # --- what differs -------------------------------------------------------------------------------------------------

    def _fields(self, what: str, ours: Any, theirs: Any, names: "Mapping[str, Callable[[Any], str]]") -> list[Field]:
        if ours is None or theirs is None:
            if ours is theirs:
                return []
            return [Field(name=what, engine=_in_a_line(ours, names), backtest=_in_a_line(theirs, names))]
        return [
            Field(name=name.replace("_", " "), engine=text(getattr(ours, name)), backtest=text(getattr(theirs, name)))
            for name, text in names.items()
            if not self._is_same(getattr(ours, name), getattr(theirs, name))
        ]

    def _is_same(self, ours: Any, theirs: Any) -> bool:
        if isinstance(ours, datetime) and isinstance(theirs, datetime) and not self._is_exact:
            return abs(ours - theirs) <= MINUTE
        return bool(ours == theirs)

    def _candle(
        self, symbol: str, strategy: str, about: "Sequence[Verdict | Trade]"
    ) -> "tuple[datetime, tuple[Field, ...]] | None":
        """The first candle from the signal to the end of the trade that the two sides saw differently."""
        starts = [each.candle_start if isinstance(each, Verdict) else each.entry_at for each in about]
        ends = [each.at if isinstance(each, Verdict) else each.exit_at for each in about]
        first, last = min(starts), max(ends)
        keys = {
            key
            for side in (self._engine, self._backtest)
            for key in side.candles
            if key[:2] == (symbol, strategy) and first <= key[2] <= last
        }
        for key in sorted(keys, key=lambda key: key[2]):
            ours, theirs = (side.candles.get(key) for side in (self._engine, self._backtest))
            if ours != theirs:
                return key[2], _candle_fields(ours, theirs)
        return None

    # --- and why ------------------------------------------------------------------------------------------------------

    def _split(
        self, correlation_id: str, traded: Trade, would: Trade, ours: Verdict | None, theirs: Verdict | None
    ) -> dict[Cause, Decimal]:
        """A trade that both made: its difference in shares, at the entry and at the exit, which add up to the whole."""
        sign = 1 if traded.side is Side.LONG else -1
        moved = (would.exit_price - would.entry_price) * sign
        by_size = (traded.qty - would.qty) * moved
        by_entry = (would.entry_price - traded.entry_price) * sign * traded.qty
        by_exit = (traded.exit_price - would.exit_price) * sign * traded.qty
        by_commission = (traded.pnl - would.pnl) - by_size - by_entry - by_exit
        is_resized = traded.qty != would.qty
        entered_alike = (ours is None or theirs is None or self._is_same(ours.at, theirs.at)) and self._sent_alike(
            correlation_id, {Role.ENTRY}
        )
        left_alike = self._sent_alike(correlation_id, {Role.STOP_LOSS, Role.EXIT})
        causes: dict[Cause, Decimal] = {}
        for is_there, cause, amount in (
            (is_resized, Cause.SIZE, by_size),
            (not entered_alike or by_entry, Cause.FILL_PRICE if entered_alike else Cause.SIGNAL_TIME, by_entry),
            (not left_alike or by_exit, Cause.FILL_PRICE if left_alike else Cause.SIGNAL_TIME, by_exit),
            (by_commission, Cause.SIZE if is_resized else Cause.FILL_PRICE, by_commission),
        ):
            if is_there:
                causes[cause] = causes.get(cause, ZERO) + amount
        return causes or {Cause.FILL_PRICE: ZERO}

    def _sent_alike(self, correlation_id: str, roles: set[Role]) -> bool:
        """Whether both sides sent the same orders of these roles, at the same times and with the same last prices."""
        ours, theirs = (
            sorted((o for o in self._orders[is_engine].get(correlation_id, ()) if o.role in roles), key=_order_key)
            for is_engine in (True, False)
        )
        return len(ours) == len(theirs) and all(
            one.local_id == other.local_id
            and one.stop_price == other.stop_price
            and self._is_same(one.created_at, other.created_at)
            for one, other in zip(ours, theirs, strict=True)
        )

    def _reason(self, ours: Verdict | None, theirs: Verdict | None) -> tuple[Cause, bool]:
        """Why only one side, or neither, traded on a signal; and whether that follows from an earlier difference."""
        if ours is not None and theirs is not None:
            codes = {ours.refused_by, theirs.refused_by} - {""}
            if not self._is_same(ours.at, theirs.at):
                return Cause.SIGNAL_TIME, False
            if ours.refused_by == theirs.refused_by:
                return (Cause.MISSED_FILL if ours.qty == theirs.qty else Cause.SIZE), False
            if "size" in codes:
                return Cause.SIZE, False
            if codes & {"stale", "session"}:
                return Cause.SIGNAL_TIME, False
            if codes & FOLLOWS_FROM_EARLIER and self._root:
                return self._root, True
            return Cause.MISSED_FILL, False
        # One side had no signal on the same candle: it was in a position, or its strategy in another state.
        return (self._root, True) if self._root else (Cause.SIGNAL_TIME, False)


# --- as text ----------------------------------------------------------------------------------------------------------


def document(report: Report) -> dict[str, Any]:
    """The report as JSON: money as exact text, `pnl_difference` what the engine made more than the backtest."""
    causes = report.causes
    return {
        "signals": {"engine": len(report.engine.verdicts), "backtest": len(report.backtest.verdicts)},
        "trades": {"engine": len(report.engine.trades), "backtest": len(report.backtest.trades)},
        "pnl": {"engine": exact(report.engine.pnl), "backtest": exact(report.backtest.pnl)},
        "pnl_difference": {
            "total": average(sum(causes.values(), ZERO)),
            **{str(cause): average(amount) for cause, amount in causes.items()},
        },
        "differences": [_difference_document(difference) for difference in report.differences],
    }


def _difference_document(difference: Difference) -> dict[str, Any]:
    candle = difference.candle
    return {
        "at": timestamp(difference.at),
        "symbol": difference.symbol,
        "strategy": difference.strategy,
        "correlation_id": difference.correlation_id,
        "causes": {str(cause): average(amount) for cause, amount in difference.causes.items()},
        "follows": difference.follows,
        "fields": _fields_document(difference.fields),
        "candle": candle and {"timestamp": timestamp(candle[0]), "fields": _fields_document(candle[1])},
    }


def _fields_document(fields: Iterable[Field]) -> list[dict[str, str]]:
    return [{"name": field.name, "engine": field.engine, "backtest": field.backtest} for field in fields]


def _candle_fields(ours: CandleValues | None, theirs: CandleValues | None) -> tuple[Field, ...]:
    if ours is None or theirs is None:
        texts = [NOTHING if values is None else ", ".join(map(_number, values)) for values in (ours, theirs)]
        return (Field(name="candle", engine=texts[0], backtest=texts[1]),)
    return tuple(
        Field(name=name, engine=_number(one), backtest=_number(other))
        for name, one, other in zip(CANDLE_FIELDS, ours, theirs, strict=True)
        if one != other
    )


def _number(value: Decimal | None) -> str:
    return NOTHING if value is None else exact(value)


_VERDICT: Mapping[str, Callable[[Any], str]] = {
    "at": timestamp,
    "side": str,
    "refused_by": lambda code: code or "nothing",
    "qty": exact,
    "entry_price": exact,
    "stop_price": exact,
}
_TRADE: Mapping[str, Callable[[Any], str]] = {
    "side": str,
    "qty": exact,
    "entry_price": average,
    "entry_at": timestamp,
    "exit_price": average,
    "exit_at": timestamp,
    "exit_reason": str,
    "commission": exact,
}


def _in_a_line(value: Any, names: Mapping[str, Callable[[Any], str]]) -> str:
    if value is None:
        return NOTHING
    return ", ".join(f"{name.replace('_', ' ')} {text(getattr(value, name))}" for name, text in names.items())


def _by_correlation(orders: Mapping[str, Order]) -> dict[str, list[Order]]:
    found: dict[str, list[Order]] = {}
    for order in orders.values():
        found.setdefault(order.correlation_id, []).append(order)
    return found


def _order_key(order: Order) -> tuple[datetime, str]:
    return order.created_at, order.local_id
