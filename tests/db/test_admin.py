"""The admin shows the ledger and changes nothing but notes; the settings page keeps to the bounds."""

from decimal import Decimal
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from orders import models as order_models
from risk import store as risk_store
from risk.config import SETTINGS, as_text, resolve
from risk.models import SettingsOverride
from tests.db.samples import ACCOUNT, REAL, order, record_trade, record_working, trade
from trading import store as trading_store
from trading.messages import ActivityRecorded, ActivityType

PAGES = [
    f"{app}_{model._meta.model_name}"
    for app in ("orders", "risk", "trading", "backtests")
    for model in apps.get_app_config(app).get_models()
    if model._meta.db_table not in ("trade_note", "settings_override", "notification_channel")
]
SETTINGS_PAGE = "admin:risk_settingsoverride_changelist"
LIMIT = "risk.max_daily_loss_pct"


@pytest.fixture
def admin(ledger: str) -> Client:
    """A browser of somebody who may do everything."""
    client = Client()
    client.force_login(User.objects.create_superuser("ann"))
    return client


def visitor(*permissions: str) -> Client:
    """A browser of staff with these permissions only."""
    user = User.objects.create_user("bob", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def some_of_everything() -> None:
    record_working(order())
    record_trade(trade())
    trading_store.write(
        [ActivityRecorded(at=REAL, type=ActivityType.HALTED, symbol="", message="halted by ann")],
        account_id=ACCOUNT,
        run_id=None,
        settings_hash="",
        real_at=REAL,
    )
    risk_store.set_override(LIMIT, "0.05", by="ann", config=resolve([]), real_at=REAL)
    trading_store.take_lease(token="00000000-0000-4000-8000-000000000001", pid=1, host="here", port=None, real_at=REAL)
    trading_store.ask("halt", {}, by="ann", now=REAL)


@pytest.mark.parametrize("page", PAGES)
def test_every_table_can_be_read_and_not_be_written(admin: Client, page: str) -> None:
    some_of_everything()
    assert admin.get(reverse(f"admin:{page}_changelist")).status_code == 200
    assert admin.get(reverse(f"admin:{page}_add")).status_code == 403
    app, name = page.split("_")
    row = apps.get_model(app, name)._default_manager.first()
    if row is None:
        return
    detail = admin.get(reverse(f"admin:{page}_change", args=[row.pk]))
    assert detail.status_code == 200
    assert admin.post(reverse(f"admin:{page}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403
    if page != "orders_trade":
        assert admin.post(reverse(f"admin:{page}_change", args=[row.pk]), {}).status_code == 403
        assert 'name="_save"' not in detail.content.decode()


def test_a_list_is_not_sorted_by_money_which_sqlite_would_sort_as_text(admin: Client) -> None:
    some_of_everything()
    page = admin.get(reverse("admin:orders_trade_changelist")).content.decode()
    assert "column-symbol sortable" in page or "sortable column-symbol" in page
    assert "sortable column-pnl" not in page


def test_the_page_of_an_order_tells_its_life(admin: Client) -> None:
    some_of_everything()
    row = order_models.OrderState.objects.get()
    page = admin.get(reverse("admin:orders_orderstate_change", args=[row.pk])).content.decode()
    for word in ("created", "submitted", "accepted", row.broker_id or ""):
        assert word in page


def test_the_lease_token_is_not_shown(admin: Client) -> None:
    some_of_everything()
    for page in ("trading_enginelease", "trading_operatorrequest"):
        shown = admin.get(reverse(f"admin:{page}_change", args=[1])).content.decode()
        assert "00000000-0000-4000-8000-000000000001" not in shown


def notes(trade_id: str, **fields: Any) -> dict[str, Any]:
    """The form of a trade's page with one note."""
    form = {"notes-TOTAL_FORMS": "1", "notes-INITIAL_FORMS": "0", "notes-0-trade": trade_id}
    return {**form, **{f"notes-0-{name}": value for name, value in fields.items()}}


def test_notes_are_added_and_edited_at_their_trade(admin: Client) -> None:
    trade_id = record_trade(trade())
    page = reverse("admin:orders_trade_change", args=[order_models.Trade.objects.get().pk])
    before = list(order_models.Trade.objects.values())
    assert admin.post(page, notes(trade_id, note="too early")).status_code == 302
    note = order_models.TradeNote.objects.get()
    assert (note.note, note.trade_id) == ("too early", trade_id)
    edited = {**notes(trade_id, note="far too early", id=note.pk), "notes-INITIAL_FORMS": "1", "pnl": "1000000"}
    assert admin.post(page, edited).status_code == 302
    changed = order_models.TradeNote.objects.get()
    assert changed.note == "far too early"
    assert changed.updated_at > note.updated_at
    assert changed.created_at == note.created_at
    assert list(order_models.Trade.objects.values()) == before


# --- the settings page ------------------------------------------------------------------------------------------------


def form(**changes: str) -> dict[str, str]:
    """The page's form as it is when nothing was touched, but for these."""
    defaults = resolve([])
    return {setting.key: as_text(defaults[setting.key]) for setting in SETTINGS if setting.ui} | changes


def test_the_settings_page_shows_every_setting_with_source_default_and_bounds(admin: Client) -> None:
    risk_store.set_override(LIMIT, "0.05", by="ann", config=resolve([]), real_at=REAL)
    page = admin.get(reverse(SETTINGS_PAGE)).content.decode()
    for setting in SETTINGS:
        assert (setting.key if setting.ui else setting.variable) in page
    assert "a number from 0.01 to 0.10" in page
    assert "override" in page
    assert "Reset to 0.03" in page


def test_a_setting_is_changed_and_taken_back(admin: Client) -> None:
    page = reverse(SETTINGS_PAGE)
    changes = form(**{LIMIT: "0.05", "watchlist": "AAPL, TSLA"}, confirmed="yes")
    assert admin.post(page, changes).status_code == 302
    assert risk_store.overrides() == {LIMIT: "0.05", "watchlist": "AAPL,TSLA"}
    assert {change.changed_by for change in risk_store.changes()} == {"ann"}
    assert admin.post(page, {"reset": LIMIT}).status_code == 302
    assert risk_store.overrides() == {"watchlist": "AAPL,TSLA"}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (LIMIT, "0.5", "must be a number from 0.01 to 0.10"),
        ("risk.max_open_positions", "1.5", "must be a whole number from 1 to 20"),
        ("watchlist", "", "must be one or more different symbols"),
        ("log_level", "LOUD", "must be one of DEBUG, INFO"),
        ("velez.sma_fast", "21", "not a setting of this page: velez.sma_fast"),
        ("nonsense", "1", "not a setting of this page: nonsense"),
    ],
)
def test_a_bad_value_is_refused_at_its_field(admin: Client, key: str, value: str, words: str) -> None:
    answer = admin.post(reverse(SETTINGS_PAGE), form(**{key: value, "risk.max_risk_per_trade_abs": "400"}))
    assert answer.status_code == 200
    assert words in answer.content.decode()
    assert risk_store.overrides() == {}


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        (LIMIT, "0.05", "a day may lose more before entries stop"),
        ("risk.max_open_positions", "6", "more positions may lose at the same time"),
        ("risk.flatten_minutes_before_close", "0", "positions are held overnight"),
        ("watchlist", "AAPL,TSLA,AMD,NVDA", "META take no more entries"),
    ],
)
def test_a_dangerous_change_is_asked_about_and_made_when_confirmed(
    admin: Client, key: str, value: str, why: str
) -> None:
    asked = admin.post(reverse(SETTINGS_PAGE), form(**{key: value}))
    assert asked.status_code == 200
    assert why in asked.content.decode()
    assert f'value="{value}"' in asked.content.decode()  # what was typed is still there
    assert risk_store.overrides() == {}
    assert admin.post(reverse(SETTINGS_PAGE), form(**{key: value}, confirmed="yes")).status_code == 302
    assert risk_store.overrides() == {key: value}


