"""How minute bars become candles: every row of the table of edge cases, then properties over random and real days."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.real_bars import real_days
from trading.candles import Candle, CandleAggregator, Expired, Window
from trading.market import MINUTE, Bar, Session

OPEN = datetime(2024, 3, 4, 14, 30, tzinfo=UTC)
GRACE = timedelta(seconds=90)


def session(minutes: int = 390, *, opens: datetime = OPEN) -> Session:
    return Session(date=opens.date(), open=opens, close=opens + minutes * MINUTE)


def aggregator(interval_minutes: int, *, minutes: int = 390) -> CandleAggregator:
    made = CandleAggregator(symbol="AAPL", interval_minutes=interval_minutes, grace_seconds=90)
    made.start_session(session(minutes))
    return made


def bar(minute: int, prices: str = "10 11 9 10", *, volume: int | None = None) -> Bar:
    """The bar of a minute of the session, from `open high low close`; its volume names the minute: 2 ** minute."""
    opened, high, low, close = (Decimal(word) for word in prices.split())
    return Bar(
        symbol="AAPL",
        timestamp=OPEN + minute * MINUTE,
        open=opened,
        high=high,
        low=low,
        close=close,
        volume=1 << minute if volume is None else volume,
    )


def bars(minutes: str) -> list[Bar]:
    """Bars of the minutes named, in that order."""
    return [bar(int(minute)) for minute in minutes.split()]


def feed(candles: CandleAggregator, minutes: str) -> list[str]:
    return told(candle for one in bars(minutes) for candle in candles.add(one))


def told(candles: Iterable[Candle]) -> list[str]:
    """Candles as `first minute: minutes they hold`, both counted from the open."""
    return [f"{minute_of(candle.timestamp)}: {' '.join(map(str, minutes_in(candle)))}" for candle in candles]


def minutes_in(candle: Candle) -> list[int]:
    return [minute for minute in range(candle.volume.bit_length()) if candle.volume >> minute & 1]


def minute_of(moment: datetime) -> int:
    return (moment - OPEN) // MINUTE


def window(first: int, end: int) -> Window:
    return Window(start=OPEN + first * MINUTE, end=OPEN + end * MINUTE)


class TestCompleteWindows:
    def test_a_candle_holds_first_open_highest_high_lowest_low_last_close_and_all_volume(self) -> None:
        five = aggregator(5)
        prices = ["10 10.5 9.9 10.2", "10.2 10.9 10.1 10.8", "10.8 10.8 9.5 9.6", "9.6 9.7 9.55 9.7", "9.7 10 9.6 9.9"]
        five_bars = [bar(minute, text, volume=100 + minute) for minute, text in enumerate(prices)]
        made = [candle for one in five_bars for candle in five.add(one)]
        assert made == [
            Candle(
                symbol="AAPL",
                timestamp=OPEN,
                end=OPEN + 5 * MINUTE,
                open=Decimal(10),
                high=Decimal("10.9"),
                low=Decimal("9.5"),
                close=Decimal("9.9"),
                volume=510,
                bars=5,
            )
        ]

    @pytest.mark.parametrize(
        ("interval_minutes", "candles"),
        [(1, ["0: 0", "1: 1", "2: 2"]), (2, ["0: 0 1"]), (5, []), (10, [])],
    )
    def test_a_candle_comes_with_its_last_minute(self, interval_minutes: int, candles: list[str]) -> None:
        assert feed(aggregator(interval_minutes), "0 1 2") == candles

    def test_windows_are_counted_from_the_open_and_not_from_the_full_hour(self) -> None:
        ten = CandleAggregator(symbol="AAPL", interval_minutes=10, grace_seconds=90)
        ten.start_session(session(opens=OPEN + 3 * MINUTE))
        made = [candle for one in bars(" ".join(map(str, range(3, 23)))) for candle in ten.add(one)]
        assert [candle.timestamp for candle in made] == [OPEN + 3 * MINUTE, OPEN + 13 * MINUTE]

    def test_minutes_that_arrive_out_of_order_are_put_in_order(self) -> None:
        two = aggregator(2)
        two.add(bar(1, "11 12 10 11.5"))
        (candle,) = two.add(bar(0, "10 11 9 10.5"))
        assert (candle.open, candle.close) == (Decimal(10), Decimal("11.5"))

    def test_a_late_first_minute_gives_a_late_but_correct_candle(self) -> None:
        two = aggregator(2)
        assert feed(two, "1") == []
        assert feed(two, "0") == ["0: 0 1"]

    def test_the_window_cut_by_the_close_needs_only_its_minutes_inside_the_session(self) -> None:
        ten = aggregator(10, minutes=13)
        made = [candle for one in bars(" ".join(map(str, range(13)))) for candle in ten.add(one)]
        assert told(made) == ["0: 0 1 2 3 4 5 6 7 8 9", "10: 10 11 12"]
        assert made[-1].end == OPEN + 13 * MINUTE
        assert ten.due() is None

    def test_bars_outside_the_session_are_ignored(self) -> None:
        one = aggregator(1, minutes=5)
        assert told(one.add(bar(5))) == []
        before = Bar(
            symbol="AAPL",
            timestamp=OPEN - MINUTE,
            open=Decimal(1),
            high=Decimal(1),
            low=Decimal(1),
            close=Decimal(1),
            volume=1,
        )
        assert one.add(before) == []
        assert (one.late_bars, one.duplicate_bars) == (0, 0)

    def test_before_the_first_session_nothing_happens(self) -> None:
        idle = CandleAggregator(symbol="AAPL", interval_minutes=2, grace_seconds=90)
        assert (idle.add(bar(0)), idle.due(), idle.answer(OPEN, bars("0"))) == ([], None, [])
        assert idle.expire(OPEN) == Expired(candles=[])


class TestMissingMinutes:
    def test_a_window_that_lacks_a_minute_closes_when_its_grace_has_run_out(self) -> None:
        two = aggregator(2)
        feed(two, "0")
        due = OPEN + 2 * MINUTE + GRACE
        assert two.due() == due
        assert two.expire(due - timedelta(seconds=1)) == Expired(candles=[])
        expired = two.expire(due)
        assert (told(expired.candles), expired.partial) == (["0: 0"], window(0, 2))
        assert expired.candles[0].bars == two.partial_candles == 1

    def test_later_windows_wait_for_an_earlier_one_and_come_right_after_it(self) -> None:
        two = aggregator(2)
        assert feed(two, "0 2 3 4 5 6") == []
        assert told(two.expire(OPEN + 2 * MINUTE + GRACE).candles) == ["0: 0", "2: 2 3", "4: 4 5"]
        assert feed(two, "7") == ["6: 6 7"]

    def test_one_call_closes_one_window(self) -> None:
        two = aggregator(2)
        feed(two, "0 2")
        late = OPEN + 60 * MINUTE
        assert told(two.expire(late).candles) == ["0: 0"]
        assert two.due() == OPEN + 4 * MINUTE + GRACE
        assert told(two.expire(late).candles) == ["2: 2"]

    def test_with_one_minute_candles_a_missing_minute_holds_back_the_next_until_grace(self) -> None:
        one = aggregator(1)
        assert feed(one, "0 2 3") == ["0: 0"]
        assert one.expire(OPEN + 2 * MINUTE + GRACE).missing == window(1, 2)
        assert told(one.answer(OPEN + MINUTE, ())) == ["2: 2", "3: 3"]
        assert one.skipped_windows == 1

    def test_the_sessions_last_window_waits_past_the_close_for_its_last_minute(self) -> None:
        two = aggregator(2, minutes=4)
        feed(two, "0 1 2")
        assert two.due() == OPEN + 4 * MINUTE + GRACE
        assert told(two.expire(OPEN + 4 * MINUTE + GRACE).candles) == ["2: 2"]
        assert two.due() is None
        assert two.expire(OPEN + 999 * MINUTE) == Expired(candles=[])


class TestEmptyWindows:
    def test_history_is_asked_for_a_window_without_any_bar(self) -> None:
        two = aggregator(2)
        expired = two.expire(OPEN + 2 * MINUTE + GRACE)
        assert (expired.candles, expired.missing, expired.partial, expired.skipped) == ([], window(0, 2), None, None)

    def test_history_is_asked_once(self) -> None:
        two = aggregator(2)
        two.expire(OPEN + 2 * MINUTE + GRACE)
        assert two.due() is None
        assert two.expire(OPEN + 60 * MINUTE) == Expired(candles=[])

    def test_what_history_has_makes_the_candle(self) -> None:
        two = aggregator(2)
        two.expire(OPEN + 2 * MINUTE + GRACE)
        assert told(two.answer(OPEN, bars("0 1"))) == ["0: 0 1"]
        assert (two.partial_candles, two.skipped_windows) == (0, 0)

    def test_half_a_window_from_history_is_closed_as_it_is(self) -> None:
        two = aggregator(2)
        two.expire(OPEN + 2 * MINUTE + GRACE)
        assert told(two.answer(OPEN, bars("1"))) == ["0: 1"]
        assert two.partial_candles == 1

    def test_without_history_the_window_is_skipped_and_the_next_ones_follow(self) -> None:
        two = aggregator(2)
        two.expire(OPEN + 2 * MINUTE + GRACE)
        assert feed(two, "2 3 4 5 6") == []
        assert told(two.answer(OPEN, ())) == ["2: 2 3", "4: 4 5"]
        assert two.skipped_windows == 1
        assert two.due() == OPEN + 8 * MINUTE + GRACE

    def test_a_window_behind_the_one_that_waits_keeps_its_own_time(self) -> None:
        two = aggregator(2)
        two.expire(OPEN + 2 * MINUTE + GRACE)
        feed(two, "2")
        two.answer(OPEN, ())
        assert two.due() == OPEN + 4 * MINUTE + GRACE
        assert told(two.expire(OPEN + 4 * MINUTE + GRACE).candles) == ["2: 2"]

    def test_live_minutes_that_come_while_history_is_asked_complete_the_window(self) -> None:
        two = aggregator(2)
        two.expire(OPEN + 2 * MINUTE + GRACE)
        assert feed(two, "0 1") == ["0: 0 1"]
        assert two.answer(OPEN, bars("0 1")) == []
        assert two.due() == OPEN + 4 * MINUTE + GRACE

    def test_a_live_minute_and_one_from_history_make_one_candle(self) -> None:
        two = aggregator(2)
        two.expire(OPEN + 2 * MINUTE + GRACE)
        assert feed(two, "1") == []
        assert told(two.answer(OPEN, bars("0 1"))) == ["0: 0 1"]

    def test_bars_of_other_windows_in_the_answer_are_left_alone(self) -> None:
        two = aggregator(2)
        two.expire(OPEN + 2 * MINUTE + GRACE)
        assert told(two.answer(OPEN, bars("0 1 2"))) == ["0: 0 1"]
        assert feed(two, "2 3") == ["2: 2 3"]

    def test_bars_of_earlier_windows_in_the_answer_are_not_counted_as_late(self) -> None:
        two = aggregator(2)
        two.expire(OPEN + 2 * MINUTE + GRACE)
        two.answer(OPEN, ())
        two.expire(OPEN + 4 * MINUTE + GRACE)
        assert told(two.answer(OPEN + 2 * MINUTE, bars("0 2 3"))) == ["2: 2 3"]
        assert two.late_bars == 0

    def test_an_answer_for_a_window_that_does_not_wait_changes_nothing(self) -> None:
        two = aggregator(2)
        two.expire(OPEN + 2 * MINUTE + GRACE)
        assert two.answer(OPEN + 2 * MINUTE, bars("2 3")) == []
        assert told(two.answer(OPEN, bars("0 1"))) == ["0: 0 1"]

    def test_nobody_is_asked_when_the_session_is_over(self) -> None:
        two = aggregator(2, minutes=4)
        feed(two, "0 1")
        expired = two.expire(OPEN + 4 * MINUTE + GRACE)
        assert (expired.candles, expired.missing, expired.skipped) == ([], None, window(2, 4))
        assert (two.due(), two.skipped_windows) == (None, 1)


class TestUnwantedBars:
    def test_a_minute_seen_before_is_dropped_and_counted(self) -> None:
        two = aggregator(2)
        feed(two, "0")
        assert two.add(bar(0, "50 60 40 50", volume=999)) == []
        assert feed(two, "1") == ["0: 0 1"]
        assert feed(two, "1") == []
        assert (two.duplicate_bars, two.late_bars) == (2, 0)

    def test_a_bar_of_a_closed_window_is_dropped_and_counted(self) -> None:
        two = aggregator(2)
        feed(two, "0")
        two.expire(OPEN + 2 * MINUTE + GRACE)
        assert feed(two, "1 2 3") == ["2: 2 3"]
        assert (two.duplicate_bars, two.late_bars) == (0, 1)


class TestSessions:
    def test_a_new_session_drops_what_the_last_one_left_unfinished(self) -> None:
        two = aggregator(2)
        feed(two, "0 2 3")
        tomorrow = OPEN + timedelta(days=1)
        two.start_session(session(opens=tomorrow))
        assert two.due() == tomorrow + 2 * MINUTE + GRACE
        assert feed(two, "1") == []

    def test_after_a_crash_history_rebuilds_the_candle_that_was_being_made(self) -> None:
        before, after = aggregator(5), aggregator(5)
        feed(before, "0 1 2")
        feed(after, "0 1 2")
        assert feed(before, "3 4") == feed(after, "3 4") == ["0: 0 1 2 3 4"]

    def test_a_half_day_ends_at_its_own_close(self) -> None:
        five = aggregator(5, minutes=210)
        made = [candle for minute in range(390) for candle in five.add(bar(minute))]
        assert len(made) == 42
        assert five.due() is None


# --- properties -------------------------------------------------------------------------------------------------------

DELAYS = st.integers(min_value=0, max_value=15 * 60)


def run_day(
    candles: CandleAggregator, arrivals: list[tuple[datetime, Bar]], *, history: dict[datetime, Bar] | None = None
) -> Iterator[Candle]:
    """A whole session: bars at their time of arrival, each timer before the bars that come after it."""
    timers_end = OPEN + timedelta(days=1)
    for now, arrived in [*sorted(arrivals, key=lambda arrival: arrival[0]), (timers_end, None)]:
        while (due := candles.due()) is not None and due < now:
            expired = candles.expire(due)
            yield from expired.candles
            if expired.missing is not None:
                start, end = expired.missing.start, expired.missing.end
                found = [one for stamp, one in (history or {}).items() if start <= stamp < end]
                yield from candles.answer(start, found)
        if arrived is not None:
            yield from candles.add(arrived)


@given(
    interval_minutes=st.sampled_from([1, 2, 5, 10]),
    minutes=st.integers(min_value=1, max_value=45),
    delays=st.lists(st.none() | st.just(0) | DELAYS, min_size=45, max_size=45),
    repeats=st.lists(st.tuples(st.integers(min_value=0, max_value=44), DELAYS), max_size=10),
    in_history=st.sets(st.integers(min_value=0, max_value=44)),
)
def test_whatever_is_missing_late_or_doubled_candles_are_aligned_in_order_and_hold_each_bar_once(
    interval_minutes: int,
    minutes: int,
    delays: list[int | None],
    repeats: list[tuple[int, int]],
    in_history: set[int],
) -> None:
    candles = aggregator(interval_minutes, minutes=minutes)
    sent = [(minute, delay) for minute, delay in enumerate(delays[:minutes]) if delay is not None]
    sent += [(minute, delay) for minute, delay in repeats if minute < minutes]
    arrivals = [(OPEN + (minute + 1) * MINUTE + timedelta(seconds=delay), bar(minute)) for minute, delay in sent]
    history = {OPEN + minute * MINUTE: bar(minute) for minute in in_history if minute < minutes}
    made = list(run_day(candles, arrivals, history=history))

    starts = [minute_of(candle.timestamp) for candle in made]
    assert starts == sorted(set(starts))
    for candle in made:
        start, end = minute_of(candle.timestamp), minute_of(candle.end)
        assert start % interval_minutes == 0
        assert end == min(start + interval_minutes, minutes)
        assert all(start <= minute < end for minute in minutes_in(candle))
        assert candle.bars == len(minutes_in(candle)) > 0
    held = [minute for candle in made for minute in minutes_in(candle)]
    assert len(held) == len(set(held))
    assert sum(candle.volume for candle in made) == sum(1 << minute for minute in held)
    assert set(held) <= {minute for minute, _ in sent} | in_history
    # Each bar sent is in a candle, or was counted as late or as a repetition; history can only add to that.
    assert len(held) + candles.late_bars + candles.duplicate_bars >= len(sent)
    assert candles.skipped_windows + len(made) == -(-minutes // interval_minutes)
    on_time = {minute for minute, delay in sent if delay == 0}
    assert on_time <= set(held)


@given(interval_minutes=st.sampled_from([1, 2, 5, 10]), minutes=st.permutations(range(20)))
def test_a_complete_session_gives_the_same_candles_in_any_order_of_arrival(
    interval_minutes: int, minutes: list[int]
) -> None:
    candles = aggregator(interval_minutes, minutes=20)
    made = [candle for minute in minutes for candle in candles.add(bar(minute))]
    firsts = range(0, 20, interval_minutes)
    assert told(made) == [f"{first}: {' '.join(map(str, range(first, first + interval_minutes)))}" for first in firsts]


# --- real days --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval_minutes", [1, 2, 5, 10])
@pytest.mark.parametrize("file", ["daytrading2025/NVDA.csv.gz", "stockbot2018/AMD.csv.gz", "tradingfsd2024/SPY.csv.gz"])
def test_candles_of_complete_real_days_equal_a_pandas_resample(file: str, interval_minutes: int) -> None:
    days = [day for day in real_days(file).values() if len(day) == 390]
    assert len(days) >= 10
    for day in days:
        opens = day[0].timestamp
        candles = CandleAggregator(symbol=day[0].symbol, interval_minutes=interval_minutes, grace_seconds=90)
        candles.start_session(session(opens=opens))
        made = [candle for one in day for candle in candles.add(one)]
        frame = pd.DataFrame(
            {name: [float(getattr(one, name)) for one in day] for name in ("open", "high", "low", "close", "volume")},
            index=pd.DatetimeIndex([one.timestamp for one in day]),
        )
        expected = frame.resample(f"{interval_minutes}min", origin=opens).agg(
            {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
        )
        assert [candle.timestamp for candle in made] == list(expected.index)
        for name in ("open", "high", "low", "close", "volume"):
            assert [float(getattr(candle, name)) for candle in made] == list(expected[name])


@pytest.mark.parametrize("interval_minutes", [1, 2, 5, 10])
def test_real_days_with_gaps_give_a_candle_for_every_window_that_has_a_bar(interval_minutes: int) -> None:
    days = real_days("stockbot2018/AOBC.csv.gz")
    gappy = [day for day in days.values() if len(day) < 390 and day[0].timestamp.minute == 30]
    assert len(gappy) >= 20
    for day in gappy:
        opens = day[0].timestamp
        candles = CandleAggregator(symbol="AOBC", interval_minutes=interval_minutes, grace_seconds=90)
        candles.start_session(session(opens=opens))
        made = list(run_real_day(candles, day))
        windows: dict[int, list[Bar]] = defaultdict(list)
        for one in day:
            windows[(one.timestamp - opens) // (interval_minutes * MINUTE)].append(one)
        assert [(candle.timestamp, candle.volume, candle.close) for candle in made] == [
            (opens + index * interval_minutes * MINUTE, sum(one.volume for one in held), held[-1].close)
            for index, held in windows.items()
        ]


def run_real_day(candles: CandleAggregator, day: list[Bar]) -> Iterator[Candle]:
    for one in day:
        yield from close_until(candles, one.delivered_at)
        yield from candles.add(one)
    yield from close_until(candles, day[-1].timestamp + timedelta(days=1))


def close_until(candles: CandleAggregator, now: datetime) -> Iterator[Candle]:
    while (due := candles.due()) is not None and due < now:
        expired = candles.expire(due)
        yield from expired.candles
        if expired.missing is not None:
            yield from candles.answer(expired.missing.start, ())
