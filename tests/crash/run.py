"""Kills the engine at every point of scripted days: `python -m tests.crash [--day NAME] [--jobs N]`.

Everything is imported once; market and engines are forked from this process, which never opens a database, a socket or
a thread before it forks.
"""

import argparse
import faulthandler
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from orders import models as order_models
from tests import databases
from tests.crash import engine, invariants, ledger, market, points
from tests.crash.days import DAYS, Day
from tests.crash.points import Point
from trading.live.engine import NOT_KNOWN

PATIENCE_SECONDS = 180.0  # an order in doubt takes half a minute, a busy machine five times as long
MOST_LIVES = 7
RECOVERY_POINTS = 60  # of an engine that starts after a kill: until both streams are up and it has compared
MOST_OUTPUT = 12_000  # characters of a log that are shown


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of one day with one kill (none: `fatal` is None), or two."""

    day: str
    fatal: Point | None
    problems: list[str] = field(default_factory=list)
    come_by: list[Point] = field(default_factory=list)
    trades: int = 0
    events: int = 0
    seconds: float = 0.0
    kills: int = 0
    again_at: int = 0
    output: str = ""


def main() -> int:
    """Prints every point that failed and how many passed; 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--day", action="append", choices=sorted(DAYS), help="default: all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--database", choices=("sqlite", "postgres"), default="sqlite", help="what the engines keep their ledger in"
    )
    parser.add_argument("--list", action="store_true", help="print the points and kill nothing")
    parser.add_argument("--point", help="only the point of that number, or with those words, in --list")
    parser.add_argument(
        "--double",
        type=int,
        metavar="M",
        help=f"kill the next engine as well, at every M-th of its first {RECOVERY_POINTS} points",
    )
    parser.add_argument("--output", action="store_true", help="print what the engines of a failed point said")
    options = parser.parse_args()
    faulthandler.enable()  # a process that hangs is ended with SIGABRT and says where it was
    _warm_up()
    folder = Path(tempfile.mkdtemp(prefix="algotrader-crash-"))
    on_postgres = options.database == "postgres"
    template = f"algotrader_crash_{os.getpid()}" if on_postgres else folder / "template.db"
    try:
        _in_child(lambda: _migrate(template))
        started, outcomes = time.monotonic(), list[Outcome]()
        for name in options.day or DAYS:
            outcomes += _day(DAYS[name], template, folder, options)
        failures = sum(bool(outcome.problems) for outcome in outcomes)
        if not options.list and len(options.day or DAYS) > 1:
            kills = sum(outcome.kills for outcome in outcomes)
            _say(
                f"all days: {len(outcomes) - failures} of {len(outcomes)} passed, {kills} kills, "
                f"{time.monotonic() - started:.0f} s"
            )
        return 1 if failures else 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(template, str):
            databases.drop_postgres(template)


