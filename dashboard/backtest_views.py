"""Pages that start, watch and compare backtests, and show sweeps. Only traders may start one."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_http_methods, require_safe

from backtests import store as backtest_store
from backtests import sweep_store
from backtests.request import BacktestRequest, BadRequest, effective_keys, make_request
from backtests.store import Run
from backtests.sweep import (
    HeatMap,
    PointResult,
    Sweep,
    figure_of,
    heat_map,
    make_sweep,
    parse_grid,
    point_params,
    ranking,
    verdict,
)
from backtests.tasks import queue_backtest, queue_sweep, queue_walk
from backtests.validation import resampled
from dashboard import pages, store
from risk.config import BY_KEY, Kind, Setting, as_text
from risk.roles import Role, role_of
from trading.live.barstore import BarStore
from trading.strategy import Strategy

UNFINISHED = ("queued", "running")
BEST = 20
PATHS, MOST_PATHS = 5_000, 20_000  # of a Monte Carlo, made while the page is waited for
FIGURES = {
    "sharpe_ratio": "Sharpe ratio",
    "total_return": "Return",
    "max_drawdown": "Largest drawdown",
    "profit_factor": "Profit factor",
    "win_rate": "Winners",
    "total_trades": "Trades",
}
CHOSEN_BY = {name: label for name, label in FIGURES.items() if name != "total_trades"}
COMPARED = (
    ("total_return", "Return", "percent"),
    ("final_equity", "Final equity", "money"),
    ("max_drawdown", "Largest drawdown", "share"),
    ("sharpe_ratio", "Sharpe ratio", "ratio"),
    ("profit_factor", "Profit factor", "ratio"),
    ("win_rate", "Winners", "share"),
    ("total_trades", "Trades", "count"),
    ("expectancy", "Expected of a trade", "money"),
    ("average_win", "Average win", "money"),
    ("average_loss", "Average loss", "money"),
    ("commission", "Commission", "money"),
    ("exposure", "Time in the market", "share"),
)


# --- starting one -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One setting in the form."""

    setting: Setting
    text: str

    @property
    def label(self) -> str:
        """The key without its group, as words."""
        return self.setting.key.partition(".")[2].replace("_", " ").capitalize().replace("Sma", "SMA")

    @property
    def choices(self) -> Sequence[str]:
        """The values to choose from; empty for a number that is written."""
        return ("true", "false") if self.setting.kind is Kind.FLAG else self.setting.choices


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def new_backtest(request: HttpRequest) -> HttpResponse:
    """The form that starts a backtest; it can be filled with the settings of a run or of a sweep's point."""
    return _form(request, is_sweep=False)


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def new_sweep(request: HttpRequest) -> HttpResponse:
    """The form that starts a sweep: a setting with several values, commas between them, is a key of the grid."""
    return _form(request, is_sweep=True)


def _form(request: HttpRequest, *, is_sweep: bool) -> HttpResponse:
    if role_of(request.user) < Role.TRADER:
        raise PermissionDenied("Only traders may start a backtest.")
    values, error = _filled_in(request), ""
    if request.method == "POST":
        by = request.user.get_username()
        try:
            if is_sweep:
                sweep = _sweep_asked_for(request)
                if request.POST.get("train", "") or request.POST.get("test", ""):
                    return redirect("walk", walk_id=_queue_walk(request, sweep))
                return redirect("sweep", sweep_id=queue_sweep(sweep, created_by=by))
            return redirect("backtest", run_id=queue_backtest(_asked_for(request), created_by=by))
        except BadRequest as bad:
            error = str(bad)
    bars = BarStore(settings.DATA_DIR / "bars")
    context = {
        "title": "New sweep" if is_sweep else "New backtest",
        "is_sweep": is_sweep,
        "chosen_by": CHOSEN_BY.items(),
        "error": error,
        "values": values,
        "strategies": _strategies(),
        "groups": list(_groups(values)),
        "stored": [(symbol, bars.years(symbol)) for symbol in bars.symbols()],
    }
    return _page(request, "dashboard/backtest_new.html", context, status=422 if error else 200)


