"""Before a session calendar, clock and account are looked at; it begins whatever the broker answers."""

from datetime import timedelta
from decimal import Decimal

from tests.live.alpaca_peer import Answer
from tests.live.engine_on_peer import OPEN, Stage, until
from trading.live.engine import Engine

EARLY_CLOSE = [{"date": "2026-08-12", "open": "09:30", "close": "13:00"}]
CLOSED = [{"date": "2026-08-13", "open": "09:30", "close": "16:00"}]
DOWN = Answer(status=503)


async def at_dawn(stage: Stage, engine: Engine) -> None:
    """The session has not begun yet, and the engine knows of it."""
    stage.now = OPEN - timedelta(hours=1)
    engine.sessions.current = None
    await engine.sessions.look_ahead(stage.now)


async def test_five_minutes_before_the_open_calendar_clock_and_account_are_looked_at(stage: Stage) -> None:
    async with stage.engine(streams=False) as engine:
        await at_dawn(stage, engine)
        assert engine.sessions.next_due == OPEN - timedelta(minutes=5)
        before = len(stage.peer.received)
        stage.peer.on("GET", "/v2/calendar", EARLY_CLOSE)
        await engine.sessions.fire(engine, OPEN - timedelta(minutes=5))
        await until(engine.is_idle)
        asked = {request.path for request in stage.peer.received[before:]}
        assert asked >= {"/v2/calendar", "/v2/clock", "/v2/positions", "/v2/orders", "/v2/account/activities/FILL"}
        assert engine.sessions.next_due == OPEN


async def test_the_stricter_of_two_calendars_wins(stage: Stage) -> None:
    async with stage.engine(streams=False) as engine:
        await at_dawn(stage, engine)
        stage.peer.on("GET", "/v2/calendar", EARLY_CLOSE)
        await engine.sessions.fire(engine, OPEN - timedelta(minutes=5))
        await engine.sessions.fire(engine, OPEN)
        session = engine.trader.session
        assert session is not None
        assert session.close == OPEN + timedelta(hours=3, minutes=30)


async def test_a_day_on_which_the_broker_is_closed_is_none(stage: Stage) -> None:
    async with stage.engine(streams=False) as engine:
        await at_dawn(stage, engine)
        stage.peer.on("GET", "/v2/calendar", CLOSED)
        await engine.sessions.fire(engine, OPEN - timedelta(minutes=5))
        assert engine.sessions.next_open == OPEN + timedelta(days=1)


async def test_a_session_begins_with_what_is_known_when_the_broker_does_not_answer(stage: Stage) -> None:
    async with stage.engine(streams=False) as engine:
        await at_dawn(stage, engine)
        stage.peer.on("GET", "/v2/calendar", DOWN)
        stage.peer.on("GET", "/v2/account", DOWN)
        stage.peer.on("GET", "/v2/clock", DOWN)
        await engine.sessions.fire(engine, OPEN - timedelta(minutes=5))
        await engine.sessions.fire(engine, OPEN)
        assert engine.trader.session is not None
        assert engine.trader.session.open == OPEN
        assert engine.trader.start_equity == Decimal(25_000)  # our own
        assert engine.sessions.next_open == OPEN + timedelta(days=1)  # by our calendar, until the broker's is read


async def test_what_stopped_entries_for_an_unexplained_quantity_ends_with_the_next_session(stage: Stage) -> None:
    async with stage.engine(streams=False) as engine:
        await engine.block_symbol("AAPL", "another number of shares", cause="quantity")
        await at_dawn(stage, engine)
        await engine.sessions.fire(engine, OPEN - timedelta(minutes=5))
        assert engine.trader.block_of("AAPL") != ""
        await engine.sessions.fire(engine, OPEN)
        assert engine.trader.block_of("AAPL") == ""
