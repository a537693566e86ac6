"""Whole backtests, small enough to work out by hand: real Trader, real Velez, real fill model.

Candles are one minute and the averages 2 and 3 candles long, so that four quiet minutes at 100 and one strong green
candle make a signal: `FLAT` and `SIGNAL`. Minutes are written "open high low close"; "-" is a minute without a bar.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from backtests.desk import Result
from backtests.runner import Day, days_of, run
from orders.lifecycle import Side
from orders.portfolio import Trade
from risk.rules import RiskSettings
from trading.exchange import Exchange
from trading.live import calendar
from trading.market import Bar, Session
from trading.settings import TraderSettings
from trading.strategies.velez import Velez
from trading.trader import Trader
from trading.warmup import HistoryNeed, WarmUp, sessions_to_fetch, warm_up

FLAT = ["100 100 100 100"] * 4
SIGNAL = ["100 101 100 101"]  # entry at its high, 101; stop 99.90: its low less 0.1 %
QUIET = "101 101 101 101"
MONDAY = calendar.sessions(date(2024, 3, 4), date(2024, 3, 4))[0]
TUESDAY = calendar.sessions(date(2024, 3, 5), date(2024, 3, 5))[0]


def minutes(
    rows: Sequence[str], *, session: Session = MONDAY, start: int = 0, symbol: str = "AAPL", volume: int = 1000
) -> list[Bar]:
    """Bars of consecutive minutes, `start` minutes after the open."""
    found = []
    for minute, row in enumerate(rows, start=start):
        if row != "-":
            opened, high, low, close = (Decimal(price) for price in row.split())
            found.append(
                Bar(
                    symbol=symbol,
                    timestamp=session.open + timedelta(minutes=minute),
                    open=opened,
                    high=high,
                    low=low,
                    close=close,
                    volume=volume,
                )
            )
    return found


def backtest(
    *bars: list[Bar],
    capital: str = "25000",
    sessions: Sequence[Session] | None = None,
    warm_ups: Mapping[str, WarmUp] | None = None,
    risk: Mapping[str, Any] | None = None,
    exchange: Exchange | None = None,
    **velez: Any,
) -> Result:
    """A backtest over each symbol's bars, in the order of the watchlist."""
    by_symbol: dict[str, list[Bar]] = {}
    for those in bars:
        by_symbol.setdefault(those[0].symbol, []).extend(those)
    parameters = {**Velez.hyperparameters, "candle_interval_minutes": 1, "sma_fast": 2, "sma_slow": 3, **velez}
    trader = Trader(
        settings=TraderSettings(risk=RiskSettings(**(risk or {})), strategies={"velez": parameters}),
        symbols=by_symbol,
        cash=Decimal(capital),
        account_id="test",
        asks_broker=False,
    )
    return run(
        trader=trader,
        exchange=exchange or Exchange(),
        days=days_of(by_symbol, sessions or sessions_of(by_symbol)),
        warm_ups=warm_ups or {},
    )


def sessions_of(bars: Mapping[str, Sequence[Bar]]) -> list[Session]:
    stamps = [bar.timestamp.date() for those in bars.values() for bar in those]
    return calendar.sessions(min(stamps), max(stamps))


def only(result: Result) -> Trade:
    assert len(result.trades) == 1, result.trades
    return result.trades[0]


def at(minute: float, session: Session = MONDAY) -> datetime:
    return session.open + timedelta(minutes=minute)


# --- one trade from signal to exit ------------------------------------------------------------------------------------


