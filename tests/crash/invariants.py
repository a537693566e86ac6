"""What must hold once everything is quiet, between an engine's ledger and the account's file of the built-in market."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

from orders import models, store
from orders.lifecycle import Order, OrderState, Role, local_id_of
from orders.portfolio import Portfolio, fold
from trading.simulator.account import Account
from trading.simulator.accountfile import AccountFile
from trading.simulator.orders import BrokerOrder, Fill, Status

ZERO = Decimal(0)
CENT_PART = Decimal("0.000001")  # averages that do not come out even are cut by the broker

# A stop's earlier ids end as `replaced` there; here the order goes on under its next id.
SAME = {
    Status.NEW: OrderState.ACCEPTED,
    Status.ACCEPTED: OrderState.ACCEPTED,
    Status.PARTIALLY_FILLED: OrderState.PARTIALLY_FILLED,
    Status.FILLED: OrderState.FILLED,
    Status.CANCELED: OrderState.CANCELED,
    Status.EXPIRED: OrderState.EXPIRED,
    Status.REJECTED: OrderState.REJECTED,
}


def violations(account_id: str, account_path: Path, capital: Decimal) -> list[str]:
    """Every difference between Django's default database and the market's account, in words; none if all is well."""
    file = AccountFile(account_path)
    theirs, fills = file.orders(), file.fills()
    file.close()
    ours = [store.load_order(row) for row in models.OrderState.objects.filter(account_id=account_id).order_by("id")]
    return [
        *_orders_agree(account_id, ours, theirs),
        *_money_agrees(account_id, fills, capital),
        *_one_intent_one_order(ours, theirs),
        *_history_makes_the_orders(account_id, ours),
        *_shares_are_covered(theirs, fills),
    ]


def _orders_agree(account_id: str, ours: list[Order], theirs: list[BrokerOrder]) -> Iterable[str]:
    chains: dict[str, list[BrokerOrder]] = defaultdict(list)
    for each in theirs:
        chains[local_id_of(each.client_order_id)].append(each)
    known = {order.local_id: order for order in ours}
    for local_id in chains.keys() - known.keys():
        yield f"I2 the broker has {local_id}, the ledger has not"
    for order in ours:
        chain = [
            each for each in chains.get(order.local_id, []) if each.status is not Status.REJECTED or not each.replaces
        ]
        name = f"{order.role} {order.local_id}"
        if not chain:
            events = store.events_of(account_id, order.local_id)
            was_found = any(event.fact.detail == "found by reconciliation" for event in events)
            was_refused = order.state in (OrderState.SUBMIT_FAILED, OrderState.REJECTED) and not order.broker_id
            if not (was_refused or was_found):
                yield f"I3 {name} is {order.state} here, unknown at the broker"
            continue
        last = chain[-1]
        if SAME.get(last.status) is not order.state:
            yield f"I3 {name} is {order.state} here, {last.status} there"
        if last.id != order.broker_id:
            yield f"I3 {name} has the id {order.broker_id} here, {last.id} there"
        filled = sum((each.filled_qty for each in chain), ZERO)
        value = sum((each.filled_value for each in chain), ZERO)
        if filled != order.qty_filled:
            yield f"I3 {name}: {order.qty_filled} shares filled here, {filled} there"
        elif filled and abs(value / filled - (order.avg_fill_price or ZERO)) > CENT_PART:
            yield f"I3 {name}: average {order.avg_fill_price} here, {value / filled} there"


def _money_agrees(account_id: str, fills: list[Fill], capital: Decimal) -> Iterable[str]:
    account = Account(cash=capital, multiplier=1)
    for fill in fills:
        account.apply(fill)
    # The ledger's executions in the order in which they were written, each with its order as it is at the end.
    orders = {order.local_id: order for order in store.rebuild(account_id)}
    events = models.OrderEvent.objects.filter(account_id=account_id, qty_filled__isnull=False).order_by("id")
    portfolio, trades = fold(((orders[e.order_local_id], store._filled(e)) for e in events), cash=capital)
    for symbol in account.positions.keys() | portfolio.positions.keys():
        here = _signed(portfolio, symbol)
        if here != account.qty(symbol):
            yield f"I3 {here} {symbol} held here, {account.qty(symbol)} there"
    if abs(portfolio.cash - account.cash) > CENT_PART:
        yield f"I3 cash {portfolio.cash} here, {account.cash} there"
    recorded = store.recent_trades(account_id, limit=None)
    if Counter(trade.pnl for trade in trades) != Counter(each.trade.pnl for each in recorded):
        yield f"I3 trades {[each.trade.pnl for each in recorded]} are written, the fills make {[t.pnl for t in trades]}"
    at_cost = sum((_signed(portfolio, p.symbol) * p.avg_entry_price for p in portfolio.positions.values()), ZERO)
    pnl = sum((each.trade.pnl for each in recorded), ZERO)
    if abs(account.cash - capital - pnl + at_cost) > CENT_PART:
        yield f"I3 cash changed by {account.cash - capital}, trades made {pnl}, {at_cost} are in open positions"


def _signed(portfolio: Portfolio, symbol: str) -> Decimal:
    position = portfolio.positions.get(symbol)
    return ZERO if position is None else position.qty if position.side == "long" else -position.qty


def _one_intent_one_order(ours: list[Order], theirs: list[BrokerOrder]) -> Iterable[str]:
    for name, count in Counter(each.client_order_id for each in theirs).items():
        if count > 1:
            yield f"I2 {name} was sent {count} times"
    sent = {local_id_of(each.client_order_id) for each in theirs}
    entries = [order for order in ours if order.role is Role.ENTRY and order.local_id in sent]
    for correlation_id, count in Counter(order.correlation_id for order in entries).items():
        if count > 1:
            yield f"I2 the signal {correlation_id} was sent as {count} entries"
    working = Counter(order.symbol for order in theirs if order.is_open and order.opens)
    for symbol, count in working.items():
        if count > 1:
            yield f"I2 {count} entries of {symbol} are working"


def _history_makes_the_orders(account_id: str, ours: list[Order]) -> Iterable[str]:
    rebuilt = store.rebuild(account_id)
    if rebuilt != ours:
        changed = [order.local_id for order, again in zip(ours, rebuilt, strict=False) if order != again]
        yield f"I4 the events make other orders than there are: {changed or 'not as many'}"


def _shares_are_covered(theirs: list[BrokerOrder], fills: list[Fill]) -> Iterable[str]:
    held: dict[str, Decimal] = defaultdict(Decimal)
    for fill in fills:
        held[fill.symbol] += fill.qty if fill.buys else -fill.qty
    for symbol in held:
        stops = [each for each in theirs if each.symbol == symbol and each.is_open and not each.opens]
        covered = sum((each.leaves for each in stops), ZERO)
        if covered != abs(held[symbol]) or len(stops) > 1:
            yield f"I1 {held[symbol]} {symbol} held, {covered} covered by {len(stops)} stops"
