"""The API as programs and pages use it."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django_q.models import OrmQ

from orders.fields import utc_now
from orders.models import TradeNote
from risk import store as risk_store
from tests.db.samples import ACCOUNT, REAL, at, record_trade, trade, uuid_of
from tests.web.conftest import History, start_run
from trading import store
from trading.models import EngineLease

ACTIONS = ("shutdown", "halt", "resume", "flatten")


def put(browser: Client, changes: dict[str, Any]) -> tuple[int, Any]:
    response = browser.put("/api/settings", json.dumps(changes), content_type="application/json")
    return response.status_code, response.json()


def ask(browser: Client, action: str, body: str = "") -> Any:
    return browser.post(f"/api/{action}", body, content_type="application/json")


def setting(browser: Client, key: str) -> dict[str, Any]:
    (found,) = [each for each in browser.get("/api/settings").json() if each["key"] == key]
    return dict(found)


# --- the ledger -------------------------------------------------------------------------------------------------------


def test_orders_are_exact_texts_newest_first(page: Client, history: History) -> None:
    rows = page.get("/api/orders").json()
    assert [row["local_id"] for row in rows] == [
        history.submitted.local_id, history.protection.local_id, history.held.local_id,
        uuid_of("stop"), history.entry.local_id,
    ]  # fmt: skip
    entry = rows[-1]
    expected = {
        "symbol": "AAPL", "side": "long", "role": "entry", "buys": True, "order_type": "stop", "state": "filled",
        "qty_requested": "10", "qty_filled": "10", "stop_price": "100", "avg_fill_price": "100.01", "limit_price": None,
        "created_at": "2026-03-02T14:30:00.000000Z", "correlation_id": uuid_of("signal"),
    }  # fmt: skip
    assert {name: entry[name] for name in expected} == expected


def test_orders_can_be_narrowed_and_paged(page: Client, history: History) -> None:
    def ids(query: str) -> list[str]:
        return [row["local_id"] for row in page.get(f"/api/orders?{query}").json()]

    assert ids("symbol=tsla") == [history.protection.local_id, history.held.local_id]
    assert ids("unfinished_only=true") == [history.submitted.local_id, history.protection.local_id]
    assert ids("limit=1&offset=1") == [history.protection.local_id]
    assert page.get("/api/orders?limit=0").status_code == 400
    assert page.get("/api/orders?limit=1001").status_code == 400
    assert page.get("/api/orders?offset=-1").status_code == 400


def test_an_orders_events_come_in_order_with_both_times_and_their_particulars(page: Client, history: History) -> None:
    events = page.get(f"/api/orders/{history.entry.local_id}/events").json()
    assert [event["event_type"] for event in events] == ["created", "submitted", "accepted", "fill"]
    assert [event["new_state"] for event in events] == ["pending_submit", "submitted", "accepted", "filled"]
    last = events[-1]
    assert (last["fact"]["qty"], last["fact"]["price"]) == ("10", "100.01")
    assert last["recorded_at"] == "2026-03-02T14:31:00.000000Z"
    assert last["recorded_real_at"] == "2026-03-07T09:00:00.123456Z"


def test_events_of_an_order_that_is_not_there_are_a_404(page: Client, history: History) -> None:
    assert page.get(f"/api/orders/{uuid_of('nobody')}/events").status_code == 404
    start_run("alpaca:PAPER-1", mode="paper")
    assert page.get(f"/api/orders/{history.entry.local_id}/events").status_code == 404


def test_trades_have_exact_money_and_averages_of_six_places(page: Client, history: History) -> None:
    thirds = trade("thirds", entry_price=trade().entry_price / 3, exit_at=at(9))
    record_trade(thirds)
    newest, oldest = page.get("/api/trades").json()
    assert newest["entry_price"] == "33.336667"
    assert (oldest["pnl"], oldest["pnl_pct"], oldest["qty"]) == ("-5.2", pytest.approx(-0.519948), "10")
    assert oldest["exit_reason"] == "stop_loss"
    days = page.get("/api/trades?start_date=2026-03-02&end_date=2026-03-02").json()
    assert [each["trade_id"] for each in days] == [newest["trade_id"], oldest["trade_id"]]
    assert page.get("/api/trades?start_date=2026-03-03").json() == []


def test_trades_come_as_csv_too(page: Client, history: History) -> None:
    response = page.get("/api/trades?format=csv&limit=1")
    assert response["Content-Type"].startswith("text/csv")
    header, row = response.content.decode().splitlines()
    assert dict(zip(header.split(","), row.split(","), strict=True))["exit_price"] == "99.49"


def test_a_note_that_looks_like_a_formula_is_text_in_the_csv(page: Client, history: History) -> None:
    TradeNote.objects.create(trade_id=history.trade_id, note='=HYPERLINK("http://evil.example")')
    assert ",\"'=HYPERLINK(" in page.get("/api/trades?format=csv").content.decode()


# --- the dashboard ----------------------------------------------------------------------------------------------------


def test_without_an_engine_the_dashboard_is_what_the_ledger_knows(page: Client, history: History) -> None:
    state = page.get("/api/dashboard").json()
    assert state["connection"]["status"] == "disconnected"
    assert state["connection"]["engine"] == "off"
    assert state["connection"]["account_mode"] == "built_in"
    (position,) = state["positions"]
    expected = {"symbol": "TSLA", "qty": 10, "side": "long", "avg_entry_price": 100.03, "stop_price": 99.5}
    assert {name: position[name] for name in expected} == expected
    assert (position["current_price"], position["unrealized_pnl"]) == (None, None)
    assert state["pnl"]["realized_pnl"] == pytest.approx(-5.2)
    assert state["pnl"]["total_equity"] is None  # nobody knows what TSLA is worth now
    assert [line["message"] for line in state["recent_activity"]] == ["bought 10 AAPL at 100.01"]


def test_an_engine_that_does_not_answer_is_called_silent_not_off(page: Client, lease: str) -> None:
    assert page.get("/api/dashboard").json()["connection"]["engine"] == "silent"


def test_a_lease_whose_heart_has_stopped_is_no_engine(page: Client, lease: str) -> None:
    EngineLease.objects.update(heartbeat_at=utc_now() - timedelta(seconds=16))
    assert page.get("/api/dashboard").json()["connection"]["engine"] == "off"


def test_a_halt_is_shown_without_an_engine_too(page: Client, history: History) -> None:
    risk_store.set_halted(ACCOUNT, True, day=at(0).date(), real_at=REAL)
    assert page.get("/api/dashboard").json()["connection"]["halted"] != ""


def test_candles_of_a_symbol_never_seen_are_none(page: Client, history: History) -> None:
    empty: dict[str, Any] = {"symbol": "ZZZ", "candles": [], "marks": [], "stop_price": None}
    assert page.get("/api/candles?symbol=zzz").json() == empty
    assert page.get("/api/candles?symbol=AAPL&limit=0").status_code == 400
    assert page.get("/api/candles?symbol=AAPL&limit=2001").status_code == 400


def test_the_chart_has_candles_fills_and_the_stop(page: Client, history: History, settings: Any, tmp_path: Any) -> None:
    settings.DATA_DIR = tmp_path
    day = tmp_path / "runs" / str(history.run_id) / "2026-03-02"
    day.mkdir(parents=True)
    (day / "candles.csv").write_text(
        "symbol,strategy,interval,timestamp,open,high,low,close,volume,sma_fast,sma_slow,bar_count,is_live\n"
        "TSLA,velez,2,2026-03-02T14:48:00.000000Z,100.00,100.20,99.90,100.10,1200,,,1,1\n"
        "TSLA,velez,2,2026-03-02T14:50:00.000000Z,100.10,100.40,100.00,100.30,900,100.15,,2,1\n"
    )
    chart = page.get("/api/candles?symbol=TSLA").json()
    assert [candle["close"] for candle in chart["candles"]] == [100.1, 100.3]
    assert (chart["candles"][1]["sma_fast"], chart["candles"][1]["sma_slow"]) == (100.15, None)
    assert chart["marks"] == [
        {"timestamp": "2026-03-02T14:50:00.000000Z", "kind": "entry", "buys": True, "qty": 10, "price": 100.03}
    ]
    assert chart["stop_price"] == 99.5
    assert page.get("/api/dashboard").json()["positions"][0]["unrealized_pnl"] == pytest.approx(2.7)


# --- settings ---------------------------------------------------------------------------------------------------------


def test_settings_are_shown_with_source_and_bounds_and_secrets_are_not(page: Client, ledger: str) -> None:
    shown = setting(page, "risk.max_daily_loss_pct")
    assert (shown["value"], shown["source"], shown["bounds"]) == ("0.03", "default", "a number from 0.01 to 0.10")
    assert (shown["editable"], shown["restart"]) == (True, False)
    assert set(setting(page, "secret_key")["value"]) <= {"*"}


def test_a_changed_setting_is_an_override_and_null_takes_it_back(page: Client) -> None:
    status, _ = put(page, {"risk.max_daily_loss_pct": "0.05", "watchlist": ["AAPL", "MSFT"], "velez.enabled": False})
    assert status == 200
    assert setting(page, "risk.max_daily_loss_pct")["source"] == "override"
    assert setting(page, "watchlist")["value"] == "AAPL,MSFT"
    assert setting(page, "velez.enabled")["value"] == "false"
    assert [change.changed_by for change in risk_store.changes()] == ["operator"] * 3
    put(page, {"risk.max_daily_loss_pct": None})
    assert setting(page, "risk.max_daily_loss_pct")["source"] == "default"


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("risk.max_risk_per_trade_pct", "0.1", "0.001 to 0.05"),
        ("risk.max_risk_per_trade_pct", 0.1, "0.001 to 0.05"),
        ("risk.max_daily_los_pct", "0.05", "did you mean risk.max_daily_loss_pct?"),
        ("velez.sma_fast", "10", "ALGO_VELEZ__SMA_FAST and restart"),
        ("broker.paper", "false", "restart"),
        ("watchlist", "AAPL,aapl!", "ALGO_WATCHLIST"),
        ("watchlist", [], "ALGO_WATCHLIST"),
    ],
)
def test_a_bad_change_is_refused_with_its_reason(page: Client, key: str, value: Any, reason: str) -> None:
    status, answer = put(page, {key: value})
    assert status == 400
    assert reason in answer["detail"]


def test_of_several_changes_all_are_made_or_none(page: Client) -> None:
    status, _ = put(page, {"risk.max_open_positions": "3", "risk.max_daily_loss_pct": "0.5"})
    assert status == 400
    assert risk_store.overrides() == {}


def test_what_is_no_object_of_settings_is_refused(page: Client) -> None:
    assert page.put("/api/settings", "[1]", content_type="application/json").status_code == 422
    assert page.put("/api/settings", "{", content_type="application/json").status_code == 400


# --- asking the engine ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ACTIONS)
def test_without_an_engine_nothing_can_be_asked(page: Client, script: Client, history: History, action: str) -> None:
    for client in (page, script):
        response = ask(client, action)
        assert response.status_code == 409
        assert response["Content-Type"] == "application/problem+json"
        assert response.json()["detail"] == "No engine is running, so nothing was done."


@pytest.mark.parametrize("action", ACTIONS)
def test_what_is_asked_waits_for_the_engine_under_the_askers_name(
    page: Client, script: Client, lease: str, action: str
) -> None:
    for client, name in ((page, "operator"), (script, "token")):
        response = ask(client, action)
        assert response.status_code == 202
        (request,) = store.claim_requests(lease)
        assert (request.kind, request.requested_by) == (action, name)
        assert request.expires_at - request.created_at == timedelta(seconds=60)


def test_shutdown_may_close_positions_first(script: Client, lease: str) -> None:
    ask(script, "shutdown", '{"flatten": true}')
    ask(script, "shutdown")
    assert [request.payload for request in store.claim_requests(lease)] == [{"flatten": True}, {"flatten": False}]


def test_the_end_of_a_request_can_be_followed(page: Client, lease: str) -> None:
    request_id = page.post("/api/halt").json()["id"]
    assert page.get(f"/api/requests/{request_id}").json()["done_at"] is None
    store.finish_request(request_id, error="the market is closed")
    done = page.get(f"/api/requests/{request_id}").json()
    assert (done["done_at"] is not None, done["error"]) == (True, "the market is closed")
    assert page.get(f"/api/requests/{request_id + 1}").status_code == 404


@pytest.mark.parametrize("action", ACTIONS)
def test_who_is_not_staff_may_look_but_not_act(onlooker: Client, lease: str, action: str) -> None:
    assert onlooker.get("/api/dashboard").status_code == 200
    assert ask(onlooker, action).status_code == 403
    assert put(onlooker, {"risk.max_open_positions": "3"})[0] == 403
    assert store.claim_requests(lease) == []


def test_a_page_of_another_site_cannot_halt_in_our_name(page: Client, lease: str) -> None:
    page.handler.enforce_csrf_checks = True
    assert page.post("/api/halt").status_code == 403
    assert store.claim_requests(lease) == []


def test_a_wrong_token_is_a_401_for_changes_too(ledger: str) -> None:
    guess = Client(enforce_csrf_checks=True, headers={"Authorization": "Bearer guess"})
    assert guess.post("/api/halt").status_code == 401


# --- backtests, monitoring, documentation -----------------------------------------------------------------------------


def test_a_backtest_that_does_not_exist_is_a_404(page: Client) -> None:
    assert page.get("/api/backtests").json() == []
    assert page.get("/api/backtests/1").status_code == 404
    assert page.get("/api/backtests?limit=0").status_code == 400


def test_a_backtest_that_is_asked_for_waits_for_the_worker(page: Client) -> None:
    asked = {
        "strategy": "velez", "symbols": ["aapl"], "start_date": "2026-03-02", "end_date": "2026-03-06",
        "params": {"velez.sma_fast": 10, "risk.max_risk_per_trade_pct": "0.02"},
    }  # fmt: skip
    response = page.post("/api/backtests", json.dumps(asked), content_type="application/json")
    assert response.status_code == 202
    run = page.get(f"/api/backtests/{response.json()['id']}").json()
    assert (run["status"], run["symbols"], run["initial_capital"]) == ("queued", ["AAPL"], "25000")
    assert (run["created_by"], run["metrics"], run["trades"]) == ("operator", None, [])
    assert run["params"]["velez.sma_fast"] == 10
    assert [each["id"] for each in page.get("/api/backtests").json()] == [run["id"]]
    assert OrmQ.objects.get().func() == "backtests.tasks.run_backtest"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"strategy": "magic"}, "there is no strategy 'magic'"),
        ({"symbols": []}, "symbols"),
        ({"end_date": "2026-03-01"}, "lies before the start date"),
        ({"start_date": "soon"}, "not a date"),
        ({"initial_capital": "-1"}, "not an amount above 0"),
        ({"params": {"velez.sma_fast": 1000}}, "5 to 50"),
        ({"params": {"web.port": 1}}, "no effect on a backtest"),
    ],
)
def test_a_backtest_that_makes_no_sense_is_refused_with_its_reason(
    page: Client, changes: dict[str, Any], reason: str
) -> None:
    sound = {"strategy": "velez", "symbols": ["AAPL"], "start_date": "2026-03-02", "end_date": "2026-03-06"}
    response = page.post("/api/backtests", json.dumps(sound | changes), content_type="application/json")
    assert response.status_code == 400
    assert reason in response.json()["detail"]
    assert page.get("/api/backtests").json() == []


def test_who_is_not_staff_cannot_ask_for_a_backtest(onlooker: Client) -> None:
    asked = {"strategy": "velez", "symbols": ["AAPL"], "start_date": "2026-03-02", "end_date": "2026-03-06"}
    assert onlooker.post("/api/backtests", json.dumps(asked), content_type="application/json").status_code == 403


def test_metrics_are_gauges_of_the_ledger(script: Client, history: History, lease: str) -> None:
    response = script.get("/api/metrics")
    assert response["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = response.content.decode().splitlines()
    assert {
        "algotrader_engine_up 1",
        'algotrader_orders{state="filled"} 3',
        'algotrader_orders{state="accepted"} 1',
        'algotrader_orders{state="submitted"} 1',
        "algotrader_trades 1",
        "algotrader_realized_pnl_dollars -5.2",
        "algotrader_open_positions 1",
        "algotrader_unprotected_positions 0",
        "algotrader_halted 0",
    } <= set(lines)
    described = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert {line.split("{")[0].split()[0] for line in lines if not line.startswith("#")} <= described


def test_metrics_of_an_empty_database_claim_nothing(script: Client) -> None:
    lines = script.get("/api/metrics").content.decode().splitlines()
    assert "algotrader_engine_up 0" in lines
    assert not any(line.startswith("algotrader_engine_heartbeat_age_seconds") for line in lines)


def test_metrics_need_a_login_and_health_says_nothing_but_that_it_lives(ledger: str) -> None:
    assert Client().get("/api/metrics").status_code == 401
    assert Client().get("/api/health").json() == {"status": "ok"}


def test_the_documentation_lists_every_address_and_needs_a_login(page: Client) -> None:
    assert Client().get("/api/docs").status_code == 302
    assert Client().get("/api/openapi.json").status_code == 302
    paths = page.get("/api/openapi.json").json()["paths"]
    promised = {
        "dashboard", "settings", "shutdown", "halt", "resume", "flatten", "orders", "trades", "backtests", "health",
        "metrics", "candles",
    }  # fmt: skip
    assert {f"/api/{name}" for name in promised} <= set(paths)
    assert set(paths["/api/settings"]) == {"get", "put"}
    assert set(paths["/api/backtests"]) == {"get", "post"}
    docs = page.get("/api/docs").content.decode()
    assert "https://" not in docs  # nothing is loaded from elsewhere


# --- pages of lists, keys and problems --------------------------------------------------------------------------------


def test_lists_name_the_pages_beside_them(page: Client, history: History) -> None:
    first = page.get("/api/orders?limit=2&unfinished_only=false")
    assert len(first.json()) == 2
    assert first["Link"] == '</api/orders?limit=2&unfinished_only=false&offset=2>; rel="next"'
    middle = page.get("/api/orders?limit=2&offset=2")
    assert middle["Link"] == ('</api/orders?limit=2&offset=4>; rel="next", </api/orders?limit=2&offset=0>; rel="prev"')
    last = page.get("/api/orders?limit=2&offset=4")
    assert last["Link"] == '</api/orders?limit=2&offset=2>; rel="prev"'
    assert "Link" not in page.get("/api/trades")
    assert "Link" not in page.get("/api/backtests")


def test_trades_can_be_narrowed_to_a_strategy_and_a_reason(page: Client, history: History) -> None:
    assert len(page.get("/api/trades?strategy=velez&exit_reason=stop_loss").json()) == 1
    assert page.get("/api/trades?strategy=other").json() == []
    assert page.get("/api/trades?exit_reason=max_run").json() == []


def keyed(browser: Client, key: str, action: str = "halt", body: str = "") -> Any:
    return browser.post(f"/api/{action}", body, content_type="application/json", headers={"Idempotency-Key": key})


def test_an_action_under_a_key_is_asked_of_the_engine_once(page: Client, script: Client, lease: str) -> None:
    first, again = keyed(page, "abc"), keyed(page, "abc")
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json()["id"] == first.json()["id"]
    assert keyed(page, "def").json()["id"] != first.json()["id"]
    assert keyed(script, "abc").json()["id"] != first.json()["id"], "keys are everybody's own"
    assert len(store.claim_requests(lease)) == 3


def test_a_key_is_for_one_request_alone(page: Client, lease: str) -> None:
    assert keyed(page, "abc", "shutdown", '{"flatten": true}').status_code == 202
    assert keyed(page, "abc", "shutdown", '{"flatten": false}').status_code == 422
    assert keyed(page, "abc", "halt").status_code == 422
    assert len(store.claim_requests(lease)) == 1


def test_what_could_not_be_asked_does_not_use_up_its_key(page: Client, history: History) -> None:
    assert keyed(page, "abc").status_code == 409
    store.take_lease(token=uuid_of("lease"), pid=1, host="test", port=None, real_at=utc_now())
    assert keyed(page, "abc").status_code == 202


def test_a_key_is_forgotten_after_a_day(ledger: str) -> None:
    def asked(number: int, hours: int) -> int:
        moment = utc_now() + timedelta(hours=hours)
        return risk_store.ask_once(lambda: number, by="me", key="abc", fingerprint="f", real_at=moment)

    assert [asked(1, 0), asked(2, 23), asked(3, 25)] == [1, 1, 3]


def test_a_problem_names_every_value_that_does_not_fit(page: Client, ledger: str) -> None:
    answer = page.get("/api/orders?limit=0&offset=x")
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
    told = answer.json()
    assert (told["type"], told["status"]) == ("about:blank", 400)
    assert [each["where"] for each in told["errors"]] == ["query.limit", "query.offset"]
    assert "query.limit" in told["detail"]
