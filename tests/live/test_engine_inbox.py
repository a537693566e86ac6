"""What waits in the engine's inbox is taken in its order; events that wait together are written down together."""

import asyncio
from decimal import Decimal
from pathlib import Path

from orders.events import Canceled
from orders.models import OrderEvent
from tests.live.alpaca_peer import Peer
from tests.live.engine_on_peer import OPEN, Stage, until
from trading import models
from trading.market import Bar
from trading.messages import BarDelivered, OrderChanged

NOBODYS = "00000000-0000-4000-8000-00000000dead"


def moments() -> list[tuple[str, str]]:
    """Each line of the feed with the transaction's mark."""
    rows = models.Activity.objects.order_by("id").values_list("message", "recorded_real_at")
    return [(message, str(at)) for message, at in rows]


def marks() -> dict[str, set[str]]:
    """By what happened to orders, the marks of the transactions in which that was written down."""
    found: dict[str, set[str]] = {}
    for event, at in OrderEvent.objects.values_list("event_type", "recorded_real_at"):
        found.setdefault(event, set()).add(str(at))
    return found


async def test_events_that_wait_one_behind_the_other_are_one_transaction(stage: Stage) -> None:
    async with stage.engine(streams=False) as engine:
        await asyncio.gather(
            *(engine.block_symbol(symbol, "a test", cause="test") for symbol in ("AMD", "AAPL", "TSLA"))
        )
        told = await engine.ledger.run(moments)
        assert [message for message, _ in told[-3:]] == [
            f"{symbol} takes no entries: a test" for symbol in ("AMD", "AAPL", "TSLA")
        ]
        assert len({at for _, at in told[-3:]}) == 1
        await engine.block_symbol("AMD", "", cause="test")
        assert (await engine.ledger.run(moments))[-1][1] != told[-1][1]


async def test_what_was_decided_before_an_event_that_cannot_be_handled_holds(stage: Stage) -> None:
    async with stage.engine(streams=False) as engine:
        blocking = engine.block_symbol("AMD", "a test", cause="test")
        nobodys = OrderChanged(now=stage.now, fact=Canceled(local_id=NOBODYS, at=stage.now))
        await asyncio.gather(blocking, engine.tell(nobodys))
        assert "AMD takes no entries: a test" in [message for message, _ in await engine.ledger.run(moments)]
        assert engine.stop_wanted.is_set()
        assert engine.stop_failed
        assert "UnknownOrder" in engine.stop_reason


async def test_the_orders_of_one_minute_are_written_together_before_any_of_them_is_sent(
    ledger: str, tmp_path: Path
) -> None:
    symbols = ("AAPL", "AMD", "META", "NVDA", "TSLA")
    async with Peer() as peer:
        stage = Stage(peer, tmp_path, watchlist=",".join(symbols))
        stage.script()
        async with stage.engine(streams=False) as engine:
            stage.passes(minutes=1)
            price = Decimal("102.11")  # a signal, see `ByClose`
            bars = [
                Bar(symbol=each, timestamp=OPEN, open=price, high=price, low=Decimal(99), close=price, volume=100)
                for each in symbols
            ]
            await asyncio.gather(*(engine.tell(BarDelivered(now=stage.now, bar=bar)) for bar in bars))
            await until(lambda: len(stage.orders) == len(symbols))
            told = await engine.ledger.run(marks)
    assert told["created"] == told["submitted"]
    assert len(told["submitted"]) == 1


async def test_entries_over_the_limit_of_a_minute_are_not_sent_and_halt_the_account(
    ledger: str, tmp_path: Path
) -> None:
    symbols = ("AAPL", "AMD", "META")
    async with Peer() as peer:
        stage = Stage(peer, tmp_path, watchlist=",".join(symbols), **{"risk.max_orders_per_minute": "2"})
        stage.script()
        async with stage.engine(streams=False) as engine:
            stage.passes(minutes=1)
            price = Decimal("102.11")
            bars = [
                Bar(symbol=each, timestamp=OPEN, open=price, high=price, low=Decimal(99), close=price, volume=100)
                for each in symbols
            ]
            await asyncio.gather(*(engine.tell(BarDelivered(now=stage.now, bar=bar)) for bar in bars))
            await until(lambda: bool(engine.trader.halted))
            await until(lambda: len(stage.orders) == 2)
            await engine.landed()
            told = await engine.ledger.run(
                lambda: list(
                    OrderEvent.objects.filter(order_local__symbol="META")
                    .order_by("id")
                    .values_list("event_type", flat=True)
                )
            )
        assert engine.trader.halted == "more than 2 order requests in a minute"
        assert {each["symbol"] for each in stage.orders.values()} == {"AAPL", "AMD"}
        assert told == ["created", "failed"]
