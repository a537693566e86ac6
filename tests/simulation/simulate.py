"""`make simulate SEED=n COUNT=m`: plays stories, one a seed, and tells the first one in which an invariant broke."""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

if TYPE_CHECKING:
    from tests.simulation.world import Outcome

STORIES_A_PROCESS = 50  # engines that were killed stay in memory until their process ends
FORK = get_context("fork")  # everything is imported once, before
LAST_LINES = 60
MEMORY_DISK = Path("/dev/shm")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 if every invariant held in every story, with --mutations if one broke in each."""
    options = _options(arguments)
    set_up()
    import trading.live.alpaca_requests
    import trading.live.alpaca_streams  # noqa: F401
    from tests.simulation import mutations, world  # noqa: F401

    with tempfile.TemporaryDirectory(dir=MEMORY_DISK if MEMORY_DISK.is_dir() else None) as name:
        folder = Path(name)
        template = f"algotrader_simulation_{os.getpid()}" if options.database == "postgres" else folder / "template.db"
        try:
            _in_child(migrated, template)
            if options.mutations:
                return _mutations(options, template, folder)
            seeds = range(options.seed, options.seed + options.count)
            return _tell(_played(seeds, template, folder, processes=options.processes), options.count, options.all)
        finally:
            if isinstance(template, str):
                _in_child(dropped, template)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--count", type=int, default=100, help="how many, one after another")
    parser.add_argument("--processes", type=int, default=min(os.cpu_count() or 1, 4), help="side by side")
    parser.add_argument(
        "--database",
        choices=("sqlite", "postgres"),
        default=os.environ.get("ALGO_TEST_DATABASE", "sqlite"),
        help="what the ledger is kept in",
    )
    parser.add_argument("--all", action="store_true", help="go on after a violation, and count them")
    parser.add_argument(
        "--mutations", nargs="?", const="all", metavar="NAME", help="take out one safeguard at a time, or this one"
    )
    return parser.parse_args(arguments)


def set_up() -> None:
    """Django with the settings of the tests, in this process."""
    import django

    django.setup()


def _begin_worker() -> None:
    from backtests.workers import end_with_parent

    Thread(target=end_with_parent, name="end with parent", daemon=True).start()


def _in_child(work: Callable[[Any], None], template: Path | str) -> None:
    """This process opens no database and starts no thread: it forks."""
    with ProcessPoolExecutor(1, mp_context=FORK) as pool:
        pool.submit(work, template).result()


def migrated(template: Path | str) -> None:
    """Makes the database that each story gets a copy of."""
    from tests import databases

    databases.migrate(template)


def dropped(name: str) -> None:
    """Drops a PostgreSQL database."""
    from tests import databases

    databases.drop_postgres(name)


def play_seed(seed: int, template: Path | str, folder: Path, mutation: str = "") -> "Outcome":
    """One story. What goes wrong without the safeguard `mutation` counts only if it goes well with it."""
    from tests.simulation.mutations import MUTATIONS
    from tests.simulation.stories import story_of
    from tests.simulation.world import play

    outcome = play(story_of(seed), template=template, folder=folder, parts=MUTATIONS[mutation] if mutation else None)
    if mutation and outcome.violation is not None and play_seed(seed, template, folder).violation is not None:
        outcome.violation = None
    return outcome


def _played(
    seeds: Sequence[int], template: Path | str, folder: Path, *, processes: int, mutation: str = ""
) -> Generator["Outcome", None, None]:
    """The outcomes in order of their seeds."""
    stories = STORIES_A_PROCESS * processes
    for some in (seeds[first : first + stories] for first in range(0, len(seeds), stories)):
        with ProcessPoolExecutor(processes, mp_context=FORK, initializer=_begin_worker) as pool:
            waiting = [pool.submit(play_seed, seed, template, folder, mutation) for seed in some]
            try:
                for future in waiting:
                    yield future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


# --- telling ----------------------------------------------------------------------------------------------------------


def _tell(outcomes: Generator["Outcome", None, None], count: int, all_of_them: bool) -> int:
    started = time.monotonic()
    done: list[Outcome] = []
    broken: list[Outcome] = []
    for outcome in outcomes:
        done.append(outcome)
        if outcome.violation is not None:
            broken.append(outcome)
            if len(broken) == 1:
                say(story_in_words(outcome))
            else:
                say(f"seed {outcome.story.seed}: {outcome.violation}")
            if not all_of_them:
                break
        elif len(done) % 100 == 0:
            say(f"{len(done)} of {count} seeds")
    say(summary(done, time.monotonic() - started))
    return 1 if broken else 0


def story_in_words(outcome: "Outcome") -> str:
    """What happened, in order, and how to see it again."""
    lines = [
        f"seed {outcome.story.seed}: {outcome.violation}",
        "",
        "The story:",
        *(f"  {line}" for line in str(outcome.story).splitlines()),
        "",
        "What happened (seconds, market time, who, what):",
        *(f"  {line}" for line in outcome.happened[-LAST_LINES:]),
        "",
        f"Again: make simulate SEED={outcome.story.seed} COUNT=1",
    ]
    return "\n".join(lines)


def summary(outcomes: Sequence["Outcome"], seconds: float) -> str:
    """The figures over all stories."""
    naked = sorted(seconds for outcome in outcomes for seconds in outcome.naked_seconds)
    struck = Counter(f"{fault.on} {fault.kind}" for outcome in outcomes for fault in outcome.struck)
    crashes = sum(outcome.crashes for outcome in outcomes)
    violations = sum(outcome.violation is not None for outcome in outcomes)
    cpu = sum(outcome.cpu_seconds for outcome in outcomes)
    orders = sum(outcome.orders for outcome in outcomes)
    played = len(outcomes)
    lines = [
        f"{played} seeds, {violations} violations, {seconds:.0f} s ({cpu / max(played, 1):.1f} s of CPU a seed)",
        f"{orders} orders, {len(naked)} positions, {struck.total()} faults ({len(struck)} kinds), {crashes} kills",
    ]
    lines += [f"  {count} {what}" for what, count in sorted(struck.items(), key=lambda each: (-each[1], each[0]))]
    if naked:
        lines.append(f"naked seconds a position: {_percentiles(naked)}")
        served = sorted(seconds for outcome in outcomes for seconds in outcome.naked_and_served_seconds)
        lines.append(f"of these while an engine ran: {_percentiles(served)}")
    waits: dict[str, list[float]] = {}
    for outcome in outcomes:
        for loss, seconds_each in outcome.retry_seconds:
            waits.setdefault(loss, []).append(seconds_each)
    for loss, each in sorted(waits.items()):
        lines.append(f"back after {loss}: {_percentiles(sorted(each))} ({len(each)} times)")
    return "\n".join(lines)


def _percentiles(values: Sequence[float]) -> str:
    at = {name: values[min(int(len(values) * share), len(values) - 1)] for name, share in (("p50", 0.5), ("p99", 0.99))}
    return f"p50 {at['p50']:.1f}, p99 {at['p99']:.1f}, max {values[-1]:.1f}, mean {statistics.fmean(values):.2f}"


def say(text: str) -> None:
    """To the terminal, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


# --- mutations --------------------------------------------------------------------------------------------------------


def _mutations(options: argparse.Namespace, template: Path | str, folder: Path) -> int:
    """For each safeguard the first seed whose story goes wrong without it, and only without it."""
    from tests.simulation.mutations import MUTATIONS

    names = list(MUTATIONS) if options.mutations == "all" else [options.mutations]
    seeds = range(options.seed, options.seed + options.count)
    started, caught = time.monotonic(), 0
    for name in names:
        outcomes = _played(seeds, template, folder, processes=options.processes, mutation=name)
        with closing(outcomes):
            found = next((each for each in outcomes if each.violation is not None), None)
        caught += found is not None
        what = f"seed {found.story.seed}: {found.violation}" if found else f"nothing broke in {options.count} seeds"
        say(f"without {name}: {what}")
    say(f"{caught} of {len(names)} were noticed, {time.monotonic() - started:.0f} s")
    return 0 if caught == len(names) else 1


if __name__ == "__main__":
    sys.exit(main())
