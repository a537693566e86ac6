"""Starting and recovering are one path: the ledger is read, the broker is asked, and both are made to agree."""

from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from orders import store as order_store
from orders.events import Filled, SubmitFailed
from orders.lifecycle import Order, OrderState, Role
from trading.broker import BrokerError, NotAuthorized, NotFound, OrderStatus
from trading.logbook import Standing
from trading.messages import (
    OrderChanged,
    PositionAdopted,
    PositionGone,
    Reconciled,
    Restored,
    SymbolBlocked,
)
from trading.reconcile import Findings, compare

if TYPE_CHECKING:
    from trading.live.engine import Engine

log = structlog.get_logger("engine")

LOOK_BACK = timedelta(hours=24)


async def restore(engine: "Engine") -> None:
    """Gives the Trader what the ledger holds of this account, then reconciles; cash begins at the broker's figure."""
    orders, fills = await _open_in_ledger(engine)
    await engine.remember([order.local_id for order in orders])
    await engine.tell(Restored(now=engine.clock(), orders=orders, fills=fills, cash=engine.trader.portfolio.cash))
    engine.measure_again()
    await reconcile(engine, is_start=True)


async def standing(engine: "Engine") -> Standing:
    """Where the account stands now: what an engine that began here would be given."""
    trader = engine.trader
    orders, fills = await _open_in_ledger(engine)
    return Standing(
        now=engine.clock(),
        settings=engine.config.as_texts(),
        symbols=tuple(trader.managed_symbols()),
        cash=trader.portfolio.cash,
        orders=orders,
        fills=fills,
        halted=trader.halted,
        blocked=trader.blocks(),
    )


async def _open_in_ledger(engine: "Engine") -> tuple[tuple[Order, ...], tuple[tuple[Order, Filled], ...]]:
    """Orders that can still change and those of open round trips, and the executions of these."""
    account_id = engine.trader.account_id
    unfinished = await engine.writer.read(order_store.unfinished_orders, account_id)
    round_trips = await engine.writer.read(order_store.open_round_trips, account_id)
    fills = [(order, fill) for order, executions in round_trips for fill in executions]
    orders = {order.local_id: order for order in [*(order for order, _ in round_trips), *unfinished]}
    return tuple(orders.values()), tuple(fills)


async def reconcile(engine: "Engine", *, is_start: bool = False) -> None:
    """Asks the broker about every order and position, works the answers in, lets the Trader ask for what is missing.

    Silence proves nothing: an order that cannot be found stays as it is, and is asked for again.
    """
    open_orders = await engine.calls.open_orders()
    recent = await engine.calls.recent_orders(since=engine.clock() - LOOK_BACK)
    known: dict[str, OrderStatus] = {}
    for status in (*recent, *open_orders):
        for each in (status, *status.legs):
            known[each.client_order_id] = each
    for order in [order for order in engine.trader.orders.values() if not order.is_terminal]:
        await _settle(engine, order, known, is_start=is_start)
    findings = compare(
        positions=engine.trader.portfolio.positions,
        last_prices=engine.trader.last_prices,
        our_order_ids=set(engine.trader.orders),
        broker_positions=await engine.calls.positions(),
        broker_orders=open_orders,
    )
    await _act(engine, findings)
    cash = (await engine.calls.account()).cash if is_start else None
    await engine.tell(Reconciled(now=engine.clock(), cash=cash))
    log.info(
        "reconciled",
        orders=len(known),
        positions=len(engine.trader.portfolio.positions),
        unknown=len(findings.unknown),
        gone=len(findings.gone),
        strays=len(findings.strays),
    )


async def _settle(engine: "Engine", order: Order, known: dict[str, OrderStatus], *, is_start: bool) -> None:
    """Works in what the broker says of one order of ours, asking for it by id if no list had it.

    A stop or an exit of a dead process that the broker does not show is sent at once, under the id it has: shares wait
    for it, and should the first request turn up after all, the broker refuses the second.
    """
    found = [status for client_id, status in known.items() if client_id.startswith(order.local_id)]
    if not found:
        try:
            found = [await engine.calls.order_by_client_id(order.client_order_id)]
        except NotFound:
            if order.state is OrderState.PENDING_SUBMIT:
                fact = SubmitFailed(
                    local_id=order.local_id, at=engine.clock(), detail="never sent: the broker does not know it"
                )
                await engine.tell(OrderChanged(now=engine.clock(), fact=fact))
            elif is_start and order.state is OrderState.SUBMITTED and order.role is not Role.ENTRY:
                engine.spawn(engine.desk.send(order))
            else:
                engine.desk.settle_unknown(order)
            return
        except NotAuthorized:
            raise
        except BrokerError as error:
            log.warning("order.look_up_failed", order=order.local_id, reason=str(error))
            engine.desk.settle_unknown(order)
            return
    for status in sorted(found, key=lambda each: each.submitted_at):
        await engine.report(status, reconciling=True)


async def _act(engine: "Engine", findings: Findings) -> None:
    now = engine.clock()
    adopts = engine.config["adopt_positions"]
    for gone in findings.gone:
        await engine.tell(PositionGone(now=now, symbol=gone.symbol, qty=gone.qty, price=gone.price))
    for stray in findings.strays:
        log.warning("reconcile.stray_order", symbol=stray.symbol, broker_id=stray.broker_order_id, cancels=adopts)
        if adopts:
            await engine.calls.cancel(stray.broker_order_id)
        else:
            await engine.tell(SymbolBlocked(now=now, symbol=stray.symbol, reason="foreign orders on the account"))
    for found in findings.unknown:
        if adopts:
            await engine.tell(
                PositionAdopted(now=now, symbol=found.symbol, side=found.side, qty=found.qty, price=found.price)
            )
        else:
            await engine.tell(SymbolBlocked(now=now, symbol=found.symbol, reason="foreign shares on the account"))
