"""What can go wrong at a broker, as data: a seed gives a schedule, and the market asks at each occasion what to do.

An occasion is one request of a kind, one frame of a stream, one order on its way, or one minute; a fault names the
occasion and the number of its occurrence. What the market is asked for therefore decides when a fault strikes, and
the same schedule can be read, kept in a file, shortened and played again.
"""

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from pathlib import Path
from typing import Any

import structlog

log = structlog.get_logger("market")


class On(StrEnum):
    """The occasions, each counted from 1."""

    SUBMIT = "submit"
    CANCEL = "cancel"
    REPLACE = "replace"
    LOOK_UP = "look_up"  # one order, by either id
    ORDERS = "orders"  # a list of orders
    POSITIONS = "positions"
    ACCOUNT = "account"
    FILLS = "fills"
    CALENDAR = "calendar"
    CLOCK = "clock"
    BARS = "bars"  # history
    UPDATE = "update"  # a frame of the trade update stream
    BAR = "bar"  # a frame with a bar
    CANCELING = "canceling"  # a cancellation that was answered, on its way to the exchange
    REPLACING = "replacing"  # a replacement that was answered, on its way
    MINUTE = "minute"  # a minute of bars


CALLS = (
    On.SUBMIT, On.CANCEL, On.REPLACE, On.LOOK_UP, On.ORDERS, On.POSITIONS, On.ACCOUNT, On.FILLS, On.CALENDAR, On.CLOCK,
    On.BARS,
)  # fmt: skip
FRAMES = (On.UPDATE, On.BAR)


class Kind(StrEnum):
    """What goes wrong. `done`: the request is carried out all the same, and only its answer suffers."""

    # Requests.
    LATENCY = "latency"  # answered after `seconds`
    LOST = "lost"  # the connection is closed without an answer
    RESET = "reset"  # the connection is reset
    ERROR = "error"  # HTTP `status`
    HANG = "hang"  # no answer for `seconds`, then the connection is closed
    RATE_LIMITED = "rate_limited"  # 429; again after `seconds`, by Retry-After or by X-RateLimit-Reset
    # Frames.
    DUPLICATE = "duplicate"  # sent twice
    REORDER = "reorder"  # sent after the next one, or after `seconds`
    MISSING = "missing"  # never sent
    LATE = "late"  # sent after `seconds`, whatever came meanwhile
    DROP = "drop"  # the connection is cut; its slot stays taken for `seconds`
    MUTE = "mute"  # nothing more comes for `seconds`, pings are answered
    HALF_OPEN = "half_open"  # the same, and pings are not answered
    UPDATED = "updated"  # a bar is sent again half a minute later, as a correction with more volume
    # Orders on their way.
    LATE_FILL = "late_fill"  # `share` of what is left is executed before the cancellation gets there
    REFUSED = "refused"  # the replacement comes too late
    # Minutes.
    THIN = "thin"  # for `seconds` no more than `share` of a bar's volume can be had
    CLOCK_STEP = "clock_step"  # the market's clock tells a time that is `seconds` off, from now on
    RATE_LIMIT = "rate_limit"  # for `seconds` no more than `number_a_minute` requests are answered


KINDS: Mapping[On, tuple[Kind, ...]] = {
    **dict.fromkeys(CALLS, (Kind.LATENCY, Kind.LOST, Kind.RESET, Kind.ERROR, Kind.HANG, Kind.RATE_LIMITED)),
    On.UPDATE: (Kind.DUPLICATE, Kind.REORDER, Kind.MISSING, Kind.LATE, Kind.DROP, Kind.MUTE, Kind.HALF_OPEN),
    On.BAR: (
        Kind.DUPLICATE, Kind.REORDER, Kind.MISSING, Kind.LATE, Kind.DROP, Kind.MUTE, Kind.HALF_OPEN, Kind.UPDATED,
    ),
    On.CANCELING: (Kind.LATE_FILL,),
    On.REPLACING: (Kind.REFUSED,),
    On.MINUTE: (Kind.THIN, Kind.CLOCK_STEP, Kind.RATE_LIMIT),
}  # fmt: skip


