"""What may be sent: one function a rule, in the order of `ALL_RULES`; the first failure refuses the entry."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import NamedTuple

from orders.values import quick
from risk.sizing import ZERO, shares

MAX_ENTRIES_PER_SYMBOL_AND_SESSION = 20
STALE_MARGIN_SECONDS = 30
MAX_EQUITY_DIFFERENCE = Decimal("0.01")


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskSettings:
    """The hard limits. `..._pct` are fractions, `..._abs` dollars, `default_stop_pct` percent."""

    max_risk_per_trade_pct: Decimal = Decimal("0.01")
    max_risk_per_trade_abs: Decimal = Decimal(500)
    max_position_pct: Decimal = Decimal("0.05")
    max_daily_loss_pct: Decimal = Decimal("0.03")
    max_open_positions: int = 5
    consecutive_loss_pause: int = 3
    flatten_minutes_before_close: int = 5
    allow_margin: bool = False
    default_stop_pct: Decimal = Decimal("2.0")


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryRequest:
    """An entry somebody wants, with everything the rules look at. Money in dollars, times in UTC.

    `halted` and `symbol_problem` are reasons, empty if there is none; `broker_equity` is None where no broker is asked
    (backtests), `broker_is_current` says whether its figure is young enough; `tripped` holds the session's breakers.
    """

    now: datetime
    halted: str
    session_close: datetime | None
    candle_end: datetime
    is_live: bool
    grace_seconds: int
    symbol_problem: str
    equity: Decimal
    broker_equity: Decimal | None
    broker_is_current: bool
    start_equity: Decimal
    tripped: frozenset[str]
    open_positions: int
    working_entries: int
    symbol_is_taken: bool
    entries_today: int
    entry_price: Decimal
    stop_price: Decimal
    buying_power: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The outcome of one rule with the numbers it compared."""

    code: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What came of a request: the code of the first failure, empty without one, and the allowed size in shares."""

    request: EntryRequest
    settings: RiskSettings
    refused_by: str
    qty: Decimal

    @property
    def checks(self) -> tuple[Check, ...]:
        """The checks up to and including the first failure."""
        checks: list[Check] = []
        for code, is_kept, in_words in ALL_RULES:
            passed = is_kept(self.request, self.settings)
            checks.append(Check(code=code, passed=passed, detail=in_words(self.request, self.settings)))
            if not passed:
                break
        return tuple(checks)


_assessment = quick(Assessment)


def assess(request: EntryRequest, settings: RiskSettings) -> Assessment:
    """Runs the rules in their order."""
    for code, is_kept, _ in RULES_BEFORE_SIZE:
        if not is_kept(request, settings):
            return _assessment(request=request, settings=settings, refused_by=code, qty=ZERO)
    qty = size_of(request, settings)
    return _assessment(request=request, settings=settings, refused_by="" if qty > 0 else SIZE.code, qty=qty)


def size_of(request: EntryRequest, settings: RiskSettings) -> Decimal:
    """The entry's size in whole shares, 0 where its stop is not above 0."""
    if request.stop_price <= 0:
        return ZERO
    return shares(
        equity=request.equity,
        buying_power=request.buying_power,
        entry_price=request.entry_price,
        stop_price=request.stop_price,
        max_risk_per_trade_pct=settings.max_risk_per_trade_pct,
        max_risk_per_trade_abs=settings.max_risk_per_trade_abs,
        max_position_pct=settings.max_position_pct,
    )


# --- each rule, and what it compared in words -------------------------------------------------------------------------


def _halted(request: EntryRequest, settings: RiskSettings) -> bool:
    return not request.halted


def _halted_in_words(request: EntryRequest, settings: RiskSettings) -> str:
    return request.halted or "trading is on"


def _session(request: EntryRequest, settings: RiskSettings) -> bool:
    close = request.session_close
    return close is not None and request.now < close - _minutes(settings.flatten_minutes_before_close)


def _session_in_words(request: EntryRequest, settings: RiskSettings) -> str:
    if request.session_close is None:
        return "the market is closed"
    last = request.session_close - _minutes(settings.flatten_minutes_before_close)
    return f"entries until {last:%H:%M:%S} UTC, now {request.now:%H:%M:%S}"


def _stale(request: EntryRequest, settings: RiskSettings) -> bool:
    return request.is_live and request.now - request.candle_end <= _seconds(
        request.grace_seconds + STALE_MARGIN_SECONDS
    )


