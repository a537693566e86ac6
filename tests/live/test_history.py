"""History that warms up comes from the bar store where that may be relied on, and from the provider where not."""

from collections.abc import AsyncIterator, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from backtests.fetching import fetch
from tests.live.alpaca_peer import Peer
from tests.live.test_fetchbars import BARS, LATER, QUICK, answer, whole
from trading.live import calendar
from trading.live.alpaca import AlpacaData
from trading.live.alpaca_workers import Timing
from trading.live.barstore import BarStore
from trading.live.calls import DataCalls
from trading.live.history import History
from trading.market import Session

DAYS = calendar.sessions(date(2024, 3, 4), date(2024, 3, 6))
FIRST_MINUTES = whole(DAYS[0])[:5]


@pytest.fixture
async def calls(peer: Peer) -> AsyncIterator[DataCalls]:
    data = AlpacaData("key", "secret", data_url=peer.url, timing=Timing(read_seconds=5))
    yield DataCalls(data, waits=QUICK)
    await data.disconnect()


@pytest.fixture
async def store(peer: Peer, calls: DataCalls, tmp_path: Path) -> BarStore:
    """The first two of three days were fetched from the IEX feed."""
    store = BarStore(tmp_path / "bars")
    peer.on("GET", BARS, answer(*whole(*DAYS[:2])))
    await fetch(calls, store, "AAPL", DAYS[:2], source="iex", now=lambda: LATER)
    peer.received.clear()
    return store


async def closes(history: History, sessions: Sequence[Session]) -> list[Decimal]:
    return [bar.close for bar in (await history.bars(["AAPL"], sessions))["AAPL"]]


def asked(peer: Peer) -> list[tuple[str, str]]:
    return [(each.query["start"][:16], each.query["end"][:16]) for each in peer.received if each.path == BARS]


async def test_what_the_store_has_is_only_compared_with_the_provider(
    peer: Peer, calls: DataCalls, store: BarStore
) -> None:
    peer.on("GET", BARS, answer(*FIRST_MINUTES))
    assert await closes(History(calls, store=store, source="iex"), DAYS[:2]) == [Decimal("10.5")] * 780
    assert asked(peer) == [("2024-03-04T14:30", "2024-03-04T14:34")]


async def test_only_the_days_that_the_store_lacks_are_fetched(peer: Peer, calls: DataCalls, store: BarStore) -> None:
    peer.on("GET", BARS, answer(*FIRST_MINUTES), answer(*whole(DAYS[2], prices="10 11 9 11")))
    assert (
        await closes(History(calls, store=store, source="iex"), DAYS) == [Decimal("10.5")] * 780 + [Decimal("11")] * 390
    )
    assert asked(peer)[1:] == [("2024-03-06T14:30", "2024-03-06T20:59")]


async def test_after_a_split_all_of_it_comes_from_the_provider(peer: Peer, calls: DataCalls, store: BarStore) -> None:
    halved = whole(*DAYS[:2], prices="5 5.5 4.5 5.25")
    peer.on("GET", BARS, answer(*halved[:5]), answer(*halved))
    assert await closes(History(calls, store=store, source="iex"), DAYS[:2]) == [Decimal("5.25")] * 780
    assert [each.query["adjustment"] for each in peer.received] == ["split", "split"]


async def test_bars_of_another_feed_do_not_count(peer: Peer, calls: DataCalls, store: BarStore) -> None:
    peer.on("GET", BARS, answer(*whole(*DAYS[:2], prices="10 11 9 10.6")))
    assert await closes(History(calls, store=store, source="sip"), DAYS[:2]) == [Decimal("10.6")] * 780
    assert len(peer.received) == 1


async def test_a_broken_store_is_as_none(peer: Peer, calls: DataCalls, store: BarStore) -> None:
    (store.folder / "AAPL" / "2024.parquet").write_bytes(b"nothing")
    peer.on("GET", BARS, answer(*whole(*DAYS[:2], prices="10 11 9 10.6")))
    assert await closes(History(calls, store=store, source="iex"), DAYS[:2]) == [Decimal("10.6")] * 780
