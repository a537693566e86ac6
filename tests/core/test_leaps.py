"""Leaping from one event that matters to the next comes to what the plain loop comes to: answer for answer."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtests.desk import Result
from backtests.history import History, history_of, sessions_with_bars
from backtests.leaps import leap
from backtests.runner import days_of, run
from orders.lifecycle import Side
from risk.rules import RiskSettings
from trading.columns import BarColumns, CandleColumns
from trading.exchange import Exchange, PathRule
from trading.live import calendar
from trading.market import MINUTE, Session
from trading.messages import CandleClosed, Command, Event, Noted, OrderChanged, Record, RequestHistory
from trading.settings import TraderSettings
from trading.strategies import Velez
from trading.strategy import Foresight, Strategy, strategy_class
from trading.trader import Trader
from trading.warmup import WarmUp, history_needs, warm_up

# What only bars lead to: the candles themselves, and windows that lack minutes.
OF_BARS = (CandleClosed, Noted, RequestHistory)
WEEKS = (
    calendar.sessions(date(2023, 11, 22), date(2023, 11, 28)),  # Thanksgiving: no Thursday, half a Friday
    calendar.sessions(date(2024, 3, 7), date(2024, 3, 12)),  # the clocks go forward
    calendar.sessions(date(2024, 10, 31), date(2024, 11, 5)),  # and back
)


class Shortsighted(Velez):
    """Velez with a hint that may be too generous, and without any foresight while it holds a position."""

    name: ClassVar[str] = "shortsighted"
    candidates_are_signals: ClassVar[bool] = False

    def foresee(self, candles: CandleColumns, *, first: int, end: int, side: Side) -> Foresight:
        return Strategy.foresee(self, candles, first=first, end=end, side=side)

    def skip(self, foresight: Foresight) -> None:
        raise AssertionError("it wants to be told of every candle")


@pytest.fixture(autouse=True, scope="module")
def _registered() -> Iterator[None]:
    Strategy.registry[Shortsighted.name] = Shortsighted
    yield
    del Strategy.registry[Shortsighted.name]


del Strategy.registry[Shortsighted.name]  # it is registered for these tests alone


class ListenedTrader(Trader):
    """A Trader that remembers its answers, and of what it was told how often."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.answers: list[Command | Record] = []
        self.told: Counter[type[Event]] = Counter()

    def handle(self, event: Event) -> list[Command | Record]:
        self.told[type(event)] += 1
        answers = super().handle(event)
        self.answers += [answer for answer in answers if not isinstance(answer, OF_BARS)]
        return answers


@dataclass(frozen=True, kw_only=True)
class RandomBars:
    """Random walks, the same ones for the same values."""

    symbols: tuple[str, ...]
    seed: int
    missing: float
    volatility: int

    def columns(self, sessions: Sequence[Session]) -> dict[str, BarColumns]:
        randomness = random.Random(self.seed)
        return {
            symbol: random_walk(symbol, sessions, randomness, missing=self.missing, volatility=self.volatility)
            for symbol in self.symbols
        }


