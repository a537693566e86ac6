"""A backtest is asked for, worked off once however often it is delivered, and read as it was measured."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from django.db import IntegrityError, connection
from django.test.utils import CaptureQueriesContext

from backtests import store
from backtests.data_report import examine
from backtests.desk import EquityPoint, Result
from backtests.metrics import measure
from backtests.models import BacktestRun, BacktestTrade
from backtests.outcome import Outcome, SymbolData
from backtests.request import BacktestRequest, make_request
from backtests.scenarios import Scenario
from risk.config import resolve
from tests.db.samples import REAL, at, trade, uuid_of
from trading.columns import BarColumns
from trading.exchange import PathRule
from trading.market import Session

CAPITAL = Decimal(25000)
LOSS, WIN = trade(), trade("second", exit_at=at(4), pnl=Decimal("12345678901234.5678"))


def wanted(**changes: Any) -> BacktestRequest:
    values: dict[str, Any] = {
        "strategy": "velez",
        "symbols": ["AAPL", "TSLA"],
        "start_date": "2026-03-02",
        "end_date": "2026-03-06",
        "initial_capital": "25000",
        "params": {"velez.sma_fast": "10"},
        "config": resolve([]),
        "data": "bars/",
    }
    return make_request(**{**values, **changes})


def outcome() -> Outcome:
    session = Session(date=at(0).date(), open=at(0), close=at(390))
    trades = (WIN, LOSS)
    final = CAPITAL + sum(each.pnl for each in trades)
    result = Result(
        trades=trades,
        equity_curve=(EquityPoint(timestamp=at(0), equity=CAPITAL), EquityPoint(timestamp=at(390), equity=final)),
        daily_equity=(final,),
        final_equity=final,
        max_drawdown=Decimal("0.0002"),
        sessions=(session,),
        bars=390,
        decisions={"": 2, "duplicate": 1},
    )
    metrics = measure(
        initial_capital=CAPITAL,
        final_equity=final,
        daily_equity=result.daily_equity,
        max_drawdown=result.max_drawdown,
        trades=trades,
        sessions=result.sessions,
    )
    nothing = np.empty(0, dtype=np.int64)
    bars = BarColumns(
        symbol="AAPL", timestamps=nothing, open=nothing, high=nothing, low=nothing, close=nothing, volume=nothing
    )
    data = SymbolData(report=examine(bars, [session], rejected=3), rejected_rows=("line 7",), is_warm=True)
    scenario = Scenario(
        path_rule=PathRule.PESSIMISTIC,
        slippage_per_share=Decimal("0.03"),
        final_equity=CAPITAL,
        total_return=0.0,
        max_drawdown=0.5,
        total_trades=1,
    )
    return Outcome(
        request=wanted(),
        result=result,
        metrics=metrics,
        data={"AAPL": data},
        seconds={"run": 0.25},
        scenarios=(scenario,),
    )


def test_a_finished_run_is_read_as_it_was_measured(each_ledger: str) -> None:
    done = outcome()
    run_id = store.save(done, created_by="ann", real_at=REAL)
    run = store.find(run_id)
    assert run is not None
    assert (run.status, run.progress, run.created_by, run.finished_at) == ("done", 100, "ann", REAL)
    assert (run.strategy, run.symbols, run.initial_capital, run.data) == ("velez", ("AAPL", "TSLA"), CAPITAL, "bars/")
    assert run.params["velez.sma_fast"] == 10
    assert run.metrics is not None
    assert run.metrics["final_equity"] == "12345678926229.3678"
    assert run.metrics["profit_factor"] == done.metrics.profit_factor
    assert run.metrics["sharpe_ratio"] is None
    assert run.equity_curve == [
        {"timestamp": "2026-03-02T14:30:00.000000Z", "equity": "25000"},
        {"timestamp": "2026-03-02T21:00:00.000000Z", "equity": "12345678926229.3678"},
    ]
    assert (run.bars, run.rejected_bars, run.signals) == (390, 3, {"": 2, "duplicate": 1})
    assert run.data_report is not None
    assert run.data_report["AAPL"]["rejected_rows"] == ["line 7"]
    assert (run.data_report["AAPL"]["absent"], run.data_report["AAPL"]["grade"]) == (["2026-03-02"], "D")
    assert run.scenarios == [
        {
            "path": "pessimistic",
            "slippage_per_share": "0.03",
            "final_equity": "25000",
            "total_return": 0.0,
            "max_drawdown": 0.5,
            "total_trades": 1,
        }
    ]
    assert run.seconds == {"run": 0.25}


def test_its_trades_come_by_exit_time_to_the_last_digit(each_ledger: str) -> None:
    run_id = store.save(outcome(), real_at=REAL)
    assert store.trades_of(run_id) == [WIN, LOSS]
    assert store.trades_of(run_id + 1) == []
    assert set(BacktestTrade.objects.values_list("account_id", flat=True)) == {f"backtest:{run_id}"}


def test_figures_have_columns_too(each_ledger: str) -> None:
    store.save(outcome(), real_at=REAL)
    row = BacktestRun.objects.get()
    assert (row.win_rate, row.total_trades, row.final_equity) == (Decimal("0.5"), 2, Decimal("12345678926229.3678"))
    assert (row.sharpe_ratio, row.max_drawdown) == (None, Decimal("0.0002"))


def test_a_run_is_worked_off_once_however_often_it_is_delivered(each_ledger: str) -> None:
    run_id = store.create(wanted(), real_at=REAL)
    assert store.begin(run_id, real_at=REAL)
    store.report_progress(run_id, 40)
    assert store.begin(run_id, real_at=REAL + timedelta(hours=1))  # its first worker was killed
    run = store.find(run_id)
    assert run is not None
    assert (run.status, run.progress, run.started_at) == ("running", 0, REAL + timedelta(hours=1))
    assert store.finish(run_id, outcome(), real_at=REAL)
    assert not store.finish(run_id, outcome(), real_at=REAL)
    assert not store.begin(run_id, real_at=REAL)
    store.fail(run_id, "too late", real_at=REAL)
    store.report_progress(run_id, 10)
    run = store.find(run_id)
    assert run is not None
    assert (run.status, run.progress, run.error) == ("done", 100, "")
    assert len(store.trades_of(run_id)) == 2


def test_a_failed_run_says_why(each_ledger: str) -> None:
    run_id = store.create(wanted(), real_at=REAL)
    store.fail(run_id, "no bars for TSLA", real_at=REAL)
    run = store.find(run_id)
    assert run is not None
    assert (run.status, run.error, run.metrics, run.finished_at) == ("failed", "no bars for TSLA", None, REAL)


def test_runs_are_listed_newest_first_and_by_sweep(each_ledger: str) -> None:
    sweep = uuid_of("sweep")
    first = store.create(wanted(), real_at=REAL)
    second = store.create(wanted(), sweep_id=sweep, real_at=REAL)
    third = store.create(wanted(), sweep_id=sweep, real_at=REAL)
    assert [run.id for run in store.runs()] == [third, second, first]
    assert [run.id for run in store.runs(limit=1, offset=1)] == [second]
    assert [run.id for run in store.runs(sweep_id=sweep)] == [third, second]
    assert store.find(third + 1) is None


def test_a_list_of_runs_does_not_read_their_curves(each_ledger: str) -> None:
    for _ in range(3):
        store.save(outcome(), real_at=REAL)
    with CaptureQueriesContext(connection) as asked:
        rows = store.runs()
    assert [row.metrics is not None for row in rows] == [True, True, True]
    reads = [query["sql"] for query in asked if "backtest_run" in query["sql"]]
    assert len(reads) == 1
    assert "equity_curve" not in reads[0]
    assert "data_report" not in reads[0]


def test_a_run_and_its_trades_are_written_together_or_not_at_all(each_ledger: str) -> None:
    done = outcome()
    impossible = Outcome(
        request=done.request,
        result=Result(
            trades=(trade(exit_reason=""),),
            equity_curve=(),
            daily_equity=(),
            final_equity=CAPITAL,
            max_drawdown=Decimal(0),
            sessions=(),
            bars=0,
            decisions={},
        ),
        metrics=done.metrics,
        data={},
        seconds={},
    )
    run_id = store.create(wanted(), real_at=REAL)
    with pytest.raises(IntegrityError):
        store.finish(run_id, impossible, real_at=REAL)
    run = store.find(run_id)
    assert run is not None
    assert run.status == "queued"
