"""What all tests share: databases that may be committed to, and the settings of an untouched installation."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import DjangoDbBlocker

from tests import databases
from tests.requirements_for_tests import require

ROOT = Path(__file__).parents[1]
KINDS = ("sqlite", "postgres")
SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real bars beside the project."""
    require(SHARED_DATA.is_dir(), "real bars are not on this machine: ../shared/data")
    return SHARED_DATA


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Path:
    """A SQLite file with all tables, to copy from."""
    with django_db_blocker.unblock():
        return databases.migrated_sqlite(tmp_path_factory.mktemp("migrated") / "trading.db")


@pytest.fixture
def sqlite_ledger(migrated_sqlite: Path, tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    """Django's default database is a fresh SQLite file with all tables; yields its URL, for ALGO_DATABASE_URL."""
    url = databases.copied_sqlite(migrated_sqlite, tmp_path / "trading.db")
    with django_db_blocker.unblock(), databases.default_database(url):
        yield url


@pytest.fixture
def ledger(request: pytest.FixtureRequest) -> str:
    """A fresh database with all tables for a test that does not care which: SQLite, or what ALGO_TEST_DATABASE says."""
    kind = os.environ.get("ALGO_TEST_DATABASE", "sqlite")
    if kind not in KINDS:
        pytest.fail(f"ALGO_TEST_DATABASE={kind!r} is not one of {', '.join(KINDS)}")
    url: str = request.getfixturevalue(f"{kind}_ledger")
    return url


@pytest.fixture(scope="session")
def migrated_postgres(django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    """The name of a PostgreSQL database with all tables, to copy from."""
    require(databases.postgres_answers(), "no PostgreSQL server answers at ALGO_TEST_POSTGRES_URL")
    with django_db_blocker.unblock():
        yield from databases.migrated_postgres(f"algotrader_test_{os.getpid()}_migrated")


@pytest.fixture
def postgres_ledger(migrated_postgres: str, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    """As `sqlite_ledger`, on PostgreSQL."""
    name = f"algotrader_test_{os.getpid()}"
    with (
        django_db_blocker.unblock(),
        databases.copied_postgres(migrated_postgres, name) as url,
        databases.default_database(url),
    ):
        yield url


@pytest.fixture(params=KINDS)
def each_ledger(request: pytest.FixtureRequest) -> str:
    """The test runs twice, on a `sqlite_ledger` and on a `postgres_ledger`; yields the URL."""
    url: str = request.getfixturevalue(f"{request.param}_ledger")
    return url