class BadSchedule(Exception):
    """A schedule that cannot be read; one line that says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """`kind` strikes at the occurrences `number` to `number + times - 1` of the occasion `on`."""

    on: On
    kind: Kind
    number: int
    times: int = 1
    done: bool = False
    seconds: float = 0.0
    status: int = 503
    share: Decimal = Decimal(1)
    number_a_minute: int = 60

    def __post_init__(self) -> None:
        if self.kind not in KINDS[self.on]:
            raise BadSchedule(f"{self.kind} does not happen to {self.on}: {', '.join(KINDS[self.on])} do")
        if self.number < 1 or self.times < 1 or self.number_a_minute < 1:
            raise BadSchedule("number, times and number_a_minute begin at 1")
        if not 500 <= self.status <= 599:
            raise BadSchedule(f"status {self.status} is no server error: 500 to 599")
        if not 0 < self.share <= 1:
            raise BadSchedule(f"share {self.share} is not above 0 and at most 1")
        if self.seconds < 0 and self.kind is not Kind.CLOCK_STEP:
            raise BadSchedule("seconds cannot be negative but for a clock")

    def __str__(self) -> str:
        words = [f"{self.on} {self.number}"]
        if self.times > 1:
            words[0] += f" to {self.number + self.times - 1}"
        words.append(self.kind)
        if self.kind is Kind.ERROR:
            words.append(str(self.status))
        if self.kind in (Kind.THIN, Kind.LATE_FILL):
            words.append(f"share {self.share:f}")
        if self.kind is Kind.RATE_LIMIT:
            words.append(f"{self.number_a_minute} a minute")
        if self.seconds:
            words.append(f"{self.seconds:g} s")
        if self.on in CALLS and self.kind is not Kind.RATE_LIMITED:
            words.append("carried out" if self.done else "not carried out" if self.kind is not Kind.LATENCY else "")
        return " ".join(word for word in words if word)


DEFAULTS: Mapping[str, Any] = {field.name: field.default for field in fields(Fault)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Faults in no particular order; `seed` where they came of one."""

    faults: tuple[Fault, ...] = ()
    seed: int | None = None

    def as_json(self) -> str:
        """The text that `read_schedule` takes back."""
        return json.dumps({"seed": self.seed, "faults": [_record(fault) for fault in self.faults]}, indent=1)


NO_FAULTS = Schedule()


class Faults:
    """A schedule being played: counts the occasions and says which fault strikes.

    `struck` is what has happened so far, in order. `clock_step_seconds` is how far off the market's clock tells the
    time. `held` counts the requests that are being kept waiting on purpose.
    """

    def __init__(self, schedule: Schedule = NO_FAULTS) -> None:
        self.schedule = schedule
        self.struck: list[Fault] = []
        self.clock_step_seconds = 0.0
        self.held = 0
        self._counts: Counter[On] = Counter()
        self._by_occasion: dict[On, list[Fault]] = {}
        for fault in schedule.faults:
            self._by_occasion.setdefault(fault.on, []).append(fault)
        self._is_over = False

    def end(self) -> None:
        """From now on nothing goes wrong any more."""
        self._is_over = True
        self.clock_step_seconds = 0.0

    def strike(self, on: On) -> Fault | None:
        """Counts one occurrence of the occasion; the fault that strikes it, if one does."""
        self._counts[on] += 1
        if self._is_over:
            return None
        count = self._counts[on]
        for fault in self._by_occasion.get(on, ()):
            if fault.number <= count < fault.number + fault.times:
                self.struck.append(fault)
                log.info("market.fault", fault=str(fault), occurrence=count)
                return fault
        return None


# --- schedules --------------------------------------------------------------------------------------------------------

LONGEST_SCHEDULE = 7
SERVER_ERRORS = (500, 502, 503, 504)


def schedule_of(seed: int, *, minutes: int = 390) -> Schedule:
    """A handful of faults that follow from the seed alone, spread over a run of so many minutes."""
    chance = random.Random(f"faults/{seed}")
    faults = [_any_fault(chance, minutes) for _ in range(chance.randint(2, LONGEST_SCHEDULE))]
    return Schedule(faults=tuple(faults), seed=seed)