@dataclass(kw_only=True)
class Case:
    """One backtest, to be run in several ways; the sessions before number `traded` may warm up."""

    source: RandomBars
    sessions: Sequence[Session]
    traded: int = 0
    strategy: str = "velez"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    risk: Mapping[str, Any] = field(default_factory=dict)
    exchange: Mapping[str, Any] = field(default_factory=dict)
    grace_seconds: int = 90
    capital: Decimal = Decimal(25_000)

    @cached_property
    def bars(self) -> Mapping[str, BarColumns]:
        return self.source.columns(self.sessions)

    def plain(self) -> tuple[Result, list[Command | Record]]:
        trader = self._trader()
        days = days_of({symbol: columns.bars() for symbol, columns in self.bars.items()}, self._sessions)
        result = run(trader=trader, exchange=Exchange(**self.exchange), days=days, warm_ups=self._warm_ups)
        return result, trader.answers

    @cached_property
    def histories(self) -> dict[str, History]:
        return {
            symbol: history_of(columns, self._warm_ups[symbol].sessions, self._sessions)
            for symbol, columns in self.bars.items()
        }

    def leaping(self, *, keeps_records: bool) -> tuple[Result, list[Command | Record]]:
        result, trader = self.leap(keeps_records=keeps_records)
        return result, trader.answers

    def leap(self, *, keeps_records: bool) -> tuple[Result, ListenedTrader]:
        trader = self._trader(makes_candles=False, keeps_records=keeps_records)
        sessions = sessions_with_bars(self.histories.values(), self._sessions)
        exchange = Exchange(**self.exchange)
        return leap(trader=trader, exchange=exchange, histories=self.histories, sessions=sessions), trader

    @property
    def _sessions(self) -> Sequence[Session]:
        return self.sessions[self.traded :]

    @property
    def _warm_ups(self) -> dict[str, WarmUp]:
        needs = history_needs([strategy_class(self.strategy)("", self.parameters)])
        before = self.sessions[: self.traded]
        return {symbol: warm_up(columns.bars(), before, needs) for symbol, columns in self.bars.items()}

    def _trader(self, **options: bool) -> ListenedTrader:
        return ListenedTrader(
            settings=TraderSettings(
                risk=RiskSettings(**self.risk),
                strategies={self.strategy: self.parameters},
                grace_seconds=self.grace_seconds,
            ),
            symbols=self.bars,
            cash=self.capital,
            account_id="test",
            asks_broker=False,
            **options,
        )


def assert_same_both_ways(case: Case) -> Result:
    plain, answers = case.plain()
    leaping, leaping_answers = case.leaping(keeps_records=True)
    for expected, found in zip(answers, leaping_answers, strict=False):
        assert found == expected
    assert len(leaping_answers) == len(answers)
    assert leaping == plain
    assert case.leaping(keeps_records=False)[0] == plain
    return plain


# --- random bars ------------------------------------------------------------------------------------------------------


def random_walk(
    symbol: str, sessions: Sequence[Session], randomness: random.Random, *, missing: float, volatility: int
) -> BarColumns:
    """Cents or less a step, with gaps between minutes, minutes and days that are missing, and bars outside sessions."""
    unit = randomness.choice([1, 100, 100, 100])  # 1/10 000 dollar, or a cent
    price = randomness.choice([4000, 9000, 15_000] if unit == 1 else [80, 150, 2000, 10_000])
    bars: list[tuple[int, ...]] = []
    for session in sessions:
        if missing and randomness.random() < 0.1:
            continue
        minutes = (session.close - session.open) // MINUTE
        silence = range(0)
        for minute in range(-2, minutes + 2):
            if missing and randomness.random() < 0.01:
                silence = range(minute, minute + randomness.randint(1, 40))
            price = max(price + randomness.choice([0, 0, 0, randomness.randint(-volatility, volatility)]), 50)
            opened, close = price, max(price + randomness.randint(-volatility, volatility), 50)
            high = max(opened, close) + randomness.choice([0, randomness.randint(0, volatility)])
            low = max(min(opened, close) - randomness.choice([0, randomness.randint(0, volatility)]), 1)
            price = close
            if minute not in silence and randomness.random() >= missing:
                stamp = int((session.open + minute * MINUTE).timestamp())
                prices = (each * unit for each in (opened, high, low, close))
                bars.append((stamp, *prices, randomness.choice([0, 40, 1000])))
    return columns_of(symbol, bars)


def columns_of(symbol: str, bars: Sequence[tuple[int, ...]]) -> BarColumns:
    columns = np.array(bars, dtype=np.int64).reshape(-1, 6).T.copy()
    names = ("timestamps", "open", "high", "low", "close", "volume")
    return BarColumns(symbol=symbol, **dict(zip(names, columns, strict=True)))


