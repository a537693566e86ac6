"""The emergency journal: what was appended is read back, torn or old entries are not, and nothing needs new room."""

import os
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.events import Created, Filled
from orders.lifecycle import Order, OrderType, Role, Side, apply
from orders.portfolio import Trade
from trading.batch import Batch, from_text, to_text
from trading.live.emergency import HEADER_BYTES, EmergencyJournal, JournalFull
from trading.market import Session
from trading.messages import (
    ActivityRecorded,
    ActivityType,
    HaltRecorded,
    Level,
    OrderRecorded,
    SessionRecorded,
    TradeRecorded,
)

NOON = datetime(2024, 3, 4, 17, 0, 0, 123456, tzinfo=UTC)
SMALL = 4096


def opened(folder: Path) -> EmergencyJournal:
    return EmergencyJournal(folder / "journal", size_bytes=SMALL)


def test_what_was_appended_is_there_for_the_next_process(tmp_path: Path) -> None:
    first = opened(tmp_path)
    for text in ("one", "zwei ✓", "three"):
        first.append(text)
    second = opened(tmp_path)
    assert second.entries() == ["one", "zwei ✓", "three"]
    second.append("four")
    assert opened(tmp_path).entries()[-1] == "four"


def test_the_file_has_its_size_and_its_blocks_from_the_start(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    found = (tmp_path / "journal").stat()
    assert (found.st_size, found.st_mode & 0o777) == (SMALL, 0o600)
    assert found.st_blocks * 512 >= SMALL
    for number in range(5):
        journal.append(str(number))
    assert (tmp_path / "journal").stat().st_size == SMALL


def test_emptied_it_has_nothing_and_old_entries_do_not_come_back(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    for text in ("aaaa", "bbbb", "cccc"):
        journal.append(text)
    journal.clear()
    assert opened(tmp_path).entries() == []
    journal.append("dddd")  # ends exactly where the second of the old ones begins
    assert opened(tmp_path).entries() == ["dddd"]


@given(st.integers(min_value=1, max_value=200), st.lists(st.text(max_size=40), min_size=1, max_size=6))
def test_a_torn_last_entry_is_none_and_those_before_it_are_whole(
    tmp_path_factory: pytest.TempPathFactory, torn_bytes: int, texts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    texts = [text for text in texts if text] or ["x"]
    journal = opened(folder)
    for text in texts:
        journal.append(text)
    end = HEADER_BYTES + sum(8 + len(text.encode()) for text in texts)
    torn = min(torn_bytes, 8 + len(texts[-1].encode()))
    with (folder / "journal").open("r+b") as file:
        file.seek(end - torn)
        file.write(bytes(torn))
    read = opened(folder).entries()
    assert read == texts[: len(read)]
    assert len(read) >= len(texts) - 1


def test_a_full_one_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.append("x" * 3000)
    with pytest.raises(JournalFull):
        journal.append("y" * 2000)
    assert opened(tmp_path).entries() == ["x" * 3000]


def test_a_file_of_something_else_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b"z" * SMALL)
    assert opened(tmp_path).entries() == []
    os.truncate(tmp_path / "journal", 10)
    assert opened(tmp_path).entries() == []


# --- what is in it ----------------------------------------------------------------------------------------------------

ENTRY = Order(
    local_id="5b8c1a52-0000-5000-8000-000000000001",
    correlation_id="5b8c1a52-0000-5000-8000-000000000002",
    symbol="AAPL",
    side=Side.LONG,
    role=Role.ENTRY,
    order_type=OrderType.STOP,
    qty_requested=Decimal(10),
    strategy="velez",
    created_at=NOON,
    updated_at=NOON,
    stop_price=Decimal("100.10"),
)


def test_a_batch_comes_back_as_it_was() -> None:
    fill = Filled(
        local_id=ENTRY.local_id,
        at=NOON,
        qty=Decimal(3),
        price=Decimal("100.1050"),
        filled_at=NOON,
        execution_id="e",
        forced=True,
    )
    session = Session(date=NOON.date(), open=NOON, close=NOON)
    batch = Batch(
        account_id="alpaca:1",
        run_id=7,
        settings_hash="abc",
        real_at=NOON,
        records=(
            OrderRecorded(order=ENTRY, fact=Created(local_id=ENTRY.local_id, at=NOON), before=None),
            OrderRecorded(order=apply(ENTRY, fill), fact=fill, before=ENTRY),
            TradeRecorded(
                trade=Trade(
                    correlation_id=ENTRY.correlation_id,
                    symbol="AAPL",
                    side=Side.LONG,
                    qty=Decimal(3),
                    entry_price=Decimal("100.105"),
                    exit_price=Decimal(99),
                    entry_at=NOON,
                    exit_at=NOON,
                    pnl=Decimal("-3.315"),
                    pnl_pct=Decimal("-1.1"),
                    commission=Decimal(0),
                    strategy="velez",
                    exit_reason="stop_loss",
                    initial_stop_price=None,
                    planned_risk=None,
                )
            ),
            ActivityRecorded(at=NOON, type=ActivityType.NAKED, symbol="AAPL", message="!", level=Level.CRITICAL),
            SessionRecorded(session=session, start_equity=Decimal("25000.5"), breaker="", tripped_at=None, halted=True),
            HaltRecorded(at=NOON, halted=True),
        ),
    )
    assert from_text(to_text(batch)) == batch


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"account_id": 1, "records": [{}]}', "null"])
def test_what_is_no_batch_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_text(text)
