"""What fails without saying so is noticed: mute streams, a clock that is off, a machine that slept, another's place."""

import asyncio
import csv
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from tests.live.alpaca_peer import Answer, bar_message
from tests.live.engine_on_peer import OPEN, Stage, clock, until
from trading.broker import StreamState
from trading.live import recording
from trading.live.engine import Engine
from trading.market import MINUTE, Bar
from trading.messages import SymbolBlocked


def history(*minutes: int, symbol: str = "AAPL") -> dict[str, object]:
    """What the provider's history says: bars of these minutes of the session."""
    rows = [
        {"t": (OPEN + minute * MINUTE).isoformat(), "o": 102, "h": 103, "l": 99, "c": 102, "v": 100, "n": 1, "vw": 102}
        for minute in minutes
    ]
    return {"bars": {symbol: rows}, "next_page_token": None}


async def streams(stage: Stage, count: int) -> None:
    await until(lambda: stage.peer.connections == count)


# --- mute streams -----------------------------------------------------------------------------------------------------


async def test_a_bar_stream_that_is_mute_while_history_has_newer_bars_is_given_up_and_the_gap_filled(
    stage: Stage,
) -> None:
    async with stage.engine() as engine:
        await stage.bar(engine, "102")
        stage.passes(minutes=4)
        stage.peer.on("GET", "/v2/stocks/bars", history(0, 1, 2, 3))
        await engine.watch.look()
        await streams(stage, 3)
        await until(engine.bar_stream_up.is_set)
        await until(lambda: engine.trader.books["AAPL"].latest_bar_at == OPEN + 3 * MINUTE)


async def test_a_market_in_which_nobody_trades_is_no_reason_to_reconnect(stage: Stage) -> None:
    async with stage.engine() as engine:
        await stage.bar(engine, "102")
        stage.passes(minutes=4)
        stage.peer.on("GET", "/v2/stocks/bars", history(0))
        await engine.watch.look()
        assert len(stage.peer.asked("GET", "/v2/stocks/bars")) >= 1
        assert stage.peer.connections == 2


async def test_one_silent_symbol_is_no_reason_to_reconnect(stage: Stage) -> None:
    async with stage.engine() as engine:
        stage.passes(minutes=4)
        stage.bars.put_nowait(bar_message("TSLA", (OPEN + 3 * MINUTE).isoformat()))
        await until(lambda: engine.trader.books["TSLA"].latest_bar_at is not None)
        stage.peer.on("GET", "/v2/stocks/bars", history(0, 1, 2, 3))
        await engine.watch.look()
        assert stage.peer.connections == 2


async def test_a_trade_update_stream_that_does_not_tell_what_the_broker_tells_is_given_up(stage: Stage) -> None:
    async with stage.engine() as engine:
        entry = await stage.entry(engine)
        assert entry.broker_id is not None
        stage.executes(entry.broker_id, "12", "103")
        stage.holds("AAPL", "12", "103")
        await engine.recovery.look_for_fills()  # the stream said nothing
        await until(lambda: engine.trader.stop_of("AAPL") is not None)
        deadline = asyncio.get_running_loop().time() + 30
        while stage.peer.connections < 3 and asyncio.get_running_loop().time() < deadline:
            await engine.watch.look()
            await asyncio.sleep(0.1)
        assert stage.peer.connections == 3


async def test_news_that_the_stream_brings_a_moment_later_is_no_reason_to_reconnect(stage: Stage) -> None:
    async with stage.engine() as engine:
        entry = await stage.entry(engine)
        assert entry.broker_id is not None
        stage.executes(entry.broker_id, "12", "103")
        stage.holds("AAPL", "12", "103")
        await engine.recovery.look_for_fills()
        assert engine.untold_at is not None
        heard = engine.heard_updates_at
        stage.tells("fill", entry.broker_id, execution_id="exec-1", price="103", qty="12", position_qty="12")
        await until(lambda: engine.heard_updates_at > heard)
        engine.untold_at -= 10
        await engine.watch.look()
        assert stage.peer.connections == 2


async def test_without_the_trade_update_stream_the_broker_is_asked_again_and_again(stage: Stage) -> None:
    async with stage.engine(streams=False) as engine:
        entry = await stage.entry(engine)
        assert entry.broker_id is not None
        stage.executes(entry.broker_id, "12", "103")
        stage.holds("AAPL", "12", "103")
        await engine.watch.look()
        await until(lambda: engine.trader.stop_of("AAPL") is not None)


async def test_a_place_that_stays_refused_means_another_engine_and_this_one_stops(stage: Stage) -> None:
    async with stage.engine(streams=False) as engine:
        refused = StreamState(connected=False, detail="HTTP 429", is_refused=True)
        engine.watch.stream_changed("trade updates", refused)
        await engine.watch.look()
        assert not engine.stop_wanted.is_set()  # a dead connection of ours may hold it for 90 s
        engine.watch._refused_since["trade updates"] -= 200
        await engine.watch.look()
        assert engine.stop_failed
        assert "another engine or program holds it" in engine.stop_reason


async def test_a_refusal_ends_with_the_first_connection(stage: Stage) -> None:
    async with stage.engine(streams=False) as engine:
        engine.watch.stream_changed("trade updates", StreamState(connected=False, is_refused=True))
        engine.watch._refused_since["trade updates"] -= 200
        engine.watch.stream_changed("trade updates", StreamState(connected=True))
        await engine.watch.look()
        assert not engine.stop_wanted.is_set()


