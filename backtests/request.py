"""What a backtest is asked to do: texts from a command line, a form or a row, checked and made into one value."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

import trading.strategies  # noqa: F401  registers them
from risk.config import BY_KEY, Config, ConfigError, as_text, parse, setting_of
from risk.rules import RiskSettings
from trading.settings import TraderSettings, trader_settings
from trading.strategy import UnknownStrategy, strategy_class

OTHER_KEYS = (
    "candles.grace_seconds",
    "orders.protect_deadline_seconds",
    "backtest.slippage_per_share",
    "backtest.commission_per_share",
    "backtest.max_volume_share",
)


class BadRequest(ValueError):
    """The request makes no sense; the text is one line that says what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestRequest:
    """One backtest. Dates are New York sessions, both included; `config` has every setting of this run.

    `strategy` is a name, or several with commas between that share the capital; `data` is a file or folder of bars,
    None for the bar store.
    """

    strategy: str
    symbols: tuple[str, ...]
    start_date: date
    end_date: date
    initial_capital: Decimal
    config: Config
    data: str | None = None

    @property
    def trader_settings(self) -> TraderSettings:
        """What the Trader obeys in this run."""
        return trader_settings(self.config)

    @property
    def params(self) -> dict[str, Any]:
        """Every setting that has a say in a backtest, as JSON: decimals as text, so that they stay exact."""
        return {key: _as_json(self.config[key]) for key in effective_keys(self.strategy)}


def effective_keys(strategy: str) -> tuple[str, ...]:
    """The settings that have a say in a backtest of this strategy, or of these, by key."""
    risk = [f"risk.{each.name}" for each in fields(RiskSettings)]
    own = [key for name in strategy.split(",") for key in BY_KEY if key.startswith(f"{name}.")]
    return (*own, *risk, *OTHER_KEYS)


def make_request(
    *,
    strategy: str,
    symbols: Iterable[str],
    start_date: str,
    end_date: str,
    initial_capital: str,
    params: Mapping[str, object],
    config: Config,
    data: str | None = None,
) -> BacktestRequest:
    """The request with `params` laid over `config`; a strategy is on unless `params` turns it off.

    Raises:
        BadRequest: for the first thing that is wrong.
    """
    try:
        for name in strategy.split(","):
            strategy_class(name)
        chosen: tuple[str, ...] = parse("watchlist", ",".join(symbol.strip().upper() for symbol in symbols))
    except (UnknownStrategy, ConfigError) as error:
        raise BadRequest(str(error).replace("ALGO_WATCHLIST=", "the list of symbols ")) from None
    start, end = _date("start", start_date), _date("end", end_date)
    if end < start:
        raise BadRequest(f"the end date {end} lies before the start date {start}")
    return BacktestRequest(
        strategy=strategy,
        symbols=chosen,
        start_date=start,
        end_date=end,
        initial_capital=_capital(initial_capital),
        config=_configured(strategy, params, config),
        data=data,
    )


def _configured(strategy: str, params: Mapping[str, object], config: Config) -> Config:
    allowed = effective_keys(strategy)
    switches = [f"{name}.enabled" for name in strategy.split(",")]
    overrides = {"strategies": strategy, **{switch: "true" for switch in switches if switch in allowed}}
    try:
        for key, value in params.items():
            if setting_of(key).key not in allowed:
                raise BadRequest(f"{key} has no effect on a backtest of {strategy}")
            overrides[key] = as_text(value)
        return config.with_overrides(overrides)
    except ConfigError as error:
        raise BadRequest(str(error)) from None


def _date(name: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadRequest(f"the {name} date {text!r} is not a date written as YYYY-MM-DD") from None


def _capital(text: str) -> Decimal:
    try:
        capital = Decimal(text)
    except InvalidOperation:
        capital = Decimal("NaN")
    if not (capital.is_finite() and capital > 0):
        raise BadRequest(f"the initial capital {text!r} is not an amount above 0")
    return capital


def _as_json(value: object) -> object:
    return as_text(value) if isinstance(value, Decimal) else value
