"""From minutes to candles, live and from history: what is sound, new and complete reaches the strategies, in order."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from trading.books import Book, Feed, Line
from trading.candles import Candle
from trading.indicators import IndicatorSet
from trading.journal import Journal
from trading.market import Bar, Session
from trading.messages import CandleClosed, HistoryDelivered, Level, RequestHistory
from trading.timers import Kind, Timers


class OnCandle(Protocol):
    """Told of every completed candle, once; without `may_signal` it cannot even lead to a refused entry."""

    def __call__(
        self,
        book: Book,
        line: Line,
        candle: Candle,
        indicators: IndicatorSet,
        session: Session,
        *,
        is_live: bool,
        may_signal: bool,
    ) -> None: ...


class Tape:
    """Feeds every book's candles and averages. `last_prices` are the closes of each symbol's last delivered bar.

    With `makes_candles` False they are made elsewhere, in order and on time, and only pass through.
    """

    def __init__(self, *, journal: Journal, timers: Timers, on_candle: OnCandle, makes_candles: bool = True) -> None:
        self.session: Session | None = None
        self.last_prices: dict[str, Decimal] = {}
        self.rejected_bars = 0
        self.late_bars = 0
        self._journal = journal
        self._timers = timers
        self._on_candle = on_candle
        self._makes_candles = makes_candles

    def start_session(self, session: Session, books: Iterable[Book]) -> None:
        """Windows are counted from this session's open."""
        self.session = session
        if not self._makes_candles:
            return
        for book in books:
            for feed in book.feeds:
                if feed.aggregator.session != session:
                    book.seen.clear()
                    feed.aggregator.start_session(session)
                self._schedule_grace(book, feed)

    # --- bars ---------------------------------------------------------------------------------------------------------

    def take(self, book: Book, bar: Bar) -> bool:
        """Whether the bar is of this session, sound and new; its close becomes the symbol's last price."""
        if self.session is None or not self.session.contains(bar.timestamp):
            return False
        if fault := bar.fault:
            self.rejected_bars += 1
            self._journal.note(book.symbol, f"bar {bar.timestamp:%H:%M} rejected: {fault}", level=Level.ERROR)
            return False
        if bar.timestamp in book.seen:
            return False
        if all(feed.aggregator.is_late(bar) for feed in book.feeds):
            self.late_bars += 1
            self._journal.note(book.symbol, f"bar {bar.timestamp:%H:%M} came after its candle was closed; dropped")
            return False
        book.seen.add(bar.timestamp)
        if book.latest_bar_at is None or bar.timestamp > book.latest_bar_at:
            book.latest_bar_at = bar.timestamp
            self.last_prices[book.symbol] = bar.close
        return True

    def feed(self, book: Book, bar: Bar, *, is_live: bool) -> None:
        """A bar that was taken goes into its candles."""
        for feed in book.feeds:
            self._complete(book, feed, feed.aggregator.add(bar), is_live=is_live)

    def _complete(
        self, book: Book, feed: Feed, candles: Iterable[Candle], *, is_live: bool, may_signal: bool = True
    ) -> None:
        session = feed.aggregator.session
        for candle in candles:
            for line in feed.lines:
                is_new = line.latest_candle is None or candle.timestamp > line.latest_candle.timestamp
                indicators = line.latest = line.indicators.add(candle.close)
                closed = CandleClosed(
                    candle=candle,
                    interval_minutes=feed.interval_minutes,
                    strategy=line.strategy.name,
                    indicators=indicators,
                    is_live=is_live,
                )
                self._journal.add(closed)
                if is_new and session is not None:
                    line.latest_candle = candle
                    self._on_candle(book, line, candle, indicators, session, is_live=is_live, may_signal=may_signal)
        if may_signal:  # history that rebuilds is over before time goes on: one timer at its end will do
            self._schedule_grace(book, feed)

    # --- windows whose minutes do not come ----------------------------------------------------------------------------

    def _schedule_grace(self, book: Book, feed: Feed) -> None:
        due = feed.aggregator.due()
        if due is None or due == feed.scheduled:
            return
        feed.scheduled = due
        self._timers.add(
            due,
            Kind.GRACE,
            index=book.index,
            still_wanted=lambda: feed.aggregator.due() == due,
            fire=lambda: self._expire_window(book, feed, due, is_live=True),
        )

    def _expire_window(self, book: Book, feed: Feed, now: datetime, *, is_live: bool) -> None:
        expired = feed.aggregator.expire(now)
        candles = expired.candles
        if expired.missing is not None:
            if is_live:
                window = expired.missing
                self._journal.add(
                    RequestHistory(
                        symbol=book.symbol,
                        interval_minutes=feed.interval_minutes,
                        start=window.start,
                        end=window.end,
                    )
                )
                return
            candles = feed.aggregator.answer(expired.missing.start, ())
        elif expired.partial is not None and is_live:
            self._journal.note(book.symbol, f"the candle at {expired.partial.start:%H:%M} lacks minutes")
        elif expired.skipped is not None and is_live:
            self._journal.note(book.symbol, f"no bars for the window at {expired.skipped.start:%H:%M}; skipped")
        self._complete(book, feed, candles, is_live=is_live, may_signal=is_live)

    # --- history ------------------------------------------------------------------------------------------------------

    def take_history(self, book: Book, history: HistoryDelivered) -> None:
        """Bars that were not live: the answer for a window, all of warm-up, or what a lost stream missed today."""
        if history.window_start is not None:
            self._answer_window(book, history, history.window_start)
        elif history.rebuilds:
            self._rebuild(book, history)
        else:
            for bar in history.bars:
                if self.take(book, bar):
                    self.feed(book, bar, is_live=False)

    def _answer_window(self, book: Book, history: HistoryDelivered, start: datetime) -> None:
        bars = [bar for bar in history.bars if self.take(book, bar)]
        if not bars:
            self._journal.note(book.symbol, f"no bars for the window at {start:%H:%M}; skipped")
        for feed in book.feeds:
            if feed.interval_minutes == history.interval_minutes:
                for candle in feed.aggregator.answer(start, bars):
                    # The window that was asked for is history; what waited behind it came live.
                    self._complete(book, feed, (candle,), is_live=candle.timestamp != start)
            else:
                for bar in bars:
                    self._complete(book, feed, feed.aggregator.add(bar), is_live=False)
            self._schedule_grace(book, feed)

    def _rebuild(self, book: Book, history: HistoryDelivered) -> None:
        """Averages start anew from whole sessions of history; candles since the entry manage an open position."""
        days: dict[Session, list[Bar]] = {session: [] for session in history.sessions}
        for bar in history.bars:
            day = next((session for session in days if session.contains(bar.timestamp)), None)
            if day is not None and bar.fault is None:
                days[day].append(bar)
        for line in book.lines():
            line.indicators.reset()
        book.seen.clear()
        for session, bars in days.items():
            if not bars and session != self.session:
                continue  # a day without a single bar has no windows to wait for
            book.seen = {bar.timestamp for bar in bars}
            if bars:
                book.latest_bar_at = bars[-1].timestamp
                self.last_prices[book.symbol] = bars[-1].close
            for feed in book.feeds:
                feed.aggregator.start_session(session)
                for bar in bars:
                    self._complete(book, feed, feed.aggregator.add(bar), is_live=False, may_signal=False)
                while (due := feed.aggregator.due()) is not None and due <= self._journal.now:
                    self._expire_window(book, feed, due, is_live=False)
        if self.session is not None and self.session not in days:
            book.seen.clear()
            for feed in book.feeds:
                feed.aggregator.start_session(self.session)
        for feed in book.feeds:
            self._schedule_grace(book, feed)
