"""History that warms up: from the bar store what it has, the rest from the provider."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from trading.columns import BarColumns
from trading.live.calls import DataCalls
from trading.market import Bar, Session

if TYPE_CHECKING:
    from trading.live.barstore import BarStore

log = structlog.get_logger("engine")

COMPARED = timedelta(minutes=5)


class History:
    """Split-adjusted minute bars of whole sessions. Of a `store` counts what was fetched whole from `source`.

    The store holds prices as they were traded. They are taken if the provider's split-adjusted history has the same
    bars in the first minutes of the earliest session: then nothing was split since, and nothing corrected there.
    """

    def __init__(self, calls: DataCalls, *, store: "BarStore | None" = None, source: str = "") -> None:
        self._calls = calls
        self._store = store
        self._source = source

    async def bars(self, symbols: Sequence[str], sessions: Sequence[Session]) -> dict[str, list[Bar]]:
        """The bars of each symbol in the sessions, which are given in order. Raises BrokerError."""
        stored = await asyncio.to_thread(self._stored, symbols, sessions)
        await self._drop_differing(stored)
        found = {symbol: columns.bars() for symbol, (_, columns) in stored.items()}
        lacking: dict[tuple[Session, Session], list[str]] = {}
        for symbol in symbols:
            days = stored[symbol][0] if symbol in stored else ()
            if gap := [session for session in sessions if session not in days]:
                lacking.setdefault((gap[0], gap[-1]), []).append(symbol)
        for (first, last), some in lacking.items():
            came = await self._calls.bars(some, start=first.open, end=last.close, split_adjusted=True)
            for symbol, bars in came.items():
                by_minute = {bar.timestamp: bar for bar in (*found.get(symbol, ()), *bars)}
                found[symbol] = [by_minute[minute] for minute in sorted(by_minute)]
        return found

    def _stored(
        self, symbols: Sequence[str], sessions: Sequence[Session]
    ) -> dict[str, tuple[Sequence[Session], BarColumns]]:
        """By symbol the sessions that the store has, and their bars."""
        found: dict[str, tuple[Sequence[Session], BarColumns]] = {}
        if self._store is None:
            return found
        from trading.live.barstore import BrokenStore

        for symbol in symbols:
            try:
                marks = self._store.fetched(symbol)
                days = [session for session in sessions if marks.get(session.date) == self._source]
                if days:
                    years = sorted({session.open.year for session in days})
                    found[symbol] = days, self._store.read(symbol, years).within(days)
            except BrokenStore as error:
                log.warning("store.broken", symbol=symbol, reason=str(error))
        return found

    async def _drop_differing(self, stored: dict[str, tuple[Sequence[Session], BarColumns]]) -> None:
        by_first: dict[Session, list[str]] = {}
        for symbol, (days, _) in stored.items():
            by_first.setdefault(days[0], []).append(symbol)
        for first, symbols in by_first.items():
            end = first.open + COMPARED
            told = await self._calls.bars(symbols, start=first.open, end=end, split_adjusted=True)
            differing = [symbol for symbol in symbols if not _agree(stored[symbol][1], told.get(symbol), until=end)]
            if differing:
                log.info("store.differs", session=first.date.isoformat(), symbols=differing)
            for symbol in differing:
                del stored[symbol]


def _agree(ours: BarColumns, theirs: Sequence[Bar] | None, *, until: datetime) -> bool:
    return bool(theirs) and ours.bars(0, ours.index_at(until)) == theirs
