"""The settings page in a browser, beside an engine that follows it."""

import re
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import Group, User
from playwright.sync_api import Browser, Page, StorageState, expect

from tests.browser.conftest import PHONE, Serve, Server, browsing, fits, quietly_browsing

ENGINE = ("manage.py", "runengine", "--provider", "simulator", "--no-worker")
SETTINGS = "admin/risk/settingsoverride/"


def make_admin() -> None:
    """The operator is in the group `admin`, and no more than that."""
    operator = User.objects.get(username="operator")
    operator.is_staff = False
    operator.save()
    operator.groups.add(Group.objects.get(name="admin"))


@pytest.fixture(scope="module")
def program(serve: Serve) -> Server:
    return serve(*ENGINE, fill=make_admin)


@pytest.fixture
def page(program: Server, chromium: Browser, login: StorageState) -> Iterator[Page]:
    with quietly_browsing(chromium, login=login) as window:
        window.goto(program.url)
        expect(window.locator("#market-clock")).to_contain_text("Open")
        yield window


def test_a_changed_limit_is_in_force_on_the_dashboard_at_once(program: Server, page: Page) -> None:
    expect(page.locator("[data-gauge=positions]")).to_contain_text("of 5")
    page.get_by_role("link", name="Settings").click()
    page.get_by_label("risk.max_open_positions").fill("4")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".messagelist")).to_contain_text("Changed: risk.max_open_positions.")
    expect(page.locator(".setting").filter(has_text="risk.max_open_positions")).to_contain_text("operator")
    page.get_by_role("link", name="Dashboard").click()
    expect(page.locator("[data-gauge=positions]")).to_contain_text("of 4")
    expect(page.locator("#activity")).to_contain_text("Settings changed")


def test_a_strategy_that_is_switched_off_enters_no_more_until_it_is_switched_on_again(
    program: Server, page: Page
) -> None:
    def switch(value: str) -> None:
        page.goto(f"{program.url}/{SETTINGS}")
        page.get_by_label("velez.enabled").select_option(value)
        page.get_by_role("button", name="Save").click()
        if value == "true":
            page.get_by_role("button", name="Yes, change it").click()
        expect(page.locator(".messagelist")).to_contain_text("Changed: velez.enabled.")
        page.goto(program.url)

    cards = page.locator("#strategies > li")
    switch("false")
    for card in cards.all():
        expect(card).to_contain_text(re.compile("Switched off in the settings|Manages its position"))
    expect(cards.first).to_contain_text("off")
    last_bar = page.locator("#last-bar time")
    before, signals = last_bar.inner_text(), page.locator("#activity li[data-type=signal]").count()
    expect(last_bar).not_to_have_text(before)
    page.wait_for_timeout(10_000)  # five minutes of the market, each of which is an evaluation or half of one
    assert page.locator("#activity li[data-type=signal]").count() == signals
    expect(page.locator("#strategies")).not_to_contain_text("Not now")
    switch("true")
    expect(page.locator("#strategies")).to_contain_text(
        re.compile("Not now|All conditions met|Its entry waits"), timeout=20_000
    )
    expect(page.locator("#strategies")).not_to_contain_text("Switched off in the settings")


def test_a_loosened_limit_asks_first_and_a_bad_one_is_refused_at_its_field(program: Server, page: Page) -> None:
    page.goto(f"{program.url}/{SETTINGS}")
    field = page.get_by_label("risk.max_daily_loss_pct")
    field.evaluate("element => element.removeAttribute('max')")  # what a browser without limits would send
    field.fill("0.5")
    page.get_by_role("button", name="Save").click()
    row = page.locator(".setting-wrong")
    expect(row).to_contain_text("must be a number from 0.01 to 0.10")
    expect(row.get_by_label("risk.max_daily_loss_pct")).to_have_value("0.5")
    page.get_by_label("risk.max_daily_loss_pct").fill("0.04")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alertdialog")).to_contain_text("from 0.03 to 0.04: a day may lose more")
    page.get_by_role("link", name="No, leave everything").click()
    expect(page.get_by_label("risk.max_daily_loss_pct")).to_have_value("0.03")
    page.get_by_label("risk.max_daily_loss_pct").fill("0.04")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("button", name="Yes, change it").click()
    expect(page.locator(".messagelist")).to_contain_text("Changed: risk.max_daily_loss_pct.")
    page.get_by_role("button", name="Reset to 0.03").click()
    expect(page.locator(".messagelist")).to_contain_text("what the environment says again")


def test_a_new_symbol_is_watched_without_a_restart(program: Server, page: Page) -> None:
    page.goto(f"{program.url}/{SETTINGS}")
    page.get_by_label("watchlist", exact=True).fill("AAPL,TSLA,AMD,NVDA,META,IBM")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".messagelist")).to_contain_text("Changed: watchlist.")
    page.goto(program.url)
    expect(page.locator("#strategies > li")).to_have_count(6, timeout=20_000)
    expect(page.locator("#strategies > li").last).to_contain_text("IBM")


def test_the_page_fits_a_phone(program: Server, chromium: Browser, login: StorageState) -> None:
    with browsing(chromium, PHONE, complaints=[], login=login) as window:
        window.goto(f"{program.url}/{SETTINGS}")
        expect(window.get_by_label("risk.max_open_positions")).to_be_visible()
        assert fits(window)
