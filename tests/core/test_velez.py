"""The Velez strategy: each condition of its signal on sets of 500 candles, then trail and run as scripts of candles."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.lifecycle import Side
from tests.real_bars import real_days
from trading.candles import Candle, CandleAggregator
from trading.indicators import IndicatorCalculator, IndicatorSet
from trading.market import MINUTE, Session
from trading.strategies import Velez
from trading.strategy import Condition, Holding, strategy_class

START = datetime(2024, 3, 4, 14, 30, tzinfo=UTC)
AT = 450  # where the candle under test stands in a set of 500


def candle(prices: str, *, number: int = 0) -> Candle:
    """A two-minute candle from `open high low close`."""
    opened, high, low, close = (Decimal(word) for word in prices.split())
    start = START + 2 * number * MINUTE
    return Candle(
        symbol="AAPL",
        timestamp=start,
        end=start + 2 * MINUTE,
        open=opened,
        high=high,
        low=low,
        close=close,
        volume=1000,
        bars=2,
    )


def doji(close: str, *, number: int = 0) -> Candle:
    """A candle that closes where it opened, so that no signal can come of it."""
    end = Decimal(close)
    return candle(f"{close} {end + Decimal('0.1')} {end - Decimal('0.1')} {close}", number=number)


def candles(
    at: str = "100 101 99.9 100.8", *, place: int = AT, before: Mapping[int, str] | None = None
) -> list[Candle]:
    """500 candles: dojis at 100 dollars, or at the close in `before`, and the one under test in its place."""
    closes = before or {}
    return [
        candle(at, number=number) if number == place else doji(closes.get(number, "100"), number=number)
        for number in range(500)
    ]


def mirrored(originals: Iterable[Candle]) -> list[Candle]:
    """The same candles upside down around 100 dollars."""
    return [
        candle(f"{200 - one.open} {200 - one.low} {200 - one.high} {200 - one.close}", number=number)
        for number, one in enumerate(originals)
    ]


def averaged(series: Iterable[Candle], *, fast: int = 20, slow: int = 200) -> list[tuple[Candle, IndicatorSet]]:
    calculator = IndicatorCalculator(fast=fast, slow=slow)
    return [(one, calculator.add(one.close)) for one in series]


def longs(series: Iterable[Candle], **parameters: Any) -> list[int]:
    """At which candles of a set a long is signalled."""
    velez = Velez("AAPL", parameters)
    return [number for number, (one, known) in enumerate(averaged(series)) if velez.should_long(one, known)]


def shorts(series: Iterable[Candle], **parameters: Any) -> list[int]:
    velez = Velez("AAPL", parameters)
    return [number for number, (one, known) in enumerate(averaged(series)) if velez.should_short(one, known)]


def conditions(series: list[Candle], place: int = AT, **parameters: Any) -> list[Condition]:
    one, known = averaged(series)[place]
    return Velez("AAPL", parameters).conditions(one, known)


def unmet(series: list[Candle], place: int = AT, **parameters: Any) -> list[str]:
    return [condition.name for condition in conditions(series, place, **parameters) if not condition.met]


def recent(close: str) -> dict[int, str]:
    """The 19 candles before the one under test close there."""
    return dict.fromkeys(range(AT - 19, AT), close)


class TestSignal:
    def test_a_strong_green_candle_out_of_tight_averages_that_part_upwards_is_a_signal(self) -> None:
        assert longs(candles()) == [AT]
        assert unmet(candles()) == []

    @pytest.mark.parametrize(
        ("name", "series"),
        [
            ("tight", candles("105 106 104.9 105.8", before=recent("105"))),
            ("fast average on the right side", candles("99.9 100.7 99.8 100.6", before=recent("99.9"))),
            ("diverging", candles(before={AT - 20: "102"})),
            ("green", candles("101.6 101.6 100.5 100.8")),
            ("strong", candles("100.4 101.3 100.3 100.8")),
        ],
    )
    def test_without_any_one_condition_there_is_none(self, name: str, series: list[Candle]) -> None:
        assert longs(series) == []
        assert unmet(series) == [name]

    def test_an_unchanged_distance_is_not_diverging(self) -> None:
        series = candles(before={AT - 20: "100.72"})
        (_, before), (_, now) = averaged(series)[AT - 1 : AT + 1]
        assert now.scaled_spread == before.scaled_spread
        assert now.spread_is_positive
        assert unmet(series) == ["diverging"]
        assert longs(series) == []

    @pytest.mark.parametrize(("place", "signals"), [(150, []), (198, []), (199, []), (200, [200]), (201, [201])])
    def test_the_first_signal_can_come_with_the_201st_candle(self, place: int, signals: list[int]) -> None:
        assert longs(candles(place=place)) == signals
        assert ("warm" in unmet(candles(place=place), place)) is not bool(signals)

    def test_four_known_averages_over_too_few_candles_are_not_enough(self) -> None:
        one, known = averaged(candles())[AT]
        few = IndicatorSet(
            sma_fast=known.sma_fast,
            sma_slow=known.sma_slow,
            prev_sma_fast=known.prev_sma_fast,
            prev_sma_slow=known.prev_sma_slow,
            bar_count=199,
        )
        assert not Velez("AAPL").should_long(one, few)

    @pytest.mark.parametrize(
        ("prices", "is_strong"),
        [("100 101 99.9 100.55", True), ("100 101 99.9 100.54", False), ("100.8 100.8 100.8 100.8", False)],
    )
    def test_half_of_the_candle_is_body_enough(self, prices: str, *, is_strong: bool) -> None:
        assert ("strong" not in unmet(candles(prices))) is is_strong

    @pytest.mark.parametrize(
        ("close", "is_green"), [("100.10", True), ("100.09", False), ("100", False), ("99.8", False)]
    )
    def test_a_body_below_the_doji_threshold_is_not_green(self, close: str, *, is_green: bool) -> None:
        assert ("green" not in unmet(candles(f"100 100.6 99.6 {close}"))) is is_green

    def test_a_candle_that_closes_where_it_opened_is_not_green_even_without_a_doji_threshold(self) -> None:
        assert "green" in unmet(candles("100 101 99 100"), doji_threshold_pct=Decimal(0))
        assert "green" not in unmet(candles("100 101 99 100.01"), doji_threshold_pct=Decimal(0))

    @pytest.mark.parametrize(("threshold", "is_tight"), [("0.01", False), ("0.0357", False), ("0.0358", True)])
    def test_the_distance_is_measured_in_percent_of_the_close(self, threshold: str, *, is_tight: bool) -> None:
        # 0.036 dollars between the averages at a close of 100.80: 0.035714... %.
        assert ("tight" not in unmet(candles(), tightness_threshold_pct=Decimal(threshold))) is is_tight

    def test_a_short_is_the_mirror_image(self) -> None:
        assert shorts(mirrored(candles())) == [AT]
        assert longs(mirrored(candles())) == shorts(candles()) == []

    @pytest.mark.parametrize(
        ("name", "series"),
        [
            ("tight", candles("105 106 104.9 105.8", before=recent("105"))),
            ("diverging", candles(before={AT - 20: "102"})),
            ("red", candles("101.6 101.6 100.5 100.8")),
            ("strong", candles("100.4 101.3 100.3 100.8")),
        ],
    )
    def test_a_short_needs_every_condition_too(self, name: str, series: list[Candle]) -> None:
        assert shorts(mirrored(series)) == []
        assert unmet(mirrored(series), allow_short=True) == [name]

    def test_a_short_needs_the_fast_average_below_the_slow_one(self) -> None:
        assert shorts(mirrored(candles("99.9 100.7 99.8 100.6", before=recent("99.9")))) == []


class TestConditions:
    def test_every_condition_tells_its_value_and_what_it_needs(self) -> None:
        assert [(c.name, c.value, c.needed) for c in conditions(candles())] == [
            ("warm", "200 candles", "200 candles and those before them averaged"),
            ("tight", "0.0357 %", "below 2.0 %"),
            ("fast average on the right side", "0.036000", "above 0"),
            ("diverging", "0.036000", "above 0.000000"),
            ("green", "green", "green"),
            ("strong", "body 72.73 %", "at least 50.0 %"),
        ]

    def test_before_the_averages_are_known_the_page_says_so(self) -> None:
        told = {c.name: c.value for c in conditions(candles(), 10)}
        assert told == {
            "warm": "11 candles",
            "tight": "unknown",
            "fast average on the right side": "unknown",
            "diverging": "unknown",
            "green": "doji",
            "strong": "body 0.00 %",
        }

    def test_those_of_a_short_are_told_only_where_shorts_are_allowed(self) -> None:
        assert "green" in unmet(mirrored(candles()))
        assert unmet(mirrored(candles()), allow_short=True) == []


class TestPrices:
    @pytest.mark.parametrize(
        ("side", "prices", "entry", "stop"),
        [
            (Side.LONG, "100 101 99.9 100.8", "101", "99.8001"),  # 0.1 % of 99.90 is more than two cents
            (Side.LONG, "10 10.2 9.9 10.1", "10.2", "9.88"),  # and of 9.90 it is less
            (Side.SHORT, "100 101 99.9 100.2", "99.9", "101.101"),
            (Side.SHORT, "10 10.2 9.9 10.1", "9.9", "10.22"),
        ],
    )
    def test_entry_and_stop_stand_at_the_candles_ends(self, side: Side, prices: str, entry: str, stop: str) -> None:
        velez = Velez("AAPL")
        assert velez.entry_price(candle(prices), side) == Decimal(entry)
        assert velez.stop_loss_price(candle(prices), side) == Decimal(stop)

    def test_the_buffer_is_a_setting(self) -> None:
        velez = Velez("AAPL", {"stop_buffer_pct": Decimal("1.0"), "stop_buffer_min": Decimal("0.10")})
        assert velez.stop_loss_price(candle("100 101 99 100"), Side.LONG) == Decimal("98.01")
        assert velez.stop_loss_price(candle("5 6 5 6"), Side.LONG) == Decimal("4.90")


# --- trail and run ----------------------------------------------------------------------------------------------------

SHAPES = {  # open, high, low, close above the candle's low
    "green": ("0.2", "1", "0", "0.6"),  # body 40 %: weak
    "strong": ("0.1", "1", "0", "0.9"),
    "red": ("0.9", "1", "0", "0.1"),
    "doji": ("0.5", "1", "0", "0.55"),
    "flat": ("0", "0", "0", "0"),
}


def shaped(word: str) -> Candle:
    """A candle from `colour` or `colour@low`."""
    colour, _, low = word.partition("@")
    return candle(" ".join(str(Decimal(low or "100") + Decimal(offset)) for offset in SHAPES[colour]))


def script(words: str) -> list[Candle]:
    return [shaped(word) for word in words.split()]


def holding(side: Side = Side.LONG) -> Holding:
    return Holding(
        side=side,
        qty=Decimal(100),
        avg_entry_price=Decimal(100),
        current_price=Decimal(100),
        unrealized_pnl=Decimal(0),
        stop_price=Decimal(99) if side is Side.LONG else Decimal(101),
    )


def manage(velez: Velez, series: Iterable[Candle], side: Side = Side.LONG) -> list[str]:
    """What is done at each candle of a position: `stop <price>`, `exit` or nothing."""
    (_, known), *_ = averaged([candle("1 1 1 1")])
    done = []
    for one in series:
        stop = velez.should_update_stop(one, holding(side), known)
        exits = velez.should_exit(one, holding(side), known)
        done.append(" ".join([f"stop {stop}"] * (stop is not None) + ["exit"] * exits) or "-")
    return done


def played(words: str, **parameters: Any) -> str:
    """What is done at each candle of a script, in words with commas between them."""
    return ", ".join(manage(Velez("AAPL", parameters), script(words)))


class TestTrail:
    @pytest.mark.parametrize(
        ("script", "done"),
        [
            ("red@99 green green", "-, -, stop 99"),
            ("green green green", "-, -, -"),
            ("red@99 green@98 green", "-, -, stop 99"),  # only red candles lower it
            ("red@99 red@98 red@98.5 green green", "-, -, -, -, stop 98"),
            ("red@99 green red@99.5 green green", "-, -, -, -, stop 99"),  # one green does not end it
            ("red@99 green red@97 green green", "-, -, -, -, stop 97"),
            ("red@99 green doji@90 green", "-, -, -, stop 99"),  # a doji changes nothing here
            ("red@99 doji green doji flat green", "-, -, -, -, -, stop 99"),
            ("red@99 green green green green", "-, -, stop 99, -, -"),  # once
            ("red@99 green green red@99.5 green green", "-, -, stop 99, -, -, stop 99.5"),
            ("red@99 green green red@98 green green", "-, -, stop 99, -, -, stop 98"),  # the trader refuses that
        ],
    )
    def test_at_the_second_green_after_a_pullback_the_stop_goes_to_its_low(self, script: str, done: str) -> None:
        assert played(script) == done


class TestMaxRun:
    @pytest.mark.parametrize(
        ("script", "done"),
        [
            ("red@99 green green strong strong strong", "-, -, stop 99, -, -, exit"),
            ("red@99 green strong strong strong", "-, -, stop 99, -, -"),  # the one that moved the stop does not count
            ("strong strong strong strong", "-, -, -, -"),  # no run without a pullback before it
            ("red@99 strong strong strong strong green strong strong strong", "-, -, stop 99, -, -, -, -, -, exit"),
            ("red@99 green green strong doji strong strong strong", "-, -, stop 99, -, -, -, -, exit"),
            ("red@99 green green strong flat strong strong", "-, -, stop 99, -, -, -, -"),
            ("red@99 green green strong strong red@99 strong strong strong", "-, -, stop 99, -, -, -, -, stop 99, -"),
            ("red@99 green green strong strong strong strong", "-, -, stop 99, -, -, exit, exit"),
            ("red@99 green green strong strong strong red@99", "-, -, stop 99, -, -, exit, -"),
        ],
    )
    def test_strong_greens_in_a_row_end_the_position(self, script: str, done: str) -> None:
        assert played(script) == done

    def test_how_many_is_a_setting(self) -> None:
        assert played("red@99 green green strong strong", max_run_candles=2) == "-, -, stop 99, -, exit"

    def test_when_the_position_closes_everything_is_forgotten(self) -> None:
        velez = Velez("AAPL")
        manage(velez, script("red@99 green"))
        velez.position_closed()
        assert manage(velez, script("green strong strong strong")) == ["-"] * 4

        manage(velez, script("red@99 green green strong strong"))
        velez.position_closed()
        assert manage(velez, [shaped("strong")]) == ["-"]


SCRIPTS = st.lists(st.tuples(st.sampled_from(sorted(SHAPES)), st.integers(min_value=90, max_value=110)), max_size=60)


@given(script=SCRIPTS)
def test_a_short_is_managed_as_the_mirror_image_of_a_long(script: list[tuple[str, int]]) -> None:
    series = [shaped(f"{colour}@{low}") for colour, low in script]
    of_long = manage(Velez("AAPL"), series)
    of_short = manage(Velez("AAPL"), mirrored(series), Side.SHORT)
    assert of_short == [
        f"stop {200 - Decimal(words.split()[1])}" if words.startswith("stop") else words for words in of_long
    ]


@given(script=SCRIPTS)
def test_a_stop_is_the_lowest_red_low_since_the_last_one_and_comes_with_the_second_green(
    script: list[tuple[str, int]],
) -> None:
    series = [shaped(f"{colour}@{low}") for colour, low in script]
    colours = {"red": "r", "green": "g", "strong": "g"}
    expected, pullback, greens = [], list[Decimal](), 0
    for (colour, _), one in zip(script, series, strict=True):
        letter = colours.get(colour, "")
        if letter == "r":
            pullback, greens = [*pullback, one.low], 0
        elif letter == "g" and pullback:
            greens += 1
        expected.append(f"stop {min(pullback)}" if letter == "g" and greens == 2 else "-")
        if expected[-1] != "-":
            pullback, greens = [], 0
    done = [words.removesuffix("exit").strip() or "-" for words in manage(Velez("AAPL"), series)]
    assert done == expected


class TestRegistration:
    def test_the_strategy_is_found_by_its_name(self) -> None:
        assert strategy_class("velez") is Velez

    def test_its_defaults_are_those_of_the_settings_text(self) -> None:
        assert {name: str(value) for name, value in Velez.hyperparameters.items()} == {
            "enabled": "True",
            "allow_short": "False",
            "sma_fast": "20",
            "sma_slow": "200",
            "candle_interval_minutes": "2",
            "tightness_threshold_pct": "2.0",
            "strong_candle_body_pct": "50.0",
            "stop_buffer_pct": "0.1",
            "stop_buffer_min": "0.02",
            "buy_stop_expiry_candles": "1",
            "max_run_candles": "3",
            "doji_threshold_pct": "10.0",
        }

    def test_it_asks_for_one_candle_more_than_the_slow_average(self) -> None:
        assert Velez("AAPL").required_history() == 201
        assert Velez("AAPL", {"sma_slow": 100}).required_history() == 101

    def test_instances_share_nothing(self) -> None:
        one, other = Velez("AAPL"), Velez("TSLA")
        manage(one, script("red@99 green"))
        assert manage(other, [shaped("green")]) == ["-"]


# --- real candles -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["daytrading2025/TSLA.csv.gz", "stockbot2018/AMD.csv.gz", "stockbot2018/AOBC.csv.gz"])
@pytest.mark.parametrize(("fast", "slow"), [(20, 200), (7, 130)])
def test_signals_on_real_candles_are_those_of_the_rules_written_out_in_fractions(
    file: str, fast: int, slow: int
) -> None:
    series = list(real_candles(file))
    closes = [Fraction(one.close) for one in series]
    sums = [Fraction(0)]
    for close in closes:
        sums.append(sums[-1] + close)
    # spread[n]: the fast average minus the slow one after n + 1 candles
    spread = [
        (sums[n] - sums[n - fast]) / fast - (sums[n] - sums[n - slow]) / slow if n >= slow else None
        for n in range(1, len(sums))
    ]
    expected: dict[int, str] = {}
    for number, (before, now) in enumerate(pairwise(spread), start=1):
        one = series[number]
        length = Fraction(one.high - one.low)
        body_pct = abs(Fraction(one.close) - Fraction(one.open)) / length * 100 if length else Fraction(0)
        if before is None or now is None or abs(now) / closes[number] * 100 >= 2 or body_pct < 50:
            continue
        if now > 0 and now > before and one.close > one.open:
            expected[number] = "long"
        elif now < 0 and now < before and one.close < one.open:
            expected[number] = "short"
    assert min(list(expected.values()).count(side) for side in ("long", "short")) >= 20

    velez = Velez("X", {"sma_fast": fast, "sma_slow": slow, "allow_short": True})
    signals: dict[int, str] = {}
    for number, (one, known) in enumerate(averaged(series, fast=fast, slow=slow)):
        long, short = velez.should_long(one, known), velez.should_short(one, known)
        assert not (long and short)
        if long or short:
            signals[number] = "long" if long else "short"
        assert all(condition.met for condition in velez.conditions(one, known)) == (long or short)
    assert signals == expected


def real_candles(file: str) -> Iterable[Candle]:
    two = CandleAggregator(symbol="X", interval_minutes=2, grace_seconds=90)
    for day, bars in real_days(file).items():
        opens = bars[0].timestamp.replace(minute=30, second=0)
        session = Session(date=day, open=opens, close=opens + 390 * MINUTE)
        two.start_session(session)
        for bar in bars:
            yield from two.add(bar)
        while (due := two.due()) is not None:
            expired = two.expire(due + timedelta(days=1))
            yield from expired.candles
            if expired.missing is not None:
                yield from two.answer(expired.missing.start, ())
