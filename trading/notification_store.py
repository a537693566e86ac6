"""The bridge to the channels through which people are told things. Their addresses are secrets."""

from dataclasses import dataclass, field
from datetime import datetime

from django.db import transaction
from django.db.models import F

from trading.models import NotificationChannel


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """Where to tell what: the kinds of events in `events`. `url` is a secret, so it is in no representation."""

    id: int
    name: str
    url: str = field(repr=False)
    events: tuple[str, ...]
    is_enabled: bool
    sent: int
    failed: int
    last_sent_at: datetime | None
    last_error: str

    @property
    def shown_url(self) -> str:
        """The service alone."""
        return f"{self.url.partition('://')[0]}://********"


def channels() -> list[Channel]:
    """All channels, by name. One query, without a transaction: on SQLite that would take the engine's turn to write."""
    return [_channel(row) for row in NotificationChannel.objects.order_by("name")]


@transaction.atomic
def find_channel(channel_id: int) -> Channel | None:
    """The channel of that id."""
    row = NotificationChannel.objects.filter(id=channel_id).first()
    return _channel(row) if row else None


@transaction.atomic
def note_outcome(channel_id: int, *, error: str, real_at: datetime) -> None:
    """Writes down whether a message went out; `error` is empty if it did."""
    rows = NotificationChannel.objects.filter(id=channel_id)
    if error:
        rows.update(failed=F("failed") + 1, last_error=error)
    else:
        rows.update(sent=F("sent") + 1, last_error="", last_sent_at=real_at)


def _channel(row: NotificationChannel) -> Channel:
    return Channel(
        id=row.pk,
        name=row.name,
        url=row.url,
        events=tuple(row.events),
        is_enabled=row.is_enabled,
        sent=row.sent,
        failed=row.failed,
        last_sent_at=row.last_sent_at,
        last_error=row.last_error,
    )
