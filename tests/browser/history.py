"""A ledger with a little history, for pages without an engine."""

from datetime import timedelta

from orders.fields import utc_now
from tests.browser.conftest import make_superuser
from tests.db.samples import ACCOUNT, fill, order, record, record_trade, record_working, stop, trade
from trading import store


def write_history() -> None:
    """A closed trade in AAPL and an open position in TSLA with its stop."""
    store.start_run(
        account_id=ACCOUNT, provider="simulator", account_mode="built_in", strategies=["velez"], symbols=["AAPL"],
        settings={}, settings_hash="abc", options={}, real_at=utc_now() - timedelta(hours=1),
    )  # fmt: skip
    entry = record_working(order())
    record(entry, fill(entry, "10", "100.01"))
    stopped = record_working(stop())
    record(stopped, fill(stopped, "10", "99.49", minute=5))
    record_trade(trade())
    held = record_working(order("tsla", signal="tsla", symbol="TSLA"))
    record(held, fill(held, "10", "100.03", minute=20))
    record_working(stop("tsla-stop", signal="tsla", symbol="TSLA"))


def write_history_of_a_superuser() -> None:
    """As `write_history`, and the operator may enter every page of the admin."""
    write_history()
    make_superuser()