def test_a_signal_is_bought_at_the_next_minute_and_stopped_out() -> None:
    trade = only(result := backtest(minutes([*FLAT, *SIGNAL, "101 102 101 101.5", "101 101 99 99"])))
    # 1 % of 25 000 over 1.10 of risk would be 227 shares; 5 % of 25 000 at 101 allows 12.
    assert trade.qty == 12
    assert (trade.entry_price, trade.entry_at) == (Decimal("101.01"), at(5))  # opens at the stop, slippage against us
    assert (trade.exit_price, trade.exit_at) == (Decimal("99.89"), at(6))
    assert trade.pnl == Decimal("-13.44")
    assert trade.pnl_pct == Decimal("-13.44") / Decimal("1212.12") * 100
    assert (trade.exit_reason, trade.side, trade.duration_seconds) == ("stop_loss", Side.LONG, 60)
    assert (trade.initial_stop_price, trade.planned_risk) == (Decimal("99.90"), Decimal("13.32"))
    assert result.final_equity == Decimal("24986.56")
    # The candle that fills the entry is a signal too: judged, and refused since the symbol is taken.
    assert result.decisions == {"": 1, "duplicate": 1}
    assert result.bars == 7


def test_the_protective_stop_is_live_in_the_minute_of_the_entry() -> None:
    # Nearer to the high: open, high (fills), low (stops), close.
    trade = only(backtest(minutes([*FLAT, *SIGNAL, "100.9 101.2 99.5 100"])))
    assert (trade.entry_at, trade.exit_at) == (at(5), at(5))
    assert (trade.entry_price, trade.exit_price) == (Decimal("101.01"), Decimal("99.89"))


def test_a_path_that_runs_to_the_low_first_spares_the_stop() -> None:
    # Nearer to the low: open, low, high (fills), close.
    trade = only(backtest(minutes([*FLAT, *SIGNAL, "99.6 101.2 99.5 101.1"])))
    assert trade.exit_reason == "end_of_data"
    assert trade.exit_price == Decimal("101.09")


def test_a_gap_over_the_entry_is_paid_and_a_gap_under_the_stop_is_suffered() -> None:
    trade = only(backtest(minutes([*FLAT, *SIGNAL, "103 103 102 102", "98 98 97 97"])))
    assert (trade.entry_price, trade.exit_price) == (Decimal("103.01"), Decimal("97.99"))


def test_an_entry_that_is_not_reached_in_its_minute_is_never_filled() -> None:
    result = backtest(minutes([*FLAT, *SIGNAL, "100 100.9 100 100", "100 105 100 105"]))
    assert result.trades == ()
    assert result.final_equity == 25000


def test_an_entry_stays_valid_for_as_many_candles_as_set() -> None:
    rows = [*FLAT, *SIGNAL, "100 100.9 100 100", "100 102 100 102"]
    assert only(backtest(minutes(rows), buy_stop_expiry_candles=2)).entry_at == at(6)


# Red, green, green: the stop goes to 101.20.
PULLBACK = ["102 102 101.2 101.5", "101.5 102 101.5 102", "102 103 102 103"]


def test_the_stop_is_trailed_to_the_low_of_the_pullback() -> None:
    trade = only(backtest(minutes([*FLAT, *SIGNAL, "101 102 101 102", *PULLBACK, "103 103 100 100"])))
    assert trade.exit_reason == "trailing_stop"
    assert (trade.exit_price, trade.exit_at) == (Decimal("101.19"), at(9))
    assert trade.initial_stop_price == Decimal("99.90")


def test_a_run_is_sold_at_the_close_of_its_last_candle() -> None:
    run_up = ["103 104 103 104", "104 105 104 105", "105 106 105 106"]
    trade = only(backtest(minutes([*FLAT, *SIGNAL, "101 102 101 102", *PULLBACK, *run_up, "106 107 106 107"])))
    assert trade.exit_reason == "max_run"
    assert (trade.exit_price, trade.exit_at) == (Decimal("105.99"), at(12))  # known when the minute 15:41 is over


def test_what_is_open_at_the_end_of_the_data_is_sold_at_the_last_close() -> None:
    trade = only(result := backtest(minutes([*FLAT, *SIGNAL, "101 102 101 101.5"])))
    assert trade.exit_reason == "end_of_data"
    assert (trade.exit_price, trade.exit_at) == (Decimal("101.49"), at(6))
    assert result.final_equity == 25000 + trade.pnl


