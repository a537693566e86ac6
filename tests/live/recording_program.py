"""Records one numbered bar after the other, writing each at once: `python recording_program.py DATA_DIR`."""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path

from trading.live.recording import Recorder
from trading.market import Bar

START = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
PRICE = Decimal("100.25")


async def main() -> None:
    """Go on until killed."""
    recorder = Recorder(Path(sys.argv[1]), 7)
    print("pandas" in sys.modules, flush=True)  # noqa: T201
    for number in count():
        bar = Bar(symbol="AAPL", timestamp=START, open=PRICE, high=PRICE, low=PRICE, close=PRICE, volume=number)
        recorder.add_bar(bar, START + timedelta(minutes=1), datetime.now(UTC))
        await recorder.flush()


asyncio.run(main())
