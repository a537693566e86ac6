"""Ledger and broker are made to agree, over real sockets and a real database, whatever the broker did meanwhile."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from orders import store as order_store
from orders.events import Filled
from orders.lifecycle import Order, OrderState, Side
from tests.live.alpaca_peer import Answer, Peer
from tests.live.engine_on_peer import Stage, until
from trading.live.engine import Engine

FOREIGN = "99999999-0000-4000-8000-000000000001"
OTHER_ENGINE = "0b3d5a86-52e1-5d0f-9d5c-6c2f8f3f1a44"


def held(engine: Engine, symbol: str = "AAPL") -> Decimal:
    position = engine.trader.portfolio.positions.get(symbol)
    return position.qty if position else Decimal(0)


def sent(stage: Stage) -> list[str]:
    return [f"{request.body['side']} {request.body['qty']:g}" for request in stage.peer.asked("POST", "/v2/orders")]


# --- executions -------------------------------------------------------------------------------------------------------


async def test_a_fill_that_nobody_told_and_no_list_shows_is_found_in_the_accounts_activities_once(stage: Stage) -> None:
    async with stage.engine() as engine:
        _, stop = await stage.position(engine)
        assert stop.broker_id is not None
        stage.executes(stop.broker_id, "12", "99")
        stage.holds("AAPL", "0", "0")
        hidden = stage.orders.pop(stop.broker_id)  # not listed any more, found neither by this id nor by that
        stage.peer.on("GET", f"/v2/orders/{stop.broker_id}", Answer(status=404, body={"message": "order not found"}))
        for _ in range(2):
            await engine.recovery.compare()
        assert hidden["status"] == "filled"
        assert held(engine) == 0
        events = await engine.ledger.run(order_store.events_of, "test:PA1", stop.local_id)
        assert [event.fact.execution_id for event in events if isinstance(event.fact, Filled)] == ["exec-2"]
        (trade,) = await engine.ledger.run(order_store.recent_trades, "test:PA1")
        assert (trade.trade.exit_price, trade.trade.exit_reason, trade.trade.estimated) == (
            Decimal(99),
            "stop_loss",
            False,
        )


async def test_an_execution_known_from_the_stream_is_not_booked_again(stage: Stage) -> None:
    async with stage.engine() as engine:
        entry, _ = await stage.position(engine)
        await engine.recovery.compare()
        assert held(engine) == 12
        assert (await stage.events(engine, entry)).count("fill") == 1


async def test_a_strangers_executions_are_none_of_ours_and_asked_about_once(stage: Stage) -> None:
    stage.works(FOREIGN, symbol="MSFT", client_order_id="by-hand", qty="5")
    stage.executes(FOREIGN, "5", "300")
    async with stage.engine() as engine:
        await engine.recovery.compare()
        assert engine.trader.orders == {}
    assert len(stage.peer.asked("GET", f"/v2/orders/{FOREIGN}")) == 1


# --- silence ----------------------------------------------------------------------------------------------------------


async def test_a_broker_that_does_not_answer_costs_entries_and_is_asked_until_it_does(stage: Stage) -> None:
    async with stage.engine() as engine:
        await stage.position(engine)
        stage.peer.on("GET", "/v2/positions", *[Answer(status=503)] * 3, stage.positions)
        engine.recovery.ask()
        await until(lambda: "cannot be asked" in engine.trader.block_of("AAPL"))
        await until(lambda: engine.trader.block_of("AAPL") == "")
        assert held(engine) == 12
        assert not engine.stop_wanted.is_set()


async def test_an_empty_list_of_positions_for_a_moment_is_no_reason_to_close_anything(stage: Stage) -> None:
    async with stage.engine() as engine:
        await stage.position(engine)
        stage.peer.on("GET", "/v2/positions", [], stage.positions)
        await engine.recovery.compare()
        assert held(engine) == 12


async def test_an_order_that_is_not_found_stays_open_and_its_symbol_takes_no_entries(stage: Stage) -> None:
    async with stage.engine() as engine:
        _, stop = await stage.position(engine)
        assert stop.broker_id is not None
        hidden = stage.orders.pop(stop.broker_id)
        stage.peer.on("GET", f"/v2/orders/{stop.broker_id}", Answer(status=404, body={"message": "order not found"}))
        await engine.recovery.compare()
        await until(lambda: "unknown" in engine.trader.block_of("AAPL"))
        assert engine.trader.block_of("TSLA") == ""
        assert engine.trader.orders[stop.local_id].state is OrderState.ACCEPTED
        assert sent(stage) == ["buy 12", "sell 12"]  # no second stop for the same shares
        stage.orders[stop.broker_id] = hidden
        await engine.recovery.compare()
        assert engine.trader.orders[stop.local_id].state is OrderState.ACCEPTED


async def test_a_page_that_is_cut_off_is_no_answer(stage: Stage) -> None:
    async with stage.engine() as engine:
        await stage.position(engine)
        stage.peer.on("GET", "/v2/orders", Answer(text='[{"id": "1'), Answer(text='[{"id": "1'), [])
        engine.recovery.ask()
        await until(lambda: "cannot be asked" in engine.trader.block_of("AAPL"))
        assert engine.trader.stop_of("AAPL") is not None


# --- executions that the exchange takes back or corrects --------------------------------------------------------------


def cash(engine: Engine) -> Decimal:
    return engine.trader.portfolio.cash


def books(engine: Engine) -> Any:
    """Shares of AAPL and dollars."""
    return held(engine), cash(engine)


async def trades(engine: Engine) -> list[Any]:
    """Shares, profit and whether it is an estimate, oldest first."""
    found = await engine.ledger.run(order_store.recent_trades, "test:PA1")
    return [(each.trade.qty, each.trade.pnl, each.trade.estimated) for each in reversed(found)]


def takes_back(stage: Stage, broker_id: str | None, execution: str) -> None:
    """The broker tells of a bust, twice, as it may; what the account holds is the test's business."""
    assert broker_id is not None
    for _ in range(2):
        stage.tells("trade_bust", broker_id, previous_execution_id=execution, execution_id=f"bust of {execution}")


