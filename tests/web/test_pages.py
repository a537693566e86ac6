"""The pages as a browser gets them."""

import re
from datetime import date
from decimal import Decimal
from html import unescape

import pytest
from django.contrib.auth.models import User
from django.test import Client, RequestFactory
from django.views.defaults import server_error

from backtests.models import BacktestRun, BacktestTrade
from dashboard.templatetags import figures
from orders.events import Replaced, ReplaceRequested
from orders.lifecycle import OrderState, Role
from risk.rules import Check
from tests.db.samples import ACCOUNT, at, order, record, record_trade, record_working, trade, uuid_of
from tests.db.test_trading_store import decision, write
from tests.web.conftest import History, start_run
from trading import store as trading_store

PAGES = ("/", "/orders/", "/trades/", "/trades.csv", "/backtests/", "/start/", "/replay/")


def text_of(browser: Client, path: str, **headers: str) -> str:
    """The words of a page, without markup."""
    response = browser.get(path, headers=headers)
    assert response.status_code == 200, path
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", response.content.decode())).split())


def backtest(**changes: object) -> BacktestRun:
    values: dict[str, object] = {
        "strategy": "velez",
        "symbols": ["AAPL", "TSLA"],
        "start_date": date(2026, 3, 2),
        "end_date": date(2026, 3, 6),
        "initial_capital": Decimal(25_000),
    }
    return BacktestRun.objects.create(**{**values, **changes})


# --- who may look -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PAGES, "/orders/11111111-1111-4111-8111-111111111111/", "/backtests/1/"])
def test_every_page_asks_for_a_login_and_comes_back_afterwards(ledger: str, path: str) -> None:
    response = Client().get(path)
    assert (response.status_code, response["Location"]) == (302, f"/login/?next={path}")


def test_signing_in_and_out(ledger: str) -> None:
    User.objects.create_user("operator", password="correct horse battery")
    browser = Client(enforce_csrf_checks=True)
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', browser.get("/login/").content.decode())
    assert token is not None
    form = {"username": "operator", "csrfmiddlewaretoken": token[1], "next": "/orders/"}
    assert "do not match" in browser.post("/login/", {**form, "password": "guess"}).content.decode()
    assert browser.post("/login/", {**form, "password": "correct horse battery"})["Location"] == "/orders/"
    assert browser.get("/orders/").status_code == 200
    fresh = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', browser.get("/orders/").content.decode())
    assert fresh is not None
    assert browser.post("/logout/", {"csrfmiddlewaretoken": fresh[1]})["Location"] == "/login/"
    assert browser.get("/orders/").status_code == 302


def test_signing_out_needs_a_form_of_our_own(page: Client) -> None:
    assert page.get("/logout/").status_code == 405


def test_a_new_installation_says_how_to_make_the_first_login(ledger: str) -> None:
    assert "manage.py ensureadmin" in text_of(Client(), "/login/")
    User.objects.create_user("operator")
    assert "manage.py ensureadmin" not in text_of(Client(), "/login/")


def test_only_staff_sees_the_buttons_that_act_and_the_admin(page: Client, onlooker: Client) -> None:
    for sign in ('id="halt"', "halt-dialog", 'href="/admin/"'):
        assert sign in page.get("/").content.decode()
        assert sign not in onlooker.get("/").content.decode()


# --- an empty installation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
def test_an_empty_database_makes_no_page_fail(page: Client, path: str) -> None:
    assert page.get(path).status_code == 200


def test_empty_lists_say_what_will_be_there(page: Client) -> None:
    assert "No orders yet" in text_of(page, "/orders/")
    assert "No closed trades yet" in text_of(page, "/trades/")
    assert "manage.py backtest --strategy velez" in text_of(page, "/backtests/")


def test_the_dashboard_without_an_engine_names_the_market_that_would_be_traded(page: Client) -> None:
    assert 'data-mode="built_in"' in page.get("/").content.decode()


def test_the_dashboard_names_the_market_of_the_latest_run(page: Client) -> None:
    start_run("alpaca:LIVE-1", mode="live")
    assert 'data-mode="live"' in page.get("/").content.decode()


# --- orders -----------------------------------------------------------------------------------------------------------


def test_the_list_of_orders_can_be_narrowed_to_a_symbol_and_to_those_that_work(page: Client, history: History) -> None:
    everything = page.get("/orders/").content.decode()
    working = page.get("/orders/?show=working").content.decode()
    tesla = page.get("/orders/?symbol=tsla").content.decode()
    for order_, lists in ((history.entry, "all"), (history.protection, "all working tesla")):
        for name, html in (("all", everything), ("working", working), ("tesla", tesla)):
            assert (f"/orders/{order_.local_id}/" in html) == (name in lists.split())


