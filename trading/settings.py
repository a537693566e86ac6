"""The settings the Trader obeys, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from typing import Any

from risk.config import Config
from risk.rules import RiskSettings
from trading.strategy import strategy_class


@dataclass(frozen=True, slots=True, kw_only=True)
class TraderSettings:
    """Risk limits, and the parameters of each active strategy by its name, in order."""

    risk: RiskSettings = field(default_factory=RiskSettings)
    strategies: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"velez": {}})
    grace_seconds: int = 90
    protect_deadline_seconds: Decimal = Decimal(2)


def trader_settings(config: Config) -> TraderSettings:
    """The part of the configuration that the Trader obeys.

    Raises:
        UnknownStrategy: `strategies` names one that is not registered.
    """
    return TraderSettings(
        risk=RiskSettings(**{field.name: config[f"risk.{field.name}"] for field in fields(RiskSettings)}),
        strategies={name: strategy_parameters(config, name) for name in config["strategies"]},
        grace_seconds=config["candles.grace_seconds"],
        protect_deadline_seconds=config["orders.protect_deadline_seconds"],
    )


def strategy_parameters(config: Config, name: str) -> dict[str, Any]:
    """A strategy's parameters: its `hyperparameters`, and over them the settings named `<name>.<parameter>`."""
    strategy = strategy_class(name)
    return {key: config.values.get(f"{name}.{key}", default) for key, default in strategy.hyperparameters.items()}