def corrects(stage: Stage, broker_id: str | None, execution: str, price: str) -> None:
    """The broker tells of another price, twice."""
    assert broker_id is not None
    more = {"previous_execution_id": execution, "execution_id": f"correction of {execution}", "qty": "12"}
    for _ in range(2):
        stage.tells("trade_correct", broker_id, price=price, **more)


def cancels_at_once(stage: Stage, broker_id: str | None) -> None:
    """The broker cancels the order when it is asked to, and tells so."""
    assert broker_id is not None

    async def canceled(_request: web.Request) -> Answer:
        stage.orders[broker_id] |= {"status": "canceled"}
        stage.tells("canceled", broker_id)
        return Answer(status=204, text="")

    stage.peer.on("DELETE", f"/v2/orders/{broker_id}", canceled)


async def sold_by_its_stop(stage: Stage, engine: Engine) -> tuple[Order, Order]:
    """12 shares bought at 103 and sold at 98 by their stop: the entry and the stop."""
    entry, stop = await stage.position(engine)
    assert stop.broker_id is not None
    stage.passes(seconds=10)
    stage.executes(stop.broker_id, "12", "98")
    stage.holds("AAPL", "0", "0")
    stage.tells("fill", stop.broker_id, execution_id="exec-2", price="98", qty="12", position_qty="0")
    await until(lambda: held(engine) == 0)
    return entry, stop


async def test_a_purchase_that_is_taken_back_ends_at_its_own_price_and_its_stop_is_cancelled(stage: Stage) -> None:
    async with stage.engine() as engine:
        entry, stop = await stage.position(engine)
        cancels_at_once(stage, stop.broker_id)
        stage.holds("AAPL", "0", "0")
        takes_back(stage, entry.broker_id, "exec-1")
        await until(lambda: engine.trader.orders[stop.local_id].state is OrderState.CANCELED)
        assert books(engine) == (0, 25_000)
        assert await trades(engine) == [(12, 0, False)]
        await engine.recovery.compare()
        assert books(engine) == (0, 25_000)


