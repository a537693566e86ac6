"""Keys planted in every place that has some: they come out nowhere, and no port is open beyond this machine."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from tests.live.split_layout import PATIENCE_SECONDS, ROOT, free_port, until
from tests.requirements_for_tests import require
from trading.simulator.market import Market
from trading.simulator.synthetic import SyntheticBars

KEYS = {
    "ALGO_BROKER__API_KEY": "PLANTEDAPIKEY0001",
    "ALGO_BROKER__SECRET_KEY": "planted-secret-key-0002",
    "ALGO_SECRET_KEY": "planted-django-key-0003-abcdefghijklmnopqrstuvwxyz-0123456789",
    "ALGO_WEB__API_TOKEN": "planted-token-key-0004",
}
PASSWORDS = ("planted/database@0005", "planted/redis@0006")
PLANTED = (*KEYS.values(), *PASSWORDS, *(quote(each, safe="") for each in PASSWORDS))
UNREACHABLE = {
    "ALGO_DATABASE_URL": f"postgres://trader:{quote(PASSWORDS[0], safe='')}@127.0.0.1:1/trading",
    "ALGO_REDIS_URL": f"redis://:{quote(PASSWORDS[1], safe='')}@127.0.0.1:1",
}
PAGES = (
    "/", "/orders/", "/trades/", "/backtests/", "/sweeps/", "/nowhere/", "/admin/", "/admin/risk/settingsoverride/",
    "/admin/trading/enginerun/", "/admin/trading/enginelease/", "/api/settings", "/api/dashboard", "/api/metrics",
    "/api/orders", "/api/openapi.json", "/api/nowhere", "/api/backtests?limit=x",
)  # fmt: skip
CRASH = "import django; django.setup(); from django.conf import settings as s; raise RuntimeError(s.SECRET_KEY, s.ALGO)"


def environment(folder: Path, **variables: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ALGO_", "DJANGO_"))}
    ours = {"ALGO_DATA_DIR": str(folder), "ALGO_ENV_FILE": os.devnull, "ALGO_LOG_LEVEL": "DEBUG"}
    return {**clean, **KEYS, **ours, "DJANGO_SETTINGS_MODULE": "algotrader.settings", **variables}


def assert_clean(text: str, where: str) -> None:
    for secret in PLANTED:
        assert secret not in text, f"{where} has {secret}:\n{text[max(0, text.index(secret) - 300) :][:600]}"


COMMANDS = (
    ("manage.py", "showconfig"),
    ("manage.py", "showconfig", "--json"),
    ("manage.py", "check", "--deploy"),
    ("manage.py", "runengine", "--no-web", "--no-worker", "--traceback"),
    ("manage.py", "enginestatus"),
    ("manage.py", "migrate", "--traceback"),
    ("-m", "daphne", "-p", "0", "algotrader.asgi:application"),
    ("-c", CRASH),
)


def test_no_command_says_a_key_whether_it_works_fails_or_crashes(tmp_path: Path) -> None:
    started = [  # all at once: each waits for a database that never answers
        subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=environment(tmp_path, **UNREACHABLE),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for command in COMMANDS
    ]  # fmt: skip
    said = [process.communicate(timeout=PATIENCE_SECONDS)[0] for process in started]
    for command, text in zip(COMMANDS, said, strict=True):
        assert text, command
        assert_clean(text, " ".join(command))


@contextmanager
def engine(folder: Path, database_url: str, **urls: str) -> Iterator[tuple[int, int, Path]]:
    """A running engine with its pages, on a market that knows the planted keys: its process, port and log."""
    port, log = free_port(), folder / "engine.log"
    variables = {"ALGO_DATABASE_URL": database_url, "ALGO_WEB__PORT": str(port), **urls}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "runengine", "--no-worker"], cwd=ROOT,
            env=environment(folder / "data", **variables), stdout=output, stderr=output,
        )  # fmt: skip
    try:
        until(lambda: process.poll() is not None or b"stream.connected" in log.read_bytes(), "no engine")
        assert process.poll() is None, log.read_text()
        yield process.pid, port, log
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 0
    finally:
        process.kill()
        process.wait()


def get_pages(port: int, cookie: str) -> dict[str, str]:
    """The pages by address, as a superuser's browser gets them."""
    browser = requests.Session()
    browser.cookies.set(settings.SESSION_COOKIE_NAME, cookie)
    found = {page: browser.get(f"http://127.0.0.1:{port}{page}", timeout=30) for page in PAGES}
    assert {answer.status_code for answer in found.values()} <= {200, 400, 404, 422}
    return {page: f"{answer.headers}\n{answer.text}" for page, answer in found.items()}


def listening_addresses(pid: int) -> set[str]:
    """Addresses, in Linux's hexadecimal, on which a process accepts connections."""
    sockets = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in sockets:
                found.add(local.partition(":")[0])
    return found


async def test_a_running_engine_tells_no_key_to_logs_pages_or_files_and_listens_on_loopback_alone(
    ledger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(sys.platform == "linux", "open ports are read from Linux's /proc")
    monkeypatch.setattr(settings, "SECRET_KEY", KEYS["ALGO_SECRET_KEY"])  # the login is signed as the engine does
    cookie = await asyncio.to_thread(superusers_cookie)
    keys = (KEYS["ALGO_BROKER__API_KEY"], KEYS["ALGO_BROKER__SECRET_KEY"])
    market = Market(bars=SyntheticBars(seed=1), account_number="SIM-1", keys=keys, speed=60)
    await market.start()
    market.begin()
    playing = asyncio.create_task(market.run())
    try:
        urls = {f"ALGO_BROKER__{name.upper()}": url for name, url in market.urls.items()}
        pages, log, addresses = await asyncio.to_thread(watch, tmp_path, ledger, urls, cookie)
    finally:
        playing.cancel()
        await market.stop()
    assert addresses == {"0100007F"}
    for page, text in pages.items():
        assert_clean(text, page)
    assert "DEBUG" in log or "[debug" in log
    assert_clean(log, "the log")
    for file, content in contents(tmp_path):
        assert_clean(content, file)


def contents(folder: Path) -> list[tuple[str, str]]:
    """Every file below a folder with what is in it."""
    return [(str(path), path.read_bytes().decode("latin1")) for path in folder.rglob("*") if path.is_file()]


def superusers_cookie() -> str:
    browser = Client()
    browser.force_login(User.objects.create_superuser("operator"))
    return browser.cookies[settings.SESSION_COOKIE_NAME].value


def watch(folder: Path, database_url: str, urls: dict[str, str], cookie: str) -> tuple[dict[str, str], str, set[str]]:
    """Pages, log and open ports of an engine that ran for a while."""
    with engine(folder, database_url, **urls) as (pid, port, log):
        pages = get_pages(port, cookie)
        assert re.search(r"built-in|paper|desk", pages["/"], re.IGNORECASE)
        time.sleep(1)
        addresses = listening_addresses(pid)
    return pages, log.read_text(), addresses