@pytest.mark.parametrize(
    ("key", "value"), [(LIMIT, "0.02"), ("risk.max_open_positions", "4"), ("watchlist", "AAPL,TSLA,AMD,NVDA,META,IBM")]
)
def test_a_change_that_makes_trading_safer_needs_no_second_word(admin: Client, key: str, value: str) -> None:
    assert admin.post(reverse(SETTINGS_PAGE), form(**{key: value})).status_code == 302
    assert risk_store.overrides() == {key: value}


def test_taking_back_a_safer_value_is_asked_about_too(admin: Client) -> None:
    risk_store.set_override(LIMIT, "0.02", by="ann", config=resolve([]), real_at=REAL)
    asked = admin.post(reverse(SETTINGS_PAGE), {"reset": LIMIT})
    assert asked.status_code == 200
    assert "a day may lose more" in asked.content.decode()
    assert admin.post(reverse(SETTINGS_PAGE), {"reset": LIMIT, "confirmed": "yes"}).status_code == 302
    assert risk_store.overrides() == {}


def test_resetting_what_does_not_exist_is_an_error_not_a_crash(admin: Client) -> None:
    answer = admin.post(reverse(SETTINGS_PAGE), {"reset": "nonsense"})
    assert answer.status_code == 200
    assert "is not a setting" in answer.content.decode()


