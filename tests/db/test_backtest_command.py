"""`manage.py backtest` and `importbars`, and backtests by the worker: on bars small enough to work out by hand.

Friday is quiet at 100 all day and warms the averages up. Monday's first two minutes make a strong green candle; it is
bought at 101 in the next minute and stopped at 99.90 in the one after. Tuesday is quiet.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.conf import settings as django_settings
from django.core.management import call_command
from django_q.models import OrmQ

from backtests import store
from backtests.request import BacktestRequest, make_request
from backtests.tasks import queue_backtest, run_backtest
from orders.command import UserError
from trading.live import calendar

ROOT = Path(__file__).parents[2]
HEADER = "timestamp,open,high,low,close,volume"
FRIDAY, MONDAY, TUESDAY = calendar.sessions(date(2024, 3, 8), date(2024, 3, 12))
SIGNAL = ["100,100.5,100,100.5", "100.5,101,100.5,101"]
TRADE = [*SIGNAL, "101,102,101,101.5", "101,101,99,99"]
QUIET = "100,100,100,100"
SHORT_AVERAGES = ("--set", "velez.sma_fast=5", "--set", "velez.sma_slow=100")
BASIC = ("--strategy", "velez", "--symbols", "AAPL", *SHORT_AVERAGES)


def rows(prices: Sequence[str], opened: datetime, *, volume: int = 1000) -> list[str]:
    """CSV rows of consecutive minutes."""
    stamps = (opened + timedelta(minutes=minute) for minute in range(len(prices)))
    return [f"{stamp:%Y-%m-%dT%H:%M:%SZ},{price},{volume}" for stamp, price in zip(stamps, prices, strict=True)]


def three_days(monday: Sequence[str] = (*TRADE, QUIET)) -> list[str]:
    return [
        *rows([QUIET] * 390, FRIDAY.open),
        *rows(monday, MONDAY.open),
        *rows([QUIET] * 390, TUESDAY.open),
    ]


@pytest.fixture
def bars(tmp_path: Path) -> Path:
    """A folder with AAPL's three days."""
    folder = tmp_path / "bars_to_read"
    folder.mkdir()
    write(folder / "AAPL.csv", three_days())
    return folder


