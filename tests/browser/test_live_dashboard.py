"""The dashboard in a real browser, beside a real engine on the built-in market."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, StorageState, expect
from pytest_django import DjangoDbBlocker

from tests.browser.conftest import PHONE, Server, browsing, fits, login_at, server

ENGINE = ("manage.py", "runengine", "--provider", "simulator", "--no-worker")


class Desk:
    """The engine's process, which a test may stop and start again."""

    def __init__(self, program: Server) -> None:
        self.program = program
        self.url = program.url
        self.process = program.start(*ENGINE)

    def stop(self) -> None:
        """As the operator does in a terminal."""
        answer = self.program.manage("stopengine")
        assert (answer.returncode, answer.stdout.splitlines()[0]) == (0, "Engine stopped."), answer.stderr
        assert self.process.wait(timeout=10) == 0

    def start_again(self) -> None:
        self.process = self.program.start(*ENGINE)


@pytest.fixture(scope="module")
def desk(
    migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker
) -> Iterator[Desk]:
    """An engine with its dashboard."""
    with server(migrated_sqlite, tmp_path_factory.mktemp("desk"), django_db_blocker, fill=lambda: None) as program:
        running = Desk(program)
        yield running
        running.process.kill()
        running.process.wait()


@pytest.fixture(scope="module")
def login(desk: Desk, chromium: Browser) -> StorageState:
    """The operator has signed in."""
    return login_at(chromium, desk.url)


def open_dashboard(page: Page, desk: Desk) -> None:
    page.goto(desk.url)
    expect(page.locator("#trade-stream")).to_contain_text("connected")
    expect(page.locator(".notice")).to_have_count(0)


def test_prices_chart_and_strategies_follow_the_market(desk: Desk, chromium: Browser, login: StorageState) -> None:
    complaints: list[str] = []
    with browsing(chromium, complaints=complaints, login=login) as page:
        open_dashboard(page, desk)
        expect(page.locator("#mode")).to_have_text("BUILT-IN MARKET")
        expect(page.locator("[data-figure=equity]")).to_contain_text("$2")
        expect(page.locator("#strategies > li")).to_have_count(5)
        expect(page.locator("#strategies > li").first.locator(".strategy-marks i")).to_have_count(6)
        expect(page.locator("#strategies > li").first.locator(".conditions")).to_contain_text("tight")
        expect(page.locator("#chart-empty")).to_be_hidden()
        expect(page.locator("#chart-price")).to_have_text(re.compile(r"^\d"))
        before = page.locator("#last-bar time").inner_text()
        expect(page.locator("#last-bar time")).not_to_have_text(before)
        assert page.locator("#chart canvas").count() > 0
        page.locator("#strategies").get_by_role("link", name="TSLA").click()
        expect(page.locator("#chart-symbol")).to_have_text("TSLA")
        expect(page.locator("#chart-price")).to_have_text(re.compile(r"^\d"))
    assert complaints == []


def test_the_live_dashboard_fits_a_phone(desk: Desk, chromium: Browser, login: StorageState) -> None:
    with browsing(chromium, PHONE, complaints=[], login=login) as page:
        open_dashboard(page, desk)
        expect(page.get_by_role("button", name="Halt trading")).to_be_in_viewport()
        assert fits(page)


def test_halting_asks_first_and_resuming_lifts_it(desk: Desk, chromium: Browser, login: StorageState) -> None:
    with (
        browsing(chromium, complaints=[], login=login) as page,
        browsing(chromium, complaints=[], login=login) as other,
    ):
        open_dashboard(page, desk)
        open_dashboard(other, desk)
        page.get_by_role("button", name="Halt trading").click()
        page.get_by_role("button", name="Keep trading").click()
        expect(page.get_by_role("dialog")).to_be_hidden()
        page.get_by_role("button", name="Halt trading").click()
        page.get_by_role("dialog").get_by_role("button", name="Halt trading").click()
        for window in (page, other):
            expect(window.locator(".notice")).to_contain_text("Trading is halted. Halted by operator.")
            expect(window.locator("#activity")).to_contain_text("halted by operator")
        page.get_by_role("button", name="Resume trading").click()
        page.get_by_role("dialog").get_by_role("button", name="Resume trading").click()
        for window in (page, other):
            expect(window.locator(".notice")).to_have_count(0)
            expect(window.get_by_role("button", name="Halt trading")).to_be_visible()


def test_a_page_survives_the_engines_restart(desk: Desk, chromium: Browser, login: StorageState) -> None:
    with browsing(chromium, complaints=[], login=login) as page:
        open_dashboard(page, desk)
        desk.stop()
        expect(page.locator(".notice")).to_contain_text("Connection to the server lost.")
        expect(page.locator("body")).to_have_class(re.compile("stale"))
        expect(page.get_by_role("button", name="Halt trading")).to_be_hidden()
        desk.start_again()
        page.get_by_role("button", name="Try now").click()
        expect(page.locator(".notice")).to_have_count(0, timeout=30_000)
        expect(page.locator("body")).not_to_have_class(re.compile("stale"))
        expect(page.get_by_role("button", name="Halt trading")).to_be_visible()
