"""Part of `make bench-pages`: the dashboard kept open while the market races, and how soon a fill is on it."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, CDPSession, Page

from tests.browser.every_page import SYMBOLS, installation
from tests.browser.servers import DESKTOP, sign_in

SPEED = 600  # ten market minutes a second; each brings prices, candles, conditions and results anew
SETTLES_SECONDS = 10
RACING = (
    "manage.py", "runengine", "--provider", "simulator", "--no-worker", "--symbols", ",".join(SYMBOLS),
    "--speed", str(SPEED),
)  # fmt: skip
WATCH = """
(() => {
  const none = { messages: 0, sinceMs: 0, frames: 0, slowFrames: 0, longestFrameMs: 0, fillsMs: [] };
  const watched = (window.watched = { ...none });
  window.watchAnew = () => Object.assign(watched, none, { sinceMs: performance.now(), fillsMs: [] });
  const heard = new Map(); // when the message of each fill came that is not on the page yet
  window.WebSocket = class extends window.WebSocket {
    constructor(...given) {
      super(...given);
      this.addEventListener("message", ({ data }) => {
        const message = JSON.parse(data);
        watched.messages += 1;
        const isFill = message.type === "activity" && message.data.type === "order_filled";
        if (isFill) heard.set(message.data.id, performance.now());
      });
    }
  };
  document.addEventListener("DOMContentLoaded", () => new MutationObserver((changes) => {
    for (const item of changes.flatMap((change) => [...change.addedNodes])) {
      const at = heard.get(item.dataset?.id);
      if (at !== undefined) watched.fillsMs.push(performance.now() - at);
      heard.delete(item.dataset?.id);
    }
  }).observe(document.getElementById("activity") ?? document.body, { childList: true }));
  let before = performance.now();
  requestAnimationFrame(function next(now) {
    watched.frames += 1;
    if (now - before > 50) watched.slowFrames += 1;
    watched.longestFrameMs = Math.max(watched.longestFrameMs, now - before);
    before = now;
    requestAnimationFrame(next);
  });
})();
"""


def soak(browser: Browser, minutes: float) -> dict[str, Any]:
    """Heap and nodes at the start, in the middle and at the end, and every frame and fill in between."""
    with tempfile.TemporaryDirectory() as data, installation(Path(data), full=True, command=RACING) as program:
        context = browser.new_context(viewport={"width": DESKTOP[0], "height": DESKTOP[1]})
        page = context.new_page()
        sign_in(page, program.url)
        page.wait_for_selector("#market-clock")
        page.add_init_script(WATCH)
        page.goto(program.url)
        page.wait_for_timeout(SETTLES_SECONDS * 1000)
        figures = _watched(page, context.new_cdp_session(page), minutes)
        context.close()
        return figures


def _watched(page: Page, session: CDPSession, minutes: float) -> dict[str, Any]:
    session.send("Performance.enable")
    stages = {"start": _memory(session)}
    page.evaluate("watchAnew()")
    begun = time.monotonic()
    for stage, share in (("middle", 0.5), ("end", 1.0)):
        page.wait_for_timeout(max(begun + share * minutes * 60 - time.monotonic(), 0) * 1000)
        watched = page.evaluate("({ ...watched, tookMs: performance.now() - watched.sinceMs })")
        stages[stage] = _memory(session)
    seconds = watched["tookMs"] / 1000
    fills = sorted(watched["fillsMs"])
    return {
        "page": "dashboard kept open",
        "seconds": round(seconds),
        "messages_per_second": round(watched["messages"] / seconds, 1),
        "heap_mb": {stage: round(memory["JSHeapUsedSize"] / 1e6, 2) for stage, memory in stages.items()},
        "dom_nodes": {stage: int(memory["Nodes"]) for stage, memory in stages.items()},
        "listeners": {stage: int(memory["JSEventListeners"]) for stage, memory in stages.items()},
        "frames": watched["frames"],
        "frames_over_50_ms": watched["slowFrames"],
        "longest_frame_ms": round(watched["longestFrameMs"], 1),
        "fills": len(fills),
        "fill_message_to_page_ms": {
            "median": round(statistics.median(fills), 1) if fills else None,
            "longest": round(fills[-1], 1) if fills else None,
        },
    }


def _memory(session: CDPSession) -> dict[str, float]:
    """What is in use after everything unused has been thrown away."""
    for _ in range(2):
        session.send("HeapProfiler.collectGarbage")
    return {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
