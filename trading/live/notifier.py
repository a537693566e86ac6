"""Tells people through Apprise, in a thread of its own: the engine leaves a notice and goes on."""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from django.db import Error as DatabaseError
from django.db import close_old_connections

from orders import store as order_store
from risk import store as risk_store
from trading import notification_store as store
from trading.messages import ActivityRecorded
from trading.notices import Notice, notice_of, summary
from trading.notification_store import Channel

if TYPE_CHECKING:
    from trading.live.engine import Engine
    from trading.market import Session

log = structlog.get_logger("notifier")

MOST_WAITING = 200
LAST_WORDS_SECONDS = 2.0
LOOK_SECONDS = 1.0
AFTER_CLOSE = timedelta(minutes=2)  # the last minute's bar and what it led to have been worked off
NOT_SENT = "the service refused it or could not be reached"


class Notifier:
    """A bounded queue and the thread that empties it. What does not fit is dropped, counted and logged."""

    def __init__(
        self,
        *,
        channels: Callable[[], Sequence[Channel]] = store.channels,
        note_outcome: Callable[..., None] = store.note_outcome,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self.dropped = 0
        self._channels = channels
        self._note_outcome = note_outcome
        self._waiting: queue.Queue[Notice | None] = queue.Queue(maxsize=most_waiting)
        self._thread = threading.Thread(target=self._work, name="notifier", daemon=True)

    def start(self) -> None:
        """From now on notices go out."""
        self._thread.start()

    def stop(self) -> None:
        """Gives what waits a last moment; the thread ends with the process anyway."""
        self._put(None)
        self._thread.join(LAST_WORDS_SECONDS)

    def activity(self, record: ActivityRecorded) -> None:
        """Tells of an activity, if its kind is told at all. Never waits."""
        if notice := notice_of(record):
            self.tell(notice)

    def tell(self, notice: Notice) -> None:
        """Leaves a notice for the thread. Never waits."""
        self._put(notice)

    def _put(self, notice: Notice | None) -> None:
        try:
            self._waiting.put_nowait(notice)
        except queue.Full:
            self.dropped += 1
            log.warning("notice.dropped", dropped=self.dropped)

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (notice := self._waiting.get()) is not None:
            close_old_connections()
            try:
                deliver(notice, channels=self._channels, note_outcome=self._note_outcome)
            except DatabaseError as error:
                log.warning("notice.no_channels", reason=str(error))


def deliver(
    notice: Notice,
    *,
    channels: Callable[[], Sequence[Channel]] = store.channels,
    note_outcome: Callable[..., None] = store.note_outcome,
) -> None:
    """Sends a notice now, which may take some seconds, through the channels that want it, and notes what came of it."""
    for channel in channels():
        if channel.is_enabled and notice.kind in channel.events:
            error = send(channel, notice)
            if error:
                log.warning("notice.failed", channel=channel.name, kind=notice.kind, reason=error)
            note_outcome(channel.id, error=error, real_at=datetime.now(UTC))


def send(channel: Channel, notice: Notice) -> str:
    """Sends one notice now, which may take some seconds; why it could not be sent, empty if it was.

    The address is in no message: Apprise's own log, which may have it, is not heard.
    """
    import apprise  # brings a hundred services with it, so only where something is sent

    logging.getLogger("apprise").disabled = True
    sender = apprise.Apprise()
    if not sender.add(channel.url):
        return "the address is not one that Apprise understands"
    return "" if sender.notify(body=notice.text, title=notice.title) else NOT_SENT


# --- the end of the day -----------------------------------------------------------------------------------------------


async def keep_summaries(engine: "Engine") -> None:
    """Writes down what each session came to, a little after its close, for ever; so it is told like any activity."""
    told: date | None = None
    running: Session | None = None
    while True:
        session = engine.trader.session
        over = running if running is not None and running is not session else session
        if over is not None and over.date != told and (over is not session or _is_over(engine, over)):
            told = over.date
            await engine.note(await _summary(engine, over))
        running = session
        await asyncio.sleep(LOOK_SECONDS)


def _is_over(engine: "Engine", session: "Session") -> bool:
    return engine.clock() >= session.close + AFTER_CLOSE


async def _summary(engine: "Engine", session: "Session") -> ActivityRecorded:
    trader = engine.trader
    trades = await engine.ledger.run(
        order_store.trades_of_session, trader.account_id, since=session.open, until=session.close + AFTER_CLOSE
    )
    held = [symbol for symbol, position in trader.portfolio.positions.items() if position.entry_at < session.close]
    start_equity, equity = trader.start_equity, trader.equity()
    if trader.session is not session:  # the next one has begun: with what this one left behind
        row = await engine.ledger.run(risk_store.load_session, trader.account_id, session.date)
        start_equity, equity = row.start_equity if row else trader.start_equity, trader.start_equity
    return summary(session.date, trades, at=engine.clock(), start_equity=start_equity, equity=equity, held=held)