def write(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("\n".join([HEADER, *lines, ""]))
    return path


@pytest.fixture(autouse=True)
def data_dir(settings: LazySettings, tmp_path: Path) -> Path:
    settings.DATA_DIR = tmp_path / "data"
    return tmp_path / "data"


Backtest = Callable[..., dict[str, Any]]


@pytest.fixture
def backtest(capsys: pytest.CaptureFixture[str]) -> Backtest:
    """Runs the command with --json and reads what it printed."""

    def run(*arguments: str, start: str = "2024-03-11", end: str = "2024-03-11", basic: Sequence[str] = BASIC) -> Any:
        capsys.readouterr()
        call_command("backtest", *basic, "--start-date", start, "--end-date", end, "--json", *arguments)
        return json.loads(capsys.readouterr().out)

    return run


def manage(*arguments: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    """What `manage.py` does in a process of its own, without any database there."""
    command = [sys.executable, str(ROOT / "manage.py"), *arguments]
    env = environment(data_dir)
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def environment(data_dir: Path) -> dict[str, str]:
    """That of an untouched installation on a data folder."""
    untouched = {name: text for name, text in os.environ.items() if not name.startswith(("ALGO_", "DJANGO_"))}
    return untouched | {"ALGO_ENV_FILE": os.devnull, "ALGO_DATA_DIR": str(data_dir)}


# --- what is printed --------------------------------------------------------------------------------------------------


def test_the_json_is_exact_and_complete(backtest: Backtest, bars: Path) -> None:
    printed = backtest("--data", str(bars), "--no-save")
    assert printed["run_id"] is None
    assert (printed["strategy"], printed["symbols"], printed["initial_capital"]) == ("velez", ["AAPL"], "25000")
    assert (printed["start_date"], printed["end_date"]) == ("2024-03-11", "2024-03-11")
    assert printed["trades"] == [
        {
            "symbol": "AAPL",
            "side": "long",
            "qty": "12",
            "entry_price": "101.01",
            "exit_price": "99.89",
            "entry_at": "2024-03-11T13:32:00.000000Z",
            "exit_at": "2024-03-11T13:33:00.000000Z",
            "pnl": "-13.44",
            "pnl_pct": pytest.approx(-1.1088011088011088, rel=1e-15),
            "duration_seconds": 60,
            "exit_reason": "stop_loss",
            "strategy": "velez",
            "commission": "0",
            "initial_stop_price": "99.9",
        }
    ]
    metrics = printed["metrics"]
    assert metrics["total_return"] == pytest.approx(-0.0005376)
    assert metrics["final_equity"] == "24986.56"
    assert (metrics["win_rate"], metrics["profit_factor"], metrics["total_trades"]) == (0, 0, 1)
    assert metrics["sharpe_ratio"] is None  # one day
    assert metrics["max_drawdown"] == pytest.approx(0.0005376)
    assert (metrics["average_loss"], metrics["average_win"], metrics["expectancy"]) == ("13.44", None, "-13.44")
    assert (printed["bars"], printed["rejected_bars"]) == (5, 0)
    assert printed["signals"] == {"taken": 1, "refused": {}}
    assert set(printed["seconds"]) == {"load", "run", "scenarios"}
    assert printed["params"]["velez.sma_slow"] == 100
    assert printed["params"]["backtest.slippage_per_share"] == "0.01"
    data = printed["data"]["AAPL"]
    assert (data["missing_minutes"], data["grade"], data["reasons"]) == (385, "D", ["385 of 390 minutes missing"])
    assert data["gaps"] == [{"date": "2024-03-11", "missing": 385, "longest": 385}]


def test_beside_the_result_stands_what_it_would_be_otherwise(backtest: Backtest, bars: Path) -> None:
    # The entry at 101 and the stop at 99.90 lie in one minute, whose open is nearer to its low: on the rules' path the
    # low is over when the entry fills.
    write(bars / "AAPL.csv", three_days([*SIGNAL, "99.6,101.2,99.5,101.1", "101.1,101.1,101.1,101.1"]))
    printed = backtest("--data", str(bars), "--no-save")
    assert printed["metrics"]["final_equity"] == "25000.96"
    assert [(each["path"], each["slippage_per_share"], each["final_equity"]) for each in printed["scenarios"]] == [
        ("pessimistic", "0.03", "24986.08"),
        ("pessimistic", "0.01", "24986.56"),
        ("pessimistic", "0", "24986.8"),
        ("neutral", "0.03", "25000.48"),
        ("neutral", "0.01", "25000.96"),
        ("neutral", "0", "25001.2"),
        ("optimistic", "0.03", "25000.48"),
        ("optimistic", "0.01", "25000.96"),
        ("optimistic", "0", "25001.2"),
    ]
    assert printed["range"]["final_equity"] == ["24986.08", "25001.2"]
    assert printed["range"]["total_return"] == [pytest.approx(-0.0005568), pytest.approx(0.000048)]
    dearer = backtest("--data", str(bars), "--no-save", "--slippage", "0.05")
    assert dearer["scenarios"] == printed["scenarios"]
    assert dearer["range"]["final_equity"] == ["24986.08", "25001.2"]
    plain = backtest("--data", str(bars), "--no-save", "--plain")
    assert plain["scenarios"] == printed["scenarios"]


def test_without_the_range_the_result_stands_alone(backtest: Backtest, bars: Path) -> None:
    printed = backtest("--data", str(bars), "--no-save", "--no-range")
    assert (printed["scenarios"], printed["range"]) == (None, None)
    assert set(printed["seconds"]) == {"load", "run"}


def test_both_dates_are_included(backtest: Backtest, bars: Path) -> None:
    printed = backtest("--data", str(bars), "--no-save", end="2024-03-12")
    assert (printed["bars"], printed["metrics"]["sessions"]) == (395, 2)
    # Two days: -0.05376 % and 0; their mean over their deviation is the same whatever the loss.
    assert printed["metrics"]["sharpe_ratio"] == pytest.approx(-(252**0.5) / 2**0.5)
    quiet = backtest("--data", str(bars), "--no-save", start="2024-03-12", end="2024-03-12")
    assert (quiet["bars"], quiet["trades"]) == (390, [])


def test_a_weekend_inside_the_range_is_no_day(backtest: Backtest, bars: Path) -> None:
    printed = backtest("--data", str(bars), "--no-save", start="2024-03-08", end="2024-03-11")
    assert printed["metrics"]["sessions"] == 2
    assert len(printed["trades"]) == 1


def test_earlier_bars_warm_up_and_without_them_the_start_is_cold(
    backtest: Backtest, tmp_path: Path, bars: Path
) -> None:
    assert backtest("--data", str(bars), "--no-save")["data"]["AAPL"]["is_warm"] is True
    cold = backtest("--data", str(write(tmp_path / "AAPL.csv", three_days()[390:])), "--no-save")
    assert cold["data"]["AAPL"]["is_warm"] is False
    assert cold["trades"] == []


def test_settings_and_slippage_can_be_changed_for_one_run(backtest: Backtest, bars: Path) -> None:
    changed = ("--set", "backtest.commission_per_share=0.005", "--set", "risk.max_position_pct=0.01")
    printed = backtest("--data", str(bars), "--no-save", "--slippage", "0.05", *changed)
    trade = printed["trades"][0]
    assert (trade["qty"], trade["entry_price"], trade["exit_price"]) == ("2", "101.05", "99.85")
    assert (trade["commission"], trade["pnl"]) == ("0.02", "-2.42")
    assert printed["params"]["backtest.slippage_per_share"] == "0.05"


def test_the_initial_capital_is_what_sizes_are_made_of(backtest: Backtest, bars: Path) -> None:
    printed = backtest("--data", str(bars), "--no-save", "--initial-capital", "10000.50")
    assert (printed["initial_capital"], printed["trades"][0]["qty"]) == ("10000.5", "4")


def test_max_volume_share_limits_the_fill(backtest: Backtest, bars: Path) -> None:
    limited = backtest("--data", str(bars), "--no-save", "--set", "backtest.max_volume_share=0.007")
    assert limited["trades"][0]["qty"] == "7"


def test_a_strategy_asked_for_by_name_runs_though_it_is_off_for_live_trading(
    backtest: Backtest, bars: Path, settings: LazySettings
) -> None:
    settings.ALGO = settings.ALGO.with_overrides({"velez.enabled": "false"})
    assert len(backtest("--data", str(bars), "--no-save")["trades"]) == 1
    assert backtest("--data", str(bars), "--no-save", "--set", "velez.enabled=false")["trades"] == []


def test_rows_that_cannot_be_true_are_left_out_named_and_counted(
    bars: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = ["2024-03-11T13:35:00Z,100,99,100,100,5", "2024-03-11T13:36:00Z,100.00005,100.00005,100,100,5"]
    write(bars / "AAPL.csv", [*three_days(), *bad])
    dates = ("--start-date", "2024-03-11", "--end-date", "2024-03-11")
    call_command("backtest", *BASIC, *dates, "--json", "--no-save", "--data", str(bars))
    out, err = capsys.readouterr()
    printed = json.loads(out)
    assert (printed["rejected_bars"], printed["bars"]) == (1, 6)
    assert printed["data"]["AAPL"]["rounded"] == 2
    assert "AAPL.csv line 787: open or close lies outside low and high" in err


def test_a_table_for_people(bars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dates = ("--start-date", "2024-03-11", "--end-date", "2024-03-12")
    call_command("backtest", *BASIC, *dates, "--no-save", "--data", str(bars))
    out, err = capsys.readouterr()
    for text in ("final equity", "24,986.56", "-0.05%", "1 (0 won, 1 lost)", "AAPL", "-13.44", "stop_loss", "2024-03"):
        assert text in out
    assert err == ""


# --- what is saved ----------------------------------------------------------------------------------------------------


def test_a_run_and_its_trades_are_saved(each_ledger: str, backtest: Backtest, bars: Path) -> None:
    printed = backtest("--data", str(bars))
    run = store.find(printed["run_id"])
    assert run is not None
    assert (run.status, run.progress, run.symbols) == ("done", 100, ("AAPL",))
    assert (run.metrics, run.params) == (printed["metrics"], printed["params"])
    assert run.equity_curve == printed["equity_curve"]
    trades = store.trades_of(printed["run_id"])
    assert [(trade.symbol, trade.pnl, trade.exit_reason) for trade in trades] == [
        ("AAPL", Decimal("-13.44"), "stop_loss")
    ]


def test_no_save_needs_no_database(bars: Path, data_dir: Path) -> None:
    dates = ("--start-date", "2024-03-11", "--end-date", "2024-03-11")
    done = manage("backtest", *BASIC, *dates, "--no-save", "--json", "--data", str(bars), data_dir=data_dir)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["metrics"]["total_trades"] == 1


def test_a_database_that_is_not_there_is_said_before_the_run(bars: Path, data_dir: Path) -> None:
    dates = ("--start-date", "2024-03-11", "--end-date", "2024-03-11")
    done = manage("backtest", *BASIC, *dates, "--data", str(bars), data_dir=data_dir)
    assert (done.returncode, done.stdout) == (1, "")
    assert "manage.py migrate" in done.stderr
    assert done.stderr.count("\n") == 1


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--symbols": "MSFT"}, "no bars of MSFT"),
        ({"--symbols": "AAPL,AAPL"}, "the list of symbols 'AAPL,AAPL' is not allowed"),
        ({"--symbols": "AAPL1"}, "the list of symbols 'AAPL1' is not allowed"),
        ({"--symbols": ""}, "the list of symbols '' is not allowed"),
        ({"--data": "/nowhere/bars"}, "/nowhere/bars: there is no such file or folder"),
        ({"--start-date": "2024-13-01"}, "the start date '2024-13-01' is not a date written as YYYY-MM-DD"),
        ({"--end-date": "tomorrow"}, "the end date 'tomorrow' is not a date written as YYYY-MM-DD"),
        ({"--end-date": "2024-03-08"}, "the end date 2024-03-08 lies before the start date 2024-03-11"),
        ({"--start-date": "2024-03-09", "--end-date": "2024-03-10"}, "there is no trading session"),
        ({"--start-date": "2024-03-13", "--end-date": "2024-03-14"}, "there are some from 2024-03-08 to 2024-03-12"),
        ({"--start-date": "1990-01-02", "--end-date": "1990-01-03"}, "outside the exchange calendar"),
        ({"--strategy": "martingale"}, "there is no strategy 'martingale'; there are: "),
        ({"--set": "velez.sma_fats=20"}, "'velez.sma_fats' is not a setting; did you mean velez.sma_fast?"),
        (
            {"--set": "velez.sma_fast=4"},
            "ALGO_VELEZ__SMA_FAST='4' is not allowed: it must be a whole number from 5 to 50",
        ),
        ({"--set": "velez.sma_fast"}, "--set 'velez.sma_fast' is not written as KEY=VALUE"),
        ({"--set": "web.port=8001"}, "web.port has no effect on a backtest of velez"),
        ({"--slippage": "-0.01"}, "ALGO_BACKTEST__SLIPPAGE_PER_SHARE='-0.01' is not allowed"),
        ({"--initial-capital": "0"}, "the initial capital '0' is not an amount above 0"),
        ({"--initial-capital": "much"}, "the initial capital 'much' is not an amount above 0"),
        ({"--initial-capital": "NaN"}, "the initial capital 'NaN' is not an amount above 0"),
    ],
)
def test_an_error_says_in_one_line_what_is_wrong(bars: Path, changed: dict[str, str], said: str) -> None:
    options = {
        "--strategy": "velez",
        "--symbols": "AAPL",
        "--start-date": "2024-03-11",
        "--end-date": "2024-03-11",
        "--data": str(bars),
        **changed,
    }
    with pytest.raises(UserError) as error:
        call_command("backtest", *(f"{name}={value}" for name, value in options.items()), "--no-save")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_table_of_bars_is_named(bars: Path) -> None:
    (bars / "AAPL.csv").write_text("date,price\n2024-03-11,100\n")
    dates = ("--start-date", "2024-03-11", "--end-date", "2024-03-11")
    with pytest.raises(UserError, match=r"AAPL\.csv: the first line lacks timestamp, open, high, low, close, volume"):
        call_command("backtest", *BASIC, *dates, "--no-save", "--data", str(bars))


def test_exit_status_and_stderr_of_a_failure_and_of_bad_usage(bars: Path, data_dir: Path) -> None:
    asked = ("backtest", "--strategy", "velez", "--start-date", "2024-03-11", "--end-date", "2024-03-11", "--no-save")
    failed = manage(*asked, "--symbols", "MSFT", "--data", str(bars), data_dir=data_dir)
    assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (1, "", 1)
    assert "no bars of MSFT" in failed.stderr
    assert manage(*asked, data_dir=data_dir).returncode == 2  # --symbols is missing


# --- the bar store ----------------------------------------------------------------------------------------------------


def test_imported_bars_give_the_same_backtest(backtest: Backtest, bars: Path) -> None:
    call_command("importbars", str(bars))
    stored, read = backtest("--no-save"), backtest("--no-save", "--data", str(bars))
    del stored["seconds"], read["seconds"]
    assert stored == read
    assert len(stored["trades"]) == 1


def test_importing_twice_changes_nothing_and_a_correction_wins(
    bars: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def imported(*paths: Path) -> str:
        capsys.readouterr()
        call_command("importbars", *map(str, paths))
        return capsys.readouterr().out

    stored = data_dir / "bars" / "AAPL" / "2024.parquet"
    assert imported(bars / "AAPL.csv").startswith("AAPL: 785 bars in AAPL.csv, 785 new, 0 changed;")
    before = stored.read_bytes()
    assert imported(bars).startswith("AAPL: 785 bars in AAPL.csv, 0 new, 0 changed;")
    assert stored.read_bytes() == before
    more = ["2024-03-11T13:34:00Z,100,100.5,100,100,7", "2024-03-11T13:35:00Z,100,100,100,100,7"]
    assert imported(write(bars / "AAPL.csv", more)).startswith("AAPL: 2 bars in AAPL.csv, 1 new, 1 changed;")


def test_years_are_files_of_their_own_and_warm_up_reaches_into_the_last_one(
    backtest: Backtest, tmp_path: Path, data_dir: Path
) -> None:
    last, first = calendar.sessions(date(2023, 12, 29), date(2024, 1, 2))
    write(tmp_path / "AAPL.csv", [*rows([QUIET] * 390, last.open), *rows([*TRADE, QUIET], first.open)])
    call_command("importbars", str(tmp_path / "AAPL.csv"))
    assert sorted(path.name for path in (data_dir / "bars" / "AAPL").iterdir()) == ["2023.parquet", "2024.parquet"]
    printed = backtest("--no-save", start="2024-01-02", end="2024-01-02")
    assert (printed["data"]["AAPL"]["is_warm"], len(printed["trades"])) == (True, 1)


def test_a_symbol_without_bars_is_told_where_to_get_them(backtest: Backtest) -> None:
    with pytest.raises(UserError, match=r"no bars of AAPL in the bar store: get them with `manage\.py importbars`"):
        backtest("--no-save")


def test_a_broken_file_of_the_store_is_named(backtest: Backtest, bars: Path, data_dir: Path) -> None:
    call_command("importbars", str(bars))
    (data_dir / "bars" / "AAPL" / "2024.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"2024\.parquet cannot be read .*: delete it and import its bars again"):
        backtest("--no-save")


# --- the worker -------------------------------------------------------------------------------------------------------


def asked_for(symbol: str = "AAPL") -> BacktestRequest:
    return make_request(
        strategy="velez",
        symbols=[symbol],
        start_date="2024-03-11",
        end_date="2024-03-12",
        initial_capital="25000",
        params={"velez.sma_fast": "5", "velez.sma_slow": 100},
        config=django_settings.ALGO,
    )


def test_the_worker_carries_out_what_was_queued(each_ledger: str, bars: Path) -> None:
    call_command("importbars", str(bars))
    run_id = queue_backtest(asked_for(), created_by="somebody")
    queued = store.find(run_id)
    assert queued is not None
    assert (queued.status, queued.progress, queued.created_by) == ("queued", 0, "somebody")
    task = OrmQ.objects.get().task
    assert (task["func"], task["args"]) == ("backtests.tasks.run_backtest", (run_id,))
    run_backtest(run_id)
    run = store.find(run_id)
    assert run is not None
    assert run.metrics is not None
    assert (run.status, run.progress, run.metrics["final_equity"]) == ("done", 100, "24986.56")
    assert len(store.trades_of(run_id)) == 1


def test_a_run_that_is_over_is_left_alone(ledger: str, bars: Path) -> None:
    call_command("importbars", str(bars))
    run_id = queue_backtest(asked_for(), created_by="")
    run_backtest(run_id)
    before = store.find(run_id)
    run_backtest(run_id)
    assert store.find(run_id) == before
    assert len(store.trades_of(run_id)) == 1


def test_a_run_whose_worker_was_killed_is_made_anew(ledger: str, bars: Path) -> None:
    call_command("importbars", str(bars))
    run_id = queue_backtest(asked_for(), created_by="")
    store.begin(run_id, real_at=datetime.fromisoformat("2024-03-13T00:00:00Z"))
    store.report_progress(run_id, 50)
    run_backtest(run_id)
    run = store.find(run_id)
    assert run is not None
    assert run.status == "done"
    assert len(store.trades_of(run_id)) == 1


def test_a_run_that_cannot_be_carried_out_says_why(ledger: str) -> None:
    run_id = queue_backtest(asked_for("MSFT"), created_by="")
    run_backtest(run_id)
    run = store.find(run_id)
    assert run is not None
    assert run.status == "failed"
    assert run.error.startswith("no bars of MSFT in the bar store")


def test_a_run_that_nobody_asked_for_is_nothing_to_do(ledger: str) -> None:
    run_backtest(12345)
    assert store.runs() == []


# --- real bars --------------------------------------------------------------------------------------------------------


def test_two_months_of_seven_symbols(backtest: Backtest, shared_data: Path) -> None:
    symbols = "AAPL,AMD,FB,JPM,MSFT,NVDA,TSLA"
    basic = ("--strategy", "velez", "--symbols", symbols, "--data", str(shared_data / "stockbot2018"), "--no-save")
    printed = backtest(start="2018-02-16", end="2018-04-20", basic=basic)
    assert (printed["bars"], printed["rejected_bars"], printed["metrics"]["sessions"]) == (120_113, 0, 44)
    assert printed["seconds"]["run"] < 30
    trades, metrics = printed["trades"], printed["metrics"]
    assert metrics["total_trades"] == len(trades) > 100
    assert Decimal(metrics["final_equity"]) == 25000 + sum(Decimal(trade["pnl"]) for trade in trades)
    assert trades == sorted(trades, key=lambda trade: (trade["exit_at"], trade["symbol"], trade["entry_at"]))
    for trade in trades:
        session = calendar.session_on(date.fromisoformat(trade["exit_at"][:10]))
        assert session is not None
        last = session.close - timedelta(minutes=5)
        assert (
            session.open
            <= datetime.fromisoformat(trade["entry_at"])
            <= datetime.fromisoformat(trade["exit_at"])
            <= last
        )


# --- how it starts ----------------------------------------------------------------------------------------------------


def test_a_backtest_from_the_store_does_not_wait_for_what_only_pages_brokers_and_tables_need(
    bars: Path, data_dir: Path
) -> None:
    assert manage("importbars", str(bars / "AAPL.csv"), data_dir=data_dir).returncode == 0
    backtest = ("backtest", *BASIC, "--start-date", "2024-03-11", "--end-date", "2024-03-11", "--no-save", "--json")
    assert manage(*backtest, data_dir=data_dir).returncode == 0  # from now on the calendar is kept
    program = (
        "import sys, manage; sys.argv = ['manage.py', *sys.argv[1:]]; manage.main(); "
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *backtest],
        env=environment(data_dir),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    loaded = set(done.stderr.split())
    assert json.loads(done.stdout)["metrics"]["total_trades"] == 1
    heavy = {"pandas", "exchange_calendars", "alpaca", "aiohttp", "ninja", "daphne.server", "pyarrow.dataset"}
    heavy |= {"rich", "twisted", "prometheus_client", "numpy.ma"}
    pages = {"algotrader.urls", "dashboard.views", "dashboard.consumers", "backtests.admin"}
    assert loaded & (heavy | pages) == set()
