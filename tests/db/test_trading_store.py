"""What the Trader records is written in one go; one engine holds the lease; requests reach it or expire."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError

from orders import store as order_store
from orders.events import Created, Submitted
from orders.lifecycle import Side, apply
from risk import store as risk_store
from risk.rules import Check
from tests.db.samples import ACCOUNT, REAL, at, order, trade, uuid_of
from trading import store
from trading.candles import Candle
from trading.indicators import IndicatorSet
from trading.market import Session
from trading.messages import (
    ActivityRecorded,
    ActivityType,
    CandleClosed,
    DecisionRecorded,
    HaltRecorded,
    Level,
    Noted,
    OrderRecorded,
    Record,
    SessionRecorded,
    TradeRecorded,
)
from trading.models import Activity, Decision, EngineLease, OperatorRequest
from trading.strategy import Condition

OTHER = "paper:OTHER"
TOKEN, OTHER_TOKEN = uuid_of("this engine"), uuid_of("another engine")
SESSION = Session(date=at(0).date(), open=at(0), close=at(390))
CANDLE = Candle(
    symbol="AAPL",
    timestamp=at(0),
    end=at(2),
    open=Decimal("99.00"),
    high=Decimal("100.00"),
    low=Decimal("98.50"),
    close=Decimal("99.90"),
    volume=1200,
    bars=2,
)


def later(seconds: float) -> Any:
    """Wall-clock time, seconds after the start of the test's day."""
    return REAL + timedelta(seconds=seconds)


def activity(message: str, kind: ActivityType = ActivityType.SIGNAL, **changes: Any) -> ActivityRecorded:
    return ActivityRecorded(at=at(2), type=kind, message=message, **{"symbol": "AAPL", **changes})


def session(**changes: Any) -> SessionRecorded:
    values: dict[str, Any] = {
        "session": SESSION,
        "start_equity": Decimal(25000),
        "breaker": "",
        "tripped_at": None,
        "halted": False,
    }
    return SessionRecorded(**{**values, **changes})


def decision(**changes: Any) -> DecisionRecorded:
    values: dict[str, Any] = {
        "at": at(2),
        "symbol": "AAPL",
        "strategy": "velez",
        "side": Side.LONG,
        "candle": CANDLE,
        "conditions": (Condition(name="tight", met=True, value="1.2", needed="< 2.0"),),
        "checks": (Check(code="halted", passed=True, detail=""), Check(code="session", passed=False, detail="closed")),
        "refused_by": "session",
        "qty": Decimal(0),
        "entry_price": Decimal("100.00"),
        "stop_price": Decimal("98.40"),
        "correlation_id": uuid_of("signal"),
    }
    return DecisionRecorded(**{**values, **changes})


def write(*records: Record, account_id: str = ACCOUNT) -> list[int]:
    return store.write(records, account_id=account_id, run_id=7, settings_hash="abc", real_at=REAL)


# --- records ----------------------------------------------------------------------------------------------------------


def test_everything_the_trader_recorded_is_written(each_ledger: str) -> None:
    new = order()
    submitted = Submitted(local_id=new.local_id, at=at(2))
    candle = CandleClosed(
        candle=CANDLE,
        interval_minutes=2,
        strategy="velez",
        indicators=IndicatorSet(sma_fast=None, sma_slow=None, prev_sma_fast=None, prev_sma_slow=None, bar_count=1),
        is_live=True,
    )
    ids = write(
        session(),
        candle,
        decision(),
        activity("a signal"),
        OrderRecorded(order=new, fact=Created(local_id=new.local_id, at=at(2)), before=None),
        OrderRecorded(order=apply(new, submitted), fact=submitted, before=new),
        Noted(at=at(2), symbol="AAPL", message="for the log alone"),
        TradeRecorded(trade=trade()),
        activity("closed", ActivityType.TRADE_CLOSED, level=Level.WARNING, correlation_id=uuid_of("signal")),
    )
    assert risk_store.load_session(ACCOUNT, SESSION.date) == risk_store.SessionState(
        date=SESSION.date, start_equity=Decimal(25000), breaker="", tripped_at=None, halted=False
    )
    assert order_store.find_order(ACCOUNT, new.local_id) == apply(new, submitted)
    assert order_store.trades_of_session(ACCOUNT, since=at(0), until=at(390)) == [trade()]
    assert order_store.recent_trades(ACCOUNT)[0].settings_hash == "abc"
    assert [row.pk for row in Activity.objects.order_by("id")] == ids
    assert store.activities(ACCOUNT) == [
        (
            ids[1],
            activity("closed", ActivityType.TRADE_CLOSED, level=Level.WARNING, correlation_id=uuid_of("signal")),
        ),
        (ids[0], activity("a signal")),
    ]