def test_the_list_of_orders_goes_on_over_pages_without_losing_the_filter(page: Client, history: History) -> None:
    for number in range(60):
        record_working(order(f"many {number}", signal=f"many {number}", symbol="AMD"))
    first = page.get("/orders/?symbol=amd").content.decode()
    assert "1 to 50" in first
    assert 'href="?symbol=amd&amp;page=2"' in first
    second = page.get("/orders/?symbol=amd&page=2").content.decode()
    assert "51 to 60" in second
    assert "Earlier" not in second


def test_orders_can_be_filtered_by_every_kind_and_state(page: Client) -> None:
    html = page.get("/orders/").content.decode()
    for choice in (*Role, *OrderState):
        assert f'<option value="{choice}"' in html


def test_a_page_past_the_end_is_the_first(page: Client, history: History) -> None:
    assert f"/orders/{history.entry.local_id}/" in page.get("/orders/?page=9").content.decode()
    assert "AAPL" in text_of(page, "/trades/?page=9")


def test_a_filter_changed_in_the_page_brings_the_results_alone(page: Client, history: History) -> None:
    results = page.get("/orders/?symbol=tsla", headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in results
    assert 'id="results"' in results
    assert f"/orders/{history.protection.local_id}/" in results


def test_an_order_tells_its_story_and_names_the_others_of_its_signal(page: Client, history: History) -> None:
    text = text_of(page, f"/orders/{history.held.local_id}/")
    story = ("What happened", "Created", "Submitted", "Accepted", "Fill Filled", "10 shares at 100.03")
    text = text[text.index("What happened") :]
    places = [text.index(part) for part in story]
    assert places == sorted(places)
    assert "2026-03-02 09:50:00" in text  # 20 minutes after the open, in New York
    assert f"/orders/{history.protection.local_id}/" in page.get(f"/orders/{history.held.local_id}/").content.decode()


def test_why_an_order_was_made_is_told_in_new_york_time_and_kept_in_utc(page: Client, history: History) -> None:
    words = "entries until 20:55:00 UTC, now 14:32:00"
    write(decision(checks=(Check(code="session", passed=True, detail=words),)))
    text = text_of(page, f"/orders/{history.entry.local_id}/")
    assert "entries until 15:55:00, now 09:32:00" in text
    assert "Candle 09:30:00 Open 99.00 High 100.00 Low 98.50 Close 99.90" in text
    assert "UTC" not in text
    (kept,) = trading_store.decisions(ACCOUNT, correlation_id=uuid_of("signal"))
    assert kept["checks"][0]["detail"] == words


def test_orders_can_be_narrowed_by_kind_state_and_day(page: Client, history: History) -> None:
    def shown(query: str) -> set[str]:
        html = page.get(f"/orders/?{query}").content.decode()
        return set(re.findall(r'href="/orders/([0-9a-f-]{36})/"', html))

    assert shown("role=stop_loss") == {uuid_of("stop"), history.protection.local_id}
    assert shown("state=submitted") == {history.submitted.local_id}
    assert shown("from=2026-03-03") == set()
    assert len(shown("from=2026-03-02&to=2026-03-02")) == 5
    assert len(shown("role=nonsense&state=drop&from=x")) == 5


def test_a_stops_moves_are_told_with_the_time_that_the_broker_took(page: Client, history: History) -> None:
    stop_id = history.protection.local_id
    asked = record(
        history.protection, ReplaceRequested(local_id=stop_id, at=at(22), number=1, stop_price=Decimal("99.80"))
    )
    moved = Replaced(
        local_id=stop_id, at=at(22), broker_id="b2", old_broker_id=asked.broker_id or "", stop_price=Decimal("99.80")
    )
    record(asked, moved)
    text = text_of(page, f"/orders/{stop_id}/")
    assert "Stop moves 1 Asked From To Answer Took 09:52:00 99.50 99.80 Replaced 0.0 ms" in text
    assert "No signal recorded" in text


def test_an_order_leads_to_the_trade_that_it_became(page: Client, history: History) -> None:
    html = page.get(f"/orders/{history.entry.local_id}/").content.decode()
    assert f"/trades/{history.trade_id}/" in html
    text = text_of(page, f"/trades/{history.trade_id}/")
    assert "−$5.20 −0.52% Of the risk −1.02 R of $5.10" in text  # noqa: RUF001
    assert "No candles are kept of this trade" in text


def test_a_trader_notes_something_about_a_trade_and_a_viewer_reads_it(
    page: Client, onlooker: Client, history: History
) -> None:
    address = f"/trades/{history.trade_id}/"
    assert page.post(address, {"note": "  chased the open  "}).status_code == 302
    assert "chased the open" in text_of(onlooker, address)
    assert "Add a note" not in text_of(onlooker, address)
    assert onlooker.post(address, {"note": "me too"}).status_code == 403
    assert "A note has from 1 to 2000 characters; this one has 0." in page.post(address, {"note": " "}).content.decode()
    assert "chased the open" in page.get("/trades.csv").content.decode()
    assert page.get(f"/trades/{uuid_of('nobody')}/").status_code == 404


def test_another_accounts_order_is_not_shown(page: Client, history: History) -> None:
    start_run("alpaca:PAPER-1", mode="paper")
    assert page.get(f"/orders/{history.entry.local_id}/").status_code == 404
    assert "No orders yet" in text_of(page, "/orders/")


def test_a_trade_leads_to_the_orders_of_its_signal(page: Client, history: History) -> None:
    (link,) = re.findall(r'href="(/trades/[^"]{36}/)"', page.get("/trades/").content.decode())
    html = page.get(link).content.decode()
    assert history.entry.local_id in html
    assert history.held.local_id not in html


# --- trades -----------------------------------------------------------------------------------------------------------


def test_the_ledger_shows_trades_with_their_sums(page: Client, history: History) -> None:
    record_trade(trade("winner", symbol="TSLA", pnl=Decimal("10.40"), exit_at=at(60), exit_reason="max_run"))
    text = text_of(page, "/trades/")
    assert "Profit and loss +$5.20 Trades 2 Winners 50.0% Average win +$10.40 Average loss −$5.20" in text  # noqa: RUF001
    assert "Average +0.51 R" in text  # -5.20 and 10.40, each of 5.10 at risk
    text = text[text.index("Closed trades") :]
    assert text.index("Max run") < text.index("Stop loss")  # the latest exit first


def test_days_are_new_yorks_and_both_ends_count(page: Client, history: History) -> None:
    late = at(0).replace(hour=1)  # 20:00 in New York, of the day before
    record_trade(trade("late", symbol="NVDA", exit_at=late, entry_at=late))
    assert "NVDA" in text_of(page, "/trades/?from=2026-03-01&to=2026-03-01")
    assert "NVDA" not in text_of(page, "/trades/?from=2026-03-02&to=2026-03-02")
    assert "AAPL" in text_of(page, "/trades/?from=2026-03-02&to=2026-03-02")
    assert "No such trades" in text_of(page, "/trades/?from=2026-03-03")


def test_a_date_that_is_none_is_taken_as_no_date(page: Client, history: History) -> None:
    assert "AAPL" in text_of(page, "/trades/?from=yesterday&page=x&symbol=")


def test_a_corrected_trade_is_shown_once_and_marked(page: Client, history: History) -> None:
    record_trade(trade(pnl=Decimal("-5.30")), corrects_trade_id=history.trade_id)
    text = text_of(page, "/trades/")
    assert "Trades 1" in text
    assert "corrected" in text
    assert "−$5.30" in text  # noqa: RUF001


def test_the_csv_has_every_trade_of_the_filter_exactly(page: Client, history: History) -> None:
    record_trade(trade("third", entry_price=Decimal(100) / 3, symbol="AMD", exit_at=at(9)))
    response = page.get("/trades.csv")
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert "trades.csv" in response["Content-Disposition"]
    header, amd, aapl = response.content.decode().splitlines()
    assert header.startswith("trade_id,correlation_id,symbol,side,qty,entry_price,exit_price,entry_at,exit_at,pnl,")
    assert amd.split(",")[2:6] == ["AMD", "long", "10", "33.333333"]
    assert aapl.split(",")[:10] == [
        history.trade_id, uuid_of("signal"), "AAPL", "long", "10", "100.01", "99.49",
        "2026-03-02T14:31:00.000000Z", "2026-03-02T14:35:00.000000Z", "-5.2",
    ]  # fmt: skip
    assert page.get("/trades.csv?symbol=tsla").content.decode().splitlines() == [header]


def test_trades_can_be_narrowed_to_winners_reason_and_strategy_and_so_is_the_csv(
    page: Client, history: History
) -> None:
    record_trade(trade("winner", symbol="TSLA", pnl=Decimal("10.40"), exit_at=at(60), exit_reason="max_run"))
    for query, symbols in (
        ("result=winners", {"TSLA"}), ("result=losers", {"AAPL"}), ("reason=max_run", {"TSLA"}),
        ("strategy=velez", {"AAPL", "TSLA"}), ("strategy=nobody", set()), ("result=rubbish", {"AAPL", "TSLA"}),
    ):  # fmt: skip
        rows = page.get(f"/trades.csv?{query}").content.decode().splitlines()[1:]
        assert {row.split(",")[2] for row in rows} == symbols, query


def test_without_records_the_replay_says_so_whatever_is_asked(page: Client, history: History) -> None:
    for query in ("", "?day=2026-03-02", "?day=yesterday&symbol=%3Cscript%3E"):
        assert "No day to replay yet" in text_of(page, f"/replay/{query}")


# --- backtests --------------------------------------------------------------------------------------------------------


def test_backtests_are_listed_in_whatever_state_they_are(page: Client) -> None:
    backtest(status="running", progress=42)
    backtest(status="failed", error="no bars of TSLA")
    text = text_of(page, "/backtests/")
    assert "Running 42 %" in text
    assert "Failed" in text


def test_a_finished_backtest_shows_figures_curve_trades_and_settings(page: Client) -> None:
    run = backtest(
        status="done",
        metrics={
            "total_return": 0.0359, "final_equity": "25897.5", "win_rate": 0.5, "profit_factor": None,
            "sharpe_ratio": -1.5, "max_drawdown": 0.0312, "total_trades": 1,
        },
        equity_curve=[{"timestamp": "2026-03-02T14:30:00.000000Z", "equity": "25000"}],
        params={"velez.sma_fast": 20},
    )  # fmt: skip
    BacktestTrade.objects.create(
        run=run, symbol="AAPL", side="long", qty=10, entry_price=100, exit_price=101, entry_at=at(1), exit_at=at(65),
        pnl=10, pnl_pct=1, duration_seconds=3840, exit_reason="max_run",
    )  # fmt: skip
    text = text_of(page, f"/backtests/{run.pk}/")
    assert "Return +3.59% Final equity $25,897.50 Largest drawdown 3.1% Sharpe ratio −1.50 Profit factor –" in text  # noqa: RUF001
    assert "AAPL long 10 100.00 101.00 +$10.00 +1.00% Max run 1 h 4 min 2026-03-02 10:35" in text
    assert "velez.sma_fast 20" in text
    assert 'id="equity-curve"' in page.get(f"/backtests/{run.pk}/").content.decode()


def test_a_failed_backtest_says_why_and_one_that_does_not_exist_is_a_404(page: Client) -> None:
    run = backtest(status="failed", error="no bars of TSLA")
    assert "no bars of TSLA" in text_of(page, f"/backtests/{run.pk}/")
    assert page.get(f"/backtests/{run.pk + 1}/").status_code == 404


# --- what all pages keep ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES[:3])
def test_no_page_needs_scripts_or_styles_inside_itself(page: Client, history: History, path: str) -> None:
    html = page.get(path).content.decode()
    scripts = re.findall(r"<script(?![^>]*\bsrc=)([^>]*)>", html)
    assert all('type="application/json"' in attributes for attributes in scripts)
    assert re.findall(r"<style|\sstyle=|\son\w+=", html) == []
    assert re.findall(r'(?:src|href)="https?://(?!www\.tradingview\.com)', html) == []


def test_a_message_of_the_broker_cannot_become_markup(page: Client, history: History) -> None:
    html = page.get("/orders/?symbol=<script>alert(1)</script>").content.decode()
    assert "<script>alert" not in html


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (figures.money(Decimal("-1234.5")), "−$1,234.50"),  # noqa: RUF001
        (figures.gain(Decimal("0.5")), "+$0.50"),
        (figures.gain(0), "$0.00"),
        (figures.price(Decimal("0.1234")), "0.1234"),
        (figures.price(Decimal(187)), "187.00"),
        (figures.quantity(Decimal("1200.50")), "1,200.5"),
        (figures.percent(-0.0123), "−1.23%"),  # noqa: RUF001
        (figures.duration(59), "59 s"),
        (figures.duration(3600), "1 h 0 min"),
        (figures.duration(100_000), "1 d 3 h"),
        (figures.money(None), "–"),  # noqa: RUF001
        (figures.new_york(at(0)), "2026-03-02 09:30"),
        (figures.words("stop_loss"), "Stop loss"),
    ],
)
def test_numbers_and_times_as_people_read_them(written: str, shown: str) -> None:
    assert written == shown


def test_error_pages_are_ours(page: Client) -> None:
    missing = page.get("/nowhere/")
    assert (missing.status_code, "Nothing is here" in missing.content.decode()) == (404, True)
    broken = server_error(RequestFactory().get("/"))
    assert (broken.status_code, "Something went wrong" in broken.content.decode()) == (500, True)
