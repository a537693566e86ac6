"""What one event led to, as one transaction of the ledger; and as a line of text, for when the ledger takes none."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from orders.encoding import decimal_text, decode, decode_fact, encode, encode_fact, timestamp
from orders.lifecycle import Order
from orders.portfolio import Trade
from trading.market import Session
from trading.messages import ActivityRecorded, HaltRecorded, OrderRecorded, Record, SessionRecorded, TradeRecorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Records to be written together or not at all.

    `real_at`, by the wall clock, tells it from every other batch of its account: it is on every row.
    """

    account_id: str
    run_id: int | None
    settings_hash: str
    real_at: datetime
    records: tuple[Record, ...]


def to_text(batch: Batch) -> str:
    """A batch as JSON. Decisions are left out: they explain, and nothing is rebuilt from them."""
    written = [_write(record) for record in batch.records]
    return json.dumps(
        {
            "account_id": batch.account_id,
            "run_id": batch.run_id,
            "settings_hash": batch.settings_hash,
            "real_at": timestamp(batch.real_at),
            "records": [fields for fields in written if fields is not None],
        },
        separators=(",", ":"),
    )


def from_text(text: str) -> Batch:
    """The batch that `to_text` made this of.

    Raises:
        ValueError: it is none, or not one of this version of the program.
    """
    try:
        fields = json.loads(text)
        return Batch(
            account_id=fields["account_id"],
            run_id=fields["run_id"],
            settings_hash=fields["settings_hash"],
            real_at=datetime.fromisoformat(fields["real_at"]),
            records=tuple(_read(record) for record in fields["records"]),
        )
    except (KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _write(record: Record) -> dict[str, Any] | None:
    match record:
        case OrderRecorded():
            before = None if record.before is None else encode(record.before)
            return {"order": encode(record.order), "fact": encode_fact(record.fact), "before": before}
        case TradeRecorded():
            return {"trade": encode(record.trade)}
        case ActivityRecorded():
            return {"activity": encode(record)}
        case HaltRecorded():
            return {"halt": record.halted, "at": encode(record.at)}
        case SessionRecorded():
            return {
                "session": encode(record.session),
                "start_equity": decimal_text(record.start_equity),
                "breaker": record.breaker,
                "tripped_at": encode(record.tripped_at),
                "halted": record.halted,
            }
    return None


def _read(fields: Mapping[str, Any]) -> Record:
    if "fact" in fields:
        before = fields["before"]
        return OrderRecorded(
            order=decode(Order, fields["order"]),
            fact=decode_fact(fields["fact"]),
            before=None if before is None else decode(Order, before),
        )
    if "trade" in fields:
        return TradeRecorded(trade=decode(Trade, fields["trade"]))
    if "activity" in fields:
        return decode(ActivityRecorded, fields["activity"])
    if "halt" in fields:
        return HaltRecorded(at=datetime.fromisoformat(fields["at"]), halted=fields["halt"])
    session, tripped_at = fields["session"], fields["tripped_at"]
    return SessionRecorded(
        session=Session(
            date=date.fromisoformat(session["date"]),
            open=datetime.fromisoformat(session["open"]),
            close=datetime.fromisoformat(session["close"]),
        ),
        start_equity=Decimal(fields["start_equity"]),
        breaker=fields["breaker"],
        tripped_at=None if tripped_at is None else datetime.fromisoformat(tripped_at),
        halted=fields["halted"],
    )
