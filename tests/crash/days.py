"""Scripted days: the bars that make an engine enter, trail, leave and flatten, and what happens to it meanwhile.

All are on a half day, two hours after its open: minutes count from there. The averages have been flat at 100 dollars
since the day before, so the first strong green candle is a signal; the flatten comes 30 minutes in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from tests.built_in_market import ScriptedBars, script
from trading.live import calendar
from trading.market import Bar

DAY, DAY_BEFORE = date(2024, 11, 29), date(2024, 11, 27)
MINUTES_BEFORE = 120
FLAT = "100"
SETTINGS = {
    "strategies": "velez",
    "velez.sma_fast": "5",
    "velez.sma_slow": "100",
    "velez.candle_interval_minutes": "1",
    "velez.buy_stop_expiry_candles": "3",
    "risk.max_position_pct": "0.25",
    "risk.flatten_minutes_before_close": "60",
    "backtest.max_volume_share": "0.01",
}


def _minutes(*bars: str) -> str:
    return "|".join(bars)


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """Bars by symbol from the start on, and what is done to the engine after which minute."""

    name: str
    bars: Mapping[str, str]
    volumes: Mapping[int, int] = field(default_factory=dict)
    streams_lost: frozenset[int] = frozenset()
    stops: frozenset[int] = frozenset()
    trades: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def symbols(self) -> tuple[str, ...]:
        """In watchlist order."""
        return tuple(self.bars)

    @property
    def start(self) -> datetime:
        """When the first scripted minute begins."""
        session = calendar.session_on(DAY)
        assert session is not None
        return session.open + timedelta(minutes=MINUTES_BEFORE)

    def source(self) -> ScriptedBars:
        """The bars, for a market."""
        return ScriptedBars(*(self._bars(symbol) for symbol in self.bars), first_day=DAY, description=self.name)

    def _bars(self, symbol: str) -> list[Bar]:
        flat = "|".join([FLAT] * MINUTES_BEFORE)
        before = script(flat, symbol, day=DAY_BEFORE)
        bars = script(f"{flat}|{self.bars[symbol]}", symbol, day=DAY)
        first = bars[MINUTES_BEFORE].timestamp
        minutes = {bar: (bar.timestamp - first) // timedelta(minutes=1) for bar in bars}
        return before + [
            Bar(
                symbol=symbol, timestamp=bar.timestamp, open=bar.open, high=bar.high, low=bar.low, close=bar.close,
                volume=self.volumes.get(minutes[bar], bar.volume),
            )
            for bar in bars
        ]  # fmt: skip


SIGNAL = "100 100.50 100 100.50"
SHORT_SIGNAL = "100 100 99.50 99.50"
FILLS = "100.40 100.60 100.40 100.60"  # the entry at 100.50
RED, GREEN = "100.60 100.60 100.30 100.35", "100.35 100.60 100.35 100.60"
STRONG = ("100.60 100.90 100.60 100.90", "100.90 101.20 100.90 101.20", "101.20 101.50 101.20 101.50")
DAYS = {
    day.name: day
    for day in [
        # The entry fills in part and is cut off at the deadline; its stop is trailed once, and fills.
        Day(
            name="short",
            bars={"AAPL": _minutes(FLAT, SIGNAL, FILLS, RED, GREEN, STRONG[0], "100.90 100.90 100.20 100.20", FLAT)},
            volumes={2: 3000},
            trades=1,
        ),
        # A run of strong candles after the trail: the stop is cancelled and the shares are sold at market.
        Day(
            name="run",
            bars={"AAPL": _minutes(FLAT, SIGNAL, FILLS, RED, GREEN, *STRONG, "101.50 101.90 101.50 101.90", "101.80")},
            trades=1,
        ),
        # Held until the end of the day, with the trade stream lost while the entry works and while shares are held.
        Day(
            name="flatten",
            bars={"AAPL": _minutes(FLAT, SIGNAL, "100.40", FILLS, *["100.60"] * 29)},
            streams_lost=frozenset({2, 6}),
            trades=1,
        ),
        # Stopped with a working entry, which it cancels, and again with a position, which keeps its stop.
        Day(
            name="stops",
            bars={
                "AAPL": _minutes(FLAT, SIGNAL, *["100.40"] * 9),
                "TSLA": _minutes(*[FLAT] * 4, SIGNAL, FILLS, *["100.60"] * 3, "100.60 100.60 99.80 99.80", FLAT),
            },
            stops=frozenset({2, 7}),
            trades=1,
        ),
        # A long and a short at once; the short's entry fills in two parts, and both are still held at the end.
        Day(
            name="both",
            bars={
                "AAPL": _minutes(FLAT, SIGNAL, FILLS, RED, GREEN, *["100.60"] * 27),
                "TSLA": _minutes(FLAT, SHORT_SIGNAL, "99.60 99.60 99.40 99.40", *["99.40"] * 29),
            },
            volumes={2: 4000},
            settings={"velez.allow_short": "true", "orders.protect_deadline_seconds": "30"},
            trades=2,
        ),
    ]
}
