"""Orders on a broker that loses, refuses and forgets: what the desk makes of each answer, and of none."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web

from orders import store as order_store
from orders.lifecycle import OrderState
from tests.live.alpaca_peer import Answer, reset
from tests.live.engine_on_peer import Stage, until
from trading.live.desk import Pauses
from trading.live.engine import NOT_KNOWN, Engine
from trading.messages import CloseRequested, Halted

FOREIGN = "99999999-0000-4000-8000-000000000001"
FIRST = "00000000-0000-4000-8000-000000000001"
SECOND = "00000000-0000-4000-8000-000000000002"
NOT_FOUND = Answer(status=404, body={"code": 40410000, "message": "order not found"})
UNAUTHORIZED = Answer(status=401, body={"message": "unauthorized."})
SHORT = Pauses(answer_seconds=0.1, longest_answer_seconds=0.2, look_up_seconds=(0.1, 0.1, 0.1), lag_seconds=0.01)
WASH_TRADE = Answer(status=403, body={"code": 40310000, "message": "potential wash trade detected. use complex orders"})
NO_SHARES = Answer(
    status=403, body={"code": 40310000, "message": "insufficient qty available for order (requested: 12, available: 0)"}
)
RATE_LIMITED = Answer(status=429, text="", headers={"Retry-After": "0.05"})
UNPROCESSABLE = Answer(status=422, body={"code": 42210000, "message": "cannot replace order in accepted status"})
SOON_THE_END = Pauses(hurried_seconds=0.05)  # half a minute of look-ups, as in production


@pytest.fixture
def stage(stage: Stage) -> Stage:
    stage.pauses = SHORT
    return stage


def sent(stage: Stage) -> list[str]:
    return [f"{request.body['side']} {request.body['qty']:g}" for request in stage.peer.asked("POST", "/v2/orders")]


async def filled_entry(stage: Stage, engine: Engine) -> None:
    """The broker fills our entry; what becomes of the stop is the test's business."""
    entry = await stage.entry(engine)
    assert entry.broker_id is not None
    stage.executes(entry.broker_id, "12", "103")
    stage.holds("AAPL", "12", "103")
    stage.tells("fill", entry.broker_id, execution_id="exec-1", price="103", qty="12", position_qty="12")
    await until(lambda: "AAPL" in engine.trader.portfolio.positions)


async def wants_a_better_stop(stage: Stage, engine: Engine) -> None:
    """The strategy moves the stop to 100."""
    await stage.bar(engine, "102.22", low="100")


# --- submitting -------------------------------------------------------------------------------------------------------


async def test_an_entry_that_the_broker_denies_three_times_counts_as_never_sent(stage: Stage) -> None:
    async with stage.engine() as engine:
        stage.peer.on("POST", "/v2/orders", reset)
        await stage.bar(engine, "102.11")
        await until(lambda: "unknown" in engine.trader.block_of("AAPL"))
        (order,) = engine.trader.orders.values()
        await until(lambda: engine.trader.orders[order.local_id].state is OrderState.SUBMIT_FAILED)
        await until(lambda: engine.trader.block_of("AAPL") == "")
        bodies = [request.body["client_order_id"] for request in stage.peer.asked("POST", "/v2/orders")]
        assert set(bodies) == {order.local_id}  # however often it was sent
        assert (await stage.events(engine, order))[-1] == "forced"


async def test_no_answer_to_the_question_is_no_denial(stage: Stage) -> None:
    async with stage.engine() as engine:
        stage.peer.on("POST", "/v2/orders", reset)
        stage.peer.on("GET", "/v2/orders:by_client_order_id", Answer(status=503))
        await stage.bar(engine, "102.11")
        await until(lambda: "asked 5 times" in engine.trader.block_of("AAPL"))
        (order,) = engine.trader.orders.values()
        assert order.state is OrderState.SUBMITTED
        stage.works(FOREIGN, client_order_id=order.local_id, qty="12", stop_price="103")
        stage.peer.on("GET", "/v2/orders:by_client_order_id", stage.orders[FOREIGN])
        await until(lambda: engine.trader.orders[order.local_id].state is OrderState.ACCEPTED)
        await until(lambda: engine.trader.block_of("AAPL") == "")


