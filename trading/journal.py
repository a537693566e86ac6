"""What the Trader answers to one event, in the order in which it is to be written down and carried out."""

from collections.abc import Callable
from datetime import UTC, datetime

from orders.lifecycle import Order
from trading.messages import ActivityRecorded, ActivityType, Command, Level, Noted, Record

Words = str | Callable[[], str]  # a text, or what makes it when it is wanted


class Journal:
    """Collects commands and records; `now` is the market time of the latest event and never goes back.

    Without `keeps_records` nobody reads what is not to be carried out: it is not even made.
    """

    def __init__(self, *, keeps_records: bool = True) -> None:
        self.now = datetime.min.replace(tzinfo=UTC)
        self.answers: list[Command | Record] = []
        self.keeps_records = keeps_records

    def open(self, now: datetime) -> list[Command | Record]:
        """Begins the answer to an event of that time."""
        if now > self.now:
            self.now = now
        answers: list[Command | Record] = []
        self.answers = answers
        return answers

    def add(self, answer: Command | Record) -> None:
        """One more command, or a record that is always wanted."""
        self.answers.append(answer)

    def record(self, make: Callable[[], Record]) -> None:
        """One more record, made by `make` if records are kept."""
        if self.keeps_records:
            self.answers.append(make())

    def say(
        self,
        kind: ActivityType,
        symbol: str,
        words: Words,
        *,
        correlation_id: str = "",
        level: Level = Level.INFO,
    ) -> None:
        """One line for the activity feed."""
        if self.keeps_records:
            message = words if isinstance(words, str) else words()
            self.answers.append(
                ActivityRecorded(
                    at=self.now, type=kind, symbol=symbol, message=message, correlation_id=correlation_id, level=level
                )
            )

    def say_of(self, order: Order, kind: ActivityType, words: Words, *, level: Level = Level.INFO) -> None:
        """One line for the activity feed about an order."""
        if not self.keeps_records:
            return
        self.say(kind, order.symbol, words, correlation_id=order.correlation_id, level=level)

    def note(self, symbol: str, message: str, *, level: Level = Level.WARNING) -> None:
        """One line for the log alone."""
        if self.keeps_records:
            self.answers.append(Noted(at=self.now, symbol=symbol, message=message, level=level))
