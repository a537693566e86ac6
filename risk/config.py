"""What can be set: one table of all keys with their bounds, and `resolve`, which makes a `Config` of texts.

Nothing here reads the environment: `algotrader/config.py` does, and hands the result to Django as `settings.ALGO`.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from difflib import get_close_matches
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import AfterValidator, Field, StringConstraints, TypeAdapter, ValidationError

Source = Literal["default", "envfile", "env", "override"]

PREFIX = "ALGO_"
MASK = "********"
SYMBOL_PATTERN = r"^[A-Z]{1,5}(\.[A-Z])?$"
HOST_PATTERN = r"^(\[[0-9A-Fa-f:.]+\]|\.?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*)$"  # no port; an IPv6 address in brackets
STRATEGY_PATTERN = r"^[a-z][a-z0-9_]*$"


class ConfigError(ValueError):
    """A setting that cannot be used; the text is one line that names the variable, the value and the bound."""


class Kind(StrEnum):
    """What a setting's text becomes: str, int, Decimal, bool or a tuple of str. An empty optional number is None."""

    TEXT = "text"
    INTEGER = "integer"
    DECIMAL = "decimal"
    FLAG = "flag"
    SYMBOLS = "symbols"
    STRATEGIES = "strategies"
    HOSTS = "hosts"
    URL = "url"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One key: its default as text ("" where empty is allowed), its bounds, and who may change it.

    `choices` are the allowed texts of a TEXT or INTEGER, or the allowed schemes of a URL. `ui` keys can be overridden
    on the settings page and apply on the next evaluation; all others need a restart. A `secret` is never shown.
    """

    key: str
    default: str
    kind: Kind
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    choices: tuple[str, ...] = ()
    ui: bool = False
    secret: bool = False
    help: str

    @property
    def variable(self) -> str:
        """The environment variable, such as ALGO_RISK__MAX_DAILY_LOSS_PCT for risk.max_daily_loss_pct."""
        return PREFIX + self.key.upper().replace(".", "__")

    @property
    def restart(self) -> bool:
        """Whether a change needs a restart of the engine."""
        return not self.ui

    @property
    def optional(self) -> bool:
        """Whether the setting may be left empty."""
        return self.default == ""

    @property
    def bounds(self) -> str:
        """The allowed values in words; empty where anything goes."""
        if self.kind is Kind.URL:
            return " or ".join(f"{scheme}://..." for scheme in self.choices)
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.kind in (Kind.INTEGER, Kind.DECIMAL):
            noun = "a whole number" if self.kind is Kind.INTEGER else "a number"
            if self.maximum is None:
                return f"{noun} of {self.minimum} or more"
            return f"{noun} from {self.minimum} to {self.maximum}"
        return {
            Kind.FLAG: "true or false",
            Kind.SYMBOLS: "one or more different symbols such as AAPL or BRK.B, separated by commas",
            Kind.STRATEGIES: f"one or more different names that match {STRATEGY_PATTERN}, separated by commas",
            Kind.HOSTS: "different host names without port, separated by commas",
        }.get(self.kind, "any text" if self.optional else "not empty")


def _number(
    kind: Kind, key: str, default: str, low: str, high: str | None, help_text: str, *, ui: bool = False
) -> Setting:
    maximum = None if high is None else Decimal(high)
    return Setting(key=key, default=default, kind=kind, minimum=Decimal(low), maximum=maximum, ui=ui, help=help_text)


def _integer(key: str, default: str, low: str, high: str, help_text: str, *, ui: bool = False) -> Setting:
    return _number(Kind.INTEGER, key, default, low, high, help_text, ui=ui)


def _decimal(key: str, default: str, low: str, high: str | None, help_text: str, *, ui: bool = False) -> Setting:
    return _number(Kind.DECIMAL, key, default, low, high, help_text, ui=ui)


def _flag(key: str, default: str, help_text: str, *, ui: bool = False) -> Setting:
    return Setting(key=key, default=default, kind=Kind.FLAG, ui=ui, help=help_text)


def _choice(key: str, default: str, choices: str, help_text: str, *, ui: bool = False) -> Setting:
    return Setting(key=key, default=default, kind=Kind.TEXT, choices=tuple(choices.split()), ui=ui, help=help_text)


def _secret(key: str, help_text: str) -> Setting:
    return Setting(key=key, default="", kind=Kind.TEXT, secret=True, help=help_text)


def _url(key: str, schemes: str, help_text: str) -> Setting:
    return Setting(key=key, default="", kind=Kind.URL, choices=tuple(schemes.split()), help=help_text)


SETTINGS: tuple[Setting, ...] = (
    _choice(
        "broker.provider", "", "alpaca simulator",
        "Where to trade: Alpaca, or the built-in market. Empty: alpaca if both keys are set, simulator if none is.",
    ),
    _secret("broker.api_key", "Alpaca API key id."),
    _secret("broker.secret_key", "Alpaca API secret key."),
    _flag("broker.paper", "true", "Trade Alpaca's paper account. false also needs ALGO_ALLOW_LIVE_TRADING=true."),
    _choice("broker.feed", "iex", "iex sip", "Alpaca's market data feed: iex is free, sip needs a subscription."),
    _url("broker.trading_url", "http https", "Address of the trading API; empty: Alpaca's own."),
    _url("broker.trading_stream_url", "ws wss", "Address of the trade updates stream; empty: Alpaca's own."),
    _url("broker.data_url", "http https", "Address of the market data API; empty: Alpaca's own."),
    _url("broker.data_stream_url", "ws wss", "Address of the market data stream; empty: Alpaca's own."),
    Setting(
        key="watchlist", default="AAPL,TSLA,AMD,NVDA,META", kind=Kind.SYMBOLS, ui=True,
        help="Symbols to watch and trade, in the order in which bars of the same minute are worked.",
    ),
    _decimal(
        "risk.max_risk_per_trade_pct", "0.01", "0.001", "0.05",
        "Most that one trade may lose at its stop, as a fraction of equity (0.01 = 1 %).", ui=True,
    ),
    _decimal(
        "risk.max_risk_per_trade_abs", "500", "10", "5000",
        "Most that one trade may lose at its stop, in dollars; the smaller of both limits counts.", ui=True,
    ),
    _decimal(
        "risk.max_position_pct", "0.05", "0.01", "0.25",
        "Largest value of one position, as a fraction of equity.", ui=True,
    ),
    _decimal(
        "risk.max_daily_loss_pct", "0.03", "0.01", "0.10",
        "Loss of a session, as a fraction of its start equity, from which no more entries are made.", ui=True,
    ),
    _integer("risk.max_open_positions", "5", "1", "20", "Most open positions and working entries at a time.", ui=True),
    _integer(
        "risk.consecutive_loss_pause", "3", "2", "10",
        "Losing trades in a row after which no more entries are made in the session.", ui=True,
    ),
    _integer(
        "risk.flatten_minutes_before_close", "5", "0", "60",
        "Minutes before the close at which everything is closed at market; 0 holds overnight.", ui=True,
    ),
    _flag("risk.allow_margin", "false", "Use the broker's buying power beyond our own cash."),
    _integer(
        "risk.max_orders_per_minute", "10", "1", "1000",
        "Order requests in a minute, protective ones not counted, above which trading halts.",
    ),
    _decimal(
        "risk.default_stop_pct", "2.0", "0.5", "10",
        "Distance in percent of the stop that is placed for a position found without a planned one.",
    ),
    _decimal(
        "orders.protect_deadline_seconds", "2", "0.5", "30",
        "Seconds after a first partial fill at which the rest of the entry is cancelled and the stop placed.",
    ),
    _decimal(
        "orders.naked_alarm_seconds", "5", "1", "60",
        "Seconds a position may be without full stop cover before the alarm.",
    ),
    _integer(
        "candles.grace_seconds", "90", "5", "300",
        "Seconds after a window's end at which its candle is made of the bars that did come.",
    ),
    _flag(
        "adopt_positions", "true",
        "Take positions and orders found on the account as the engine's own; false leaves foreign ones alone.",
    ),
    Setting(key="strategies", default="velez", kind=Kind.STRATEGIES, help="Strategies to run, by registered name."),
    _decimal("backtest.slippage_per_share", "0.01", "0", None, "Dollars per share against us on every simulated fill."),
    _decimal("backtest.commission_per_share", "0", "0", None, "Dollars of commission per simulated share filled."),
    _decimal(
        "backtest.max_volume_share", "", "0", "1",
        "Largest share of a bar's volume that one simulated order may fill; empty: no limit.",
    ),
    _flag("velez.enabled", "true", "Let the strategy open positions; when off it still manages open ones.", ui=True),
    _flag("velez.allow_short", "false", "Also take the mirrored short signals."),
    _integer("velez.sma_fast", "20", "5", "50", "Candles of the fast moving average."),
    _integer("velez.sma_slow", "200", "100", "500", "Candles of the slow moving average."),
    Setting(
        key="velez.candle_interval_minutes", default="2", kind=Kind.INTEGER, choices=("1", "2", "5", "10"),
        help="Minutes of a candle.",
    ),
    _decimal(
        "velez.tightness_threshold_pct", "2.0", "0.5", "5.0",
        "Distance of the two averages, in percent of the close, below which they count as tight.",
    ),
    _decimal(
        "velez.strong_candle_body_pct", "50.0", "30", "80",
        "Body of a strong candle, in percent of its range.",
    ),
    _decimal("velez.stop_buffer_pct", "0.1", "0.05", "1.0", "Distance of the stop from the candle's low, in percent."),
    _decimal("velez.stop_buffer_min", "0.02", "0.01", "0.10", "Smallest distance of the stop, in dollars."),
    _integer("velez.buy_stop_expiry_candles", "1", "1", "5", "Candles for which an entry stays valid."),
    _integer("velez.max_run_candles", "3", "2", "10", "Strong candles in a row at which the position is closed."),
    _decimal("velez.doji_threshold_pct", "10.0", "0", "30", "Body below which a candle is a doji, in percent."),
    _flag(
        "opening_range.enabled", "true",
        "Let the strategy open positions; when off it still manages open ones.", ui=True,
    ),
    _flag("opening_range.allow_short", "false", "Also take the mirrored short signals."),
    _integer("opening_range.sma_fast", "20", "5", "50", "Candles of the fast moving average, for the trend."),
    _integer("opening_range.sma_slow", "100", "100", "500", "Candles of the slow moving average, for the trend."),
    Setting(
        key="opening_range.candle_interval_minutes", default="5", kind=Kind.INTEGER, choices=("1", "2", "5", "10"),
        help="Minutes of a candle.",
    ),
    _integer("opening_range.buy_stop_expiry_candles", "1", "1", "5", "Candles for which an entry stays valid."),
    _integer("opening_range.range_minutes", "30", "5", "120", "First minutes of the session that make the range."),
    _decimal(
        "opening_range.stop_range_pct", "50", "10", "100",
        "Distance of the stop from the range's broken end, in percent of the range.",
    ),
    _decimal(
        "opening_range.target_range_pct", "200", "50", "1000",
        "Distance of the target from the entry, in percent of the range.",
    ),
    Setting(
        key="web.host", default="127.0.0.1", kind=Kind.TEXT,
        help="Address the dashboard listens on. Beyond loopback it also needs ALGO_SECRET_KEY.",
    ),
    _integer("web.port", "8000", "1", "65535", "Port of the dashboard."),
    Setting(
        key="web.allowed_hosts", default="", kind=Kind.HOSTS,
        help="Further names or addresses by which browsers reach the dashboard, such as trader.example.com.",
    ),
    _flag("web.https", "false", "Browsers come over HTTPS, by a proxy that sets X-Forwarded-Proto; HTTP is refused."),
    _secret("web.api_token", "Signs the API's bearer tokens; empty: made once and kept in the data folder, mode 600."),
    _choice("log_level", "INFO", "DEBUG INFO WARNING ERROR CRITICAL", "Least level that is logged.", ui=True),
    _choice("log_format", "console", "console json", "Log lines for people, or one JSON object a line."),
    _url("database_url", "sqlite postgres postgresql", "Database; empty: SQLite, trading.db in the data folder."),
    _url("redis_url", "redis rediss", "Redis, joining engine and pages in processes of their own; empty: one process."),
    _integer("db_busy_timeout_ms", "5000", "0", "60000", "Milliseconds a SQLite connection waits for another's lock."),
    _flag(
        "schedule.start_engine", "false",
        "Have the background worker start an engine half an hour before the open when none runs.",
    ),
    _integer("worker.timeout_seconds", "1800", "10", "86400", "Seconds after which a background task is stopped."),
    _integer(
        "worker.retry_seconds", "1860", "20", "90000",
        "Seconds after which an unfinished background task is given to another worker; more than the timeout.",
    ),
    _integer(
        "worker.lease_seconds", "30", "5", "600",
        "Seconds without a sign of life after which a background worker counts as dead and another one takes its work.",
    ),
    _integer("recording.retention_days", "365", "1", "3650", "Days for which delivered bars are kept."),
    Setting(
        key="data_dir", default="data", kind=Kind.TEXT,
        help="Folder of the database, bars, keys and reports; made when missing.",
    ),
    _flag("allow_live_trading", "false", "The second switch without which no real money is traded."),
    _flag("debug", "false", "Django's debug pages. Never where others can reach the dashboard."),
    _secret("secret_key", "Signs sessions; empty: made once and kept in the data folder, mode 600."),
)  # fmt: skip

BY_KEY: Mapping[str, Setting] = MappingProxyType({setting.key: setting for setting in SETTINGS})
BY_VARIABLE: Mapping[str, Setting] = MappingProxyType({setting.variable: setting for setting in SETTINGS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The effective settings: for every key its value and where it came from."""

    values: Mapping[str, Any] = field(repr=False)
    sources: Mapping[str, Source] = field(repr=False)

    def value(self, key: str) -> Any:
        """The parsed value, of the type its kind says. Raises ConfigError for a key that does not exist."""
        return self.values[setting_of(key).key]

    def __getitem__(self, key: str) -> Any:
        return self.value(key)

    def source(self, key: str) -> Source:
        """Where the value came from. Raises ConfigError for a key that does not exist."""
        return self.sources[setting_of(key).key]

    def with_overrides(self, overrides: Mapping[str, str]) -> Config:
        """A copy in which the given keys have new values. Raises ConfigError for a bad key, value or combination."""
        values = {**self.values, **{key: parse(key, text) for key, text in overrides.items()}}
        sources: dict[str, Source] = {**self.sources, **dict.fromkeys(overrides, "override")}
        return Config(values=_checked(values), sources=sources)

    def as_texts(self) -> dict[str, str]:
        """Every key that is no secret with its value as text: what is stored beside a run."""
        return {setting.key: mask(setting, self[setting.key]) for setting in SETTINGS if not setting.secret}

    def secrets(self) -> list[str]:
        """Every text that must not be shown, as it is written and as it is sent: keys, and passwords in addresses."""
        found = [self[setting.key] for setting in SETTINGS if setting.secret]
        for setting in SETTINGS:
            if setting.kind is Kind.URL and (password := urlsplit(self[setting.key]).password):
                found += [password, unquote(password)]
        return [text for text in found if text]

    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of `as_texts`: equal settings have equal fingerprints."""
        return hashlib.sha256("\n".join(f"{k}={v}" for k, v in sorted(self.as_texts().items())).encode()).hexdigest()


def resolve(layers: Sequence[tuple[Source, Mapping[str, str]]]) -> Config:
    """Build a Config from texts by variable name, layers given from low to high priority.

    Raises ConfigError for the first bad value, combination, or variable that no setting has.
    """
    values: dict[str, Any] = {s.key: parse(s.key, s.default) for s in SETTINGS}
    sources: dict[str, Source] = dict.fromkeys(values, "default")
    for source, texts in layers:
        _refuse_unknown(source, texts)
        for variable, text in texts.items():
            if setting := BY_VARIABLE.get(variable):
                values[setting.key] = parse(setting.key, text)
                sources[setting.key] = source
    return Config(values=_checked(values), sources=sources)


def setting_of(key: str) -> Setting:
    """The setting of a key. Raises ConfigError, with a suggestion, for a key that does not exist."""
    if key in BY_KEY:
        return BY_KEY[key]
    raise ConfigError(f"{key!r} is not a setting{_suggestion(key, BY_KEY)}")


def parse(key: str, text: str) -> Any:
    """The value of a text for a key. Raises ConfigError with one line naming the variable, the value and the bound."""
    setting = setting_of(key)
    text = text.strip()
    if not text and setting.optional:
        return {Kind.DECIMAL: None, Kind.HOSTS: ()}.get(setting.kind, "")
    is_list = setting.kind in (Kind.SYMBOLS, Kind.STRATEGIES, Kind.HOSTS)
    try:
        return _adapter(setting).validate_python([part.strip() for part in text.split(",")] if is_list else text)
    except ValidationError:
        shown = MASK if setting.secret else repr(_without_password(text))
        raise ConfigError(f"{setting.variable}={shown} is not allowed: it must be {setting.bounds}") from None


def as_text(value: object) -> str:
    """The text that `parse` turns into this value; decimals without exponent."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case Decimal():
            return f"{value:f}"
        case tuple():
            return ",".join(value)
        case _:
            return str(value)


