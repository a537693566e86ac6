"""Bars on which the Velez strategy enters once, two minutes after the open, and then holds a position all day long."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

DAY = "2024-03-07"
OPENS = [datetime(2024, 3, day, 14, 30, tzinfo=UTC) for day in (5, 6, 7)]
ENTRY_PRICE, FIRST_STOP, LAST_PRICE = "100.51", "99.90", "101.00"
MINUTES = 390


def write_bars(folder: Path, symbols: tuple[str, ...]) -> Path:
    """Two days of small waves for the averages, then a strong green candle, its fill, and stillness above it."""
    folder.mkdir()
    waves = [_wave(minute) for minute in range(MINUTES)]
    eventful = ["100,100.20,100,100.20", "100.20,100.50,100.20,100.50", "100.50,101,100.50,101"]
    days = [waves, waves, eventful + ["101,101,101,101"] * (MINUTES - len(eventful))]
    lines = ["timestamp,open,high,low,close,volume"]
    for opened, prices in zip(OPENS, days, strict=True):
        for minute, line in enumerate(prices):
            lines.append(f"{(opened + timedelta(minutes=minute)).isoformat()},{line},1000")
    for symbol in symbols:
        (folder / f"{symbol}.csv").write_text("\n".join(lines) + "\n")
    return folder


def _wave(minute: int) -> str:
    """A minute of a day that begins at 100 dollars and rests there from 40 minutes before the close."""
    opened, closed = _level(minute), _level(minute + 1)
    return f"{opened:.2f},{max(opened, closed) + 0.02:.2f},{min(opened, closed) - 0.02:.2f},{closed:.2f}"


def _level(minute: int) -> float:
    share = min(max((MINUTES - 40 - minute) / 60, 0), 1)
    return 100 - share * (0.24 * math.sin(minute / 31) + 0.13 * math.sin(minute / 7) + 0.05 * math.sin(minute * 2.3))


def engine_arguments(folder: Path, symbols: tuple[str, ...], *, speed: int = 20) -> tuple[str, ...]:
    """The command that trades them."""
    return (
        "manage.py", "runengine", "--provider", "simulator", "--no-worker", "--symbols", ",".join(symbols),
        "--data", str(folder), "--start-date", DAY, "--end-date", DAY, "--speed", str(speed), "--stay",
    )  # fmt: skip
