"""How soon a stream that was lost is back, and how soon an engine that has nothing to do stops.

    .venv/bin/python benchmarks/stream_loss.py

The engine with its pages and five symbols; the built-in market, in a process of its own, takes its two streams away in
turn: reset, reset with the place still taken for a while (a second connection is refused), mute, and half open. Prints
one JSON object: by stream and kind the seconds from the loss, or from when the place is free again, until the stream is
confirmed anew. A stream that is mute or half open has to be missed first: by what the provider has when asked, or by a
ping that is not answered for 20 s.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bar_to_order import SETTINGS, Signals
from benchmarks.engine_process import Engine, machine, running
from benchmarks.market_process import play
from trading.simulator.faults import Fault, Kind, On, Schedule

SPEED = 30.0  # a minute's bars in two seconds
PLACE_TAKEN_SECONDS = 12.0
SILENT_SECONDS = 90.0
STREAMS = {On.BAR: "bars", On.UPDATE: "trade updates"}
LOSSES = (
    ("reset", Kind.DROP, 0.0),
    ("reset, place taken", Kind.DROP, PLACE_TAKEN_SECONDS),
    ("mute", Kind.MUTE, SILENT_SECONDS),
    ("half open", Kind.HALF_OPEN, SILENT_SECONDS),
)
FIRST_BAR, BARS_BETWEEN = 20, 30
FIRST_UPDATE, UPDATES_BETWEEN = 13, 20


def main() -> int:
    """Measures and prints."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder)), indent=2))
    return 0


def measure(folder: Path) -> dict[str, Any]:
    """Waits until every stream was lost in every way and is back."""
    schedule = Schedule(
        faults=tuple(
            Fault(on=on, kind=kind, number=first + index * between, seconds=seconds)
            for on, first, between in ((On.BAR, FIRST_BAR, BARS_BETWEEN), (On.UPDATE, FIRST_UPDATE, UPDATES_BETWEEN))
            for index, (_, kind, seconds) in enumerate(LOSSES)
        )
    )
    market = partial(play, Signals(), SPEED, faults=schedule)
    with running(folder, market, settings=SETTINGS | {"LOG_LEVEL": "INFO"}, arguments=()) as (engine, told):
        struck: dict[On, list[float]] = {on: [] for on in STREAMS}

        def all_back() -> bool:
            while told.poll():
                match told.recv():
                    case ("fault", on, at):
                        struck[on].append(at)
            return all(
                len(struck[on]) == len(LOSSES) and _connected(engine, stream)[-1] > struck[on][-1]
                for on, stream in STREAMS.items()
            )

        engine.until(engine.is_trading)
        engine.until(all_back)
        on_machine = machine()
        back = {stream: _back(struck[on], _connected(engine, stream)) for on, stream in STREAMS.items()}
        return {"machine": on_machine, "seconds_until_back": back, "shutdown_seconds": engine.stop()}


def _back(struck: Sequence[float], connected: Sequence[float]) -> dict[str, float]:
    return {
        name: round(
            next(at for at in connected if at > lost) - lost - (seconds if kind is Kind.DROP else 0),
            1,
        )
        for (name, kind, seconds), lost in zip(LOSSES, struck, strict=True)
    }


def _connected(engine: Engine, stream: str) -> list[float]:
    """When it was confirmed, by the wall clock."""
    lines = (json.loads(line) for line in engine.log.splitlines() if '"stream.connected"' in line)
    return [datetime.fromisoformat(line["timestamp"]).timestamp() for line in lines if line["stream"] == stream]


if __name__ == "__main__":
    sys.exit(main())