def mask(setting: Setting, value: object) -> str:
    """The value as text that may be shown: secrets and passwords inside addresses replaced by asterisks."""
    text = as_text(value)
    if setting.secret:
        return MASK if text else ""
    return _without_password(text) if setting.kind is Kind.URL else text


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's loopback."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    """The values with the provider decided. Raises ConfigError when they do not go together."""
    if not values["broker.provider"]:
        has_keys = values["broker.api_key"] and values["broker.secret_key"]
        values = {**values, "broker.provider": "alpaca" if has_keys else "simulator"}
    _check_keys(values)
    _check_live_trading(values)
    if not (values["debug"] or values["secret_key"] or is_loopback(values["web.host"])):
        raise ConfigError(f"ALGO_WEB__HOST={values['web.host']!r} is not loopback: it needs ALGO_SECRET_KEY to be set")
    timeout, retry = values["worker.timeout_seconds"], values["worker.retry_seconds"]
    if retry <= timeout:
        raise ConfigError(f"ALGO_WORKER__RETRY_SECONDS={retry} must be above ALGO_WORKER__TIMEOUT_SECONDS={timeout}")
    return values


def _check_keys(values: Mapping[str, Any]) -> None:
    pair = ("broker.api_key", "broker.secret_key")
    missing = [setting_of(key).variable for key in pair if not values[key]]
    if len(missing) == 1:
        raise ConfigError(f"{missing[0]} is empty: both keys of Alpaca must be set, or neither")
    if missing and values["broker.provider"] == "alpaca":
        raise ConfigError(f"ALGO_BROKER__PROVIDER='alpaca' needs {' and '.join(missing)} to be set")