def _any_fault(chance: random.Random, minutes: int) -> Fault:
    group = chance.choices(("order call", "read", "update", "bar", "order", "minute"), weights=(9, 4, 6, 4, 3, 3))[0]
    often = max(minutes // 4, 4)  # how many orders a run of so many minutes may see
    match group:
        case "order call":
            return _call(chance, chance.choice((On.SUBMIT, On.SUBMIT, On.CANCEL, On.REPLACE)), within=often)
        case "read":
            on = chance.choice((On.LOOK_UP, On.ORDERS, On.POSITIONS, On.ACCOUNT, On.BARS, On.CALENDAR))
            return _call(chance, on, within=6)
        case "update":
            return _frame(chance, On.UPDATE, within=often * 3)
        case "bar":
            return _frame(chance, On.BAR, within=minutes)
        case "order":
            if chance.random() < 0.6:
                share = Decimal(chance.choice((1, 5, 10))) / 10
                return Fault(on=On.CANCELING, kind=Kind.LATE_FILL, number=chance.randint(1, often), share=share)
            return Fault(on=On.REPLACING, kind=Kind.REFUSED, number=chance.randint(1, often))
        case _:
            return _minute(chance, within=minutes)


def _call(chance: random.Random, on: On, *, within: int) -> Fault:
    kind = chance.choice(KINDS[on])
    return Fault(
        on=on,
        kind=kind,
        number=chance.randint(1, within),
        times=chance.choice((1, 1, 1, 2, 3)),
        done=chance.random() < 0.6,
        seconds=_seconds_of_call(chance, kind),
        status=chance.choice(SERVER_ERRORS) if kind is Kind.ERROR else 503,
    )


def _seconds_of_call(chance: random.Random, kind: Kind) -> float:
    match kind:
        case Kind.LATENCY:
            return round(chance.uniform(0.1, 8), 1)
        case Kind.HANG:
            return 10.0  # when the client has given up
        case Kind.RATE_LIMITED:
            return float(chance.randint(1, 20))
        case _:
            return 0.0


def _frame(chance: random.Random, on: On, *, within: int) -> Fault:
    kind = chance.choice(KINDS[on])
    seconds = {
        Kind.REORDER: 2.0,
        Kind.LATE: round(chance.uniform(0.2, 20), 1),
        Kind.DROP: float(chance.choice((0, 0, 5, 60, 90))),
        Kind.MUTE: float(chance.choice((20, 60, 300))),
        Kind.HALF_OPEN: 300.0,
    }
    times = chance.choice((1, 1, 2, 5)) if kind in (Kind.DUPLICATE, Kind.MISSING, Kind.LATE) else 1
    number = chance.randint(1, within)
    return Fault(on=on, kind=kind, number=number, times=times, seconds=seconds.get(kind, 0.0))


def _minute(chance: random.Random, *, within: int) -> Fault:
    kind, number = chance.choice((Kind.THIN, Kind.THIN, Kind.CLOCK_STEP, Kind.RATE_LIMIT)), chance.randint(1, within)
    match kind:
        case Kind.THIN:
            share = Decimal(chance.choice((2, 5, 10, 20))) / 100_000
            return Fault(on=On.MINUTE, kind=kind, number=number, share=share, seconds=chance.choice((120.0, 600.0)))
        case Kind.CLOCK_STEP:
            return Fault(on=On.MINUTE, kind=kind, number=number, seconds=float(chance.choice((-15, -3, 3, 15))))
        case _:
            return Fault(on=On.MINUTE, kind=kind, number=number, number_a_minute=chance.choice((20, 40)), seconds=120)


# --- reading and writing ----------------------------------------------------------------------------------------------


def find_schedule(text: str) -> Schedule:
    """What `--faults` names: a seed, or a file of JSON. Raises BadSchedule."""
    if text.isdecimal():
        return schedule_of(int(text))
    try:
        return read_schedule(Path(text).read_text())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text"
        raise BadSchedule(f"{text}: {reason}. --faults takes a whole number or a file") from error


def read_schedule(text: str) -> Schedule:
    """A schedule from its JSON: `{"faults": [{"on": "submit", "kind": "lost", "number": 2, "done": true}, ...]}`.

    Raises BadSchedule.
    """
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise BadSchedule(f"the schedule is no JSON: {error}") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("faults"), list) or set(raw) - {"seed", "faults"}:
        raise BadSchedule('the schedule is no object with a list "faults"')
    return Schedule(faults=tuple(_faults(raw["faults"])), seed=raw.get("seed"))


def _faults(records: Iterable[Any]) -> Iterable[Fault]:
    for number, record in enumerate(records, start=1):
        try:
            yield _fault(record)
        except BadSchedule as error:
            raise BadSchedule(f"fault {number}: {error}") from error


def _fault(record: Any) -> Fault:
    if not isinstance(record, dict):
        raise BadSchedule("it is no object")
    if unknown := set(record) - set(DEFAULTS):
        raise BadSchedule(f"unknown: {', '.join(sorted(unknown))}")
    try:
        values: dict[str, Any] = {**record, "on": On(record["on"]), "kind": Kind(record["kind"])}
        values["number"] = int(record["number"])
        for name in ("times", "status", "number_a_minute"):
            values[name] = int(record.get(name, DEFAULTS[name]))
        values["share"] = Decimal(str(record.get("share", 1)))
        values["seconds"] = float(record.get("seconds", 0))
        return Fault(**values)
    except KeyError as error:
        raise BadSchedule(f"{error.args[0]} is missing") from error
    except (TypeError, ValueError, InvalidOperation) as error:
        raise BadSchedule(str(error)) from error


def _record(fault: Fault) -> dict[str, Any]:
    values = {name: value for name, value in asdict(fault).items() if value != DEFAULTS[name]}
    return values | ({"share": str(fault.share)} if "share" in values else {})