def test_every_row_of_a_run_says_whose_it_is_and_when_it_was_written(each_ledger: str) -> None:
    write(session(), decision(), activity("a signal"))
    for row in (Activity.objects.get(), Decision.objects.get()):
        assert (row.account_id, row.run_id, row.recorded_real_at, row.recorded_at) == (ACCOUNT, 7, REAL, at(2))


def test_a_decision_keeps_every_value_that_was_compared(each_ledger: str) -> None:
    write(decision())
    (row,) = store.decisions(ACCOUNT)
    assert row["conditions"] == [{"name": "tight", "met": True, "value": "1.2", "needed": "< 2.0"}]
    assert row["checks"] == [
        {"code": "halted", "passed": True, "detail": ""},
        {"code": "session", "passed": False, "detail": "closed"},
    ]
    assert (row["candle"]["low"], row["candle"]["timestamp"]) == ("98.5", "2026-03-02T14:30:00.000000Z")
    assert (row["refused_by"], row["qty"], row["entry_price"]) == ("session", Decimal(0), Decimal(100))


def test_one_bad_record_and_nothing_is_written(each_ledger: str) -> None:
    new = order()
    bad = OrderRecorded(order=new, fact=Submitted(local_id=new.local_id, at=at(2)), before=None)
    with pytest.raises(order_store.UnfaithfulRecord):
        write(activity("a signal"), session(), TradeRecorded(trade=trade()), bad)
    assert not Activity.objects.exists()
    assert risk_store.load_session(ACCOUNT, SESSION.date) is None
    assert order_store.recent_trades(ACCOUNT) == []


def test_the_feed_is_read_in_pages_and_by_signal(each_ledger: str) -> None:
    ids = write(*(activity(f"message {number}") for number in range(5)), activity("other", correlation_id="x"))
    assert [pk for pk, _ in store.activities(ACCOUNT, limit=2)] == [ids[5], ids[4]]
    assert [pk for pk, _ in store.activities(ACCOUNT, limit=2, before_id=ids[4])] == [ids[3], ids[2]]
    assert [pk for pk, _ in store.activities(ACCOUNT, correlation_id="x")] == [ids[5]]
    assert store.activities(OTHER) == []


def test_decisions_are_found_by_symbol_and_by_signal(each_ledger: str) -> None:
    write(decision(), decision(symbol="TSLA", correlation_id=uuid_of("tesla")))
    assert [row["symbol"] for row in store.decisions(ACCOUNT)] == ["TSLA", "AAPL"]
    assert [row["symbol"] for row in store.decisions(ACCOUNT, symbol="AAPL")] == ["AAPL"]
    assert [row["symbol"] for row in store.decisions(ACCOUNT, correlation_id=uuid_of("tesla"))] == ["TSLA"]
    assert store.decisions(ACCOUNT, before_id=store.decisions(ACCOUNT)[-1]["id"]) == []
    assert store.decisions(OTHER) == []


# --- halt -------------------------------------------------------------------------------------------------------------


HALTED, RESUMED = HaltRecorded(at=at(2), halted=True), HaltRecorded(at=at(3), halted=False)


