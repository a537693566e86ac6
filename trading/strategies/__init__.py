"""The strategies: importing this package registers each of them under its name."""

from trading.strategies.opening_range import OpeningRange
from trading.strategies.velez import Velez

__all__ = ["OpeningRange", "Velez"]
