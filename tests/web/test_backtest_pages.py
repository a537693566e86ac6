"""Starting, watching and comparing backtests in the browser, and the pages of sweeps."""

import json
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.conf import settings as django_settings
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from backtests import store, sweep_store, tasks, walkforward_store
from backtests.request import make_request
from backtests.sweep import make_sweep, parse_grid
from dashboard.templatetags.figures import percent
from trading.live import calendar

HEADER = "timestamp,open,high,low,close,volume"
FORM = {
    "strategy": "velez",
    "symbols": "aapl",
    "start_date": "2024-03-08",
    "end_date": "2024-03-11",
    "initial_capital": "10000",
    "velez.sma_fast": "5",
    "velez.sma_slow": "100",
    "backtest.slippage_per_share": "0.02",
    "backtest.max_volume_share": "",
}


@pytest.fixture(autouse=True)
def stored_bars(settings: LazySettings, tmp_path: Path) -> None:
    """The bar store has two sessions of AAPL, each rising for an hour and falling for the rest."""
    settings.DATA_DIR = tmp_path / "data"
    lines = [HEADER]
    for session in calendar.sessions(date(2024, 3, 8), date(2024, 3, 11)):
        for minute in range(390):
            price = 100 + (minute % 60) * 0.1
            stamp = f"{session.open + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%SZ}"
            lines.append(f"{stamp},{price:.2f},{price + 0.12:.2f},{price - 0.02:.2f},{price + 0.1:.2f},1000")
    (tmp_path / "AAPL.csv").write_text("\n".join([*lines, ""]))
    call_command("importbars", str(tmp_path / "AAPL.csv"))


def text(page: Client, address: str) -> str:
    response = page.get(address)
    assert response.status_code == 200, response.content
    return response.content.decode()


def started(page: Client, **changed: str) -> int:
    """Sends the form; the number of the run that it starts."""
    response = page.post("/backtests/new/", {**FORM, **changed})
    assert response.status_code == 302, response.content
    return int(response.headers["Location"].strip("/").rpartition("/")[2])


def swept(grid: Sequence[str] = ("velez.sma_fast=5,10", "velez.max_run_candles=2,3,4"), *, runs: int = 1) -> int:
    """A sweep of which as many chunks are done."""
    base = make_request(
        strategy="velez",
        symbols=["AAPL"],
        start_date="2024-03-08",
        end_date="2024-03-11",
        initial_capital="25000",
        params={"velez.sma_slow": "100"},
        config=django_settings.ALGO,
    )
    sweep_id = sweep_store.create(make_sweep(base, parse_grid(grid)), on_cluster=True, real_at=timezone.now())
    for _ in range(runs):
        tasks.work_on(sweep_id)
    return sweep_id


# --- starting one -----------------------------------------------------------------------------------------------------


def test_the_form_shows_each_setting_with_its_bounds_and_what_it_means(page: Client) -> None:
    shown = text(page, "/backtests/new/")
    assert 'name="velez.sma_fast" type="number" step="1" min="5" max="50" value="20"' in shown
    assert "Candles of the fast moving average." in shown
    assert "Dollars per share against us on every simulated fill." in shown
    assert "<b>AAPL</b> 2024" in shown
    assert "web.port" not in shown


def test_a_backtest_started_in_the_browser_runs_with_what_the_form_said(page: Client) -> None:
    run_id = started(page)
    run = store.find(run_id)
    assert run is not None
    assert (run.status, run.created_by, run.symbols) == ("queued", "operator", ("AAPL",))
    assert (run.params["velez.sma_fast"], run.params["backtest.slippage_per_share"]) == (5, "0.02")
    assert str(run.initial_capital) == "10000"
    assert "Waiting for a worker" in text(page, f"/backtests/{run_id}/")
    tasks.run_backtest(run_id)
    shown = text(page, f"/backtests/{run_id}/")
    assert "Final equity" in shown
    assert "equity-curve" in shown


