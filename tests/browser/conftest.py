"""Chromium, and real server processes on databases of their own."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher, make_password
from django.contrib.auth.models import Group, User
from playwright.sync_api import Browser, Page, StorageState, expect, sync_playwright
from pytest_django import DjangoDbBlocker

from tests import databases
from tests.browser.servers import DESKTOP, PASSWORD, PHONE, ROOT, Server, sign_in
from tests.requirements_for_tests import require

CHART_LIBRARY = ROOT / "static" / "vendor" / "lightweight-charts.standalone.production.js"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

__all__ = ["DESKTOP", "PHONE", "ROOT", "Server", "sign_in"]

expect.set_options(timeout=8_000)


@contextmanager
def server(migrated: Path, data_dir: Path, blocker: DjangoDbBlocker, *, fill: Callable[[], object]) -> Iterator[Server]:
    """A server, not started yet, whose database has the operator's login and what `fill` writes."""
    require(any(map(shutil.which, BROWSERS)), f"none of these browsers is installed: {', '.join(BROWSERS)}")
    require(CHART_LIBRARY.exists(), "the chart library is not installed: run `make setup`")
    url = databases.copied_sqlite(migrated, data_dir / "trading.db")
    with blocker.unblock(), databases.default_database(url):
        hashed = make_password(PASSWORD, hasher=PBKDF2PasswordHasher())  # as the product does; tests use a quick one
        User.objects.create(username="operator", password=hashed, is_staff=True)
        fill()
    yield Server(data_dir)


class Serve(Protocol):
    """Starts a program that serves the pages of an installation of its own, and ends it with the module."""

    def __call__(self, *command: str, fill: Callable[[], object] = ..., name: str = ...) -> Server:
        """The program that runs `command`, without one the web server alone, on what `fill` has written."""
        ...


@pytest.fixture(scope="module")
def serve(
    migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker
) -> Iterator[Serve]:
    """What a module's `program` is made with."""
    with ExitStack() as running:

        def start(*command: str, fill: Callable[[], object] = lambda: None, name: str = "served") -> Server:
            folder = tmp_path_factory.mktemp(name)
            program = running.enter_context(server(migrated_sqlite, folder, django_db_blocker, fill=fill))
            process = program.start(*(command or program.pages_alone))
            running.callback(process.wait)
            running.callback(process.kill)
            return program

        yield start


@pytest.fixture(scope="module")
def login(program: Server, chromium: Browser) -> StorageState:
    """The operator has signed in at the module's `program`."""
    return login_at(chromium, program.url)


def make_superuser() -> None:
    """The operator may enter every page."""
    User.objects.update(is_superuser=True)


def add_login(group: str) -> None:
    """One more login, named as its group, with the operator's password."""
    user = User.objects.create(username=group, password=User.objects.get(username="operator").password)
    user.groups.add(Group.objects.get(name=group))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser of a module's tests. While it runs, this thread must not touch the ORM: ask for the server first."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def browsing(
    chromium: Browser, size: tuple[int, int] = DESKTOP, *, complaints: list[str], login: StorageState | None = None
) -> Iterator[Page]:
    """A fresh browser window, with the cookies of `login`; what its console complains about is collected."""
    context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, storage_state=login)
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if line.type in ("error", "warning") else None)
    yield page
    context.close()


@contextmanager
def quietly_browsing(
    chromium: Browser, size: tuple[int, int] = DESKTOP, *, login: StorageState | None = None
) -> Iterator[Page]:
    """As `browsing`; at the end the console must have been quiet."""
    complaints: list[str] = []
    with browsing(chromium, size, complaints=complaints, login=login) as page:
        yield page
    assert complaints == []


def login_at(chromium: Browser, url: str) -> StorageState:
    """The cookies of an operator who has signed in, for more windows."""
    with browsing(chromium, complaints=[]) as page:
        sign_in(page, url)
        expect(page.get_by_role("heading", name="Dashboard")).to_be_visible()
        return page.context.storage_state()


def fits(page: Page) -> bool:
    """Whether nothing makes the page wider than the window."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))
