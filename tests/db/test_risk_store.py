"""Settings of the page win over the environment, within their bounds, and every change is remembered."""

from decimal import Decimal

import pytest

from risk import store
from risk.config import Config, ConfigError, resolve
from risk.models import SettingsChange, SettingsOverride
from tests.db.samples import REAL

LIMIT = "risk.max_daily_loss_pct"


def config() -> Config:
    return resolve([("env", {"ALGO_RISK__MAX_OPEN_POSITIONS": "7"})])


def override(key: str, value: str, *, by: str = "ann") -> None:
    store.set_override(key, value, by=by, config=config(), real_at=REAL)


def test_an_override_wins_over_the_environment(each_ledger: str) -> None:
    assert store.effective(config())["risk.max_open_positions"] == 7
    override("risk.max_open_positions", "3")
    override(LIMIT, " 0.05 ")
    effective = store.effective(config())
    assert (effective["risk.max_open_positions"], effective.source("risk.max_open_positions")) == (3, "override")
    assert effective[LIMIT] == Decimal("0.05")
    assert store.overrides() == {"risk.max_open_positions": "3", LIMIT: "0.05"}


def test_what_was_before_is_kept_with_the_override(each_ledger: str) -> None:
    override(LIMIT, "0.05")
    override(LIMIT, "0.02", by="bob")
    row = SettingsOverride.objects.get()
    assert (row.value, row.previous_value, row.updated_at, row.updated_by) == ("0.02", "0.05", REAL, "bob")


def test_every_change_is_remembered_with_who_made_it(each_ledger: str) -> None:
    override(LIMIT, "0.05")
    override(LIMIT, "0.05")
    override(LIMIT, "0.02", by="bob")
    store.reset_override(LIMIT, by="eve", real_at=REAL)
    store.reset_override(LIMIT, by="eve", real_at=REAL)
    told = [(change.old_value, change.new_value, change.changed_by) for change in store.changes()]
    assert told == [("0.02", None, "eve"), ("0.05", "0.02", "bob"), (None, "0.05", "ann")]
    assert {change.changed_at for change in store.changes()} == {REAL}
    assert len(store.changes(limit=1)) == 1
    assert store.overrides() == {}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (LIMIT, "0.5", "must be a number from 0.01 to 0.10"),
        (LIMIT, "lots", "must be a number"),
        (LIMIT, "", "must be a number"),
        ("watchlist", "aapl", "must be one or more different symbols"),
        ("watchlist", "", "must be one or more different symbols"),
        ("velez.sma_fast", "21", "set ALGO_VELEZ__SMA_FAST and restart"),
        ("broker.secret_key", "hidden", "set ALGO_BROKER__SECRET_KEY and restart"),
        ("risk.max_daily_los_pct", "0.05", "is not a setting"),
    ],
)
def test_a_bad_override_is_refused_with_its_bound(each_ledger: str, key: str, value: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        override(key, value)
    assert store.overrides() == {}
    assert not SettingsChange.objects.exists()


def test_what_does_not_exist_cannot_be_reset(each_ledger: str) -> None:
    with pytest.raises(ConfigError):
        store.reset_override("nonsense", by="ann", real_at=REAL)


def test_rows_for_settings_that_need_a_restart_count_for_nothing(each_ledger: str) -> None:
    for key in ("velez.sma_fast", "nonsense", "broker.paper"):
        SettingsOverride.objects.create(key=key, value="false", updated_at=REAL)
    assert store.overrides() == {}
    assert store.effective(config()).as_texts() == config().as_texts()


def test_an_override_that_no_longer_fits_stops_with_its_bound(each_ledger: str) -> None:
    SettingsOverride.objects.create(key=LIMIT, value="0.9", updated_at=REAL)
    with pytest.raises(ConfigError, match="must be a number from"):
        store.effective(config())
