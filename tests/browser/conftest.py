"""Chromium, and real server processes on databases of their own."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher, make_password
from django.contrib.auth.models import User
from playwright.sync_api import Browser, Page, StorageState, expect, sync_playwright
from pytest_django import DjangoDbBlocker

from tests import databases
from tests.browser.servers import DESKTOP, PASSWORD, PHONE, ROOT, Server, sign_in
from tests.requirements_for_tests import require

CHART_LIBRARY = ROOT / "static" / "vendor" / "lightweight-charts.standalone.production.js"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

__all__ = ["DESKTOP", "PHONE", "ROOT", "Server", "browsing", "fits", "login_at", "server", "sign_in"]

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


def login_at(chromium: Browser, url: str) -> StorageState:
    """The cookies of an operator who has signed in, for more windows."""
    with browsing(chromium, complaints=[]) as page:
        sign_in(page, url)
        expect(page.get_by_role("heading", name="Dashboard")).to_be_visible()
        return page.context.storage_state()


def fits(page: Page) -> bool:
    """Whether nothing makes the page wider than the window."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))