def test_a_halt_outlives_the_session_and_the_engine_until_somebody_resumes(each_ledger: str) -> None:
    write(session())
    assert not risk_store.is_halted(ACCOUNT)
    write(session(halted=True), HALTED)
    assert risk_store.is_halted(ACCOUNT)
    tomorrow = Session(date=SESSION.date + timedelta(days=1), open=at(1440), close=at(1830))
    write(session(session=tomorrow))
    assert risk_store.is_halted(ACCOUNT)
    write(session(session=tomorrow), RESUMED)
    assert not risk_store.is_halted(ACCOUNT)


def test_an_engine_that_wakes_cannot_undo_a_halt_from_outside(each_ledger: str) -> None:
    write(session())
    risk_store.set_halted(ACCOUNT, True, day=SESSION.date, real_at=REAL)
    write(session(breaker="daily_loss", tripped_at=at(3)))
    assert risk_store.is_halted(ACCOUNT)
    state = risk_store.load_session(ACCOUNT, SESSION.date)
    assert state is not None
    assert (state.breaker, state.tripped_at, state.halted) == ("daily_loss", at(3), True)


def test_an_account_can_be_halted_before_its_first_session(each_ledger: str) -> None:
    write(HALTED)
    assert risk_store.is_halted(ACCOUNT)
    assert not risk_store.is_halted(OTHER)
    assert risk_store.load_session(ACCOUNT, SESSION.date) is None
    write(session())
    assert risk_store.is_halted(ACCOUNT)


@pytest.mark.parametrize("symbol", ["AAPL", ""])
def test_what_stops_entries_for_a_while_is_no_halt_and_its_end_lifts_none(each_ledger: str, symbol: str) -> None:
    write(session(), activity("no entries: the clock is off", ActivityType.HALTED, symbol=symbol))
    assert not risk_store.is_halted(ACCOUNT)
    write(HALTED)
    write(activity("entries are possible again", ActivityType.RESUMED, symbol=symbol))
    assert risk_store.is_halted(ACCOUNT)


# --- runs -------------------------------------------------------------------------------------------------------------


def start_run(**changes: Any) -> int:
    values: dict[str, Any] = {
        "account_id": ACCOUNT,
        "provider": "simulator",
        "account_mode": "built_in",
        "strategies": ["velez"],
        "symbols": ["AAPL", "TSLA"],
        "settings": {"risk.max_daily_loss_pct": "0.03"},
        "settings_hash": "abc",
        "options": {"seed": 7},
        "real_at": REAL,
    }
    return store.start_run(**{**values, **changes})


def test_a_run_keeps_the_settings_it_ran_under(each_ledger: str) -> None:
    run_id = start_run()
    store.end_run(run_id, outcome="stopped", reason="asked to by ann", real_at=later(60))
    run = store.load_run(run_id)
    assert run is not None
    assert (run.settings, run.settings_hash, run.options) == ({"risk.max_daily_loss_pct": "0.03"}, "abc", {"seed": 7})
    assert (run.symbols, run.outcome, run.ended_at) == (("AAPL", "TSLA"), "stopped", later(60))
    assert store.last_run() == run
    assert store.load_run(run_id + 1) is None


def test_a_run_that_was_killed_is_known_to_have_failed_at_the_next_start(each_ledger: str) -> None:
    killed = start_run()
    ended = start_run(real_at=later(60))
    store.end_run(ended, outcome="stopped", reason="", real_at=later(90))
    start_run(real_at=later(120))
    first, second = store.load_run(killed), store.load_run(ended)
    assert first is not None
    assert (first.outcome, first.ended_at) == ("failed", later(60))
    assert second is not None
    assert second.outcome == "stopped"


# --- the lease --------------------------------------------------------------------------------------------------------


def take(token: str = TOKEN, *, host: str = "here", seconds: float = 0) -> None:
    store.take_lease(token=token, pid=11, host=host, port=8000, real_at=later(seconds))