async def test_part_of_a_purchase_taken_back_leaves_a_stop_for_the_rest(stage: Stage) -> None:
    async with stage.engine() as engine:
        entry = await stage.entry(engine)
        assert entry.broker_id is not None
        order = stage.orders[entry.broker_id]
        order |= {"status": "partially_filled", "filled_qty": "5", "filled_avg_price": "103"}
        stage.tells("partial_fill", entry.broker_id, execution_id="first", price="103", qty="5", position_qty="5")
        stage.holds("AAPL", "5", "103")
        await until(lambda: held(engine) == 5)
        order |= {"status": "filled", "filled_qty": "12", "filled_avg_price": "103.7"}
        stage.holds("AAPL", "12", "103.7")
        stage.tells("fill", entry.broker_id, execution_id="second", price="104.2", qty="7", position_qty="12")
        await until(lambda: (stop := engine.trader.stop_of("AAPL")) is not None and stop.state == "accepted")
        stop = engine.trader.stop_of("AAPL")
        assert stop is not None
        cancels_at_once(stage, stop.broker_id)
        stage.holds("AAPL", "5", "103")
        takes_back(stage, entry.broker_id, "second")
        await until(lambda: len(sent(stage)) == 3)
        assert sent(stage) == ["buy 12", "sell 12", "sell 5"]
        assert "took an execution of ours back" in engine.trader.block_of("AAPL")
        assert books(engine) == (5, 25_000 - 5 * 103)


async def test_a_sale_that_is_taken_back_gives_the_shares_back_and_they_are_protected(stage: Stage) -> None:
    async with stage.engine() as engine:
        _, stop = await sold_by_its_stop(stage, engine)
        stage.holds("AAPL", "12", "103")
        takes_back(stage, stop.broker_id, "exec-2")
        await until(lambda: (now := engine.trader.stop_of("AAPL")) is not None and now.state == "accepted")
        assert sent(stage) == ["buy 12", "sell 12", "sell 12"]
        assert books(engine) == (12, 25_000 - 12 * 103)
        # The loss of the sale is written down; a sale at the price of the purchase makes it good.
        assert await trades(engine) == [(12, -60, False)]
        assert engine.trader.portfolio.positions["AAPL"].avg_entry_price == 98


async def test_a_purchase_taken_back_after_its_shares_were_sold_leaves_a_short_that_is_protected(stage: Stage) -> None:
    async with stage.engine() as engine:
        entry, _ = await sold_by_its_stop(stage, engine)
        stage.holds("AAPL", "-12", "98")
        takes_back(stage, entry.broker_id, "exec-1")
        await until(lambda: (now := engine.trader.stop_of("AAPL")) is not None and now.state == "accepted")
        assert sent(stage) == ["buy 12", "sell 12", "buy 12"]
        assert cash(engine) == 25_000 + 12 * 98
        assert engine.trader.portfolio.positions["AAPL"].side is Side.SHORT


async def test_another_price_of_a_purchase_changes_the_money_once_and_leaves_position_and_stop(stage: Stage) -> None:
    async with stage.engine() as engine:
        entry, stop = await stage.position(engine)
        before = engine.trader.portfolio.positions["AAPL"].strategy
        corrects(stage, entry.broker_id, "exec-1", "102.50")
        await until(lambda: cash(engine) == 25_000 - 12 * Decimal("102.50"))
        await engine.recovery.compare()
        position = engine.trader.portfolio.positions["AAPL"]
        assert books(engine) == (12, 23_770)
        assert position.strategy == before
        working = engine.trader.stop_of("AAPL")
        assert working is not None
        assert working.local_id == stop.local_id
        assert sent(stage) == ["buy 12", "sell 12"]
        assert not [request for request in stage.peer.received if request.method == "DELETE"]


async def test_another_price_of_a_sale_is_a_trade_of_the_difference(stage: Stage) -> None:
    async with stage.engine() as engine:
        _, stop = await sold_by_its_stop(stage, engine)
        corrects(stage, stop.broker_id, "exec-2", "98.25")
        await until(lambda: cash(engine) == 25_000 + 12 * (Decimal("98.25") - 103))
        await engine.recovery.compare()
        assert await trades(engine) == [(12, -60, False), (12, 3, False)]
        assert held(engine) == 0


