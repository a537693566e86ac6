"""How many shares an entry may have."""

from decimal import Decimal

ZERO = Decimal(0)


def shares(
    *,
    equity: Decimal,
    buying_power: Decimal,
    entry_price: Decimal,
    stop_price: Decimal,
    max_risk_per_trade_pct: Decimal,
    max_risk_per_trade_abs: Decimal,
    max_position_pct: Decimal,
) -> Decimal:
    """Whole shares such that neither risk to the stop, nor position, nor cost exceeds its limit; 0 if none fits.

    Money in dollars, `..._pct` as fractions. Floor division is exact, so a limit is met to the cent.
    """
    distance = abs(entry_price - stop_price)
    if distance == 0 or entry_price <= 0:
        return ZERO
    by_risk = min(equity * max_risk_per_trade_pct, max_risk_per_trade_abs) // distance
    by_position = equity * max_position_pct // entry_price
    by_cost = buying_power // entry_price
    return max(min(by_risk, by_position, by_cost), ZERO)
