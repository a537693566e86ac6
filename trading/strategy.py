"""What a strategy is: one instance per symbol, asked candle by candle what to do; and the registry by name."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, ClassVar, NamedTuple

from orders.lifecycle import Side
from trading.candles import Candle
from trading.columns import AverageColumns, CandleColumns, Flags
from trading.indicators import IndicatorSet
from trading.market import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What a strategy is told of the position it manages: open shares, prices in dollars."""

    side: Side
    qty: Decimal
    avg_entry_price: Decimal
    current_price: Decimal
    unrealized_pnl: Decimal
    stop_price: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One condition of a signal with the value that was compared, for the page and the flight recorder."""

    name: str
    met: bool
    value: str
    needed: str


class Foresight(NamedTuple):
    """Managing a position comes to nothing before the candle at `place`; `memory` is the strategy's own by then."""

    place: int
    memory: Any = None


class UnknownStrategy(Exception):
    """No strategy is registered under that name."""


class Strategy(ABC):
    """Decides for one symbol. It fetches nothing and reads no clock: candles and averages go in, wishes come out.

    Subclasses are registered under `name`. `hyperparameters` are the defaults of their settings (`<name>.<parameter>`);
    every strategy has `enabled`, `allow_short`, `candle_interval_minutes`, `sma_fast`, `sma_slow` and
    `buy_stop_expiry_candles` among them. `exit_reason` is what a trade closed by `should_exit` says.
    """

    name: ClassVar[str]
    exit_reason: ClassVar[str]
    hyperparameters: ClassVar[Mapping[str, Any]] = {}
    registry: ClassVar[dict[str, type["Strategy"]]] = {}
    observes: ClassVar[bool]
    candidates_are_signals: ClassVar[bool] = False
    signal_parameters: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.observes = cls.observe is not Strategy.observe
        if "name" in cls.__dict__:
            Strategy.registry[cls.name] = cls

    def __init__(self, symbol: str, parameters: Mapping[str, Any] | None = None) -> None:
        self.symbol = symbol
        self.parameters: dict[str, Any] = {**self.hyperparameters, **(parameters or {})}

    @property
    def candle_interval(self) -> timedelta:
        """Length of the candles this strategy wants."""
        return timedelta(minutes=self.parameters["candle_interval_minutes"])

    @property
    def entry_validity(self) -> timedelta:
        """How long an entry may wait for its price."""
        return self.candle_interval * int(self.parameters["buy_stop_expiry_candles"])

    def observe(self, candle: Candle, session: Session) -> None:  # noqa: B027  most strategies need no past
        """Told of every completed candle of the symbol with its session, before any question about it.

        That includes candles of history and those while another strategy holds the symbol: what a strategy must know
        of the day belongs here, for the questions are asked only when their answer counts.
        """

    @abstractmethod
    def should_long(self, candle: Candle, indicators: IndicatorSet) -> bool:
        """Whether to enter long on this completed candle."""

    def should_short(self, candle: Candle, indicators: IndicatorSet) -> bool:
        """Whether to enter short on this completed candle; asked only if `allow_short` is set."""
        return False

    @abstractmethod
    def entry_price(self, candle: Candle, side: Side) -> Decimal:
        """Stop price of the entry, before tick rounding."""

    @abstractmethod
    def stop_loss_price(self, candle: Candle, side: Side) -> Decimal:
        """Initial protective stop, before tick rounding."""

    @abstractmethod
    def should_update_stop(self, candle: Candle, holding: Holding, indicators: IndicatorSet) -> Decimal | None:
        """Called once per completed candle in a position, before `should_exit`: a better stop price, or None.

        The trader rounds it, moves the stop only in the position's favour, and closes at market where the new
        stop would already be reached.
        """

    @abstractmethod
    def should_exit(self, candle: Candle, holding: Holding, indicators: IndicatorSet) -> bool:
        """Called after `should_update_stop`: whether to leave at market now."""

    def conditions(self, candle: Candle, indicators: IndicatorSet) -> list[Condition]:
        """Each condition of the entry with its value: why a signal came, or why not now."""
        return []

    def position_closed(self) -> None:  # noqa: B027  most strategies remember nothing
        """Forget everything about the position: it is flat."""

    def candidates(self, candles: CandleColumns, averages: AverageColumns) -> Flags | None:
        """A hint for backtests, which have all candles in advance: at which of them a signal is possible.

        It may be given for too many candles, never for too few. `candidates_are_signals` says that it is never given
        for too many either: at each `should_long`, or `should_short` if shorts are allowed, says yes. With a hint the
        strategy is told of these candles and of those in its positions alone, so it must not live on `observe`. None:
        it is to be told of every candle.
        """
        return None

    def foresee(self, candles: CandleColumns, *, first: int, end: int, side: Side) -> Foresight:
        """A hint for backtests, while a position is held: the next candle at which managing it can come to anything.

        At all candles from position `first` up to that one, or to `end`, `should_update_stop` would give None and
        `should_exit` False. Nothing is changed until the answer is passed to `skip`.
        """
        return Foresight(first)

    def skip(self, foresight: Foresight) -> None:  # noqa: B027  most strategies foresee nothing
        """Be as if told of all candles before `foresight.place`; it was told of none since it gave that answer."""

    def outlook(self, candles: CandleColumns, *, first: int, side: Side) -> Iterator[tuple[int, Decimal | None]] | None:
        """A hint for backtests: all that managing a position comes to that is new at the candle at position `first`.

        In order, every candle at which `should_update_stop` would give a price, with that price, and at which
        `should_exit` would say yes, with None; after that candle nothing is asked. The strategy itself stays as it is.
        None: it is not known in advance.
        """
        return None

    def after_signals(self) -> tuple[tuple[str, Any], ...]:
        """The parameters with their values, without those that `signal_parameters` names.

        These have a say in nothing but whether a candle is a signal: not in its prices, nor in what comes after it.
        """
        return tuple((name, value) for name, value in self.parameters.items() if name not in self.signal_parameters)

    def required_history(self) -> int:
        """Completed candles needed before the first signal."""
        return int(self.parameters["sma_slow"]) + 1


def strategy_class(name: str) -> type[Strategy]:
    """The registered strategy of that name.

    Raises:
        UnknownStrategy: with the names that exist.
    """
    try:
        return Strategy.registry[name]
    except KeyError:
        raise UnknownStrategy(
            f"there is no strategy {name!r}; there are: {', '.join(sorted(Strategy.registry))}"
        ) from None
