"""Everything closed, and seen to be closed: by the engine that runs, or past one that is dead or hangs.

While an engine answers it is asked, since two who sell the same shares sell them twice. Otherwise an engine without
streams, pages and pace is put together here: it takes the lease, so that whoever hung can write, and so send, nothing
more when it wakes up; it compares ledger and broker like any start, and closes what is there. Every order of it is in
the ledger before it is sent. Should even that fail, what the broker shows is cancelled and sold without the ledger.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from signal import SIGKILL
from socket import gethostname
from time import monotonic
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog
from django.conf import settings as django_settings
from django.db import Error as DatabaseError

from orders.command import UserError
from orders.lifecycle import OrderState, OrderType, local_id_of
from risk import store as risk_store
from risk.config import Config
from trading import store
from trading.broker import BrokerError, NotFound, OrderRefused, OrderRequest
from trading.holdings import UNKNOWN, Holdings, not_flat, proof
from trading.live import calendar
from trading.live.calls import BrokerCalls
from trading.live.ledger import Ledger
from trading.live.lock import AnotherEngine, EngineLock, LockFailed
from trading.messages import CloseRequested, Halted

if TYPE_CHECKING:
    from trading.live.engine import Engine

log = structlog.get_logger("engine")

CLOSE_SECONDS = 30.0
POLL_SECONDS = 0.5
COMPARE_SECONDS = 5.0
CLAIM_SECONDS = 5.0  # an engine that runs takes a request up within a quarter of a second
HANGS_SECONDS = 10.0  # three heartbeats
BY_FORCE_SECONDS = 20.0
ASKED_BY = "manage.py flatten"

Say = Callable[[str], object]


# --- by an engine -----------------------------------------------------------------------------------------------------


async def close_everything(engine: "Engine", *, reason: str) -> tuple[Holdings, Holdings]:
    """Halts, cancels and sells until the broker shows neither; what it showed before, and what it shows now."""
    async with engine.between_steps():
        await engine.tell(Halted(now=engine.clock(), reason=reason))
    before = after = await look(engine)
    started = compared = monotonic()
    while not after.is_flat and monotonic() < started + CLOSE_SECONDS:
        async with engine.between_steps():
            await engine.tell(CloseRequested(now=engine.clock()))
        await asyncio.sleep(POLL_SECONDS)
        for order in list(engine.trader.orders.values()):
            if not order.is_terminal and order.state is not OrderState.PENDING_SUBMIT:
                await engine.desk.look_up(order)
        after = await look(engine)
        if after.waits_for_the_open and not _is_open(engine):
            break
        is_quiet = all(order.is_terminal for order in engine.trader.orders.values())
        if not after.is_flat and is_quiet and monotonic() > compared + COMPARE_SECONDS:
            compared = monotonic()  # nothing of ours is on its way: the rest is somebody else's doing
            await _compare(engine)
    if after.is_flat and not all(order.is_terminal for order in engine.trader.orders.values()):
        await _compare(engine)  # sold between the last question about orders and that about shares: it is booked too
    log.warning("flatten.done" if after.is_flat else "flatten.unfinished", positions=len(after.positions))
    return before, after


async def look(engine: "Engine") -> Holdings:
    """What the broker shows. Where foreign shares and orders are not ours to touch, they are only counted."""
    try:
        positions, orders = await engine.calls.positions(), await engine.calls.open_orders()
    except BrokerError as error:
        log.warning("flatten.cannot_look", reason=str(error))
        return UNKNOWN
    held = [position for position in positions if position.qty]
    if engine.config["adopt_positions"]:
        return Holdings(positions=tuple(held), orders=tuple(orders))
    ours = engine.trader.portfolio.positions
    shares = [
        (position, min(abs(position.qty), ours[position.symbol].qty)) for position in held if position.symbol in ours
    ]
    our_orders = [order for order in orders if local_id_of(order.client_order_id) in engine.trader.orders]
    foreign_shares = sum(abs(p.qty) > (ours[p.symbol].qty if p.symbol in ours else 0) for p in held)
    return Holdings(
        positions=tuple(replace(position, qty=qty if position.qty > 0 else -qty) for position, qty in shares),
        orders=tuple(our_orders),
        foreign=foreign_shares + len(orders) - len(our_orders),
    )


async def _compare(engine: "Engine") -> None:
    try:
        await engine.recovery.compare()
    except BrokerError as error:
        log.warning("flatten.cannot_compare", reason=str(error))


def _is_open(engine: "Engine") -> bool:
    """Whether the market trades now, by our calendar."""
    now = engine.clock()
    session = calendar.session_on(now.astimezone(store.NEW_YORK).date())
    return session is not None and session.contains(now)


# --- from outside -----------------------------------------------------------------------------------------------------


async def flatten(say: Say) -> None:
    """Halts first, then has everything closed, and says what the broker showed before and shows now.

    Raises:
        UserError: the account is not seen to be flat; what to do about it.
    """
    config: Config = django_settings.ALGO
    ledger = Ledger()
    try:
        await _end_hung_transactions(ledger, say)
        ledger_problem = await _halt(ledger)
        if ledger_problem and await _end_hung_transactions(ledger, say):
            ledger_problem = await _halt(ledger)
        owner = await _owner()
        if ledger_problem and owner:
            await _end_hung_engine(ledger, owner, ledger_problem, say)
            ledger_problem, owner = await _halt(ledger), ""
        if ledger_problem:
            say(f"The ledger cannot be written ({ledger_problem}): the halt is not in it.")
        else:
            say("Halted: no new entries until somebody resumes.")
        if not owner:
            say("No engine is running: closing directly.")
        elif await _engine_does_it(ledger, say):
            return
        else:
            await _end_hung_transactions(ledger, say)
    finally:
        ledger.close()
    if config["broker.provider"] == "simulator":
        raise UserError(
            "The built-in market is part of the engine, and no engine answers: nothing was closed, trading is halted."
        )
    if ledger_problem:
        await _by_force(config, say)
        return
    try:
        after = await _take_over(say)
    except (DatabaseError, BrokerError) as error:
        say(f"It cannot be done by way of the ledger ({_one_line(error)}): closing without it.")
        await _by_force(config, say)
    else:
        if after.waits_for_the_open:
            raise UserError(not_flat(after))
        if not after.is_flat:
            say("It is not flat yet: closing without the ledger.")
            await _by_force(config, say)


async def _halt(ledger: Ledger) -> str:
    """Halts the account of the latest run; why the ledger cannot be used, empty if it can."""

    def halt() -> None:
        run = store.last_run()
        if run is not None:
            now = datetime.now(UTC)
            risk_store.set_halted(run.account_id, True, day=now.astimezone(store.NEW_YORK).date(), real_at=now)

    try:
        await ledger.run(halt)
    except DatabaseError as error:
        return _one_line(error)
    return ""


async def _owner() -> str:
    """How the engine that has this database calls itself; empty if there is none."""
    lock = EngineLock()
    try:
        await asyncio.to_thread(lock.acquire)
    except AnotherEngine as error:
        return str(error)
    except LockFailed as error:
        log.warning("flatten.without_lock", reason=str(error))
    else:
        await asyncio.to_thread(lock.release)
    return ""


async def _end_hung_engine(ledger: Ledger, owner: str, problem: str, say: Say) -> None:
    """Ends an engine that hangs within a transaction, so that nobody else can write.

    It is made for being killed at any point, and beside it neither a halt nor an exit could be written down.

    Raises:
        UserError: it does not hang, or is not on this machine, or is somebody else's.
    """
    try:
        lease = await ledger.run(store.peek_lease)
        while lease is not None and _silence(lease) < HANGS_SECONDS:
            before = lease.heartbeat_at
            await asyncio.sleep(POLL_SECONDS)
            lease = await ledger.run(store.peek_lease)
            if lease is not None and lease.heartbeat_at > before:
                break  # it lives: it is not what holds the ledger
        if lease is not None and _silence(lease) >= HANGS_SECONDS and f"engine {lease.pid} on {gethostname()}" in owner:
            os.kill(lease.pid, SIGKILL)
            say(f"The engine (process {lease.pid}) hangs and holds the ledger: it was ended with kill -9.")
            await asyncio.sleep(POLL_SECONDS)
            return
    except (DatabaseError, OSError) as error:
        log.warning("flatten.cannot_end_engine", reason=str(error))
    raise UserError(
        f"The ledger cannot be used ({problem}), so the engine cannot be asked. {owner} Or end its process; then run "
        "`manage.py flatten` again."
    )


async def _end_hung_transactions(ledger: Ledger, say: Say) -> bool:
    """Ends sessions that hold rows of a PostgreSQL ledger and say nothing; whether there were any.

    A transaction of ours takes milliseconds. One whose process hangs would keep the halt, the lease or an exit waiting;
    ended by the server, wherever that process is, it leaves nothing behind, and its process finds the lease taken.
    """
    is_any, deadline = False, monotonic() + 2 * CLAIM_SECONDS
    try:
        while (waiting := await ledger.run(store.open_transactions)) and monotonic() < deadline:
            for each in waiting:
                if each.silent_seconds >= CLAIM_SECONDS and await ledger.run(store.end_transaction, each.backend):
                    is_any = True
                    say(
                        f"A transaction of {each.name} (PostgreSQL's process {each.backend}) held the ledger for "
                        f"{each.silent_seconds:.0f} s: it was ended."
                    )
            await asyncio.sleep(POLL_SECONDS)
    except DatabaseError as error:
        log.warning("flatten.cannot_end_transactions", reason=_one_line(error))
    return is_any


def _silence(lease: store.Lease) -> float:
    """Seconds since the engine's heart last beat."""
    return (datetime.now(UTC) - lease.heartbeat_at).total_seconds()


