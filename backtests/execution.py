"""Carries out one backtest request: finds the bars, runs them, and measures what came of it."""

import gc
import itertools
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from time import perf_counter

from backtests.data_report import examine
from backtests.desk import Result
from backtests.history import History, history_of, sessions_with_bars
from backtests.leaps import leap
from backtests.metrics import measure
from backtests.outcome import Outcome, SymbolData
from backtests.request import BacktestRequest
from backtests.runner import days_of, run
from backtests.scenarios import Scenario, most_runs, scenarios
from trading.columns import BarColumns, TooLarge
from trading.exchange import Exchange, PathRule
from trading.live import calendar
from trading.live.barfiles import BarFileError, ReadReport, find_bar_files, read_bar_file
from trading.live.barstore import BarStore, BrokenStore
from trading.market import Session
from trading.strategy import strategy_class
from trading.trader import Trader
from trading.warmup import HistoryNeed, WarmUp, history_needs, sessions_to_fetch, warm_up

# Ids of orders and round trips follow from it, so equal runs have equal ids.
ACCOUNT_ID = "backtest"
DAY = timedelta(days=1)
ROWS_NAMED = 20


class NoBacktest(Exception):
    """The request cannot be carried out; the text is one line that says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The data of a run: its sessions with bars, each symbol's history, what of it warms up, and what it is worth."""

    sessions: Sequence[Session]
    histories: Mapping[str, History]
    warm_ups: Mapping[str, WarmUp]
    data: Mapping[str, SymbolData]