def test_a_short_is_the_mirror_image() -> None:
    rows = [*FLAT, "100 100 99 99", "99 99 98 98", "98 101 98 101"]
    assert backtest(minutes(rows)).trades == ()
    trade = only(backtest(minutes(rows), allow_short=True))
    assert (trade.side, trade.entry_price, trade.exit_price) == (Side.SHORT, Decimal("98.99"), Decimal("100.11"))
    assert trade.pnl == Decimal("-1.12") * trade.qty


# --- costs and capital ------------------------------------------------------------------------------------------------


def test_slippage_and_commission_come_from_the_exchange() -> None:
    exchange = Exchange(slippage_per_share=Decimal("0.05"), commission_per_share=Decimal("0.005"))
    trade = only(backtest(minutes([*FLAT, *SIGNAL, "101 102 101 101.5", "101 101 99 99"]), exchange=exchange))
    assert (trade.entry_price, trade.exit_price) == (Decimal("101.05"), Decimal("99.85"))
    assert trade.commission == Decimal("0.12")  # 12 shares in, 12 out
    assert trade.pnl == Decimal("-14.52")


def test_two_symbols_share_the_capital_and_the_first_on_the_watchlist_goes_first() -> None:
    rows = [*FLAT, *SIGNAL, "101 102 101 101.2", "101 101 99 99"]
    both = backtest(minutes(rows), minutes(rows, symbol="MSFT"), capital="1250", risk={"max_position_pct": Decimal(1)})
    # 1 % of 1 250 over 1.10 of risk is 11 shares; they reserve 1 111, and the 139 that are left buy one more.
    assert [(trade.symbol, trade.qty) for trade in both.trades] == [("AAPL", Decimal(11)), ("MSFT", Decimal(1))]


def test_positions_are_limited_over_all_symbols() -> None:
    rows = [*FLAT, *SIGNAL, "101 102 101 101.2"]
    both = backtest(minutes(rows, symbol="MSFT"), minutes(rows), risk={"max_open_positions": 1})
    assert [trade.symbol for trade in both.trades] == ["MSFT"]
    assert both.decisions == {"": 1, "max_positions": 1}


def test_trades_are_ordered_by_exit_symbol_and_entry() -> None:
    rows = [*FLAT, *SIGNAL, "101 102 101 101.5"]
    both = backtest(minutes(rows, symbol="MSFT"), minutes(rows))
    assert [trade.symbol for trade in both.trades] == ["AAPL", "MSFT"]


# --- time -------------------------------------------------------------------------------------------------------------


def test_a_candle_that_lacks_a_minute_is_late_and_its_entry_sees_only_bars_from_then_on() -> None:
    # Two-minute candles; minute 7 is missing, so the signal comes 90 s after minute 8: the entry lives to 11.5.
    rows = ["100 100 100 100"] * 6 + [*SIGNAL, "-", "100.5 100.5 100.5 100.5"]
    touched = "100.5 101.5 100.5 100.5"
    untouched = "100.5 100.9 100.5 100.5"
    late: dict[str, Any] = {"candle_interval_minutes": 2}
    assert only(backtest(minutes([*rows, touched, touched]), **late)).entry_at == at(10)
    assert backtest(minutes([*rows, touched, untouched, touched, touched]), **late).trades == ()


def test_a_minute_without_a_bar_holds_back_the_next_candle_until_its_grace_is_over() -> None:
    rows = [*FLAT, "-", *SIGNAL, QUIET, QUIET, QUIET]  # the candle of minute 5 comes at 6.5
    assert backtest(minutes(rows)).trades == ()  # nothing fits between 6.5 and 7.5
    assert only(backtest(minutes(rows), buy_stop_expiry_candles=2)).entry_at == at(7)


HALF_DAY = calendar.sessions(date(2023, 11, 24), date(2023, 11, 24))[0]