def test_an_engine_is_alive_as_long_as_its_heart_beats(each_ledger: str) -> None:
    assert store.live_lease(now=later(0)) is None
    take()
    store.beat(TOKEN, now=later(3), state="running", account_id=ACCOUNT, run_id=start_run(), port=8001)
    lease = store.live_lease(now=later(17.9))
    assert lease is not None
    assert (lease.token, lease.pid, lease.port, lease.account_id, lease.state) == (TOKEN, 11, 8001, ACCOUNT, "running")
    assert store.live_lease(now=later(18.1)) is None
    store.beat(TOKEN, now=later(19))
    assert store.live_lease(now=later(19)) is not None
    store.drop_lease(TOKEN)
    assert store.live_lease(now=later(19)) is None


def test_a_live_engine_on_another_machine_keeps_its_lease(each_ledger: str) -> None:
    take()
    with pytest.raises(store.LeaseHeld, match="process 11 on here"):
        take(OTHER_TOKEN, host="there", seconds=14)
    take(OTHER_TOKEN, host="there", seconds=16)
    assert EngineLease.objects.get().host == "there"


def test_on_the_same_machine_a_killed_engine_is_followed_at_once(each_ledger: str) -> None:
    take()
    store.beat(TOKEN, now=later(1), account_id=ACCOUNT, run_id=start_run())
    take(OTHER_TOKEN, seconds=2)
    lease = store.live_lease(now=later(2))
    assert lease is not None
    assert (lease.token, lease.account_id, lease.run_id, lease.state) == (OTHER_TOKEN, "", None, "starting")


def test_an_engine_whose_lease_was_taken_is_told(each_ledger: str) -> None:
    take()
    take(OTHER_TOKEN, seconds=1)
    with pytest.raises(store.LeaseLost):
        store.beat(TOKEN, now=later(2))
    store.drop_lease(TOKEN)
    assert store.live_lease(now=later(2)) is not None


# --- requests ---------------------------------------------------------------------------------------------------------


def test_without_a_live_engine_nothing_can_be_asked(each_ledger: str) -> None:
    with pytest.raises(store.NoLiveEngine):
        store.ask("halt", {}, by="ann", now=later(0))
    take()
    with pytest.raises(store.NoLiveEngine):
        store.ask("halt", {}, by="ann", now=later(15))
    assert not OperatorRequest.objects.exists()


def test_a_request_is_claimed_once_and_its_end_is_known(each_ledger: str) -> None:
    take()
    asked = store.ask("move_stop", {"symbol": "AAPL", "stop_price": Decimal("99.50")}, by="ann", now=later(1))
    assert asked.payload == {"symbol": "AAPL", "stop_price": "99.5"}
    second = store.ask("halt", {}, by="bob", now=later(2))
    assert store.claim_requests(OTHER_TOKEN, now=later(3)) == []
    claimed = store.claim_requests(TOKEN, now=later(3))
    assert [request.id for request in claimed] == [asked.id, second.id]
    assert claimed[0].claimed_at == later(3)
    assert store.claim_requests(TOKEN, now=later(4)) == []
    store.finish_request(asked.id, error="there is no position in 'AAPL'", now=later(5))
    store.finish_request(asked.id, result="too late to say otherwise", now=later(6))
    done = store.find_request(asked.id)
    assert (done.done_at, done.result, done.error) == (later(5), "", "there is no position in 'AAPL'")
    with pytest.raises(LookupError):
        store.find_request(second.id + 1)


def test_a_request_expires_after_a_minute(each_ledger: str) -> None:
    take()
    asked = store.ask("flatten", {}, by="ann", now=later(1))
    assert asked.expires_at == later(61)
    assert store.claim_requests(TOKEN, now=later(61)) == []
    assert [request.id for request in store.claim_requests(TOKEN, now=later(60.9))] == [asked.id]


def test_a_request_to_an_engine_that_died_does_not_reach_its_follower(each_ledger: str) -> None:
    take()
    store.ask("flatten", {}, by="ann", now=later(1))
    take(OTHER_TOKEN, seconds=2)
    assert store.claim_requests(OTHER_TOKEN, now=later(3)) == []


def test_an_unknown_request_is_refused(each_ledger: str) -> None:
    take()
    with pytest.raises(IntegrityError):
        store.ask("buy_everything", {}, by="ann", now=later(1))
