"""Tests that commit start from a clean ledger, on both databases, and leave nothing behind."""

import asyncio

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import connection


@pytest.mark.parametrize("turn", [1, 2])
def test_what_one_test_commits_the_next_does_not_see(each_ledger: str, turn: int) -> None:
    assert not User.objects.exists()
    User.objects.create_user(f"operator{turn}")
    assert User.objects.count() == 1


@pytest.mark.parametrize("turn", [1, 2])
async def test_async_code_reaches_the_same_ledger(each_ledger: str, turn: int) -> None:
    await User.objects.acreate(username=f"operator{turn}")
    assert await User.objects.acount() == 1
    vendor = await sync_to_async(lambda: connection.vendor)()
    assert vendor == ("sqlite" if each_ledger.startswith("sqlite") else "postgresql")


def test_the_engines_own_thread_reaches_the_same_ledger(each_ledger: str) -> None:
    User.objects.create_user("operator")

    def count() -> int:
        try:
            return User.objects.count()
        finally:
            connection.close()

    assert asyncio.run(asyncio.to_thread(count)) == 1


def test_sqlite_is_opened_for_a_ledger(sqlite_ledger: str) -> None:
    with connection.cursor() as cursor:
        values = {}
        for pragma in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys"):
            cursor.execute(f"PRAGMA {pragma}")
            values[pragma] = cursor.fetchone()[0]
    assert values == {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 5000, "foreign_keys": 1}