def _stale_in_words(request: EntryRequest, settings: RiskSettings) -> str:
    if not request.is_live:
        return "the candle came from history"
    age = (request.now - request.candle_end).total_seconds()
    return f"candle ended {age:g} s ago, limit {request.grace_seconds + STALE_MARGIN_SECONDS:g} s"


def _symbol_state(request: EntryRequest, settings: RiskSettings) -> bool:
    return not request.symbol_problem


def _symbol_state_in_words(request: EntryRequest, settings: RiskSettings) -> str:
    return request.symbol_problem or "nothing is wrong with the symbol"


def _account(request: EntryRequest, settings: RiskSettings) -> bool:
    equity = request.broker_equity
    return request.broker_is_current and (
        equity is None or abs(request.equity - equity) <= MAX_EQUITY_DIFFERENCE * equity
    )


def _account_in_words(request: EntryRequest, settings: RiskSettings) -> str:
    if request.broker_equity is None:
        return "no broker to compare with" if request.broker_is_current else "no account data"
    if not request.broker_is_current:
        return "the broker's account could not be read for 30 s"
    return f"equity {request.equity:.2f} here, {request.broker_equity:.2f} at the broker"


def _daily_loss(request: EntryRequest, settings: RiskSettings) -> bool:
    result = request.equity - request.start_equity
    return result > -(settings.max_daily_loss_pct * request.start_equity) and "daily_loss" not in request.tripped


def _daily_loss_in_words(request: EntryRequest, settings: RiskSettings) -> str:
    limit = -(settings.max_daily_loss_pct * request.start_equity)
    return f"result of the day {request.equity - request.start_equity:.2f}, limit {limit:.2f}"


def _consecutive_losses(request: EntryRequest, settings: RiskSettings) -> bool:
    return "consecutive_losses" not in request.tripped


def _consecutive_losses_in_words(request: EntryRequest, settings: RiskSettings) -> str:
    tripped = "yes" if "consecutive_losses" in request.tripped else "no"
    return f"{settings.consecutive_loss_pause} losses in a row pause the day: {tripped}"


def _max_positions(request: EntryRequest, settings: RiskSettings) -> bool:
    return request.open_positions + request.working_entries < settings.max_open_positions


def _max_positions_in_words(request: EntryRequest, settings: RiskSettings) -> str:
    return f"{request.open_positions + request.working_entries} of {settings.max_open_positions} positions used"


def _duplicate(request: EntryRequest, settings: RiskSettings) -> bool:
    return not request.symbol_is_taken


def _duplicate_in_words(request: EntryRequest, settings: RiskSettings) -> str:
    return "the symbol is taken" if request.symbol_is_taken else "the symbol is free"


def _order_rate(request: EntryRequest, settings: RiskSettings) -> bool:
    return request.entries_today < MAX_ENTRIES_PER_SYMBOL_AND_SESSION


def _order_rate_in_words(request: EntryRequest, settings: RiskSettings) -> str:
    return f"{request.entries_today} of {MAX_ENTRIES_PER_SYMBOL_AND_SESSION} entries of the session used"


def _size(request: EntryRequest, settings: RiskSettings) -> bool:
    return size_of(request, settings) > 0


def _size_in_words(request: EntryRequest, settings: RiskSettings) -> str:
    if request.stop_price <= 0:
        return f"the initial stop {request.stop_price} is not above 0"
    return f"{size_of(request, settings)} shares fit"


class Rule(NamedTuple):
    """One rule: the code it refuses with, whether it is kept, and what it compared, in words."""

    code: str
    is_kept: Callable[[EntryRequest, RiskSettings], bool]
    in_words: Callable[[EntryRequest, RiskSettings], str]


ALL_RULES = (
    Rule("halted", _halted, _halted_in_words),
    Rule("session", _session, _session_in_words),
    Rule("stale", _stale, _stale_in_words),
    Rule("symbol_state", _symbol_state, _symbol_state_in_words),
    Rule("account", _account, _account_in_words),
    Rule("daily_loss", _daily_loss, _daily_loss_in_words),
    Rule("consecutive_losses", _consecutive_losses, _consecutive_losses_in_words),
    Rule("max_positions", _max_positions, _max_positions_in_words),
    Rule("duplicate", _duplicate, _duplicate_in_words),
    Rule("order_rate", _order_rate, _order_rate_in_words),
    Rule("size", _size, _size_in_words),
)
*RULES_BEFORE_SIZE, SIZE = ALL_RULES


@cache
def _minutes(number: int) -> timedelta:
    return timedelta(minutes=number)


@cache
def _seconds(number: int) -> timedelta:
    return timedelta(seconds=number)