async def test_a_stop_whose_request_was_lost_is_sent_again_under_the_same_id(stage: Stage) -> None:
    async with stage.engine() as engine:
        entry_taken = stage._taken

        async def taken_after_trouble(request: web.Request) -> Any:
            count = len(stage.peer.asked("POST", "/v2/orders"))
            return await (entry_taken(request) if count == 1 or count > 5 else reset(request))

        stage.peer.on("POST", "/v2/orders", taken_after_trouble)
        await filled_entry(stage, engine)
        await until(lambda: (stop := engine.trader.stop_of("AAPL")) is not None and stop.state == "accepted")
        stops = {request.body["client_order_id"] for request in stage.peer.asked("POST", "/v2/orders")[1:]}
        assert len(stops) == 1


@pytest.mark.parametrize("refusal", [WASH_TRADE, NO_SHARES])
async def test_a_stop_refused_because_the_brokers_states_lag_is_sent_until_it_is_taken(
    stage: Stage, refusal: Answer
) -> None:
    async with stage.engine() as engine:
        taken = stage._taken

        async def lagging(request: web.Request) -> Any:
            return refusal if 1 < len(stage.peer.asked("POST", "/v2/orders")) < 6 else await taken(request)

        stage.peer.on("POST", "/v2/orders", lagging)
        await filled_entry(stage, engine)
        await until(lambda: (stop := engine.trader.stop_of("AAPL")) is not None and stop.state == "accepted")
        assert len({request.body["client_order_id"] for request in stage.peer.asked("POST", "/v2/orders")}) == 2


async def test_an_entry_that_is_rate_limited_twice_was_not_sent_and_the_next_signal_is_free(stage: Stage) -> None:
    async with stage.engine() as engine:
        stage.peer.on("POST", "/v2/orders", RATE_LIMITED, RATE_LIMITED, stage._taken)
        await stage.bar(engine, "102.11")
        await until(lambda: [order.state for order in engine.trader.orders.values()] == [OrderState.SUBMIT_FAILED])
        assert engine.trader.block_of("AAPL") == ""
        assert not stage.peer.asked("GET", "/v2/orders:by_client_order_id")
        await stage.entry(engine)


async def test_an_exit_that_is_rate_limited_twice_leaves_the_shares_to_their_stop_and_is_sent_again(
    stage: Stage,
) -> None:
    async with stage.engine() as engine:
        _, stop = await stage.position(engine)

        async def canceled(_request: web.Request) -> Answer:
            stage.orders[stop.broker_id or ""] |= {"status": "canceled"}
            stage.tells("canceled", stop.broker_id or "")
            return Answer(status=204, text="")

        stage.peer.on("DELETE", f"/v2/orders/{stop.broker_id}", canceled)
        stage.peer.on("POST", "/v2/orders", RATE_LIMITED, RATE_LIMITED, stage._taken)
        await engine.tell(CloseRequested(now=stage.now))
        await until(lambda: sent(stage)[-1] == "sell 12" and len(sent(stage)) == 5)
        again = engine.trader.stop_of("AAPL")
        assert again is not None
        assert again.local_id != stop.local_id  # the exit never left: the shares have a stop again
        assert engine.trader.next_due() is not None  # and will be sold


async def test_a_stop_of_a_dead_process_is_not_given_up_because_sending_it_again_is_rate_limited(
    stage: Stage,
) -> None:
    """The dead process may have sent it: only the broker's word counts, and there is never a second stop."""
    async with stage.engine() as engine:
        _, stop = await stage.position(engine)
        stage.peer.on("POST", "/v2/orders", RATE_LIMITED, RATE_LIMITED, stage._taken)
        before = len(sent(stage))
        await engine.desk.send(stop)
        await until(lambda: stage.peer.asked("GET", "/v2/orders:by_client_order_id"))
        await until(lambda: engine.trader.block_of("AAPL") == "")
        assert len(sent(stage)) == before + 2
        assert "failed" not in await stage.events(engine, stop)


