"""Chromium, and real server processes on databases of their own."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher, make_password
from django.contrib.auth.models import User
from playwright.sync_api import Browser, Page, StorageState, expect, sync_playwright
from pytest_django import DjangoDbBlocker

from tests import databases
from tests.requirements_for_tests import require

ROOT = Path(__file__).parents[2]
CHART_LIBRARY = ROOT / "static" / "vendor" / "lightweight-charts.standalone.production.js"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
UP_SECONDS = 30
PASSWORD = "correct horse battery"
DESKTOP, PHONE = (1440, 900), (390, 844)

expect.set_options(timeout=8_000)


class Server:
    """A program that serves the pages from a data folder of its own."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = os.environ | {
            "ALGO_DATA_DIR": str(data_dir),
            "ALGO_WEB__PORT": str(self.port),
            "ALGO_ENV_FILE": os.devnull,
            "DJANGO_SETTINGS_MODULE": "algotrader.settings",
        }

    def start(self, *command: str) -> "subprocess.Popen[bytes]":
        """Run the program and wait until it answers."""
        log: IO[bytes] = (self.data_dir / "log").open("ab")
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=self.environment, stdout=log, stderr=log)
        log.close()
        deadline = time.monotonic() + UP_SECONDS
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"{command} does not answer:\n{(self.data_dir / 'log').read_text()}")
            time.sleep(0.1)
        return process

    def manage(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a management command on the server's database."""
        return subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.url}/api/health", timeout=1):
                return True
        except (URLError, OSError):
            return False


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


def sign_in(page: Page, url: str, *, password: str = PASSWORD) -> None:
    """Fill the login form of a page that asks for one, and send it."""
    page.goto(url)
    page.get_by_label("User name").fill("operator")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def fits(page: Page) -> bool:
    """Whether nothing makes the page wider than the window."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))
