"""A past day as the ledger tells it: what was carried into it, whatever became of it afterwards."""

from datetime import date
from decimal import Decimal
from typing import Any

from dashboard import replay
from tests.db.samples import ACCOUNT, at, fill, order, record, record_trade, record_working, stop, trade

DAY_MINUTES = 24 * 60
MONDAY, TUESDAY, WEDNESDAY, THURSDAY = (date(2026, 3, day) for day in (2, 3, 4, 5))


def carried(day: date) -> list[Any]:
    story = replay.story(ACCOUNT, [], day, "AAPL")
    assert story is not None
    return [(each["symbol"], each["side"], each["qty"], each["price"]) for each in story["carried"]]


def test_a_position_is_carried_into_every_day_that_it_was_held_at_the_open_of(each_ledger: str) -> None:
    entry = record(working := record_working(order()), fill(working, "4", "100"))
    record(entry, fill(entry, "6", "101", minute=2))
    assert [carried(day) for day in (MONDAY, TUESDAY)] == [[], [("AAPL", "long", 10.0, 100.6)]]


def test_what_was_sold_in_part_or_later_is_carried_as_it_was(each_ledger: str) -> None:
    record(working := record_working(order()), fill(working, "10", "100"))
    sold = record(stopped := record_working(stop()), fill(stopped, "3", "99.50", minute=DAY_MINUTES + 1))
    record(sold, fill(sold, "7", "99.50", minute=2 * DAY_MINUTES + 1))
    days = (MONDAY, TUESDAY, WEDNESDAY, THURSDAY)
    whole, rest = [("AAPL", "long", 10.0, 100.0)], [("AAPL", "long", 7.0, 100.0)]
    assert [carried(day) for day in days] == [[], whole, rest, []]
    record_trade(trade(qty=Decimal(10), exit_at=at(2 * DAY_MINUTES + 1)))
    assert [carried(day) for day in days] == [[], whole, rest, []]
