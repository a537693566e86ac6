"""`manage.py fetchbars`: whole sessions into the bar store, whatever happens on the way."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.management import call_command

from backtests.fetching import fetch
from orders.command import UserError
from tests.live.alpaca_peer import Answer, Peer, reset
from trading.broker import NotAuthorized, OrderRefused
from trading.live import calendar
from trading.live.alpaca import AlpacaData
from trading.live.alpaca_workers import Timing
from trading.live.barstore import BarStore
from trading.live.calls import DataCalls, Waits
from trading.market import Session

ROOT = Path(__file__).parents[2]
BARS = "/v2/stocks/bars"
QUICK = Waits(broker_seconds=0.02, data_seconds=0.02, jitter_seconds=0.01)
MARCH = calendar.sessions(date(2024, 3, 4), date(2024, 3, 19))  # twelve of them, over the change of the clock
LATER = datetime(2024, 6, 1, tzinfo=UTC)


def row(moment: datetime, prices: str = "10 11 9 10.5", volume: int = 100) -> dict[str, Any]:
    """A bar as the REST API gives it."""
    o, h, l, c = (float(price) for price in prices.split())  # noqa: E741
    return {"t": f"{moment:%Y-%m-%dT%H:%M:%SZ}", "o": o, "h": h, "l": l, "c": c, "v": volume, "n": 3, "vw": c}


def answer(*rows: dict[str, Any], token: str | None = None, symbol: str = "AAPL") -> Answer:
    return Answer(body={"bars": {symbol: list(rows)} if rows else {}, "next_page_token": token, "currency": "USD"})


def whole(*sessions: Session, prices: str = "10 11 9 10.5") -> list[dict[str, Any]]:
    """Every minute of these sessions."""
    return [
        row(session.open + timedelta(minutes=minute), prices)
        for session in sessions
        for minute in range((session.close - session.open) // timedelta(minutes=1))
    ]


@pytest.fixture
async def calls(peer: Peer) -> AsyncIterator[DataCalls]:
    data = AlpacaData("key", "secret", data_url=peer.url, timing=Timing(read_seconds=5))
    yield DataCalls(data, waits=QUICK)
    await data.disconnect()


@pytest.fixture
def store(tmp_path: Path) -> BarStore:
    return BarStore(tmp_path / "bars")


async def fetched(calls: DataCalls, store: BarStore, sessions: Sequence[Session] = MARCH, **changes: Any) -> Any:
    return await fetch(calls, store, "AAPL", sessions, **{"source": "iex", "now": lambda: LATER, **changes})


async def test_ten_sessions_are_one_request_of_as_many_pages_as_it_takes(
    peer: Peer, calls: DataCalls, store: BarStore
) -> None:
    ten, two = whole(*MARCH[:10]), whole(*MARCH[10:])
    peer.on("GET", BARS, answer(*ten[:2000], token="next"), answer(*ten[2000:]), answer(*two))
    progress: list[int] = []
    done = await fetched(calls, store, on_sessions=progress.append)
    assert (done.sessions, done.kept, done.bars, done.added, done.changed) == (12, 0, 12 * 390, 12 * 390, 0)
    assert progress == [0, 10, 2]
    asked = [request.query for request in peer.asked("GET", BARS)]
    assert [query.get("page_token") for query in asked] == [None, "next", None]
    assert asked[0]["start"] == "2024-03-04T14:30:00+00:00"
    assert asked[2]["end"] == "2024-03-19T19:59:59.999999+00:00"
    assert {query["adjustment"] for query in asked} == {"raw"}
    assert store.fetched("AAPL") == {session.date: "iex" for session in MARCH}
    bars = store.read("AAPL", [2024])
    assert (len(bars), bars.bar(0).timestamp) == (12 * 390, MARCH[0].open)


async def test_what_is_there_whole_is_not_asked_for_again(peer: Peer, calls: DataCalls, store: BarStore) -> None:
    peer.on("GET", BARS, answer(*whole(MARCH[2])), answer(*whole(*MARCH[:2])), answer(*whole(*MARCH[3:5])))
    await fetched(calls, store, MARCH[2:3])
    done = await fetched(calls, store, MARCH[:5])
    assert (done.kept, done.sessions, done.added) == (1, 4, 4 * 390)
    assert [request.query["start"][:10] for request in peer.received] == ["2024-03-06", "2024-03-04", "2024-03-07"]
    again = await fetched(calls, store, MARCH[:5])
    assert (again.kept, again.sessions, again.bars, len(peer.received)) == (5, 0, 0, 3)


async def test_another_feed_is_another_source(peer: Peer, calls: DataCalls, store: BarStore) -> None:
    peer.on("GET", BARS, answer(*whole(MARCH[0])), answer(*whole(MARCH[0], prices="10 12 9 10.5")))
    await fetched(calls, store, MARCH[:1])
    done = await fetched(calls, store, MARCH[:1], source="sip")
    assert (done.kept, done.added, done.changed) == (0, 0, 390)
    assert store.fetched("AAPL") == {MARCH[0].date: "sip"}


async def test_a_session_without_a_bar_is_told_and_asked_for_again(
    peer: Peer, calls: DataCalls, store: BarStore
) -> None:
    peer.on("GET", BARS, answer(*whole(MARCH[1])), answer())
    done = await fetched(calls, store, MARCH[:2])
    assert done.empty == (MARCH[0].date,)
    assert (await fetched(calls, store, MARCH[:2])).kept == 1


async def test_a_session_that_is_not_over_is_taken_as_far_as_it_is_and_fetched_again(
    peer: Peer, calls: DataCalls, store: BarStore
) -> None:
    session = MARCH[0]
    peer.on("GET", BARS, answer(*whole(session)[:60]), answer(*whole(session)), answer(*whole(session)))
    at_half_past_ten = session.open + timedelta(minutes=60, seconds=20)
    done = await fetched(calls, store, [session], now=lambda: at_half_past_ten)
    assert done.bars == 60
    assert peer.received[0].query["end"] == "2024-03-04T15:29:59.999999+00:00"  # the minute that is over
    done = await fetched(calls, store, [session], now=lambda: session.close + timedelta(minutes=1))
    assert (done.kept, done.added) == (0, 330)
    assert store.fetched("AAPL") == {}  # corrections may still come
    done = await fetched(calls, store, [session], now=lambda: session.close + timedelta(minutes=15))
    assert (done.kept, done.added, done.changed) == (0, 0, 0)
    assert store.fetched("AAPL") == {session.date: "iex"}


async def test_extended_hours_are_left_and_bars_that_cannot_be_true_are_named(
    peer: Peer, calls: DataCalls, store: BarStore
) -> None:
    first, second = MARCH[:2]
    evening = row(first.close + timedelta(minutes=30))
    bad = row(first.open, "10 9 9 10")
    peer.on("GET", BARS, answer(bad, *whole(first)[1:], evening, *whole(second)))
    done = await fetched(calls, store, MARCH[:2])
    assert (done.bars, done.faulty) == (779, ("AAPL 2024-03-04 14:30: open or close lies outside low and high",))


async def test_a_provider_out_of_breath_is_waited_for(peer: Peer, calls: DataCalls, store: BarStore) -> None:
    limited = Answer(status=429, text="", headers={"Retry-After": "0.1"})
    peer.on("GET", BARS, Answer(status=503, text=""), limited, reset, answer(*whole(MARCH[0])))
    assert (await fetched(calls, store, MARCH[:1])).bars == 390
    assert len(peer.received) == 4


async def test_what_came_before_a_refusal_stays(peer: Peer, calls: DataCalls, store: BarStore) -> None:
    refused = Answer(status=403, body={"message": "subscription does not permit querying recent SIP data"})
    peer.on("GET", BARS, answer(*whole(*MARCH[:10])), refused)
    with pytest.raises(OrderRefused, match="recent SIP data"):
        await fetched(calls, store)
    assert len(store.fetched("AAPL")) == 10
    peer.on("GET", BARS, Answer(status=401, body={"message": "unauthorized."}))
    with pytest.raises(NotAuthorized):
        await fetched(calls, store)


# --- the command ------------------------------------------------------------------------------------------------------


def environment(data_dir: Path, **broker: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ALGO_", "DJANGO_"))}
    settings = {f"ALGO_BROKER__{name}": value for name, value in broker.items()}
    return kept | settings | {"ALGO_ENV_FILE": os.devnull, "ALGO_DATA_DIR": str(data_dir)}


def command(*options: str, symbols: str = "AAPL", start: str = "2024-03-04", end: str = "2024-03-04") -> list[str]:
    dates = ["--start-date", start, "--end-date", end]
    return [sys.executable, str(ROOT / "manage.py"), "fetchbars", "--symbols", symbols, *dates, *options]


async def run(data_dir: Path, *arguments: str, **broker: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of the command."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        env=environment(data_dir, **broker),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(120):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def keys(peer: Peer, **changes: str) -> dict[str, str]:
    urls = {"DATA_URL": peer.url, "TRADING_URL": peer.url}
    streams = {"DATA_STREAM_URL": peer.data_stream_url, "TRADING_STREAM_URL": peer.trading_stream_url}
    return {"API_KEY": "key", "SECRET_KEY": "secret", **urls, **streams, **changes}


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (
            Answer(status=403, body={"message": "subscription does not permit querying recent SIP data"}),
            "Refused: the last 15 minutes of the sip feed are for subscribers alone: ",
        ),
        (Answer(status=401, body={"message": "unauthorized."}), "The provider refuses the keys: "),
        (Answer(status=400, body={"message": "invalid symbol"}), "The provider refuses the request for the sip feed: "),
    ],
)
async def test_a_refusal_is_explained_in_one_line(peer: Peer, tmp_path: Path, refusal: Answer, said: str) -> None:
    peer.on("GET", "/market/clock", Answer(status=404, text=""))
    peer.on("GET", BARS, answer(), refusal)
    status, out, err = await run(tmp_path, *command(), **keys(peer, FEED="sip"))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(said)


async def test_a_symbol_that_the_provider_does_not_have_is_named_after_the_others(peer: Peer, tmp_path: Path) -> None:
    peer.on("GET", "/market/clock", Answer(status=404, text=""))
    peer.on("GET", BARS, answer(), answer(), answer(*whole(MARCH[0]), symbol="MSFT"))
    status, out, err = await run(tmp_path, *command(symbols="AAPL,MSFT"), **keys(peer))
    assert "MSFT: 1 sessions with 390 bars fetched, 390 new" in out
    assert (status, err) == (1, "the provider has no bars of AAPL from 2024-03-04 to 2024-03-04\n")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"start": "2024-03-05"}, "the end date 2024-03-04 lies before the start date 2024-03-05"),
        ({"start": "2024-03-02", "end": "2024-03-03"}, "there is no trading session from 2024-03-02 to 2024-03-03"),
        ({"start": "2045-03-06", "end": "2045-03-07"}, "no session from 2045-03-06 to 2045-03-07 has begun: it is "),
        ({"start": "1990-03-05"}, "1990-03-05 lies outside the exchange calendar"),
    ],
)
def test_dates_that_cannot_be_fetched(settings: LazySettings, asked: dict[str, str], said: str) -> None:
    broker = {"broker.provider": "alpaca", "broker.api_key": "key", "broker.secret_key": "secret"}
    settings.ALGO = settings.ALGO.with_overrides(broker)
    with pytest.raises(UserError, match=said):
        call_command(*command(**asked)[2:])


async def test_without_keys_there_is_no_provider(tmp_path: Path) -> None:
    status, out, err = await run(tmp_path, *command())
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("there is no provider to fetch from: set ALGO_BROKER__API_KEY")
    assert (await run(tmp_path, *command(start="yesterday")))[0] == 2


# --- against the market, and killed -----------------------------------------------------------------------------------

KILLS = 3
SPAN = {"symbols": "AAPL,MSFT", "start": "2024-12-09", "end": "2025-03-03"}
SESSIONS = calendar.sessions(date(2024, 12, 9), date(2025, 3, 3))


@pytest.fixture
def market(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The built-in market in a process of its own, on its own bars; yields what it says about how to reach it."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "manage.py"), "runmarket", "--port", "0"],
        env=environment(tmp_path / "market"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        settings: dict[str, str] = {}
        while "SECRET_KEY" not in settings:
            name, _, value = process.stdout.readline().strip().partition("=")
            settings[name.removeprefix("ALGO_BROKER__")] = value
        yield settings
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def whole_sessions(data_dir: Path) -> int:
    """How many sessions the store calls whole; each of them must be."""
    count = 0
    store = BarStore(data_dir / "bars")
    for symbol in ("AAPL", "MSFT"):
        marks = store.fetched(symbol)
        bars = store.read(symbol, store.years(symbol))
        for session in SESSIONS:
            if session.date in marks:
                assert bars.index_at(session.close) - bars.index_at(session.open) == 390 - 180 * is_half(session)
                count += 1
    return count


def is_half(session: Session) -> bool:
    return calendar.is_half_day(session.date)


def test_a_fetch_that_is_killed_again_and_again_goes_on_and_ends_as_one_that_never_was(
    market: dict[str, str], tmp_path: Path
) -> None:
    done = 0
    for _ in range(KILLS):
        process = subprocess.Popen(command(**SPAN), env=environment(tmp_path / "killed", **market), cwd=ROOT)
        deadline = time.monotonic() + 120
        while process.poll() is None and whole_sessions(tmp_path / "killed") <= done:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the fetch was over before it could be killed"
        done, before = whole_sessions(tmp_path / "killed"), done
        assert before < done < 2 * len(SESSIONS)
    runs = {
        name: subprocess.run(
            command(**SPAN),
            env=environment(tmp_path / name, **market),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        for name in ("killed", "straight")
    }
    aapl, msft = runs["killed"].stdout.splitlines()
    kept = [int(line.split("; ")[1].split(", ")[2].split()[0]) for line in (aapl, msft)]
    assert sum(kept) == done
    assert runs["straight"].stdout.startswith(f"AAPL: {len(SESSIONS)} sessions with ")
    for symbol in ("AAPL", "MSFT"):
        stored = [tmp_path / name / "bars" / symbol for name in ("killed", "straight")]
        assert json.loads((stored[0] / "fetched.json").read_text()) == json.loads(
            (stored[1] / "fetched.json").read_text()
        )
        for year in (2024, 2025):
            one, other = ((folder / f"{year}.parquet").read_bytes() for folder in stored)
            assert one == other
