"""Programs that serve the pages, and what every browser does first; without Django, for commands too."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from playwright.sync_api import Page

ROOT = Path(__file__).parents[2]
UP_SECONDS = 30
PASSWORD = "correct horse battery"
DESKTOP, PHONE = (1440, 900), (390, 844)


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

    @property
    def pages_alone(self) -> tuple[str, ...]:
        """The command of the web server without an engine."""
        return ("-m", "daphne", "-p", str(self.port), "algotrader.asgi:application")

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


def sign_in(page: Page, url: str, *, name: str = "operator", password: str = PASSWORD) -> None:
    """Fill the login form of a page that asks for one, and send it."""
    page.goto(url)
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
