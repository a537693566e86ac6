"""Writing down what happened, also while the ledger takes nothing: then in memory and in the emergency journal."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from trading import store
from trading.batch import Batch, from_text, to_text
from trading.live.emergency import EmergencyJournal, JournalFull
from trading.live.ledger import Ledger, LedgerUnavailable

log = structlog.get_logger("engine")

Value = TypeVar("Value")

TRIES_SECONDS = 2.0  # what fails at once is tried again for so long
LONGEST_PAUSE_SECONDS = 0.5
URGENT_SECONDS = 2.0  # a protective order waits no longer for the ledger
TRY_AGAIN_SECONDS = 1.0
JOURNAL_SECONDS = 2.0
PULSE_SECONDS = 0.5
STOOD_STILL_SECONDS = 4.0  # `manage.py flatten` waits longer for an answer before it takes the lease
CONFIRM_SECONDS = 30.0


class LedgerWriter:
    """Writes batches in order. `problem` says why it cannot, and is empty while it can.

    While there is a problem, batches wait in memory and in the journal; `run` tries again every second, and once
    everything is written, `on_regained` is called. `on_lost` is told when it begins and `on_full` when the journal can
    take no more. `token` is that of our lease: without it nothing is written.

    A process that stood still (`clock` tells its seconds, also of a machine that slept) may have lost the lease
    meanwhile: see `confirm`. Losing it is final.
    """

    def __init__(
        self,
        ledger: Ledger,
        journal: EmergencyJournal,
        *,
        token: str,
        patience_seconds: float,
        on_lost: Callable[[str], None],
        on_regained: Callable[[], None],
        on_full: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.problem = ""
        self.waiting: deque[Batch] = deque()
        self._ledger = ledger
        self._journal = journal
        self._token = token
        self._patience_seconds = patience_seconds
        self._on_lost = on_lost
        self._on_regained = on_regained
        self._on_full = on_full
        self._lost = asyncio.Event()
        self._trying = asyncio.Lock()
        self._clock = clock
        self._pulse_at: float | None = None  # None: nobody feels it
        self._must_confirm = False
        self._confirming = asyncio.Lock()
        self._lease_lost: store.LeaseLost | None = None

    async def write(self, batch: Batch, *, urgent: bool = False) -> list[int] | None:
        """The ids of the batch's activities; None if it waits to be written. An `urgent` one waits at once if need be.

        Raises:
            LeaseLost, StaleOrder, UnfaithfulRecord: the ledger is there and refuses; nothing may be done.
        """
        if self._lease_lost is not None:
            raise self._lease_lost
        if not self.problem:
            patience = URGENT_SECONDS if urgent else self._patience_seconds + TRIES_SECONDS
            try:
                return await self._within(patience, self._insist(batch))
            except LedgerUnavailable as error:
                self.lost(str(error))
            except store.LeaseLost as error:
                self.lease_is_lost(error)
                raise
        await self.confirm()
        self.waiting.append(batch)
        await self._note(batch)
        return None

    async def confirm(self) -> None:
        """To be called before anything is sent that was not written a moment ago: the lease is ours.

        While this process runs nobody takes it, so this costs nothing. One that stood still asks. If the ledger does
        not answer for half a minute, what protects shares goes out all the same.

        Raises:
            LeaseLost: somebody took over meanwhile; nothing may be done.
        """
        self._feel_pulse()
        async with self._confirming:
            deadline = asyncio.get_running_loop().time() + CONFIRM_SECONDS
            while self._must_confirm and self._lease_lost is None:
                self._must_confirm = False  # unless it stands still once more meanwhile
                try:
                    beating = self._ledger.run(store.beat, self._token)
                    await self._within(self._patience_seconds + TRIES_SECONDS, beating)
                except store.LeaseLost as error:
                    self.lease_is_lost(error)
                except LedgerUnavailable as error:
                    if asyncio.get_running_loop().time() >= deadline:
                        log.critical("lease.unconfirmed", reason=str(error))
                        break
                    self._must_confirm = True
                    await asyncio.sleep(PULSE_SECONDS)
        if self._lease_lost is not None:
            raise self._lease_lost

    def lease_is_lost(self, error: store.LeaseLost) -> None:
        """From now on nothing is written or noted, whatever becomes of the ledger."""
        self._lease_lost = error

    def _feel_pulse(self) -> None:
        now = self._clock()
        if self._pulse_at is not None:
            if now - self._pulse_at > STOOD_STILL_SECONDS:
                log.warning("engine.stood_still", seconds=round(now - self._pulse_at, 1))
                self._must_confirm = True
            self._pulse_at = now

    async def keep_pulse(self) -> None:
        """Feels for ever whether this process runs."""
        self._pulse_at = self._clock()
        try:
            while True:
                await asyncio.sleep(PULSE_SECONDS)
                self._feel_pulse()
        finally:
            self._pulse_at = None

    async def read(self, work: Callable[..., Value], *args: Any, **kwargs: Any) -> Value:
        """What a store function says. Raises LedgerUnavailable, at once while there is a problem."""
        if self.problem:
            raise LedgerUnavailable(self.problem)
        try:
            reading = self._ledger.run(work, *args, **kwargs)
            return await self._within(self._patience_seconds + TRIES_SECONDS, reading)
        except LedgerUnavailable as error:
            self.lost(str(error))
            raise

    def lost(self, reason: str) -> None:
        """From now on nothing is written until that works again."""
        if not self.problem:
            self.problem = reason
            self._lost.set()
            log.critical("ledger.lost", reason=reason)
            self._on_lost(reason)

    async def run(self) -> None:
        """Tries again and again while there is a problem, for ever. Raises what `write` raises."""
        while True:
            await self._lost.wait()
            await asyncio.sleep(TRY_AGAIN_SECONDS)
            await self.try_again()

    async def try_again(self) -> bool:
        """Writes what waits, oldest first; whether nothing waits any more and the ledger can be written."""
        async with self._trying:
            try:
                while self.problem:
                    await self._write_waiting()
                    await self._ledger.run(store.beat, self._token)
                    if not self.waiting:
                        self._regained()
            except LedgerUnavailable as error:
                log.warning("ledger.still_lost", reason=str(error), waiting=len(self.waiting))
            except store.LeaseLost as error:
                self.lease_is_lost(error)
                raise
            return not self.problem

    async def _write_waiting(self) -> None:
        while self.waiting:
            await self._ledger.run(store.write_once, store.prepare(self.waiting[0]), token=self._token)
            self.waiting.popleft()

    def _regained(self) -> None:
        try:
            self._journal.clear()
        except OSError as error:
            log.error("ledger.journal_not_cleared", reason=str(error))  # what is in it will be found written
        log.warning("ledger.regained", was=self.problem)
        self.problem = ""
        self._lost.clear()
        self._on_regained()

    async def _insist(self, batch: Batch) -> list[int]:
        """One attempt and, while the ledger cannot be reached, more of them: an earlier one may have got through."""
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(LedgerUnavailable),
            stop=stop_after_delay(TRIES_SECONDS),
            wait=wait_random_exponential(multiplier=0.05, max=LONGEST_PAUSE_SECONDS),
            sleep=asyncio.sleep,
            reraise=True,
        )
        prepared = store.prepare(batch)
        async for attempt in attempts:
            with attempt:
                write = store.write_batch if attempt.retry_state.attempt_number == 1 else store.write_once
                return await self._ledger.run(write, prepared, token=self._token)
        raise AssertionError("the last attempt returns or raises")

    async def _within(self, seconds: float, work: Awaitable[Value]) -> Value:
        """A transaction that takes longer goes on in its thread; what became of it is seen when it is tried again."""
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError:
            raise LedgerUnavailable(f"no answer within {seconds:g} s") from None

    async def _note(self, batch: Batch) -> None:
        """In the journal too, before anything is done about it. Without it memory has to do."""
        loop = asyncio.get_running_loop()
        writing = loop.run_in_executor(None, partial(self._journal.append, to_text(batch)))
        try:
            async with asyncio.timeout(JOURNAL_SECONDS):
                await asyncio.shield(writing)
        except JournalFull:
            log.critical("ledger.journal_full", waiting=len(self.waiting))
            self._on_full()
        except (OSError, TimeoutError) as error:
            log.critical("ledger.journal_failed", reason=str(error) or type(error).__name__)


def write_left_over(journal: EmergencyJournal) -> int:
    """Writes what an earlier process could only note in the journal, and empties it; how many batches that were.

    What does not fit any more is logged and left to reconciliation with the broker. Blocks; the caller is the only one
    that writes. Raises OSError, and what the database raises.
    """
    entries = journal.entries()
    for entry in entries:
        try:
            store.write_once(store.prepare(from_text(entry)))
        except (ValueError, *store.DOES_NOT_FIT) as error:
            log.critical("ledger.journal_entry_refused", reason=str(error), entry=entry)
    if entries:
        journal.clear()
        log.warning("ledger.journal_written", batches=len(entries))
    return len(entries)
