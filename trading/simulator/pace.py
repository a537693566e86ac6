"""How market time runs against real time."""

from datetime import UTC, datetime, timedelta

LONGEST_LAG_SECONDS = 1.0  # real time; a market that is later than that does not hurry to catch up


class Pace:
    """Market time at `speed` market seconds per real second, 0 for as fast as possible, from an anchor on.

    Steps that take their time do not add up: the next one starts where it should have.
    """

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._market = datetime.fromtimestamp(0, UTC)
        self._real = 0.0

    def anchor(self, moment: datetime, real: float) -> None:
        """Market time is `moment` at real time `real`."""
        self._market, self._real = moment, real

    def keep_up(self, moment: datetime, real: float) -> None:
        """Anchors anew if market time `moment` has come too late."""
        if self.speed and real - self.real_at(moment) > LONGEST_LAG_SECONDS:
            self.anchor(moment, real)

    def real_at(self, moment: datetime) -> float:
        """The real time of a market time."""
        return self._real + (moment - self._market).total_seconds() / self.speed

    def market_at(self, real: float) -> datetime:
        """The market time of a real time, in whole seconds since the anchor."""
        return self._market + timedelta(seconds=int((real - self._real) * self.speed))