async def test_what_stands_in_the_way_of_a_stop_is_cancelled_and_the_stop_sent_again(stage: Stage) -> None:
    async with stage.engine() as engine:
        taken = stage._taken

        async def in_the_way(request: web.Request) -> Any:
            is_entry = (await request.json())["side"] == "buy"
            return await taken(request) if is_entry or FOREIGN not in stage.orders else WASH_TRADE

        async def leaves(_request: web.Request) -> Answer:
            del stage.orders[FOREIGN]
            return Answer(status=204, text="")

        stage.peer.on("POST", "/v2/orders", in_the_way)
        stage.peer.on("DELETE", f"/v2/orders/{FOREIGN}", leaves)
        entry = await stage.entry(engine)
        stage.works(FOREIGN, symbol="AAPL", client_order_id="by-hand", side="buy", qty="5", stop_price="130")
        assert entry.broker_id is not None
        stage.executes(entry.broker_id, "12", "103")
        stage.holds("AAPL", "12", "103")
        stage.tells("fill", entry.broker_id, execution_id="exec-1", price="103", qty="12", position_qty="12")
        await until(lambda: stage.peer.asked("DELETE", f"/v2/orders/{FOREIGN}"))
        due = await later(engine)
        stage.now = due
        await engine.fire_timers(due)
        await until(lambda: (stop := engine.trader.stop_of("AAPL")) is not None and stop.state == "accepted")


async def later(engine: Engine) -> Any:
    """When the Trader asks again for what was refused."""
    await until(lambda: engine.trader.next_due() is not None)
    await until(engine.is_idle)
    return engine.trader.next_due()


async def test_refused_keys_end_the_engine_in_good_order(stage: Stage) -> None:
    async with stage.engine() as engine:
        stage.peer.on("POST", "/v2/orders", UNAUTHORIZED)
        await stage.bar(engine, "102.11")
        await until(engine.stop_wanted.is_set)
        assert engine.stop_failed
        assert "refuses our keys" in engine.stop_reason


async def test_refused_keys_found_out_while_waiting_for_an_answer_end_it_too(stage: Stage) -> None:
    async with stage.engine() as engine:
        stage.peer.on("POST", "/v2/orders", reset)
        stage.peer.on(
            "GET",
            "/v2/orders:by_client_order_id",
            *[NOT_FOUND] * 3,
            Answer(status=401, body={"message": "unauthorized."}),
        )
        await stage.bar(engine, "102.11")
        await until(engine.stop_wanted.is_set)
        assert "refuses our keys" in engine.stop_reason


# --- replacing --------------------------------------------------------------------------------------------------------


async def test_a_refused_replacement_keeps_the_old_stop(stage: Stage) -> None:
    async with stage.engine() as engine:
        _, stop = await stage.position(engine)
        stage.peer.on("PATCH", f"/v2/orders/{stop.broker_id}", UNPROCESSABLE)
        await wants_a_better_stop(stage, engine)
        await until(lambda: engine.trader.orders[stop.local_id].last_error != "")
        now = engine.trader.orders[stop.local_id]
        assert (now.stop_price, now.requested_stop_price, now.state) == (Decimal(99), None, OrderState.ACCEPTED)


async def test_a_replacement_that_is_rate_limited_twice_was_not_sent(stage: Stage) -> None:
    async with stage.engine() as engine:
        _, stop = await stage.position(engine)
        stage.peer.on("PATCH", f"/v2/orders/{stop.broker_id}", RATE_LIMITED)
        await wants_a_better_stop(stage, engine)
        await until(lambda: engine_events(engine, stop.local_id)[-1] == "replace_refused")
        now = engine.trader.orders[stop.local_id]
        assert (now.stop_price, now.requested_stop_price, now.state) == (Decimal(99), None, OrderState.ACCEPTED)
        assert now.last_error.startswith("not sent")