def _filled_in(request: HttpRequest) -> dict[str, Any]:
    """What the form shows: what was sent, else the run or point it is to resemble, else the settings in effect."""
    values: dict[str, Any] = {"strategy": _strategies()[0], "symbols": "", "initial_capital": "25000"}
    if request.method == "POST":
        return values | {name: str(request.POST[name]) for name in request.POST}
    values |= {name: request.GET.get(name, "") for name in ("like", "sweep")}
    if run := _run(request.GET.get("like", "")):
        values |= _values_of(run) | _texts(run.params)
    elif row := _sweep(request.GET.get("sweep", "")):
        point = pages.number(request.GET.get("point", ""))
        if point is None:
            values |= _values_of(row) | _texts(row.params) | {key: ",".join(each) for key, each in row.grid.items()}
        elif point < row.points:
            values |= _values_of(row) | _texts(row.params) | point_params(row.grid, point)
    return values | {name: request.GET[name] for name in ("strategy", "symbols") if request.GET.get(name)}


def _values_of(like: Run | sweep_store.SweepRow) -> dict[str, Any]:
    return {
        "strategy": like.strategy,
        "symbols": ",".join(like.symbols),
        "start_date": like.start_date.isoformat(),
        "end_date": like.end_date.isoformat(),
        "initial_capital": f"{like.initial_capital:f}",
        "data": like.data or "",
    }


def _texts(params: Mapping[str, Any]) -> dict[str, str]:
    return {key: as_text(value) for key, value in params.items()}


def _groups(values: Mapping[str, Any]) -> Iterator[tuple[str, list[Field]]]:
    """The settings that have a say, in groups with a heading."""
    config = store.effective_config()
    strategy = values["strategy"]
    if strategy not in _strategies():
        return
    grouped: dict[str, list[Field]] = {}
    headings = {strategy: "Strategy", "backtest": "Costs", "risk": "Risk limits"}
    for key in effective_keys(strategy):
        heading = headings.get(key.partition(".")[0], "Candles and orders")
        if key == f"{strategy}.enabled":
            continue
        text = values.get(key, as_text(config[key]))
        grouped.setdefault(heading, []).append(Field(setting=BY_KEY[key], text=text))
    for heading in (*headings.values(), "Candles and orders"):
        if heading in grouped:
            yield heading, grouped[heading]


def _sweep_asked_for(request: HttpRequest) -> Sweep:
    sent = request.POST
    several = [f"{key}={sent[key]}" for key in BY_KEY if "." in key and "," in sent.get(key, "")]
    if not several:
        raise BadRequest("a sweep needs at least one setting with several values, such as 10,20,30")
    grid = parse_grid(several)
    return make_sweep(_asked_for(request, without=grid), grid)


def _queue_walk(request: HttpRequest, sweep: Sweep) -> int:
    train, test = (pages.number(request.POST.get(name, "")) for name in ("train", "test"))
    if train is None or test is None:
        raise BadRequest("a walk-forward needs both numbers of sessions: those to choose on and those to try it on")
    figure = request.POST.get("figure", "")
    if figure not in CHOSEN_BY:
        raise BadRequest(f"nothing can be chosen by {figure!r}")
    is_anchored = "anchored" in request.POST
    by = request.user.get_username()
    return queue_walk(sweep, train=train, test=test, is_anchored=is_anchored, figure=figure, created_by=by)


