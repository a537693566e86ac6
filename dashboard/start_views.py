"""The page for the first day - how far this installation is, the way to Alpaca's paper account - and for past days."""

from dataclasses import dataclass

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from dashboard import pages, replay, store
from orders import store as order_store
from trading import store as trading_store
from trading.api import current_account


@dataclass(frozen=True, slots=True, kw_only=True)
class Milestone:
    """Something that happens on the first day, and whether it has."""

    title: str
    text: str
    is_done: bool
    command: str = ""


PAPER_CHECKS = (
    ("keys", "Keys", "Paper keys from Alpaca's page, in the environment or in .env."),
    ("clock", "Clock", "This machine's clock agrees with the exchange's to two seconds."),
    ("account", "Account", "It is open, it is a paper account, and there is money in it."),
    ("feed", "Data feed", "History of the first symbol of the watchlist arrives."),
    ("stream", "Streams", "Prices and order updates connect. An engine that runs on these keys holds them already."),
    ("order", "A test order", "One share, at half the price so that it rests, and cancelled at once."),
)


@require_safe
@login_required
def start(request: HttpRequest) -> HttpResponse:
    """What has happened so far, what comes next, and the checks, which a trader may try."""
    config = store.effective_config()
    return pages.show(
        request,
        "dashboard/start.html",
        section="start",
        context={
            "title": "First steps",
            "milestones": _milestones(),
            "checks": PAPER_CHECKS,
            "trades_at_alpaca": config["broker.provider"] == "alpaca",
            "paper": config["broker.paper"],
        },
    )


@require_safe
@login_required
def replay_day(request: HttpRequest) -> HttpResponse:
    """A past day of the engine, to be scrubbed through: the newest one unless another is asked for."""
    account_id = current_account()
    runs = trading_store.runs_of(account_id)
    days = replay.days(runs)
    day = next((each for each in days if each.isoformat() == request.GET.get("day")), days[0] if days else None)
    symbols = sorted({symbol for run in runs for symbol in run.symbols})
    asked = request.GET.get("symbol", "").upper()
    symbol = asked if asked in symbols else (symbols[0] if symbols else "")
    return pages.show(
        request,
        "dashboard/replay.html",
        section="replay",
        context={
            "title": "Replay",
            "days": days,
            "day": day,
            "symbols": symbols,
            "symbol": symbol,
            "story": replay.story(account_id, runs, day, symbol) if day else None,
        },
    )


def _milestones() -> list[Milestone]:
    account_id = current_account()
    run = trading_store.last_run()
    signals = trading_store.decisions(account_id, limit=1)
    orders = order_store.recent_orders(account_id, limit=1)
    trades = order_store.recent_trades(account_id, limit=1)
    return [
        Milestone(title="You have a login", text="Change its password in the records if others know it.", is_done=True),
        Milestone(
            title="The engine runs",
            text="It brings its own market when there are no keys of Alpaca, so nothing can be lost.",
            is_done=trading_store.live_lease() is not None,
            command="make run",
        ),
        Milestone(
            title="Averages are warm",
            text="The slow average needs 200 candles of history, which are fetched when the engine starts.",
            is_done=run is not None and store.has_candles(run),
        ),
        Milestone(
            title="A first signal",
            text="A strong green candle while both averages are close and part. Risk checks it; you see every number.",
            is_done=bool(signals),
        ),
        Milestone(
            title="A first order",
            text="A buy-stop at the candle's high, good for one candle; when it fills, its stop goes out at once.",
            is_done=bool(orders),
        ),
        Milestone(
            title="A first trade",
            text="From flat to flat. It is in the ledger for good, with its chart and the path of its stop.",
            is_done=bool(trades),
        ),
    ]