def test_positions_are_closed_five_minutes_before_the_close_of_a_half_day() -> None:
    rows = ["100 100 100 100"] * 198 + [*SIGNAL, "101 102 101 101.5"] + ["101.5 101.5 101.5 101.5"] * 4
    closing = ["101.5 101.7 101.5 101.7", "101.9 101.9 101.9 101.9", *["105 105 105 105"] * 4]
    trade = only(backtest(minutes([*rows, *closing], session=HALF_DAY)))
    assert (trade.exit_at, trade.exit_reason) == (datetime(2023, 11, 24, 17, 55, tzinfo=UTC), "end_of_day")
    assert trade.exit_price == Decimal("101.69")  # the close of the minute before, and slippage


def test_the_end_of_day_does_not_wait_for_a_bar() -> None:
    rows = ["100 100 100 100"] * 198 + [*SIGNAL, "101 102 101 101.5"]  # then silence
    other = minutes(["50 50 50 50"] * 210, session=HALF_DAY, symbol="MSFT")
    trade = only(backtest(minutes(rows, session=HALF_DAY), other))
    assert (trade.symbol, trade.exit_at, trade.exit_price) == ("AAPL", at(205, HALF_DAY), Decimal("101.49"))


def test_no_entries_in_the_last_five_minutes() -> None:
    rows = ["100 100 100 100"] * 204 + [*SIGNAL] + ["101 102 101 101.2"] * 5
    result = backtest(minutes(rows, session=HALF_DAY))
    assert result.trades == ()
    assert set(result.decisions) == {"session"}


def test_the_clock_change_moves_the_session_not_the_trade() -> None:
    friday, monday = calendar.sessions(date(2024, 3, 8), date(2024, 3, 11))
    rows = [*SIGNAL, "101 102 101 101.5"] + ["101.5 101.5 101.5 101.5"] * 388
    result = backtest(minutes(FLAT, session=friday), minutes(rows, session=monday))
    trade = only(result)
    assert trade.entry_at == datetime(2024, 3, 11, 13, 31, tzinfo=UTC)  # 09:31 in New York
    assert trade.exit_at == datetime(2024, 3, 11, 19, 55, tzinfo=UTC)  # 15:55 in New York
    assert [session.date for session in result.sessions] == [date(2024, 3, 8), date(2024, 3, 11)]


def test_an_entry_does_not_live_into_the_next_session() -> None:
    rows = ["100 100 100 100"] * 388 + [*SIGNAL, "100 100.5 100 100"]
    held: dict[str, Any] = {"risk": {"flatten_minutes_before_close": 0}, "buy_stop_expiry_candles": 5}
    result = backtest(minutes(rows), minutes(["102 102 102 102"] * 3, session=TUESDAY), **held)
    assert result.trades == ()
    assert result.decisions == {"": 1}


def test_a_position_held_overnight_keeps_its_stop() -> None:
    rows = ["100 100 100 100"] * 387 + [*SIGNAL, "101 102 101 101.2", "101 101 101 101"]
    tuesday = minutes(["95 95 95 95", *["95 95 95 95"] * 3], session=TUESDAY)
    result = backtest(minutes(rows), tuesday, risk={"flatten_minutes_before_close": 0})
    trade = only(result)
    assert (trade.exit_at, trade.exit_price) == (TUESDAY.open, Decimal("94.99"))
    monday_equity = 25000 + 12 * (Decimal(101) - Decimal("101.01"))
    assert result.daily_equity == (monday_equity, result.final_equity)


def test_bars_outside_the_sessions_are_no_days() -> None:
    before, after = minutes(FLAT, start=-10), minutes(FLAT, start=390)
    assert days_of({"AAPL": [*before, *after]}, [MONDAY]) == []
    inside = minutes(["100 100 100 100"], start=389)
    assert days_of({"AAPL": [*before, *inside, *after]}, [MONDAY, TUESDAY]) == [Day(session=MONDAY, bars=tuple(inside))]