def _asked_for(request: HttpRequest, *, without: Container[str] = ()) -> BacktestRequest:
    sent = request.POST
    strategy = sent.get("strategy", "")
    like = _run(sent.get("like", "")) or _sweep(sent.get("sweep", ""))
    return make_request(
        strategy=strategy,
        symbols=sent.get("symbols", "").replace(",", " ").split(),
        start_date=sent.get("start_date", ""),
        end_date=sent.get("end_date", ""),
        initial_capital=sent.get("initial_capital", ""),
        params={key: sent[key] for key in BY_KEY if key in sent and "." in key and key not in without},
        config=settings.ALGO,
        # A browser names no file of this machine: it can only use the one again that a command named.
        data=like.data if like else None,
    )


# --- watching one -----------------------------------------------------------------------------------------------------


@require_safe
@login_required
def backtest_progress(request: HttpRequest, run_id: int) -> HttpResponse:
    """How far a run is; when it is over, the page is told to load itself again."""
    run = backtest_store.find(run_id)
    if run is None:
        raise Http404(f"There is no backtest {run_id}.")
    return pages.show_progress(
        request, "dashboard/backtest_progress.html", {"run": run}, is_over=run.status not in UNFINISHED
    )


# --- comparing two ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One figure of two runs; `form` is the filter that writes it."""

    label: str
    form: str
    first: float | None
    second: float | None

    @property
    def difference(self) -> float | None:
        """The second less the first."""
        return None if self.first is None or self.second is None else self.second - self.first

    @property
    def difference_form(self) -> str:
        """As the figure, with a sign where there is such a form."""
        return {"share": "percent", "money": "gain"}.get(self.form, self.form)


@require_safe
@login_required
def compare(request: HttpRequest) -> HttpResponse:
    """Two finished runs side by side: figures, equity, and the settings in which they differ."""
    first, second = _run(request.GET.get("a", "")), _run(request.GET.get("b", ""))
    if first is None or second is None or first.metrics is None or second.metrics is None:
        raise Http404("There are no two finished backtests of these numbers.")
    keys = sorted({*first.params, *second.params})
    context = {
        "title": f"Backtests {first.id} and {second.id}",
        "runs": (first, second),
        "lines": [
            Line(
                label=label,
                form=form,
                first=_figure(first.metrics, name),
                second=_figure(second.metrics, name),
            )
            for name, label, form in COMPARED
        ],
        "differences": [
            (key, first.params.get(key), second.params.get(key))
            for key in keys
            if first.params.get(key) != second.params.get(key)
        ],
        "curves": [{"name": f"#{run.id}", "points": run.equity_curve or []} for run in (first, second)],
    }
    return _page(request, "dashboard/compare.html", context)


# --- how much was luck ------------------------------------------------------------------------------------------------


@require_safe
@login_required
def monte_carlo(request: HttpRequest, run_id: int) -> HttpResponse:
    """Between which equities and drawdowns histories end that are drawn from the trades of a run."""
    run = backtest_store.find(run_id)
    if run is None or run.status != "done":
        raise Http404(f"There is no finished backtest {run_id}.")
    pnls = [trade.pnl for trade in backtest_store.trades_of(run_id)]
    paths = min(max(pages.number(request.GET.get("paths", "")) or PATHS, 1), MOST_PATHS)
    seed = pages.number(request.GET.get("seed", "")) or 0
    bands = resampled(pnls, initial_capital=run.initial_capital, paths=paths, seed=seed) if pnls else None
    context = {
        "title": f"Monte Carlo of backtest {run_id}",
        "run": run,
        "paths": paths,
        "most_paths": MOST_PATHS,
        "seed": seed,
        "bands": bands,
        "rows": [
            (percentile, equity, float(equity / run.initial_capital - 1), -bands.max_drawdown[percentile])
            for percentile, equity in bands.final_equity.items()
        ]
        if bands
        else [],
    }
    return _page(request, "dashboard/monte_carlo.html", context)


# --- sweeps -----------------------------------------------------------------------------------------------------------