async def test_a_revision_of_an_execution_that_nobody_knows_is_an_alarm_and_the_broker_decides_what_is_held(
    stage: Stage,
) -> None:
    async with stage.engine() as engine:
        entry, _ = await stage.position(engine)
        before = cash(engine)
        compared = engine.recovery.compared_at
        corrects(stage, entry.broker_id, "an execution of somebody else", "1")
        takes_back(stage, entry.broker_id, "another one")
        await until(lambda: engine.recovery.compared_at > compared)
        assert books(engine) == (12, before)
        assert "an execution that the ledger does not know" in engine.trader.block_of("AAPL")


# --- positions --------------------------------------------------------------------------------------------------------


async def test_shares_that_are_gone_for_good_are_closed_here(stage: Stage) -> None:
    async with stage.engine() as engine:
        await stage.position(engine)
        stage.holds("AAPL", "0", "0")
        await engine.recovery.compare()
        assert held(engine) == 0
        (trade,) = await engine.ledger.run(order_store.recent_trades, "test:PA1")
        assert trade.trade.estimated


async def test_a_split_keeps_the_money_scales_the_stop_and_stops_entries(stage: Stage) -> None:
    stage.peer.on("DELETE", "/v2/orders/00000000-0000-4000-8000-000000000002", Answer(status=204, text=""))
    async with stage.engine() as engine:
        _, stop = await stage.position(engine)
        cash = engine.trader.portfolio.cash
        stage.holds("AAPL", "48", "25.75")
        await engine.recovery.compare()
        position = engine.trader.portfolio.positions["AAPL"]
        assert (position.qty, position.avg_entry_price) == (Decimal(48), Decimal("25.75"))
        assert engine.trader.portfolio.cash == cash
        assert "another number of shares" in engine.trader.block_of("AAPL")
        assert stop.broker_id is not None
        await until(lambda: stage.peer.asked("DELETE", f"/v2/orders/{stop.broker_id}"))
        stage.orders[stop.broker_id]["status"] = "canceled"
        stage.tells("canceled", stop.broker_id)
        await until(lambda: len(sent(stage)) == 3)
        body = stage.peer.asked("POST", "/v2/orders")[-1].body
        assert (body["side"], body["qty"], body["stop_price"]) == ("sell", 48, 24.75)
        (trade,) = await engine.ledger.run(order_store.recent_trades, "test:PA1")
        assert (trade.trade.pnl, trade.trade.estimated) == (Decimal(0), True)


async def test_shares_bought_by_hand_are_adopted_at_what_they_cost_and_the_stop_covers_them(stage: Stage) -> None:
    stage.peer.on("DELETE", "/v2/orders/00000000-0000-4000-8000-000000000002", Answer(status=204, text=""))
    async with stage.engine() as engine:
        await stage.position(engine)
        stage.holds("AAPL", "15", "104")
        await engine.recovery.compare()
        position = engine.trader.portfolio.positions["AAPL"]
        assert (position.qty, position.avg_entry_price) == (Decimal(15), Decimal(104))
        assert "another number of shares" in engine.trader.block_of("AAPL")
        await until(lambda: any(request.method == "DELETE" for request in stage.peer.received))


async def test_with_foreign_positions_allowed_they_count_and_are_never_touched(ledger: str, tmp_path: Path) -> None:
    async with Peer() as peer:
        stage = Stage(peer, tmp_path, adopt_positions="false")
        stage.script()
        stage.holds("AAPL", "100", "50")
        stage.works(FOREIGN, symbol="TSLA", client_order_id="by-hand", side="sell", stop_price="90")
        async with stage.engine() as engine:
            assert engine.trader.portfolio.positions == {}
            assert engine.trader.equity() == 30_000
            assert engine.trader.block_of("AAPL") == "foreign shares on the account"
            assert engine.trader.block_of("TSLA") == "foreign orders on the account"
            (shown,) = engine.broadcaster.positions()
            assert (shown["symbol"], shown["qty"], shown["strategy"]) == ("AAPL", 100, "foreign")
            stage.holds("AAPL", "0", "0")
            stage.orders.clear()
            await engine.recovery.compare()
            assert engine.trader.equity() == 25_000
            assert engine.trader.block_of("AAPL") == ""
            assert engine.trader.block_of("TSLA") == ""
        assert {request.method for request in peer.received} == {"GET"}