def test_a_result_says_what_it_would_have_been_otherwise_and_how_good_its_data_is(page: Client) -> None:
    run_id = started(page)
    tasks.run_backtest(run_id)
    run = store.find(run_id)
    assert run is not None
    assert run.scenarios
    assert run.data_report
    returns = [each["total_return"] for each in run.scenarios]
    shown = text(page, f"/backtests/{run_id}/")
    assert f"{percent(min(returns))} to {percent(max(returns))}" in shown
    for each in run.scenarios:
        assert f"{percent(each['total_return'])}</span>" in shown
    assert 'class="grade grade-a">A</span>' in shown
    assert run.data_report["AAPL"]["grade"] == "A"
    for heading in ("Figures", "By symbol", "By what closed the trade", "Sortino ratio"):
        assert heading in shown


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"symbols": "A1"}, "the list of symbols"),
        ({"end_date": "2024-03-01"}, "the end date 2024-03-01 lies before the start date 2024-03-08"),
        ({"velez.sma_fast": "4"}, "it must be a whole number from 5 to 50"),
        ({"initial_capital": "-1"}, "is not an amount above 0"),
        ({"strategy": "luck"}, "there is no strategy"),
        ({"web.port": "1"}, "web.port has no effect on a backtest of velez"),
    ],
)
def test_a_form_that_makes_no_sense_comes_back_with_what_was_typed(
    page: Client, changed: dict[str, str], said: str
) -> None:
    response = page.post("/backtests/new/", {**FORM, **changed})
    assert response.status_code == 422
    shown = response.content.decode()
    assert said in shown
    assert 'value="2024-03-08"' in shown
    assert store.runs() == []


def test_only_staff_may_start_one(onlooker: Client) -> None:
    assert onlooker.get("/backtests/new/").status_code == 403
    assert onlooker.post("/backtests/new/", FORM).status_code == 403
    assert store.runs() == []
    assert "New backtest" not in text(onlooker, "/backtests/")


def test_a_browser_names_no_file_of_the_machine(page: Client) -> None:
    run = store.find(started(page, data="/etc"))
    assert run is not None
    assert run.data is None


def test_a_run_can_be_made_again_with_a_change(page: Client) -> None:
    shown = text(page, f"/backtests/new/?like={started(page)}")
    assert 'value="10000"' in shown
    assert 'name="velez.sma_fast" type="number" step="1" min="5" max="50" value="5"' in shown


# --- watching one -----------------------------------------------------------------------------------------------------


def test_a_page_follows_a_run_until_it_is_over(page: Client) -> None:
    run_id = started(page)
    store.begin(run_id, real_at=timezone.now() - timedelta(minutes=5))
    store.report_progress(run_id, 40)
    answer = page.get(f"/backtests/{run_id}/progress/")
    assert "40 % of the sessions" in answer.content.decode()
    assert "HX-Refresh" not in answer.headers
    tasks.run_backtest(run_id)
    assert page.get(f"/backtests/{run_id}/progress/").headers["HX-Refresh"] == "true"
    assert page.get("/backtests/99/progress/").status_code == 404


# --- comparing two ----------------------------------------------------------------------------------------------------


def test_two_runs_side_by_side_with_the_settings_in_which_they_differ(page: Client) -> None:
    first, second = started(page), started(page, **{"velez.max_run_candles": "2"})
    for run_id in (first, second):
        tasks.run_backtest(run_id)
    shown = text(page, f"/backtests/compare/?a={first}&b={second}")
    assert "velez.max_run_candles" in shown
    assert "velez.sma_fast" not in shown
    assert "equity-curves" in shown
    assert f"#{second} velez 2024-03-08 to 2024-03-11" in text(page, f"/backtests/{first}/")


def test_only_finished_runs_are_compared(page: Client) -> None:
    first, second = started(page), started(page)
    tasks.run_backtest(first)
    for query in (f"a={first}&b={second}", f"a={first}", "a=x&b=y"):
        assert page.get(f"/backtests/compare/?{query}").status_code == 404


# --- sweeps -----------------------------------------------------------------------------------------------------------


def test_the_best_of_a_sweep_stands_beside_the_number_of_variants_tried(page: Client) -> None:
    sweep_id = swept(runs=7)
    shown = text(page, f"/sweeps/{sweep_id}/?figure=total_return")
    assert "<dt>Variants tried</dt><dd>6</dd>" in shown
    assert "Deflated Sharpe ratio" in shown
    assert "velez.sma_fast across, velez.max_run_candles down" in shown
    assert shown.count('title="Run this variant as a backtest"') == 12  # six cells, six rows
    assert "Done" in text(page, "/sweeps/")