def _day(day: Day, template: Path | str, folder: Path, options: argparse.Namespace) -> list[Outcome]:
    """What came of each kill; of the day itself if that fails, and nothing if points are only listed."""
    started = time.monotonic()
    whole = run_day(day, template, folder, None)
    if whole.problems:
        _say(f"{day.name}: the day itself fails: {'; '.join(whole.problems)}\n{whole.output}")
        return [whole]
    if options.list:
        for number, point in enumerate(whole.come_by):
            _say(f"{day.name} {number}: {point}")
        return []
    words = [options.point] if options.point else [str(number) for number in range(len(whole.come_by))]
    numbers = [int(each) if each.isdecimal() else list(map(str, whole.come_by)).index(each) for each in words]
    chosen = [whole.come_by[number] for number in numbers]
    tasks = [(day.name, template, folder, point, 0) for point in chosen]
    if options.double:
        # Where the second kill begins to count goes round with the first, so that together they meet every point.
        tasks = [
            (day.name, template, folder, whole.come_by[number], again_at)
            for number in numbers
            for again_at in range(1 + number % options.double, RECOVERY_POINTS + 1, options.double)
        ]
    outcomes: list[Outcome] = []
    with get_context("fork").Pool(options.jobs) as pool:
        for outcome in pool.imap_unordered(_killed, tasks):
            outcomes.append(outcome)
            if outcome.problems:
                number = whole.come_by.index(outcome.fatal) if outcome.fatal else 0
                again = f", and the next engine at its point {outcome.again_at}" if outcome.again_at else ""
                _say(f"{day.name} {number}: killed {outcome.fatal}{again}: {'; '.join(outcome.problems)}")
                if options.output:
                    _say(outcome.output)
    passed = sum(not outcome.problems for outcome in outcomes)
    if options.double:
        twice = sum(outcome.kills == 2 for outcome in outcomes)
        _say(
            f"{day.name}: {passed} of {len(tasks)} double kills passed ({twice} of the next engines were killed "
            f"too, {len(tasks) - twice} were done before), {time.monotonic() - started:.0f} s"
        )
        return outcomes
    commits = sum(point.what.startswith("commit") for point in chosen)
    _say(
        f"{day.name}: {passed} of {len(chosen)} crash points passed ({commits} at commits, {len(chosen) - commits} at "
        f"broker calls; {whole.events} events, {whole.trades} trades a day), {time.monotonic() - started:.0f} s, "
        f"{sum(outcome.seconds for outcome in outcomes) / len(outcomes):.1f} s a point"
    )
    return outcomes


def _killed(task: tuple[str, Path | str, Path, Point, int]) -> Outcome:
    name, template, folder, point, again_at = task
    return run_day(DAYS[name], template, folder, point, again_at)


def run_day(day: Day, template: Path | str, folders: Path, fatal: Point | None, again_at: int = 0) -> Outcome:
    """One day from its start to quiescence: engines until one has seen the end of it, then what must hold.

    Its ledger is a copy of the template, a SQLite file or the PostgreSQL database of that name. The engine that starts
    after a kill is killed at the `again_at`-th point that it comes by, unless that is 0.
    """
    outcome = Outcome(day=day.name, fatal=fatal, again_at=again_at)
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="point-", dir=folders))
    with databases.copied(template, folder) as url:
        (folder / ledger.URL).write_text(url)
        _play(day, folder, outcome)
    outcome.seconds = time.monotonic() - started
    shutil.rmtree(folder)
    return outcome


def _play(day: Day, folder: Path, outcome: Outcome) -> None:
    market_pid = _fork(lambda: market.run(day, folder))
    try:
        _wait_for(folder / market.ADDRESS, market_pid)
        _live(day, folder, outcome)
    except Failed as failure:
        outcome.problems.append(str(failure))
    finally:
        os.kill(market_pid, signal.SIGTERM)
        market_status = _status(market_pid)
    if market_status:
        outcome.problems.append(f"the market ended with {market_status}")
    if not outcome.problems:
        told = _told(folder, partial(_check, folder))
        outcome.problems, outcome.trades, outcome.events = told["problems"], told["trades"], told["events"]
        if outcome.fatal is None and outcome.trades != day.trades:
            outcome.problems.append(f"{outcome.trades} trades were made, not {day.trades}")
    if outcome.problems:
        outcome.output = "\n".join(
            f"--- {log.name}\n{log.read_text()[-12000:]}" for log in sorted(folder.glob("*.log"))
        )


class Failed(Exception):
    """The day could not be brought to its end."""