async def test_the_page_can_count_down_to_the_next_attempt(stage: Stage) -> None:
    async with stage.engine(streams=False) as engine:
        engine._stream_changed(
            engine.bar_stream_up, StreamState(connected=False, detail="refused: 406", retry_seconds=20.0), "bars"
        )
        shown = engine.broadcaster.connection()
        assert (shown["status"], shown["detail"]) == ("reconnecting", "refused: 406")
        assert shown["retry_at"] is not None


# --- a machine that slept ---------------------------------------------------------------------------------------------


async def test_after_a_sleep_everything_is_connected_anew_and_compared(stage: Stage) -> None:
    async with stage.engine() as engine:
        asked = len(stage.peer.asked("GET", "/v2/positions"))
        await engine.watch.woke_up(3600)
        await streams(stage, 4)
        await until(lambda: len(stage.peer.asked("GET", "/v2/positions")) > asked)
        await until(lambda: engine.bar_stream_up.is_set() and engine.trade_stream_up.is_set())


# --- clock ------------------------------------------------------------------------------------------------------------


async def test_a_clock_that_is_far_off_stops_entries_until_it_is_right_again(stage: Stage) -> None:
    async with stage.engine() as engine:
        for seconds, stops in ((1, False), (5, False), (12, True), (-12, True), (0, False)):
            told = clock(stage.now + timedelta(seconds=seconds))
            stage.peer.on("GET", "/v2/clock", told)
            await engine.watch.check_clock()
            assert bool(engine.trader.block_of("AAPL")) is stops, seconds
            assert engine.watch.drift == timedelta(seconds=seconds)
            assert engine.broadcaster.connection()["clock_drift_seconds"] == seconds
        await stage.entry(engine)


async def test_a_clock_that_cannot_be_read_says_nothing(stage: Stage) -> None:
    async with stage.engine() as engine:
        stage.peer.on("GET", "/v2/clock", clock(stage.now + timedelta(seconds=12)), Answer(status=503))
        await engine.watch.check_clock()
        await engine.watch.check_clock()
        assert "12 s apart" in engine.trader.block_of("AAPL")


# --- prices and halts -------------------------------------------------------------------------------------------------


def opening(price: str, symbol: str = "AAPL") -> Bar:
    at, value = OPEN, Decimal(price)
    return Bar(symbol=symbol, timestamp=at, open=value, high=value, low=value, close=value, volume=100)


@pytest.mark.parametrize(("price", "stops"), [("129", False), ("131", True), ("71", False), ("69", True)])
async def test_an_open_far_from_the_last_close_stops_the_symbols_entries(stage: Stage, price: str, stops: bool) -> None:
    async with stage.engine() as engine:
        engine.trader.last_prices["AAPL"] = Decimal(100)
        stage.passes(minutes=1)
        engine.on_bar(opening(price))
        await until(engine.is_idle)
        assert ("a split?" in engine.trader.block_of("AAPL")) is stops
        assert engine.trader.block_of("TSLA") == ""
        assert engine.trader.last_prices["AAPL"] == Decimal(price)


async def test_a_halt_on_the_statuses_channel_stops_entries_until_trading_resumes(stage: Stage) -> None:
    def status(code: str) -> dict[str, object]:
        return {"T": "s", "S": "AAPL", "sc": code, "sm": "Halt", "rc": "", "rm": "news", "t": stage.now, "z": "C"}

    async with stage.engine() as engine:
        engine.post(SymbolBlocked(now=stage.now, symbol="AAPL", reason="a stranger's shares", cause="foreign"))
        stage.bars.put_nowait(status("H"))
        await until(lambda: "halted by the exchange" in engine.trader.block_of("AAPL"))
        stage.bars.put_nowait(status("T"))
        await until(lambda: engine.trader.block_of("AAPL") == "a stranger's shares")


# --- bars -------------------------------------------------------------------------------------------------------------


async def test_bars_that_had_to_be_dropped_are_fetched_for_their_symbols_and_minutes(stage: Stage) -> None:
    async with stage.engine() as engine:
        stage.passes(minutes=5)
        stage.peer.on("GET", "/v2/stocks/bars", history(2, 3))
        await engine.sessions.fetch_missed(engine, [("AAPL", OPEN + 2 * MINUTE)])
        (request,) = stage.peer.asked("GET", "/v2/stocks/bars")[-1:]
        assert request.query["symbols"] == "AAPL"
        assert request.query["start"].startswith("2026-08-12T13:32")
        assert engine.trader.books["AAPL"].latest_bar_at == OPEN + 3 * MINUTE


async def test_a_corrected_bar_is_recorded_and_decides_nothing(stage: Stage, tmp_path: Path) -> None:
    async with stage.engine() as engine:
        await stage.bar(engine, "102")
        at = OPEN.isoformat()
        stage.bars.put_nowait({**bar_message("AAPL", at, "102 109 98 108.11"), "T": "u"})
        file = recording._run_folder(tmp_path, engine.run_id) / "2026-08-12" / recording.CORRECTIONS
        while not file.exists():
            await engine.recorder.flush()
            await asyncio.sleep(0.02)
        (row,) = csv.DictReader(file.read_text().splitlines())
        assert (row["symbol"], Decimal(row["close"])) == ("AAPL", Decimal("108.11"))
        assert engine.trader.last_prices["AAPL"] == Decimal(102)
        assert engine.trader.orders == {}


async def test_the_stream_is_read_no_faster_than_bars_are_worked_off(stage: Stage) -> None:
    async with stage.engine() as engine:
        assert waiting(engine) == 0
        for _ in range(1200):
            engine.on_bar(opening("100"))
        assert not engine._room_for_bars.is_set()
        await until(lambda: waiting(engine) == 0)
        assert engine._room_for_bars.is_set()


def waiting(engine: Engine) -> int:
    return engine._bars_waiting