# --- orders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["new", "held"])
async def test_a_stop_by_hand_or_a_held_leg_counts_as_the_stop_of_a_position(stage: Stage, status: str) -> None:
    stage.holds("AAPL", "10", "100")
    parent = "99999999-0000-4000-8000-000000000009"
    leg = stage.works(
        FOREIGN, symbol="AAPL", client_order_id="a-leg", side="sell", qty="10", stop_price="97", status=status
    )
    if status == "held":
        del stage.orders[FOREIGN]
        stage.works(parent, symbol="AAPL", client_order_id="a-bracket", qty="10", status="filled", legs=[leg])
        stage.peer.on("GET", f"/v2/orders/{FOREIGN}", leg)
    async with stage.engine() as engine:
        stop = engine.trader.stop_of("AAPL")
        assert stop is not None
        assert (stop.broker_id, stop.stop_price) == (FOREIGN, Decimal(97))
        assert sent(stage) == []
        leg |= {"status": "filled", "filled_qty": "10", "filled_avg_price": "97", "filled_at": "2026-08-12T15:30:00Z"}
        stage.orders[FOREIGN] = leg
        stage.holds("AAPL", "0", "0")
        stage.tells("fill", FOREIGN, execution_id="e", price="97", qty="10", position_qty="0")
        await until(lambda: held(engine) == 0)
        assert (await engine.ledger.run(order_store.recent_trades, "test:PA1"))[0].trade.exit_price == 97


async def test_other_orders_of_nobody_are_cancelled(stage: Stage) -> None:
    stage.works(FOREIGN, symbol="AAPL", client_order_id="by-hand", side="buy", qty="10", stop_price="120")
    stage.peer.on("DELETE", f"/v2/orders/{FOREIGN}", Answer(status=204, text=""))
    async with stage.engine():
        assert len(stage.peer.asked("DELETE", f"/v2/orders/{FOREIGN}")) >= 1


async def test_an_order_given_up_here_that_works_at_the_broker_is_taken_back(stage: Stage) -> None:
    async with stage.engine() as engine:
        stage.peer.on("POST", "/v2/orders", Answer(status=504))
        await stage.bar(engine, "102.11")
        await until(lambda: "unknown" in engine.trader.block_of("AAPL"))
        (lost,) = engine.trader.orders.values()
        assert lost.state is OrderState.SUBMITTED
        stage.works(FOREIGN, client_order_id=lost.local_id, qty="12", stop_price="103")
        await engine.recovery.compare()
        assert engine.trader.orders[lost.local_id].state is OrderState.ACCEPTED


# --- another engine ---------------------------------------------------------------------------------------------------


async def test_the_later_of_two_engines_on_an_account_stops(stage: Stage) -> None:
    stage.works(FOREIGN, symbol="MSFT", client_order_id=OTHER_ENGINE, submitted_at="2026-08-12T13:29:50Z")
    async with stage.engine(streams=False) as engine:
        assert engine.stop_wanted.is_set()
        assert engine.stop_failed
        assert "another engine trades on this account" in engine.stop_reason


async def test_an_old_order_of_a_lost_database_is_no_other_engine(stage: Stage) -> None:
    stage.works(FOREIGN, symbol="MSFT", client_order_id=OTHER_ENGINE, submitted_at="2026-08-12T13:00:00Z")
    stage.peer.on("DELETE", f"/v2/orders/{FOREIGN}", Answer(status=204, text=""))
    async with stage.engine(streams=False) as engine:
        assert not engine.stop_wanted.is_set()
        assert len(stage.peer.asked("DELETE", f"/v2/orders/{FOREIGN}")) == 1


async def test_an_order_of_another_program_with_an_id_of_any_shape_does_no_harm(stage: Stage) -> None:
    async with stage.engine() as engine:
        stage.works(FOREIGN, symbol="MSFT", client_order_id="x" * 100, status="filled")
        stage.tells("new", FOREIGN)
        _, stop = await stage.position(engine)
        assert stop.state is OrderState.ACCEPTED
        assert not engine.stop_wanted.is_set()
