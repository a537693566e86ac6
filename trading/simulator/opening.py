"""Opens the built-in market as a command line and the settings ask for it: alone, or inside the engine's process."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path

from orders.command import UserError
from risk.config import Config
from trading.exchange import Exchange
from trading.live.barfiles import BarFileError
from trading.simulator.accountfile import AccountFileError
from trading.simulator.faults import NO_FAULTS, Schedule
from trading.simulator.history import BarSource
from trading.simulator.lockstep import Lockstep
from trading.simulator.market import Market
from trading.simulator.recorded import read_recorded_bars
from trading.simulator.streams import Keys
from trading.simulator.synthetic import SyntheticBars

DEFAULT_SPEED = Decimal(30)


def market_bars(
    data: Path | None, *, symbols: Sequence[str], start_date: date | None, end_date: date | None, seed: int
) -> BarSource:
    """Bars from files, or synthetic ones without a path. Raises UserError when the files cannot be used."""
    if data is None:
        return SyntheticBars(seed=seed, symbols=symbols)
    try:
        bars, _ = read_recorded_bars(data, symbols=symbols, start_date=start_date, end_date=end_date)
    except BarFileError as error:
        raise UserError(str(error)) from error
    return bars


def open_market(
    config: Config,
    *,
    bars: BarSource,
    account_number: str,
    account_path: Path | None,
    initial_capital: Decimal,
    speed: Decimal | None,
    keys: Keys,
    lockstep: Lockstep | None = None,
    faults: Schedule = NO_FAULTS,
) -> Market:
    """A market with the costs and the margin of the settings. Raises UserError when its account cannot be read."""
    try:
        return Market(
            bars=bars,
            account_number=account_number,
            initial_capital=initial_capital,
            exchange=Exchange(
                slippage_per_share=config["backtest.slippage_per_share"],
                commission_per_share=config["backtest.commission_per_share"],
                max_volume_share=config["backtest.max_volume_share"],
            ),
            multiplier=2 if config["risk.allow_margin"] else 1,
            speed=float(DEFAULT_SPEED if speed is None else speed),
            account_path=account_path,
            keys=keys,
            lockstep=lockstep,
            faults=faults,
        )
    except AccountFileError as error:
        raise UserError(str(error)) from error