def test_bars_of_one_minute_come_in_the_order_of_the_watchlist() -> None:
    days = days_of({"MSFT": minutes(FLAT, symbol="MSFT"), "AAPL": minutes([*FLAT, *SIGNAL])}, [MONDAY])
    assert [bar.symbol for bar in days[0].bars] == ["MSFT", "AAPL"] * 4 + ["AAPL"]


# --- equity -----------------------------------------------------------------------------------------------------------


def test_drawdown_is_marked_at_candles_and_not_inside_them() -> None:
    rows = [*FLAT, *SIGNAL, "101 102 101 102", "102 102 100 102", "102 102 100.5 100.5"]
    result = backtest(minutes(rows))
    peak = 25000 + 12 * (Decimal(102) - Decimal("101.01"))
    lowest = 25000 + 12 * (Decimal("100.49") - Decimal("101.01"))  # after the sale at the end
    assert result.max_drawdown == (peak - lowest) / peak


def test_the_equity_curve_has_the_start_every_trade_and_every_day() -> None:
    rows = [*FLAT, *SIGNAL, "101 102 101 101.2", "101 101 99 99"]
    result = backtest(minutes(rows), minutes(FLAT, session=TUESDAY))
    stopped = Decimal("24986.56")
    assert [(point.timestamp, point.equity) for point in result.equity_curve] == [
        (MONDAY.open, Decimal(25000)),
        (at(7), stopped),  # known when its minute is over
        (MONDAY.close, stopped),
        (at(4, TUESDAY), stopped),
    ]


def test_the_same_run_twice_is_the_same() -> None:
    rows = [*FLAT, *SIGNAL, "101 102 101 102", *PULLBACK, "103 103 100 100"]
    assert backtest(minutes(rows)) == backtest(minutes(rows))


# --- little volume ----------------------------------------------------------------------------------------------------


def tenth_of_volume() -> Exchange:
    return Exchange(max_volume_share=Decimal("0.1"))


def test_a_part_of_an_entry_is_a_position_of_its_own() -> None:
    rows = [*FLAT, *SIGNAL, "101 102 101 101.2", "101 101 99 99", "99 99 99 99"]
    trade = only(backtest(minutes(rows, volume=60), exchange=tenth_of_volume()))
    assert (trade.qty, trade.exit_reason) == (Decimal(6), "stop_loss")


def test_at_the_end_of_the_data_volume_is_no_limit() -> None:
    bars = [*minutes([*FLAT, *SIGNAL, "101 102 101 101.2"]), *minutes(["101.2 101.2 101.2 101.2"], start=6, volume=0)]
    trade = only(result := backtest(bars, exchange=tenth_of_volume()))
    assert (trade.qty, trade.exit_price, trade.exit_reason) == (Decimal(12), Decimal("101.19"), "end_of_data")
    assert result.final_equity == 25000 + trade.pnl


def test_an_exit_that_is_still_waiting_for_volume_at_the_end_is_carried_out() -> None:
    bars = minutes([*FLAT, *SIGNAL, "101 102 101 101.2"], volume=30)  # 3 shares are too few to be worth a stop
    trade = only(backtest(bars, exchange=tenth_of_volume()))
    assert (trade.qty, trade.exit_price) == (Decimal(3), Decimal("101.19"))


def test_a_stop_that_is_being_executed_is_not_moved_any_more() -> None:
    start = minutes([*FLAT, *SIGNAL, "102 102 100.95 101"])
    thin = minutes(["100.9 101.5 99.8 101.4", "101.4 102 101.4 102", *["102 102 102 102"] * 4], start=6, volume=30)
    trade = only(backtest([*start, *thin], exchange=tenth_of_volume()))
    assert (trade.qty, trade.exit_at, trade.exit_reason) == (Decimal(12), at(9), "stop_loss")
    # 3 shares at 99.90, then 3 at each open: 101.40, 102 and 102, always less a cent.
    assert trade.exit_price == (Decimal("99.89") + Decimal("101.39") + 2 * Decimal("101.99")) / 4


