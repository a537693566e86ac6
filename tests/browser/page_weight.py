"""`make bench-pages`: first contentful paint and transferred bytes of every page, with an empty browser cache.

Then the dashboard is kept open, to see whether it grows, drops frames or shows fills late.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from tests.browser.desk_soak import soak
from tests.browser.every_page import PAGES, chromium_path, environment_is_plain, installation, let_it_trade
from tests.browser.fill_to_page import fill_to_page
from tests.browser.servers import DESKTOP, Server, sign_in

PAINT = """() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"""
BYTES = """() => [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
    .reduce((sum, entry) => sum + entry.transferSize, 0)"""


def main() -> None:
    """Prints one line of JSON a page, one for fills on their way to it, and one for the dashboard that is kept open."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="the best of so many paints counts")
    parser.add_argument("--minutes", type=float, default=10, help="the dashboard is kept open for so long; 0: not")
    options = parser.parse_args()
    environment_is_plain()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=["--no-sandbox"])
        with tempfile.TemporaryDirectory() as data, installation(Path(data), full=True) as program:
            page = browser.new_context().new_page()
            sign_in(page, program.url)
            page.wait_for_selector("#market-clock")
            let_it_trade(program, page)
            login = page.context.storage_state()
            for name, path in PAGES.items():
                figures = measured(browser, program, path, login, options.runs)
                sys.stdout.write(json.dumps({"page": name, **figures}) + "\n")
        sys.stdout.write(json.dumps(fill_to_page(browser)) + "\n")
        if options.minutes:
            sys.stdout.write(json.dumps(soak(browser, options.minutes)) + "\n")
        browser.close()


def measured(browser: Browser, program: Server, path: str, login: Any, runs: int) -> dict[str, float]:
    """The best paint in milliseconds, and the bytes of one visit."""
    paints, transferred = [], 0
    for _ in range(runs):
        context = browser.new_context(
            viewport={"width": DESKTOP[0], "height": DESKTOP[1]}, storage_state=login, reduced_motion="reduce"
        )
        page = context.new_page()
        page.goto(f"{program.url}{path}", wait_until="load")
        page.wait_for_timeout(500)
        paints.append(float(page.evaluate(PAINT)))
        transferred = int(page.evaluate(BYTES))
        context.close()
    return {"first_contentful_paint_ms": round(min(paints), 1), "transferred_bytes": transferred}


if __name__ == "__main__":
    main()
