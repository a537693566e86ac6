"""The engine under load: all measurements one after the other, each with its duration, as one JSON object.

    .venv/bin/python benchmarks/engine.py [--only bar_to_order,memory] [--symbols 11000]

`bar_to_order`, `many_pages`, `stream_loss`, `memory` and `whole_market`; each is described in the file of its name, and
can be run alone. Exit status 1 when a bar or a message was lost.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import bar_to_order, many_pages, memory, stream_loss, whole_market


def main() -> int:
    """Measures and prints; says on stderr what is being measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="some of them, with commas between; default: all")
    parser.add_argument("--symbols", type=int, default=11_000, help="of whole_market; default: %(default)s")
    options = parser.parse_args()
    measurements: dict[str, Callable[[Path], dict[str, Any]]] = {
        "bar_to_order": bar_to_order.measure,
        "many_pages": many_pages.measure,
        "stream_loss": stream_loss.measure,
        "memory": memory.measure,
        "whole_market": partial(whole_market.measure, count=options.symbols),
    }
    chosen = options.only.split(",") if options.only else list(measurements)
    if unknown := [name for name in chosen if name not in measurements]:
        parser.error(f"there is no {', '.join(unknown)}: {', '.join(measurements)}")
    began = time.monotonic()
    measured: dict[str, Any] = {}
    for name in chosen:
        print(f"{name} ...", file=sys.stderr, flush=True)
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            measured[name] = measurements[name](Path(folder))
        measured[name]["took_seconds"] = round(time.monotonic() - started)
    print(json.dumps({**measured, "took_seconds": round(time.monotonic() - began)}, indent=2))
    pages, market = measured.get("many_pages", {}), measured.get("whole_market", {})
    return 1 if pages.get("missing_messages") or market.get("bars_lost") else 0


if __name__ == "__main__":
    sys.exit(main())