# --- warm-up ----------------------------------------------------------------------------------------------------------


def test_warm_up_gives_the_same_trades_as_having_run_all_along() -> None:
    rows = [*SIGNAL, "101 102 101 101.5", "101 101 99 99"]
    monday, tuesday = minutes(FLAT), minutes(rows, session=TUESDAY)
    warm = WarmUp(bars=tuple(monday), sessions=(MONDAY,), is_enough=True)
    straight = backtest(monday, tuesday)
    warmed = backtest(tuesday, warm_ups={"AAPL": warm})
    assert [trade.pnl for trade in warmed.trades] == [trade.pnl for trade in straight.trades] == [Decimal("-13.44")]
    assert [trade.entry_at for trade in warmed.trades] == [at(1, TUESDAY)]
    assert warmed.sessions == (TUESDAY,)
    assert backtest(tuesday).trades == ()  # cold


def test_warm_up_goes_back_by_whole_sessions_until_there_are_enough_candles() -> None:
    half, monday = calendar.sessions(date(2023, 11, 24), date(2023, 11, 27))
    bars = [*minutes(FLAT * 52, session=half), *minutes(FLAT * 90, session=monday)]
    one = HistoryNeed(candles=180, interval_minutes=2)
    found = warm_up(bars, [half, monday], [one])
    assert (found.sessions, len(found.bars), found.is_enough) == ((monday,), 360, True)
    found = warm_up(bars, [half, monday], [HistoryNeed(candles=181, interval_minutes=2)])
    assert (found.sessions, len(found.bars), found.is_enough) == ((half, monday), 568, True)
    found = warm_up(bars, [half, monday], [one, HistoryNeed(candles=120, interval_minutes=5)])
    assert (found.sessions, found.is_enough) == ((half, monday), False)  # 42 and 72 candles of five minutes


def test_a_candle_of_one_bar_is_a_candle_and_a_bad_bar_is_none() -> None:
    bad = minutes(["100 99 100 100"], start=4)
    bars = [*minutes(["100 100 100 100", "-", "-", "100 100 100 100"]), *bad]
    assert warm_up(bars, [MONDAY], [HistoryNeed(candles=2, interval_minutes=2)]).is_enough
    assert not warm_up(bars, [MONDAY], [HistoryNeed(candles=3, interval_minutes=2)]).is_enough


def test_more_history_than_needed_changes_nothing() -> None:
    sessions = calendar.sessions(date(2024, 2, 26), date(2024, 3, 5))
    bars = [bar for session in sessions for bar in minutes(FLAT * 90, session=session)]
    need = [HistoryNeed(candles=501, interval_minutes=2)]
    some = warm_up(bars[-4 * 360 :], sessions[-4:], need)
    assert some == warm_up(bars, sessions, need)
    assert (some.sessions, some.is_enough) == (tuple(sessions[-3:]), True)


@pytest.mark.parametrize(
    ("candles", "interval", "already", "expected"),
    [
        (201, 2, 0, 2),  # 195 candles of two minutes a session
        (195, 2, 0, 1),
        (201, 1, 0, 1),
        (201, 10, 0, 6),  # 39 a session
        (201, 2, 2, 4),  # two held too little
        (201, 2, 4, 7),  # there are no more than seven
        (201, 2, 7, 7),
        (0, 2, 0, 0),
    ],
)
def test_how_many_sessions_to_ask_for(candles: int, interval: int, already: int, expected: int) -> None:
    sessions = calendar.sessions(date(2024, 2, 26), date(2024, 3, 5))
    needs = [HistoryNeed(candles=candles, interval_minutes=interval)]
    assert sessions_to_fetch(sessions, needs, already=already) == expected
