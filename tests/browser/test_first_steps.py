"""The page of the first day: milestones, and the way to Alpaca's paper account turning green in the browser."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from pytest_django import DjangoDbBlocker

from tests.browser.conftest import PHONE, ROOT, Serve, Server, browsing, fits, login_at, server
from tests.browser.history import write_history

TOLD = ("PROVIDER", "TRADING_URL", "TRADING_STREAM_URL", "DATA_URL", "DATA_STREAM_URL", "API_KEY", "SECRET_KEY")


@contextmanager
def market_of_its_own(program: Server) -> Iterator[dict[str, str]]:
    """The built-in market in the place of Alpaca's paper account; the variables that lead there."""
    process = subprocess.Popen(
        [sys.executable, "manage.py", "runmarket", "--port", "0", "--symbols", "AAPL"],
        cwd=ROOT, env=program.environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    told = dict(process.stdout.readline().strip().split("=", 1) for _ in TOLD)
    yield told
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="module")
def without_keys(serve: Serve) -> Server:
    """An installation that has traded the built-in market."""
    return serve(fill=write_history)


@pytest.fixture(scope="module")
def with_keys(
    without_keys: Server,  # made first: once the browser runs, no database can be filled
    migrated_sqlite: Path,
    tmp_path_factory: pytest.TempPathFactory,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[Server]:
    """A new installation with keys of a paper account, which the built-in market plays."""
    folder = tmp_path_factory.mktemp("paper")
    with (
        server(migrated_sqlite, folder, django_db_blocker, fill=lambda: None) as program,
        market_of_its_own(program) as told,
    ):
        program.environment |= {**told, "ALGO_WATCHLIST": "AAPL"}
        process = program.start(*program.pages_alone)
        yield program
        process.kill()
        process.wait()


def test_the_way_to_the_paper_account_turns_green_step_by_step(with_keys: Server, chromium: Browser) -> None:
    complaints: list[str] = []
    with browsing(chromium, complaints=complaints, login=login_at(chromium, with_keys.url)) as page:
        page.goto(with_keys.url)
        expect(page.get_by_role("main")).to_contain_text("Nothing has been traded here yet")
        page.get_by_role("main").get_by_role("link", name="First steps").click()
        expect(page.get_by_role("heading", level=1, name="First steps")).to_be_visible()
        page.get_by_role("button", name="Try all").click()
        expect(page.locator("#checks li.done")).to_have_count(6, timeout=90_000)
        expect(page.locator("#checks")).to_contain_text("and cancelled it: 0 filled")
    assert complaints == []


def test_without_keys_the_list_says_what_to_do_and_the_milestones_what_has_happened(
    without_keys: Server, chromium: Browser
) -> None:
    with browsing(chromium, PHONE, complaints=[], login=login_at(chromium, without_keys.url)) as page:
        page.goto(f"{without_keys.url}/start/")
        expect(page.locator("li.done h3")).to_have_text(["You have a login", "A first order", "A first trade"])
        page.get_by_role("button", name="Try all").click()
        expect(page.locator("#checks li.failed")).to_contain_text("Make keys on Alpaca's paper page")
        expect(page.locator("#checks li.failed")).to_have_count(1)
        assert fits(page)