def test_an_override_that_no_longer_fits_can_be_taken_back(admin: Client) -> None:
    SettingsOverride.objects.create(key=LIMIT, value="0.9", updated_at=REAL)
    page = admin.get(reverse(SETTINGS_PAGE)).content.decode()
    assert "An override cannot be used" in page
    assert "Reset to 0.03" in page
    assert admin.post(reverse(SETTINGS_PAGE), {"reset": LIMIT}).status_code == 302
    assert risk_store.overrides() == {}


def test_an_untouched_page_changes_nothing(admin: Client) -> None:
    assert admin.post(reverse(SETTINGS_PAGE), form()).status_code == 302
    assert not SettingsOverride.objects.exists()


def test_secrets_are_not_shown(admin: Client, settings: Any) -> None:
    settings.ALGO = resolve([("env", {"ALGO_BROKER__API_KEY": "PKTEST", "ALGO_BROKER__SECRET_KEY": "very-secret"})])
    page = admin.get(reverse(SETTINGS_PAGE)).content.decode()
    assert "very-secret" not in page
    assert "PKTEST" not in page


def test_who_may_only_look_sees_no_form(ledger: str) -> None:
    client = visitor("view_settingsoverride")
    page = client.get(reverse(SETTINGS_PAGE))
    assert page.status_code == 200
    assert "<input" not in page.content.decode().partition('id="settings-form"')[2].partition("</form>")[0].replace(
        '<input type="hidden" name="csrfmiddlewaretoken"', ""
    )
    assert client.post(reverse(SETTINGS_PAGE), form(**{LIMIT: "0.05"})).status_code == 403
    assert risk_store.overrides() == {}


def test_who_has_no_business_there_is_sent_away(ledger: str) -> None:
    assert visitor().get(reverse(SETTINGS_PAGE)).status_code == 403
    assert Client().get(reverse(SETTINGS_PAGE)).status_code == 302


def test_an_override_in_force_is_what_the_form_starts_from(admin: Client) -> None:
    risk_store.set_override(LIMIT, "0.05", by="ann", config=resolve([]), real_at=REAL)
    answer = admin.post(reverse(SETTINGS_PAGE), form(**{LIMIT: "0.05"}))
    assert answer.status_code == 302
    assert len(risk_store.changes()) == 1
    assert risk_store.effective(resolve([]))[LIMIT] == Decimal("0.05")