def _live(day: Day, folder: Path, outcome: Outcome) -> None:
    """Engine after engine until one has stopped as it should after the last minute."""
    fatal = outcome.fatal
    seen: Counter[str] = Counter()
    before: dict[str, list[str]] = {}
    for life in range(MOST_LIVES):
        log = folder / f"engine-{life}.points"
        point = None if outcome.kills else fatal
        last = outcome.again_at if outcome.kills == 1 else 0
        pid = _fork(partial(engine.run, day, folder, log, point, seen, last))
        status = _status(pid)
        left = _told(folder, ledger.at_its_end)
        rows = left["history"]
        for table, old in before.items():
            if rows[table][: len(old)] != old:
                raise Failed(f"I4 rows of {table} have changed")
        before = rows
        come_by = points.read(log)
        if not outcome.kills:
            outcome.come_by += come_by
            seen.update(point.what for point in come_by if not point.is_after)
        if status == -signal.SIGKILL and (last or point is not None):
            outcome.kills += 1
        elif status and not (outcome.kills and _says_that_it_does_not_know(status, left)):
            raise Failed(f"I6 engine {life} ended with {status}: {left['ending']}")
        elif status == 0 and left["in_doubt"]:
            raise Failed(f"I6 engine {life} says that all is well, but nobody knows of {left['in_doubt']}")
        elif status == 0 and (folder / market.OVER).exists():
            if fatal is not None and not outcome.kills:
                raise Failed("the point was never come by")
            return
    raise Failed(f"after {MOST_LIVES} engines the day was not over")


def _says_that_it_does_not_know(status: int, left: dict[str, Any]) -> bool:
    """Whether the engine ended in bad order for the one good reason: it inherited an order that may have been sent.

    That nobody has it is only sure after half a minute of look-ups; an engine that is asked to stop has five seconds.
    """
    symbols = ", ".join(left["in_doubt"])
    return status == 1 and bool(symbols) and left["ending"] == f"SIGTERM; {NOT_KNOWN}: {symbols}"


def _check(folder: Path) -> dict[str, Any]:
    account_id = "simulator:CRASH"
    problems = invariants.violations(account_id, folder / market.ACCOUNT, market.CAPITAL)
    if (folder / market.NAKED).exists():
        problems += [f"I1 {line}" for line in (folder / market.NAKED).read_text().splitlines()]
    return {
        "problems": problems,
        "trades": order_models.Trade.objects.count(),
        "events": order_models.OrderEvent.objects.count(),
    }


# --- processes --------------------------------------------------------------------------------------------------------


def _warm_up() -> None:
    """Imports what the engine and the market import when they start, so that no child has to."""
    import psycopg_pool  # noqa: F401

    import trading.live.advisory_lock
    import trading.live.alpaca_requests
    import trading.live.alpaca_streams
    import trading.simulator.opening  # noqa: F401
    from trading.live import calendar
    from trading.market import Session

    session: Session | None = calendar.session_on(DAYS["short"].start.date())
    assert session is not None


def _migrate(template: Path | str) -> int:
    databases.migrate(template)
    return 0


def _told(folder: Path, ask: Callable[[], Any]) -> Any:
    """What a child answers that may open the day's ledger, by way of JSON."""

    def answer() -> int:
        ledger.use(folder)
        (folder / "told").write_text(json.dumps(ask()))
        return 0

    _in_child(answer)
    return json.loads((folder / "told").read_text())


def _fork(work: Callable[[], int]) -> int:
    """A child that does the work and ends with its result."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        status = work()
    except BaseException:  # noqa: BLE001 - a forked child must never go on in its parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _in_child(work: Callable[[], int]) -> None:
    status = _status(_fork(work))
    if status:
        raise Failed(f"a step ended with {status}")


def _status(pid: int) -> int:
    """A child's exit status, negative for the signal that killed it; one that lives too long says where it is first."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    signals = [signal.SIGUSR1, signal.SIGABRT, signal.SIGKILL]
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signals.pop(0))
            deadline = time.monotonic() + 1
        time.sleep(0.005)


def _wait_for(path: Path, pid: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not path.exists():
        if time.monotonic() > deadline or not _is_alive(pid):
            raise Failed("the market does not start")
        time.sleep(0.005)


def _is_alive(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