def test_the_map_shows_the_keys_that_were_chosen(page: Client) -> None:
    sweep_id = swept(runs=7)
    shown = text(page, f"/sweeps/{sweep_id}/?figure=max_drawdown&x=velez.max_run_candles&y=velez.max_run_candles")
    assert "velez.max_run_candles across; each cell is the best over velez.sma_fast" in shown
    assert text(page, f"/sweeps/{sweep_id}/?figure=luck&x=web.port")


def test_a_sweep_that_runs_is_followed(page: Client) -> None:
    sweep_id = swept(runs=2)
    answer = page.get(f"/sweeps/{sweep_id}/progress/")
    assert "2 of 6 variants" in answer.content.decode()
    assert "HX-Refresh" not in answer.headers
    for _ in range(4):
        tasks.work_on(sweep_id)
    assert page.get(f"/sweeps/{sweep_id}/progress/").headers["HX-Refresh"] == "true"


def test_a_variant_becomes_a_backtest(page: Client) -> None:
    shown = text(page, f"/backtests/new/?sweep={swept()}&point=5")
    assert 'name="velez.sma_fast" type="number" step="1" min="5" max="50" value="10"' in shown
    assert 'name="velez.max_run_candles" type="number" step="1" min="2" max="10" value="4"' in shown


def test_who_may_only_look_sees_the_map_without_links(onlooker: Client) -> None:
    shown = text(onlooker, f"/sweeps/{swept(runs=7)}/?figure=total_return")
    assert "/backtests/new/" not in shown
    assert onlooker.get("/sweeps/99/").status_code == 404


def sweep_form(page: Client, **changed: str) -> int:
    """Sends the form of a sweep; its number."""
    response = page.post("/sweeps/new/", {**FORM, **changed})
    assert response.status_code == 302, response.content
    return int(response.headers["Location"].strip("/").rpartition("/")[2])


def test_a_sweep_is_started_in_the_browser_by_several_values_of_a_setting(page: Client) -> None:
    assert 'name="velez.sma_fast" value="20"' in text(page, "/sweeps/new/")
    sweep_id = sweep_form(
        page, **{"velez.sma_fast": "5, 10", "velez.max_run_candles": "2,3,4", "backtest.slippage_per_share": "0"}
    )
    row = sweep_store.find(sweep_id)
    assert row is not None
    assert (row.points, row.created_by, row.on_cluster) == (6, "operator", True)
    assert row.grid == {"velez.sma_fast": ("5", "10"), "velez.max_run_candles": ("2", "3", "4")}
    assert (row.params["velez.sma_slow"], row.params["backtest.slippage_per_share"]) == (100, "0")
    for _ in range(6):
        tasks.work_on(sweep_id)
    assert "<dt>Variants tried</dt><dd>6</dd>" in text(page, f"/sweeps/{sweep_id}/?figure=total_return")
    again = text(page, f"/sweeps/new/?sweep={sweep_id}")
    assert 'name="velez.sma_fast" value="5,10"' in again
    assert 'value="10000"' in again


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "a sweep needs at least one setting with several values"),
        ({"velez.sma_fast": "5,4"}, "it must be a whole number from 5 to 50"),
        ({"velez.sma_fast": "5,5"}, "velez.sma_fast"),
        ({"velez.sma_fast": "5,6", "symbols": "A1"}, "the list of symbols"),
    ],
)
def test_a_sweep_that_makes_no_sense_comes_back_with_what_was_typed(
    page: Client, changed: dict[str, str], said: str
) -> None:
    response = page.post("/sweeps/new/", {**FORM, **changed})
    assert response.status_code == 422
    assert said in response.content.decode()
    assert sweep_store.sweeps() == []


def test_a_sweep_too_is_for_traders(onlooker: Client) -> None:
    assert onlooker.post("/sweeps/new/", {**FORM, "velez.sma_fast": "5,10"}).status_code == 403
    assert sweep_store.sweeps() == []


# --- how much was luck ------------------------------------------------------------------------------------------------