async def _engine_does_it(ledger: Ledger, say: Say) -> bool:
    """As `_ask_engine`; it cannot be asked either while it holds what the request needs."""
    try:
        return await _ask_engine(ledger, say)
    except DatabaseError as error:
        say(f"The engine cannot be asked ({_one_line(error)}): closing past it.")
        return False


async def _ask_engine(ledger: Ledger, say: Say) -> bool:
    """Has the engine that holds the lease do it; False if there is none, or it does not take the request up.

    Raises UserError if it did, and the account is not flat.
    """
    lease = await ledger.run(store.live_lease)
    if lease is None:
        say("An engine has this database and does not say that it is alive: closing past it.")
        return False
    try:
        request = await ledger.run(store.ask, "flatten", {}, by=ASKED_BY)
    except store.NoLiveEngine:
        return False
    say(f"The engine (process {lease.pid} on {lease.host}) is asked to close everything.")
    deadline = monotonic() + CLAIM_SECONDS
    while request.done_at is None:
        await asyncio.sleep(POLL_SECONDS / 2)
        request = await ledger.run(store.find_request, request.id)
        if request.claimed_at is None and monotonic() > deadline:
            reason = "not taken up in time; closed from outside"
            if await ledger.run(store.withdraw_request, request.id, reason=reason):
                say(f"It does not answer within {CLAIM_SECONDS:g} s: closing past it.")
                return False
        if monotonic() > deadline + CLOSE_SECONDS + BY_FORCE_SECONDS:
            say("It has begun and does not come to an end: closing past it.")
            return False
    for line in request.result.splitlines():
        say(line)
    if request.error:
        raise UserError(request.error)
    return True


