"""axe finds nothing serious on any page, in the dark or in the light, full or empty, on a desk or on a phone."""

from typing import Any

import pytest
from playwright.sync_api import Browser, Page, StorageState

from tests.browser.conftest import DESKTOP, PHONE, ROOT, Serve, Server, browsing
from tests.browser.every_page import PAGES
from tests.browser.history import write_history_of_a_superuser
from tests.db.samples import uuid_of
from tests.requirements_for_tests import require

AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
RUN = """async () => (await axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})).violations
    .filter((found) => ["serious", "critical"].includes(found.impact))
    .map((found) => `${found.id}: ${found.nodes.slice(0, 3).map((node) => node.html.slice(0, 160)).join(" | ")}`)"""
TRANSITIONS_END = """() => Promise.allSettled(
  document.getAnimations().filter((each) => each instanceof CSSTransition).map((each) => each.finished))"""


@pytest.fixture(scope="module")
def program(serve: Serve) -> Server:
    """The web server alone, on a ledger with a little history."""
    require(AXE.exists(), "axe is not installed: run `make setup`")
    return serve(fill=write_history_of_a_superuser)


def serious(page: Page) -> list[str]:
    """What axe objects to on the page as it is once its colours have changed."""
    page.evaluate(TRANSITIONS_END)
    page.evaluate(AXE.read_text())
    found: list[str] = page.evaluate(RUN)
    return found


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_no_page_has_a_serious_finding(
    program: Server, chromium: Browser, login: StorageState, size: tuple[int, int], theme: str
) -> None:
    order, trade = f"/orders/{uuid_of('tsla')}/", "/trades/"
    found: dict[str, Any] = {}
    with browsing(chromium, size, complaints=[], login=login) as page:
        page.context.add_cookies([{"name": "algotrader_theme", "value": theme, "url": program.url}])
        for path in (*PAGES.values(), order):
            page.goto(f"{program.url}{path}")
            found[path] = serious(page)
        page.goto(f"{program.url}{trade}")
        page.locator("#results tbody tr a").first.click()
        page.wait_for_url("**/trades/*/")
        found["one trade"] = serious(page)
    assert [f"{path} {finding}" for path, findings in found.items() for finding in findings] == []


def test_dialogs_alarms_and_the_login_have_no_serious_finding(
    program: Server, chromium: Browser, login: StorageState
) -> None:
    with browsing(chromium, complaints=[], login=login) as page:
        page.goto(program.url)
        page.locator(".notice").wait_for()
        page.keyboard.press("a")
        assert serious(page) == []
        page.keyboard.press("?")
        page.get_by_role("dialog").wait_for()
        assert serious(page) == []
    with browsing(chromium, complaints=[]) as page:
        page.goto(f"{program.url}/login/")
        assert serious(page) == []