def test_the_trades_of_a_run_can_be_drawn_again(page: Client, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = started(page)
    assert page.get(f"/backtests/{run_id}/montecarlo/").status_code == 404  # not finished yet
    tasks.run_backtest(run_id)
    assert "Monte Carlo" in text(page, f"/backtests/{run_id}/")
    shown = text(page, f"/backtests/{run_id}/montecarlo/?paths=200&seed=3")
    call_command("montecarlo", str(run_id), "--paths", "200", "--seed", "3", "--json")
    printed = json.loads(capsys.readouterr().out)
    for equity in printed["final_equity"].values():
        assert f"${float(equity):,.2f}" in shown
    assert "200 histories of" in shown


def test_a_run_without_trades_has_nothing_to_draw(page: Client) -> None:
    run_id = started(page, initial_capital="1")
    tasks.run_backtest(run_id)
    assert "It made no trade" in text(page, f"/backtests/{run_id}/montecarlo/")
    assert "/montecarlo/" not in text(page, f"/backtests/{run_id}/")


# --- walk-forward -----------------------------------------------------------------------------------------------------

GRID = {"velez.max_run_candles": "2,3"}


def walked(page: Client, **changed: str) -> int:
    """Sends the form of a sweep with windows; the number of the walk-forward."""
    sent = {**FORM, **GRID, "train": "1", "test": "1", "figure": "total_return", **changed}
    response = page.post("/sweeps/new/", sent)
    assert response.status_code == 302, response.content
    assert response.headers["Location"].startswith("/walkforwards/")
    return int(response.headers["Location"].strip("/").rpartition("/")[2])


def test_a_walk_forward_from_the_browser_comes_to_what_the_command_prints(
    page: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    walk_id = walked(page)
    assert "Waiting for a worker" in text(page, f"/walkforwards/{walk_id}/")
    assert "HX-Refresh" not in page.get(f"/walkforwards/{walk_id}/progress/").headers
    tasks.run_walk(walk_id)
    tasks.run_walk(walk_id)  # a task that comes twice does nothing the second time
    row = walkforward_store.find(walk_id)
    assert row is not None
    assert (row.status, row.progress, row.created_by) == ("done", 100, "operator")
    capsys.readouterr()
    call_command(
        "walkforward", "--strategy", "velez", "--symbols", "AAPL", "--start-date", "2024-03-08",
        "--end-date", "2024-03-11", "--initial-capital", "10000",
        "--set", "velez.sma_fast=5", "--set", "velez.sma_slow=100", "--slippage", "0.02",
        "--grid", "velez.max_run_candles=2,3", "--train", "1", "--test", "1", "--by", "total_return", "--workers", "1",
        "--json",
    )  # fmt: skip
    assert {"walk_id": walk_id + 1, **(row.result or {})} == json.loads(capsys.readouterr().out)
    shown = text(page, f"/walkforwards/{walk_id}/")
    assert "2024-03-11 to 2024-03-11" in shown
    assert "velez.max_run_candles" in shown
    assert page.get(f"/walkforwards/{walk_id}/progress/").headers["HX-Refresh"] == "true"
    assert f'href="/walkforwards/{walk_id}/"' in text(page, "/walkforwards/")
    assert page.get("/walkforwards/99/").status_code == 404


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"test": ""}, "needs both numbers of sessions"),
        ({"train": "0"}, "at least one session each"),
        ({"train": "5"}, "2 sessions are too few to train on 5"),
        ({"figure": "luck"}, "nothing can be chosen by &#x27;luck&#x27;"),
    ],
)
def test_windows_that_make_no_sense_come_back(page: Client, changed: dict[str, str], said: str) -> None:
    response = page.post(
        "/sweeps/new/", {**FORM, **GRID, "train": "1", "test": "1", "figure": "sharpe_ratio", **changed}
    )
    assert response.status_code == 422
    assert said in response.content.decode()
    assert walkforward_store.walks() == []


def test_a_walk_forward_that_cannot_be_run_says_why(page: Client) -> None:
    walk_id = walked(page, symbols="MSFT")
    tasks.run_walk(walk_id)
    assert "no bars of MSFT in the bar store" in text(page, f"/walkforwards/{walk_id}/")


def test_the_walk_forward_of_a_dead_worker_is_another_ones_three_times(page: Client) -> None:
    walk_id = walked(page)
    now = timezone.now()
    for attempt in range(store.MOST_ATTEMPTS):
        assert walkforward_store.begin(walk_id, real_at=now)
        assert not walkforward_store.begin(walk_id, real_at=now + timedelta(seconds=1)), attempt
        now += store.LEASE + timedelta(seconds=1)
    assert walkforward_store.left_behind(real_at=now) == []
    row = walkforward_store.find(walk_id)
    assert row is not None
    assert (row.status, row.error) == ("failed", "3 workers ended while they ran it")