async def _take_over(say: Say) -> Holdings:
    """Closes by an engine of our own, on the lease of whoever held it; what is left.

    Raises UserError, and what the database and the broker raise.
    """
    from trading.live.process import EngineProcess, Options

    async with AsyncExitStack() as cleanup:
        engine = await EngineProcess(Options(web=False, worker=False), cleanup).take_over()
        untouched = await look(engine)
        await engine.tell(Halted(now=engine.clock(), reason=ASKED_BY))
        await engine.recovery.restore()
        await engine.landed()
        before, after = await close_everything(engine, reason=ASKED_BY)
        if engine.config["adopt_positions"]:  # else only the ledger could tell what of it is ours
            before = untouched
        engine.stop(ASKED_BY, failed=not after.is_flat)
    for line in proof(before, after):
        say(line)
    return after


# --- without the ledger -----------------------------------------------------------------------------------------------


async def _by_force(config: Config, say: Say) -> None:
    """Cancels and sells what the broker shows. The next start of the engine finds the ledger behind and mends it."""
    from trading.live.place import open_place
    from trading.live.process import Options

    if not config["adopt_positions"]:
        raise UserError("Without the ledger nobody can tell which shares are ours (ALGO_ADOPT_POSITIONS is false).")
    async with AsyncExitStack() as cleanup:
        place = await open_place(config, Options(web=False, worker=False), cleanup)
        cleanup.push_async_callback(place.broker.disconnect)
        calls = BrokerCalls(place.broker, limiter=place.limiter)
        try:
            await place.broker.connect()
            before = await _shown(calls)
            await _cancel_all(calls, before)
            after = await _sell_all(calls)
        except BrokerError as error:
            raise UserError(f"The broker does not do what is asked: {error}") from error
        for line in proof(before, after):
            say(line)
        if not after.is_flat:
            raise UserError(not_flat(after))


async def _cancel_all(calls: BrokerCalls, shown: Holdings) -> None:
    deadline = monotonic() + BY_FORCE_SECONDS
    while shown.orders and monotonic() < deadline:
        for order in shown.orders:
            try:
                await calls.cancel(order.broker_order_id)
            except (OrderRefused, NotFound) as refusal:
                log.info("cancel.refused", order=order.broker_order_id, reason=str(refusal))
        await asyncio.sleep(POLL_SECONDS)
        shown = await _shown(calls)


async def _sell_all(calls: BrokerCalls) -> Holdings:
    shown = await _shown(calls)
    for position in shown.positions:
        await calls.submit(
            OrderRequest(
                symbol=position.symbol,
                buys=position.qty < 0,
                order_type=OrderType.MARKET,
                qty=abs(position.qty),
                client_order_id=str(uuid4()),
            ),
            protective=True,
        )
    deadline = monotonic() + BY_FORCE_SECONDS
    while True:
        shown = await _shown(calls)
        if shown.is_flat or monotonic() > deadline:
            return shown
        await asyncio.sleep(POLL_SECONDS)


async def _shown(calls: BrokerCalls) -> Holdings:
    positions = [position for position in await calls.positions() if position.qty]
    return Holdings(positions=tuple(positions), orders=tuple(await calls.open_orders()))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