_TRADING_URLS = ("broker.trading_url", "broker.trading_stream_url")
_DATA_URLS = ("broker.data_url", "broker.data_stream_url")
_PAPER_HOST = "paper-api.alpaca.markets"
_DATA_HOSTS = frozenset({"data.alpaca.markets", "stream.data.alpaca.markets"})


def _check_live_trading(values: Mapping[str, Any]) -> None:
    """Real money needs the second switch; orders, fills and prices must come from one kind of place."""
    allowed = values["allow_live_trading"]
    if not (values["broker.paper"] or allowed):
        raise ConfigError("ALGO_BROKER__PAPER='false' trades real money: it needs ALGO_ALLOW_LIVE_TRADING=true")
    kinds: dict[str, str] = {}
    for key in _TRADING_URLS + _DATA_URLS:
        kinds[key] = _kind_of_place(key, values)
        if values[key] and kinds[key] == "live" and not allowed:
            shown = _without_password(values[key])
            raise ConfigError(
                f"{setting_of(key).variable}={shown!r} is neither loopback nor Alpaca's paper host: "
                "it counts as live and needs ALGO_ALLOW_LIVE_TRADING=true"
            )
    places = set(kinds.values())
    if len(places - {"alpaca data"}) > 1 or {"loopback", "alpaca data"} <= places:
        shown = ", ".join(f"{setting_of(key).variable} is {kind}" for key, kind in kinds.items())
        raise ConfigError(f"broker addresses must be of one kind, all loopback, all paper or all live, but {shown}")