async def test_a_replacement_whose_answer_was_lost_is_found_when_asked(stage: Stage) -> None:
    async with stage.engine() as engine:
        _, stop = await stage.position(engine)
        assert stop.broker_id is not None

        async def lost(request: web.Request) -> Any:
            stage.orders[stop.broker_id or ""] |= {"status": "replaced", "replaced_by": FOREIGN}
            stage.works(
                FOREIGN, client_order_id=f"{stop.local_id}-r1", side="sell", qty="12", stop_price="100",
                replaces=stop.broker_id, submitted_at="2026-08-12T13:40:00Z",
            )  # fmt: skip
            return await reset(request)

        stage.peer.on("PATCH", f"/v2/orders/{stop.broker_id}", lost)
        await wants_a_better_stop(stage, engine)
        await until(lambda: engine.trader.orders[stop.local_id].stop_price == Decimal(100))
        assert engine.trader.orders[stop.local_id].broker_id == FOREIGN


async def test_a_replacement_that_was_taken_and_then_refused_lets_the_stop_move_again(stage: Stage) -> None:
    async with stage.engine() as engine:
        _, stop = await stage.position(engine)
        assert stop.broker_id is not None
        answer = dict(
            stage.orders[stop.broker_id], id=FOREIGN, client_order_id=f"{stop.local_id}-r1", status="accepted"
        )
        stage.peer.on("PATCH", f"/v2/orders/{stop.broker_id}", answer)
        await wants_a_better_stop(stage, engine)
        await until(lambda: stage.peer.asked("PATCH", f"/v2/orders/{stop.broker_id}"))
        stage.tells("order_replace_rejected", stop.broker_id)
        await until(lambda: "replace_refused" in engine_events(engine, stop.local_id))
        now = engine.trader.orders[stop.local_id]
        assert (now.stop_price, now.requested_stop_price) == (Decimal(99), None)


def engine_events(engine: Engine, local_id: str) -> list[str]:
    return [fact.event_type for fact in engine._history.get(local_id, [])]


# --- cancelling -------------------------------------------------------------------------------------------------------


async def test_a_cancellation_that_comes_too_late_finds_the_order_filled(stage: Stage) -> None:
    async with stage.engine() as engine:
        entry = await stage.entry(engine)
        assert entry.broker_id is not None
        stage.executes(entry.broker_id, "12", "103")
        stage.holds("AAPL", "12", "103")
        already = Answer(status=422, body={"code": 42210000, "message": 'order is already in "filled" state'})
        stage.peer.on("DELETE", f"/v2/orders/{entry.broker_id}", already)
        await engine.tell(Halted(now=stage.now, reason="operator"))
        await until(lambda: (stop := engine.trader.stop_of("AAPL")) is not None and stop.state == "accepted")


async def test_a_confirmation_that_never_comes_is_asked_for_until_it_is_there(stage: Stage) -> None:
    async with stage.engine() as engine:
        entry = await stage.entry(engine)
        assert entry.broker_id is not None
        stage.peer.on("DELETE", f"/v2/orders/{entry.broker_id}", Answer(status=204, text=""))
        stage.orders[entry.broker_id]["status"] = "pending_cancel"
        await engine.tell(Halted(now=stage.now, reason="operator"))
        await until(lambda: len(stage.peer.asked("GET", "/v2/orders:by_client_order_id")) >= 3)
        assert engine.trader.orders[entry.local_id].state is OrderState.ACCEPTED
        stage.orders[entry.broker_id]["status"] = "canceled"
        await until(lambda: engine.trader.orders[entry.local_id].state is OrderState.CANCELED)


async def test_an_order_the_broker_does_not_know_any_more_is_not_taken_for_cancelled(stage: Stage) -> None:
    async with stage.engine() as engine:
        entry = await stage.entry(engine)
        assert entry.broker_id is not None
        del stage.orders[entry.broker_id]
        stage.peer.on("DELETE", f"/v2/orders/{entry.broker_id}", NOT_FOUND)
        stage.peer.on("GET", f"/v2/orders/{entry.broker_id}", NOT_FOUND)
        await engine.tell(Halted(now=stage.now, reason="operator"))
        await until(lambda: "asked 4 times" in engine.trader.block_of("AAPL"))
        assert engine.trader.orders[entry.local_id].state is OrderState.ACCEPTED


# --- leaving ----------------------------------------------------------------------------------------------------------


