"""What may be sent: one function a rule, in the order of `ALL_RULES`; the first failure refuses the entry."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from risk.sizing import shares

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
        for code, rule in ALL_RULES:
            passed, words = rule(self.request, self.settings)
            checks.append(Check(code=code, passed=passed, detail=words()))
            if not passed:
                break
        return tuple(checks)


def assess(request: EntryRequest, settings: RiskSettings) -> Assessment:
    """Runs the rules in their order."""
    for code, rule in ALL_RULES:
        passed, _ = rule(request, settings)
        if not passed:
            return Assessment(request=request, settings=settings, refused_by=code, qty=Decimal(0))
    return Assessment(request=request, settings=settings, refused_by="", qty=size_of(request, settings))


def size_of(request: EntryRequest, settings: RiskSettings) -> Decimal:
    """The entry's size in whole shares."""
    return shares(
        equity=request.equity,
        buying_power=request.buying_power,
        entry_price=request.entry_price,
        stop_price=request.stop_price,
        max_risk_per_trade_pct=settings.max_risk_per_trade_pct,
        max_risk_per_trade_abs=settings.max_risk_per_trade_abs,
        max_position_pct=settings.max_position_pct,
    )


Verdict = tuple[bool, Callable[[], str]]  # whether the rule is kept, and what it compared, in words


def _halted(request: EntryRequest, settings: RiskSettings) -> Verdict:
    return not request.halted, lambda: request.halted or "trading is on"


def _session(request: EntryRequest, settings: RiskSettings) -> Verdict:
    if request.session_close is None:
        return False, lambda: "the market is closed"
    last = request.session_close - timedelta(minutes=settings.flatten_minutes_before_close)
    return request.now < last, lambda: f"entries until {last:%H:%M:%S} UTC, now {request.now:%H:%M:%S}"


def _stale(request: EntryRequest, settings: RiskSettings) -> Verdict:
    if not request.is_live:
        return False, lambda: "the candle came from history"
    age = request.now - request.candle_end
    limit = timedelta(seconds=request.grace_seconds + STALE_MARGIN_SECONDS)
    return age <= limit, lambda: f"candle ended {age.total_seconds():g} s ago, limit {limit.total_seconds():g} s"


def _symbol_state(request: EntryRequest, settings: RiskSettings) -> Verdict:
    return not request.symbol_problem, lambda: request.symbol_problem or "nothing is wrong with the symbol"


def _account(request: EntryRequest, settings: RiskSettings) -> Verdict:
    if request.broker_equity is None:
        current = request.broker_is_current
        return current, lambda: "no broker to compare with" if current else "no account data"
    if not request.broker_is_current:
        return False, lambda: "the broker's account could not be read for 30 s"
    difference = abs(request.equity - request.broker_equity)
    return (
        difference <= MAX_EQUITY_DIFFERENCE * request.broker_equity,
        lambda: f"equity {request.equity:.2f} here, {request.broker_equity:.2f} at the broker",
    )


def _daily_loss(request: EntryRequest, settings: RiskSettings) -> Verdict:
    result = request.equity - request.start_equity
    limit = -(settings.max_daily_loss_pct * request.start_equity)
    passed = result > limit and "daily_loss" not in request.tripped
    return passed, lambda: f"result of the day {result:.2f}, limit {limit:.2f}"


def _consecutive_losses(request: EntryRequest, settings: RiskSettings) -> Verdict:
    tripped = "consecutive_losses" in request.tripped
    pause = settings.consecutive_loss_pause
    return not tripped, lambda: f"{pause} losses in a row pause the day: {'yes' if tripped else 'no'}"


def _max_positions(request: EntryRequest, settings: RiskSettings) -> Verdict:
    used = request.open_positions + request.working_entries
    return used < settings.max_open_positions, lambda: f"{used} of {settings.max_open_positions} positions used"


def _duplicate(request: EntryRequest, settings: RiskSettings) -> Verdict:
    taken = request.symbol_is_taken
    return not taken, lambda: "the symbol is taken" if taken else "the symbol is free"


def _order_rate(request: EntryRequest, settings: RiskSettings) -> Verdict:
    count, limit = request.entries_today, MAX_ENTRIES_PER_SYMBOL_AND_SESSION
    return count < limit, lambda: f"{count} of {limit} entries of the session used"


def _size(request: EntryRequest, settings: RiskSettings) -> Verdict:
    if request.stop_price <= 0:
        return False, lambda: f"the initial stop {request.stop_price} is not above 0"
    qty = size_of(request, settings)
    return qty > 0, lambda: f"{qty} shares fit"


ALL_RULES: tuple[tuple[str, Callable[[EntryRequest, RiskSettings], Verdict]], ...] = (
    ("halted", _halted),
    ("session", _session),
    ("stale", _stale),
    ("symbol_state", _symbol_state),
    ("account", _account),
    ("daily_loss", _daily_loss),
    ("consecutive_losses", _consecutive_losses),
    ("max_positions", _max_positions),
    ("duplicate", _duplicate),
    ("order_rate", _order_rate),
    ("size", _size),
)