@require_safe
@login_required
def sweeps(request: HttpRequest) -> HttpResponse:
    """All sweeps, newest first, in pages."""
    found = pages.part(request, lambda limit, offset: sweep_store.sweeps(limit=limit, offset=offset))
    return _page(request, "dashboard/sweeps.html", {"title": "Sweeps", "sweeps": found.rows, "part": found})


@require_safe
@login_required
def sweep(request: HttpRequest, sweep_id: int) -> HttpResponse:
    """One sweep: the best of its variants, how far it can be believed, and a heat map over two of its keys."""
    row = sweep_store.find(sweep_id)
    if row is None:
        raise Http404(f"There is no sweep {sweep_id}.")
    results = sweep_store.results(sweep_id)
    figure = _choice(request, "figure", list(FIGURES))
    keys = list(row.grid)
    x_key = _choice(request, "x", keys)
    y_key = _choice(request, "y", keys, preferred=next((key for key in keys if key != x_key), x_key))
    context = {
        "title": f"Sweep {sweep_id}",
        "sweep": row,
        "keys": keys,
        "x_key": x_key,
        "y_key": y_key,
        "figure": figure,
        "figures": FIGURES.items(),
        "figure_name": FIGURES[figure],
        "form": next((form for name, _, form in COMPARED if name == figure), "ratio"),
        "heat": _heat(heat_map(results, row.grid, x_key=x_key, y_key=y_key, figure=figure), figure),
        "over_others": [key for key in keys if key not in (x_key, y_key)],
        "verdict": verdict(results, variants=row.points, figure=figure),
        "best": ranking(results, figure)[:BEST],
        "failed": [each for each in results if each.error],
        "workers": sweep_store.workers_of(sweep_id),
    }
    return _page(request, "dashboard/sweep.html", context)


@require_safe
@login_required
def sweep_progress(request: HttpRequest, sweep_id: int) -> HttpResponse:
    """How far a sweep is; when it is over, the page is told to load itself again."""
    row = sweep_store.find(sweep_id)
    if row is None:
        raise Http404(f"There is no sweep {sweep_id}.")
    return pages.show_progress(
        request, "dashboard/sweep_progress.html", {"sweep": row}, is_over=row.status != "running"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell of the heat map: `heat` from 0, the worst, to 10, the best."""

    result: PointResult | None
    value: float | None
    heat: int


def _heat(found: HeatMap, figure: str) -> dict[str, Any]:
    values = [v for row in found.cells for each in row if each and (v := figure_of(each, figure)) is not None]
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    falls = figure == "max_drawdown"

    def cell(result: PointResult | None) -> Cell:
        value = None if result is None else figure_of(result, figure)
        if value is None:
            return Cell(result=result, value=None, heat=0)
        place = 0.5 if high == low else (value - low) / (high - low)
        return Cell(result=result, value=value, heat=round(10 * (1 - place if falls else place)))

    return {
        "columns": found.x_values,
        "rows": [(y, [cell(each) for each in row]) for y, row in zip(found.y_values, found.cells, strict=True)],
    }


# --- parts ------------------------------------------------------------------------------------------------------------


def _page(request: HttpRequest, template: str, context: dict[str, Any], status: int = 200) -> HttpResponse:
    return pages.show(request, template, section="backtests", context=context, status=status)


def _run(text: str) -> Run | None:
    number = pages.number(text)
    return None if number is None else backtest_store.find(number)


def _sweep(text: str) -> sweep_store.SweepRow | None:
    number = pages.number(text)
    return None if number is None else sweep_store.find(number)


def _figure(metrics: Mapping[str, Any], name: str) -> float | None:
    value = metrics.get(name)
    return None if value is None else float(Decimal(str(value)))


def _choice(request: HttpRequest, name: str, choices: Sequence[str], preferred: str | None = None) -> str:
    chosen = request.GET.get(name, "")
    return chosen if chosen in choices else preferred or choices[0]


def _strategies() -> list[str]:
    return sorted(Strategy.registry, key=lambda name: (name not in store.effective_config()["strategies"], name))
