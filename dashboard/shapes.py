"""The state and the messages that pages get, as `docs/reference` and the API's document describe them.

Money and quantities are JSON numbers for display; the ledger's exact values are in `/api/orders` and `/api/trades`.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MOMENT = "2026-03-02T15:04:05.000000Z"


class Shape(BaseModel):
    """What is described may have more than this."""

    model_config = ConfigDict(extra="allow")


class AccountShape(Shape):
    """The account as the engine knows it; null is unknown, as without an engine."""

    equity: float | None = Field(description="Cash folded from our fills, plus open positions at the last close.")
    buying_power: float | None
    cash: float | None
    account_id: str = Field(description="Provider and the broker's account number; empty before the first run.")


class PositionShape(Shape):
    """An open position. `stop_price` is that of its working stop, null without one."""

    symbol: str
    qty: float
    avg_entry_price: float
    current_price: float | None
    unrealized_pnl: float | None
    side: Literal["long", "short"]
    stop_price: float | None


class PnlShape(Shape):
    """The session's result; `today_pnl_pct` is a fraction."""

    today_pnl: float | None
    today_pnl_pct: float | None
    unrealized_pnl: float | None
    realized_pnl: float | None
    total_equity: float | None
    buying_power: float | None


class AveragesShape(Shape):
    """The averages of the last completed candle."""

    sma_fast: float | None
    sma_slow: float | None


class StrategyShape(Shape):
    """What one strategy does with one symbol."""

    name: str
    symbol: str
    enabled: bool
    status: Literal["warming_up", "cold", "watching", "signal_active", "in_position", "paused"]
    indicators: AveragesShape
    bar_count: int


class ActivityShape(Shape):
    """A line of the feed; `correlation_id` ties a signal to its orders, fills and trade."""

    id: str
    timestamp: str
    type: str = Field(description="signal, order_submitted, order_filled, stop_moved, trade_closed, naked and others")
    symbol: str
    message: str
    correlation_id: str


class ConnectionShape(Shape):
    """Streams, market and switches. `engine` is there only when the database answers for an engine that does not."""

    status: Literal["connected", "reconnecting", "disconnected", "shutting_down"]
    bar_stream: bool
    trade_stream: bool
    last_bar_at: str | None
    account_mode: Literal["built_in", "paper", "live"]


class Snapshot(Shape):
    """The full state: the first message of a WebSocket, and `GET /api/dashboard`."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "account": {"equity": 25012.5, "buying_power": 23790.1, "cash": 23790.1, "account_id": "alpaca:PA1"},
                "positions": [
                    {
                        "symbol": "AAPL", "qty": 12, "avg_entry_price": 100.01, "current_price": 101.2,
                        "unrealized_pnl": 14.28, "side": "long", "stop_price": 99.5,
                    }
                ],
                "pnl": {
                    "today_pnl": 12.5, "today_pnl_pct": 0.0005, "unrealized_pnl": 14.28, "realized_pnl": -1.78,
                    "total_equity": 25012.5, "buying_power": 23790.1,
                },
                "strategies": [
                    {
                        "name": "velez", "symbol": "AAPL", "enabled": True, "status": "in_position",
                        "indicators": {"sma_fast": 100.5, "sma_slow": 99.9}, "bar_count": 200,
                    }
                ],
                "recent_activity": [
                    {
                        "id": "7", "timestamp": MOMENT, "type": "order_filled", "symbol": "AAPL",
                        "message": "bought 12 AAPL at 100.01", "correlation_id": "0640d236-539b-5e9d-a921-021034ba86ae",
                    }
                ],
                "connection": {
                    "status": "connected", "bar_stream": True, "trade_stream": True, "last_bar_at": MOMENT,
                    "account_mode": "paper",
                },
            }
        },
    )  # fmt: skip

    account: AccountShape
    positions: list[PositionShape]
    pnl: PnlShape
    strategies: list[StrategyShape]
    recent_activity: list[ActivityShape]
    connection: ConnectionShape


class CandleShape(Shape):
    """A candle of a symbol, still open or `final`; `timestamp` is its start."""

    symbol: str
    interval: int = Field(description="Minutes.")
    timestamp: str
    open: float
    high: float
    low: float
    close: float
    volume: int
    sma_fast: float | None
    sma_slow: float | None
    final: bool


class ErrorShape(Shape):
    """Something went wrong that somebody at the page should know."""

    code: str
    message: str
    correlation_id: str


class HeartbeatShape(Shape):
    """Every 15 seconds, so that a page knows that the connection lives."""

    server_time: str


class ChartShape(Shape):
    """A symbol's candles with averages, the fills among them, and the open position's stop."""

    symbol: str
    candles: list[dict[str, Any]]
    marks: list[dict[str, Any]]
    stop_price: float | None


MESSAGES: dict[str, tuple[type[Shape], str]] = {
    "snapshot": (Snapshot, 'first, after a gap, and when a page asks by sending `{"type": "snapshot"}`'),
    "position_update": (PositionShape, "always the full list"),
    "pnl_update": (PnlShape, "when it changed, a few times a second at most"),
    "activity": (ActivityShape, "each once"),
    "strategy_state": (StrategyShape, "one strategy and symbol"),
    "connection_status": (ConnectionShape, "when it changed"),
    "candle": (CandleShape, "the open candle of a symbol as it grows, and once when it is final"),
    "error": (ErrorShape, "when it happens"),
    "heartbeat": (HeartbeatShape, "every 15 s"),
}