SYMBOLS = st.sampled_from([("AAPL",), ("MSFT", "AAPL"), ("F", "MSFT", "AAPL", "TSLA")])


@st.composite
def cases(draw: st.DrawFn, symbols: st.SearchStrategy[tuple[str, ...]] = SYMBOLS) -> Case:
    sessions = draw(st.sampled_from(WEEKS))[: draw(st.integers(1, 4))]
    return Case(
        source=RandomBars(
            symbols=draw(symbols),
            seed=draw(st.integers(0, 2**32)),
            missing=draw(st.sampled_from([0, 0, 0.02, 0.2, 0.7])),
            volatility=draw(st.sampled_from([3, 12, 40])),
        ),
        sessions=sessions,
        traded=draw(st.integers(0, len(sessions) - 1)),
        strategy=draw(st.sampled_from(["velez", "velez", "velez", "shortsighted", "opening_range"])),
        parameters={
            "enabled": draw(st.sampled_from([True] * 9 + [False])),
            "sma_fast": draw(st.integers(1, 3)),
            "sma_slow": draw(st.sampled_from([4, 8, 15])),
            "candle_interval_minutes": draw(st.sampled_from([1, 2, 5, 10])),
            "allow_short": draw(st.booleans()),
            "buy_stop_expiry_candles": draw(st.integers(1, 5)),
            "max_run_candles": draw(st.integers(1, 3)),
            "stop_buffer_pct": Decimal(draw(st.sampled_from(["0.1", "0"]))),
            "stop_buffer_min": Decimal(draw(st.sampled_from(["0.02", "0"]))),
            "tightness_threshold_pct": Decimal(draw(st.sampled_from(["0.5", "2", "5", "1.333333333333333333"]))),
            "strong_candle_body_pct": Decimal(draw(st.sampled_from(["30", "50", "66.7"]))),
            "doji_threshold_pct": Decimal(draw(st.sampled_from(["0", "10", "35"]))),
        },
        risk={
            "consecutive_loss_pause": draw(st.sampled_from([1, 2, 3, 100])),
            "max_open_positions": draw(st.sampled_from([1, 2, 5])),
            "max_position_pct": Decimal(draw(st.sampled_from(["0.05", "0.6"]))),
            "max_daily_loss_pct": Decimal(draw(st.sampled_from(["0.001", "0.03", "0.5"]))),
            "flatten_minutes_before_close": draw(st.sampled_from([0, 0, 1, 5, 30])),
            "allow_margin": draw(st.booleans()),
        },
        exchange={
            "slippage_per_share": Decimal(draw(st.sampled_from(["0.01", "0", "0.00125"]))),
            "commission_per_share": Decimal(draw(st.sampled_from(["0", "0.0035"]))),
            "max_volume_share": draw(st.sampled_from([None, None, None, Decimal("0.1")])),
            "path_rule": draw(st.sampled_from(PathRule)),
        },
        grace_seconds=draw(st.sampled_from([5, 60, 90, 90, 120, 300])),
        capital=Decimal(draw(st.sampled_from(["25000", "1234.56"]))),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(case=cases())
def test_leaps_answer_as_the_plain_loop_does(case: Case) -> None:
    assert_same_both_ways(case)


# --- round trips that are worked out in advance -----------------------------------------------------------------------


ONE_SYMBOL = st.just(("AAPL",))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(case=cases(ONE_SYMBOL))
def test_round_trips_worked_out_in_advance_are_those_of_the_plain_loop(case: Case) -> None:
    assert case.leaping(keeps_records=False)[0] == case.plain()[0]


LIVELY = {
    "sma_fast": 1,
    "sma_slow": 4,
    "allow_short": True,
    "tightness_threshold_pct": Decimal(5),
    "strong_candle_body_pct": Decimal(30),
}
# Candles of a minute and a few cents, their stops at their ends.
NARROW = {**LIVELY, "candle_interval_minutes": 1, "stop_buffer_pct": Decimal(0), "stop_buffer_min": Decimal(0)}
UNPAUSED = {"consecutive_loss_pause": 10_000, "max_daily_loss_pct": Decimal("0.9")}


def lively_case(seed: int, *, volatility: int, **more: Any) -> Case:
    source = RandomBars(symbols=("AAPL",), seed=seed, missing=0, volatility=volatility)
    return Case(**{"source": source, "sessions": WEEKS[1], "parameters": LIVELY, "risk": UNPAUSED, **more})


@pytest.mark.parametrize("path_rule", PathRule)
@pytest.mark.parametrize("seed", range(5))
def test_a_bar_that_reaches_entry_and_stop_takes_the_same_path(seed: int, path_rule: PathRule) -> None:
    case = lively_case(seed, volatility=2, parameters=NARROW, exchange={"path_rule": path_rule})
    result, trader = case.leap(keeps_records=False)
    assert result == case.plain()[0]
    assert trader.told[OrderChanged] == 0
    assert any(trade.entry_at == trade.exit_at for trade in result.trades)


@pytest.mark.parametrize("seed", [4, 8, 10])
def test_an_entry_that_would_outlive_the_flatten_is_cancelled_by_it(seed: int) -> None:
    parameters, risk = {**LIVELY, "buy_stop_expiry_candles": 5}, {**UNPAUSED, "flatten_minutes_before_close": 30}
    case = lively_case(seed, volatility=12, parameters=parameters, risk=risk)
    assert case.leaping(keeps_records=False)[0] == case.plain()[0]


@pytest.mark.parametrize("seed", [0, 7, 11])
def test_a_signal_in_a_position_below_the_days_limit_ends_the_day(seed: int) -> None:
    percents = {"max_daily_loss_pct": "0.002", "max_position_pct": "0.6", "max_risk_per_trade_pct": "0.1"}
    risk = {**UNPAUSED, **{name: Decimal(percent) for name, percent in percents.items()}}
    result = (case := lively_case(seed, volatility=12, risk=risk)).leaping(keeps_records=False)[0]
    assert result == case.plain()[0]
    assert result.decisions["daily_loss"] > 0


def test_runs_on_the_same_bars_share_only_what_is_the_same_for_all_of_them() -> None:
    """As in the range beside a result, and in a sweep."""
    first = lively_case(4, volatility=2, parameters=NARROW)
    variants = [
        *(lively_case(4, volatility=2, parameters=NARROW, exchange={"path_rule": rule}) for rule in PathRule),
        lively_case(4, volatility=2, parameters=NARROW, exchange={"slippage_per_share": Decimal("0.03")}),
        *(lively_case(4, volatility=2, parameters={**NARROW, "max_run_candles": most}) for most in (1, 2)),
        lively_case(4, volatility=2, parameters={**NARROW, "strong_candle_body_pct": Decimal(70)}),
        lively_case(4, volatility=2, parameters={**NARROW, "buy_stop_expiry_candles": 3}),
    ]
    results = []
    for each in variants:
        each.__dict__["histories"] = first.histories
        results.append(each.leaping(keeps_records=False)[0])
        assert results[-1] == each.plain()[0]
    assert len({result.trades for result in results}) == len(variants)


def test_the_trader_is_not_asked_what_becomes_of_an_order_that_nothing_disturbs() -> None:
    source = RandomBars(symbols=("AAPL",), seed=1, missing=0, volatility=12)
    parameters = {"sma_fast": 2, "sma_slow": 4, "tightness_threshold_pct": Decimal(5)}
    case = Case(source=source, sessions=WEEKS[1], parameters=parameters)
    result, trader = case.leap(keeps_records=False)
    assert {trade.exit_reason for trade in result.trades} == {"stop_loss", "trailing_stop", "max_run", "end_of_day"}
    assert trader.told[OrderChanged] == 0
    assert case.leap(keeps_records=True)[1].told[OrderChanged] > 2 * len(result.trades)  # who wants records gets all