def _kind_of_place(key: str, values: Mapping[str, Any]) -> str:
    """`loopback`, `paper`, `live`, or `alpaca data`, which serves paper and live accounts alike."""
    url = values[key]
    if not url:
        if values["broker.provider"] == "simulator":
            return "loopback"
        if key in _DATA_URLS:
            return "alpaca data"
        return "paper" if values["broker.paper"] else "live"
    host = (urlsplit(url).hostname or "").rstrip(".")
    if is_loopback(host):
        return "loopback"
    if key in _DATA_URLS and host in _DATA_HOSTS:
        return "alpaca data"
    return "paper" if key in _TRADING_URLS and host == _PAPER_HOST else "live"


def _refuse_unknown(source: Source, texts: Mapping[str, str]) -> None:
    """A misspelt limit would silently not protect: refuse what is meant for us but is no setting.

    The environment also holds what others named, such as ALGO_TRADER_SERVICE_HOST; only names with a section, or
    names that resemble one of ours, are taken to be meant for us there.
    """
    for variable in texts:
        if not variable.startswith(PREFIX) or variable in BY_VARIABLE:
            continue
        suggestion = _suggestion(variable, BY_VARIABLE)
        if source == "envfile" or "__" in variable or suggestion:
            raise ConfigError(f"{variable} is not a setting{suggestion}")


