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
DAYS = {
    day.name: day
    for day in [
        Day(
            name="short",
            # The entry fills in part and is cut off; its stop is trailed once, and fills.
            bars={"AAPL": f"{FLAT}|{SIGNAL}|100.40 100.60 100.40 100.60|100.60 100.60 100.30 100.35|"
                          "100.35 100.60 100.35 100.60|100.60 100.80 100.60 100.80|100.80 100.80 100.20 100.20|100.20"},
            volumes={2: 3000},
            trades=1,
        ),
    ]
}  # fmt: skip