def execute(
    request: BacktestRequest,
    store: BarStore,
    *,
    is_plain: bool = False,
    with_scenarios: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Loads, runs and measures; see `execute_on`.

    Raises:
        NoBacktest: bars, sessions or files are missing or cannot be read.
    """
    started = perf_counter()
    loaded = load(request, store)
    return execute_on(
        loaded,
        request,
        is_plain=is_plain,
        with_scenarios=with_scenarios,
        load_seconds=perf_counter() - started,
        on_progress=on_progress,
    )


def execute_on(
    loaded: Loaded,
    request: BacktestRequest,
    *,
    is_plain: bool = False,
    with_scenarios: bool = False,
    load_seconds: float = 0.0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Runs and measures on bars that are loaded already, by a request with the same bars and the same `needs_of`.

    `is_plain`: bar by bar, which takes longer and comes to the same. `with_scenarios`: also what it would have been on
    other paths inside the bars and at other costs. `on_progress` is told the sessions done, over all runs, and their
    number.
    """
    slippage: Decimal = request.config["backtest.slippage_per_share"]
    total = len(loaded.sessions) * (1 + (most_runs(slippage) if with_scenarios else 0))
    done = itertools.count(1)

    def result_of(path_rule: PathRule, slippage_per_share: Decimal) -> Result:
        exchange = _exchange(request, path_rule, slippage_per_share)
        with _no_collection():
            return _result(
                loaded, request, exchange, is_plain=is_plain, on_session=lambda _: on_progress(next(done), total)
            )

    started = perf_counter()
    result = result_of(PathRule.NEUTRAL, slippage)
    metrics = measure(
        initial_capital=request.initial_capital,
        final_equity=result.final_equity,
        daily_equity=result.daily_equity,
        max_drawdown=result.max_drawdown,
        trades=result.trades,
        sessions=result.sessions,
    )
    seconds = {"load": round(load_seconds, 6), "run": round(perf_counter() - started, 6)}
    others: tuple[Scenario, ...] = ()
    if with_scenarios:
        started = perf_counter()
        others = tuple(
            scenarios(result_of, initial_capital=request.initial_capital, slippage_per_share=slippage, result=result)
        )
        seconds["scenarios"] = round(perf_counter() - started, 6)
        on_progress(total, total)
    return Outcome(request=request, result=result, metrics=metrics, data=loaded.data, seconds=seconds, scenarios=others)


def _result(
    loaded: Loaded,
    request: BacktestRequest,
    exchange: Exchange,
    *,
    is_plain: bool,
    on_session: Callable[[Session], None],
) -> Result:
    # Leaping takes one strategy: a second one could trade at a candle that the first one's hint leaps over.
    if not is_plain and len(request.trader_settings.strategies) == 1:
        with suppress(TooLarge):  # raised before the first session
            return leap(
                trader=_trader(request, makes_candles=False, keeps_records=False),
                exchange=exchange,
                histories=loaded.histories,
                sessions=loaded.sessions,
                on_session=on_session,
            )
    return run(
        trader=_trader(request),
        exchange=exchange,
        days=days_of({symbol: history.traded.bars() for symbol, history in loaded.histories.items()}, loaded.sessions),
        warm_ups=loaded.warm_ups,
        on_day=lambda day: on_session(day.session),
    )


@contextmanager
def _no_collection() -> Iterator[None]:
    """A run makes many small values and hardly a cycle: to look for some again and again costs a tenth of it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _trader(request: BacktestRequest, **options: bool) -> Trader:
    return Trader(
        settings=request.trader_settings,
        symbols=request.symbols,
        cash=request.initial_capital,
        account_id=ACCOUNT_ID,
        asks_broker=False,
        **options,
    )


def _exchange(request: BacktestRequest, path_rule: PathRule, slippage_per_share: Decimal) -> Exchange:
    config = request.config
    return Exchange(
        slippage_per_share=slippage_per_share,
        commission_per_share=config["backtest.commission_per_share"],
        max_volume_share=config["backtest.max_volume_share"],
        path_rule=path_rule,
    )


def load(request: BacktestRequest, store: BarStore) -> Loaded:
    """The bars of a request, from its file or folder, else from the store.

    Raises:
        NoBacktest: bars, sessions or files are missing or cannot be read.
    """
    try:
        sessions = calendar.sessions(request.start_date, request.end_date)
        if not sessions:
            raise NoBacktest(f"there is no trading session from {request.start_date} to {request.end_date}")
        needs = needs_of(request)
        reports: dict[str, ReadReport] = {}
        columns: dict[str, BarColumns] = {}
        fetched: dict[str, dict[date, str]] = {}
        if request.data is None:
            columns = {symbol: _from_store(store, symbol, sessions[0], needs) for symbol in request.symbols}
            fetched = {symbol: store.fetched(symbol) for symbol in request.symbols}
        else:
            for symbol, path in find_bar_files(Path(request.data), request.symbols).items():
                columns[symbol], reports[symbol] = read_bar_file(path, symbol)
        warm_ups = {symbol: _warm_up(each, sessions[0], needs) for symbol, each in columns.items()}
        histories = {s: history_of(each, warm_ups[s].sessions, sessions) for s, each in columns.items()}
        for symbol in request.symbols:
            if not len(histories[symbol].traded):
                raise NoBacktest(_no_bars(request, columns[symbol]))
    except (BarFileError, BrokenStore, calendar.OutsideCalendar) as error:
        raise NoBacktest(str(error)) from error
    with_bars = sessions_with_bars(histories.values(), sessions)
    until_last = [session for session in sessions if session.open <= with_bars[-1].open]
    data = {
        symbol: _symbol_data(
            each,
            until_last,
            warm_ups[symbol],
            reports.get(symbol),
            [fetched[symbol][session.date] for session in until_last if session.date in fetched.get(symbol, ())],
        )
        for symbol, each in columns.items()
    }
    return Loaded(sessions=with_bars, histories=histories, warm_ups=warm_ups, data=data)


def needs_of(request: BacktestRequest) -> tuple[HistoryNeed, ...]:
    """What the strategies of a request want to know before the first session."""
    return history_needs([strategy_class(name)("", p) for name, p in request.trader_settings.strategies.items()])


def _from_store(store: BarStore, symbol: str, first: Session, needs: Sequence[HistoryNeed]) -> BarColumns:
    """The symbol's bars, from as far back as the warm-up needs."""
    years = store.years(symbol)
    place = bisect_left(years, first.date.year)
    columns = store.read(symbol, years[place:])
    while place and not _warm_up(columns, first, needs).is_enough:
        place -= 1
        columns = store.read(symbol, years[place:])
    return columns


def _warm_up(columns: BarColumns, first: Session, needs: Sequence[HistoryNeed]) -> WarmUp:
    """The bars before the first session that warm the symbol up; where the data holds too few, all of them."""
    end = columns.index_at(first.open)
    begin = max(columns.bar(0).timestamp.date(), calendar.FIRST_DATE) if end else first.date
    sessions = calendar.sessions(begin, first.date - DAY) if begin < first.date else []
    count = sessions_to_fetch(sessions, needs)
    while True:
        tried = sessions[len(sessions) - count :]
        bars = columns.bars(columns.index_at(tried[0].open), end) if tried else []
        found = warm_up(bars, tried, needs)
        wanted = sessions_to_fetch(sessions, needs, already=count)
        if found.is_enough or wanted == count:
            return found
        count = wanted


def _no_bars(request: BacktestRequest, columns: BarColumns) -> str:
    """Why a symbol cannot be traded, and what to do."""
    symbol = columns.symbol
    wanted = f"from {request.start_date} to {request.end_date}"
    if len(columns):
        first, last = columns.bar(0).timestamp.date(), columns.bar(-1).timestamp.date()
        return f"no bars of {symbol} in the sessions {wanted}: there are some from {first} to {last}"
    if request.data is None:
        return (
            f"no bars of {symbol} in the bar store: get them with `manage.py importbars` or `manage.py fetchbars`, "
            "or name a file or folder with --data"
        )
    return f"no sound bars of {symbol} in {request.data}"


def named_rows(report: ReadReport) -> tuple[str, ...]:
    """The first rows that were left out, each with its place and what is wrong with it."""
    return tuple(f"{report.path} line {row.line}: {row.reason}" for row in report.rejected[:ROWS_NAMED])


def _symbol_data(
    columns: BarColumns, sessions: Sequence[Session], warm_up: WarmUp, report: ReadReport | None, sources: Iterable[str]
) -> SymbolData:
    return SymbolData(
        report=examine(
            columns,
            sessions,
            rejected=len(report.rejected) if report else 0,
            duplicates=len(report.repeated) if report else 0,
            rounded=report.rounded if report else 0,
            sources=sources,
        ),
        rejected_rows=named_rows(report) if report else (),
        is_warm=warm_up.is_enough,
    )
