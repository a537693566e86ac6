"""`make screenshots`: every page, full and empty, on a desk and on a phone, as small PNG files in docs/screenshots.

And docs/desk.png, the picture of the README: the first morning of the built-in market.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.every_page import (
    BACKTEST_PAGES,
    PAGES,
    chromium_path,
    environment_is_plain,
    installation,
    let_it_trade,
)
from tests.browser.palette import pixels_of, with_palette
from tests.browser.servers import DESKTOP, PHONE, ROOT, Server, sign_in

ON_A_PHONE = ("dashboard", "orders", "trades")
SETTLES_MS = 1500
PATIENCE_MS = 120_000  # a busy machine makes the same pictures
TALLEST = 2200
MORNING = ("manage.py", "runengine", "--no-worker", "--seed", "1", "--speed", "60")
MORNING_MS = 45_000  # about 45 minutes of that market


def main() -> None:
    """Makes the files anew and says how large they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "screenshots")
    parser.add_argument("--only-desk", action="store_true", help="the picture of the README alone")
    options = parser.parse_args()
    folder = options.to
    environment_is_plain()
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=["--no-sandbox"])
        with tempfile.TemporaryDirectory() as data, installation(Path(data), full=True, command=MORNING) as program:
            take_desk(browser, program, folder.parent / "desk.png")
        for old in () if options.only_desk else folder.glob("*.png"):
            old.unlink()
        for kind in () if options.only_desk else ("full", "empty"):
            with tempfile.TemporaryDirectory() as data, installation(Path(data), full=kind == "full") as program:
                take_all(browser, program, folder, kind)
        browser.close()
    files = sorted(folder.glob("*.png"))
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    sys.stdout.write(f"{len(files)} screenshots, {megabytes:.2f} MB, in {folder}\n")


def take_desk(browser: Browser, program: Server, file: Path) -> None:
    """The dashboard after a morning, as soon as a position is held."""
    context = browser.new_context(viewport={"width": DESKTOP[0], "height": DESKTOP[1]})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    sign_in(page, program.url)
    page.wait_for_timeout(MORNING_MS)
    page.wait_for_selector("#positions tbody tr")
    page.locator("#positions [data-choose]").first.click()
    page.mouse.move(0, 0)  # off the chart
    take(page, file)
    context.close()


def take_all(browser: Browser, program: Server, folder: Path, kind: str) -> None:
    """Every page of one installation."""
    context = browser.new_context(viewport={"width": DESKTOP[0], "height": DESKTOP[1]})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    if kind == "empty":
        page.goto(program.url)
        take(page, folder / "login.png")
    sign_in(page, program.url)
    page.wait_for_selector("#market-clock")
    if kind == "full":
        let_it_trade(program, page)
    pages = PAGES | (stories(page, program) if kind == "full" else {})
    for name, path in pages.items():
        page.goto(f"{program.url}{path}")
        if name == "replay" and kind == "full":
            page.get_by_label("Minute of the session").fill("4")
        take(page, folder / f"{name}-{kind}.png")
    if kind == "full":
        page.goto(program.url)
        page.get_by_role("button", name="Switch between dark and light").click()
        take(page, folder / "dashboard-full-light.png")
        page.get_by_role("button", name="Switch between dark and light").click()
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    for name in ON_A_PHONE:
        page.goto(f"{program.url}{PAGES[name]}")
        take(page, folder / f"{name}-{kind}-phone.png")
    context.close()


def stories(page: Page, program: Server) -> dict[str, str]:
    """The pages of one order and of one trade, and of one of each kind of backtest."""
    found = dict(BACKTEST_PAGES)
    for name, path in (("order", "/orders/?role=stop_loss&symbol=TSLA"), ("trade", "/trades/")):
        page.goto(f"{program.url}{path}")
        found[name] = page.locator("#results tbody tr a").first.get_attribute("href") or "/"
    return found


def take(page: Page, file: Path) -> None:
    """One picture of the whole page, with few colours."""
    page.wait_for_timeout(SETTLES_MS)
    size = page.viewport_size
    assert size is not None
    height = size["height"]
    # The window becomes as high as the page, since what sticks to it does so to all of it; a chart grows with it.
    while height < (wanted := min(int(page.evaluate("document.documentElement.scrollHeight")), TALLEST)):
        height = wanted
        page.set_viewport_size({"width": size["width"], "height": height})
    raw = page.screenshot()
    page.set_viewport_size(size)
    painter = page.context.new_page()
    file.write_bytes(with_palette(pixels_of(painter, raw)))
    painter.close()


if __name__ == "__main__":
    main()