def _suggestion(name: str, names: Iterable[str]) -> str:
    close = get_close_matches(name, names, n=1, cutoff=0.85)
    return f"; did you mean {close[0]}?" if close else ""


def _without_password(text: str) -> str:
    """An address without what comes before its last @ and without passwords and keys in its query."""
    text = re.sub(r"(?<=://).*:.*(?=@)", MASK, text)
    return re.sub(r"(?i)((?:password|token|secret|key)=)[^&]+", rf"\1{MASK}", text)


@cache
def _adapter(setting: Setting) -> TypeAdapter[Any]:
    """The pydantic type of a setting's value, bounds included."""
    match setting.kind:
        case Kind.INTEGER if setting.choices:
            return TypeAdapter(Annotated[int, AfterValidator(_one_of(tuple(map(int, setting.choices))))])
        case Kind.INTEGER:
            return TypeAdapter(Annotated[int, Field(ge=setting.minimum, le=setting.maximum)])
        case Kind.DECIMAL:
            return TypeAdapter(Annotated[Decimal, Field(ge=setting.minimum, le=setting.maximum, allow_inf_nan=False)])
        case Kind.FLAG:
            return TypeAdapter(bool)
        case Kind.SYMBOLS:
            return _different_texts(SYMBOL_PATTERN)
        case Kind.STRATEGIES:
            return _different_texts(STRATEGY_PATTERN)
        case Kind.HOSTS:
            return _different_texts(HOST_PATTERN)
        case Kind.URL:
            return TypeAdapter(Annotated[str, AfterValidator(_url_check(setting))])
        case Kind.TEXT if setting.choices:
            return TypeAdapter(Annotated[str, AfterValidator(_one_of(setting.choices))])
        case _:
            return TypeAdapter(Annotated[str, Field(min_length=1)])


def _different_texts(pattern: str) -> TypeAdapter[Any]:
    item = Annotated[str, StringConstraints(pattern=pattern)]
    return TypeAdapter(Annotated[tuple[item, ...], AfterValidator(_all_different)])


def _all_different(items: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(items)) != len(items):
        raise ValueError("the same item twice")
    return items


def _one_of(choices: tuple[Any, ...]) -> Any:
    def check(value: Any) -> Any:
        if value not in choices:
            raise ValueError("not one of the choices")
        return value

    return check


def _url_check(setting: Setting) -> Any:
    def check(text: str) -> str:
        parts: SplitResult = urlsplit(text)
        needs_host = parts.scheme not in ("sqlite", "postgres", "postgresql")
        if parts.scheme not in setting.choices or (needs_host and not parts.hostname) or (parts.port or 0) > 65535:
            raise ValueError("not such an address")
        return text

    return check
