"""Asks the broker which symbols it trades, for the settings page, which runs outside the engine."""

import asyncio
from collections.abc import Sequence

import structlog
from asgiref.sync import async_to_sync
from django.conf import settings

from risk.symbols import CannotTell

log = structlog.get_logger("settings")

LONGEST_WAIT_SECONDS = 8.0


def not_tradable(symbols: Sequence[str]) -> Sequence[str]:
    """Those of the symbols that the broker does not trade; the built-in market trades any. Raises CannotTell."""
    if settings.ALGO["broker.provider"] == "simulator":
        return ()
    return async_to_sync(_ask)(symbols)


async def _ask(symbols: Sequence[str]) -> Sequence[str]:
    from trading.broker import BrokerError  # here, since every command loads this module's app
    from trading.live.place import alpaca_broker

    broker = alpaca_broker(settings.ALGO)
    try:
        async with asyncio.timeout(LONGEST_WAIT_SECONDS):
            await broker.connect()
            return [symbol for symbol in symbols if not await broker.is_tradable(symbol)]
    except (BrokerError, TimeoutError) as error:
        reason = str(error) or "no answer in time"
        log.warning("symbols.not_checked", reason=reason)
        raise CannotTell(f"the broker could not be asked: {reason}") from error
    finally:
        await broker.disconnect()
