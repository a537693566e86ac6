"""Brings history from the provider into the bar store by a few sessions at a time, so that a killed fetch goes on."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np

from trading.columns import BarColumns, to_seconds, to_units
from trading.live.barstore import BarStore
from trading.live.calls import DataCalls
from trading.market import Bar, Session

# Ten sessions with their extended hours are at most 9 600 minutes: one page of the provider's.
SESSIONS_PER_REQUEST = 10
# A session counts as whole when its last minutes cannot change any more.
SETTLED_AFTER = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a fetch did for one symbol.

    `sessions` were asked for now, `kept` had been fetched whole before, `empty` ones hold no bar. `faulty` bars cannot
    be true and were left out.
    """

    symbol: str
    sessions: int
    kept: int
    empty: tuple[date, ...]
    bars: int
    added: int
    changed: int
    faulty: tuple[str, ...]


async def fetch(
    calls: DataCalls,
    store: BarStore,
    symbol: str,
    sessions: Sequence[Session],
    *,
    source: str,
    now: Callable[[], datetime],
    on_sessions: Callable[[int], None] = lambda count: None,
) -> Fetched:
    """Fetches the sessions of one symbol that were not yet fetched whole from this source; those to come are none.

    After each request its bars are stored, then its sessions that are over and hold bars are marked as whole: whatever
    happens in between, the next fetch goes on from there. `on_sessions` is told how many sessions are done with.

    Raises:
        BrokerError: the provider's last word on a request, after all attempts.
        BrokenStore: a file of the store cannot be read.
        OSError: the store cannot be written.
    """
    marks = store.fetched(symbol)
    wanted = [session for session in sessions if marks.get(session.date) != source]
    on_sessions(len(sessions) - len(wanted))
    empty: list[date] = []
    faulty: list[str] = []
    bars = added = changed = 0
    for chunk in _chunks(wanted, sessions):
        asked_at = now()
        # The provider also has the minute that is still running.
        end = min(chunk[-1].close, asked_at.replace(second=0, microsecond=0))
        came = await calls.history(symbol, start=chunk[0].open, end=end)
        faulty += [f"{symbol} {bar.timestamp:%Y-%m-%d %H:%M}: {bar.fault}" for bar in came if bar.fault]
        columns = _columns(symbol, (bar for bar in came if not bar.fault)).within(chunk)
        merged = store.merge(columns)[0]
        counts = [columns.index_at(session.close) - columns.index_at(session.open) for session in chunk]
        store.mark_fetched(
            symbol,
            [
                session.date
                for session, count in zip(chunk, counts, strict=True)
                if count and session.close + SETTLED_AFTER <= asked_at
            ],
            source=source,
        )
        empty += [session.date for session, count in zip(chunk, counts, strict=True) if not count]
        bars, added, changed = bars + len(columns), added + merged.added, changed + merged.changed
        on_sessions(len(chunk))
    return Fetched(
        symbol=symbol,
        sessions=len(wanted),
        kept=len(sessions) - len(wanted),
        empty=tuple(empty),
        bars=bars,
        added=added,
        changed=changed,
        faulty=tuple(faulty),
    )


def _chunks(wanted: Sequence[Session], sessions: Sequence[Session]) -> Iterator[list[Session]]:
    """Sessions to ask for together: none that is not wanted lies between them."""
    place = {session.date: number for number, session in enumerate(sessions)}
    chunk: list[Session] = []
    for session in wanted:
        if chunk and (len(chunk) == SESSIONS_PER_REQUEST or place[session.date] != place[chunk[-1].date] + 1):
            yield chunk
            chunk = []
        chunk.append(session)
    if chunk:
        yield chunk


def _columns(symbol: str, bars: Iterable[Bar]) -> BarColumns:
    """Bars as columns, in order of time; of two bars of one minute the later one counts."""
    by_minute = {bar.timestamp: bar for bar in bars}
    ordered = [by_minute[minute] for minute in sorted(by_minute)]

    def column(values: Iterable[int]) -> "np.typing.NDArray[np.int64]":
        return np.fromiter(values, dtype=np.int64, count=len(ordered))

    return BarColumns(
        symbol=symbol,
        timestamps=column(to_seconds(bar.timestamp) for bar in ordered),
        open=column(to_units(bar.open) for bar in ordered),
        high=column(to_units(bar.high) for bar in ordered),
        low=column(to_units(bar.low) for bar in ordered),
        close=column(to_units(bar.close) for bar in ordered),
        volume=column(bar.volume for bar in ordered),
    )