async def test_a_sale_whose_fill_is_not_told_is_asked_for(stage: Stage) -> None:
    async with stage.engine() as engine:
        _, stop = await stage.position(engine)
        assert stop.broker_id == SECOND

        async def cancels(_request: web.Request) -> Answer:
            stage.orders[SECOND]["status"] = "canceled"
            stage.tells("canceled", SECOND)
            return Answer(status=204, text="")

        stage.peer.on("DELETE", f"/v2/orders/{SECOND}", cancels)
        await engine.tell(CloseRequested(now=stage.now, symbol="AAPL"))
        await until(lambda: len(sent(stage)) == 3)
        third = next(order for order in stage.orders.values() if order["type"] == "market")
        stage.executes(third["id"], "12", "101")
        stage.holds("AAPL", "0", "0")
        await until(lambda: engine.trader.portfolio.positions == {})
        (trade,) = await engine.ledger.run(order_store.recent_trades, "test:PA1")
        assert (trade.trade.exit_price, trade.trade.exit_reason) == (Decimal(101), "manual")


# --- ending with an order of which nothing is known -------------------------------------------------------------------


async def lost_entry(stage: Stage, engine: Engine) -> str:
    """An entry whose request got no answer, and which the broker does not know so far: its local id."""
    stage.peer.on("POST", "/v2/orders", reset)
    await stage.bar(engine, "102.11")
    await until(lambda: "unknown" in engine.trader.block_of("AAPL"))
    (order,) = engine.trader.orders.values()
    return order.local_id


async def test_an_entry_that_turns_up_while_the_engine_ends_is_cancelled(stage: Stage) -> None:
    stage.pauses = SOON_THE_END
    async with stage.engine() as engine:
        local_id = await lost_entry(stage, engine)

        async def canceled(_request: web.Request) -> Answer:
            stage.orders[FOREIGN]["status"] = "canceled"
            stage.tells("canceled", FOREIGN)
            return Answer(status=204, text="")

        stage.peer.on("DELETE", f"/v2/orders/{FOREIGN}", canceled)
        before = len(stage.peer.asked("GET", "/v2/orders:by_client_order_id"))
        ending = asyncio.create_task(engine.wind_down())
        await until(lambda: len(stage.peer.asked("GET", "/v2/orders:by_client_order_id")) > before)
        stage.works(FOREIGN, client_order_id=local_id, qty="12", stop_price="103")
        await ending
        assert engine.trader.orders[local_id].state is OrderState.CANCELED
        assert not engine.stop_failed


async def test_an_engine_that_ends_does_not_wait_for_bars_it_has_asked_for(stage: Stage) -> None:
    asked, answering = asyncio.Event(), asyncio.Event()

    async def never(_request: web.Request) -> Answer:
        asked.set()
        await answering.wait()
        return Answer(status=503)

    async with stage.engine() as engine:
        await stage.entry(engine)
        stage.passes(minutes=5)
        stage.peer.on("GET", "/v2/stocks/bars", never)
        stage.peer.on("DELETE", f"/v2/orders/{FIRST}", Answer(status=204, text=""))
        engine.ask_history(engine.sessions.fill_gap(engine))
        await asked.wait()
        engine.stop("a test")
        ending = asyncio.create_task(engine.wind_down())
        await until(lambda: stage.peer.asked("DELETE", f"/v2/orders/{FIRST}"))
        stage.orders[FIRST]["status"] = "canceled"
        stage.tells("canceled", FIRST)
        await ending
        assert engine.is_idle()
        assert not engine.stop_failed
        answering.set()


async def test_an_entry_that_the_broker_may_still_get_makes_it_a_failure_and_is_for_the_next_start(
    stage: Stage,
) -> None:
    """However often it is denied meanwhile: only half a minute of silence says that a request never left."""
    stage.pauses = SOON_THE_END
    async with stage.engine() as engine:
        local_id = await lost_entry(stage, engine)
        await engine.wind_down()
        assert engine.stop_failed
        assert engine.stop_reason.endswith(f"{NOT_KNOWN}: AAPL")
        assert engine.trader.orders[local_id].state is OrderState.SUBMITTED
    stage.pauses = SHORT
    async with stage.engine() as successor:
        await until(lambda: successor.trader.orders[local_id].state is OrderState.SUBMIT_FAILED)
        await successor.wind_down()
        assert not successor.stop_failed
