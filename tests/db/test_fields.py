"""Money stays exact and times stay sortable, on both databases."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from django.core.exceptions import FieldError, ValidationError
from django.db import IntegrityError, connection
from django.db.models import F, Sum
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orders.fields import DecimalField, UtcDateTimeField
from orders.models import OrderState, Trade
from tests.db.samples import ACCOUNT, at, order, record_new, record_trade, trade, uuid_of

PER_EXAMPLE = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def stored(table: str, column: str) -> Any:
    """A cell as the database has it."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {column} FROM {table} ORDER BY id DESC LIMIT 1")
        return cursor.fetchone()[0]


@pytest.mark.parametrize(
    "text",
    ["12345678901234.5678", "0.1234567890123456789012345678", "9999999999999999999999999999", "-0.0001", "1E+3", "0"],
)
def test_money_comes_back_to_the_last_digit(each_ledger: str, text: str) -> None:
    record_trade(trade(pnl=Decimal(text)))
    assert Trade.objects.get().pnl == Decimal(text)
    assert Trade.objects.filter(pnl=Decimal(text)).exists()


@PER_EXAMPLE
@given(value=st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20, places=12))
def test_any_amount_comes_back_exactly(ledger: str, value: Decimal) -> None:
    row = Trade(
        **{name: getattr(trade(), name) for name in ("symbol", "qty", "entry_price", "exit_price", "exit_reason")},
        trade_id=uuid_of(str(Trade.objects.count())),
        correlation_id=uuid_of("signal"),
        side="long",
        account_id=ACCOUNT,
        strategy="velez",
        entry_at=at(0),
        exit_at=at(1),
        duration_seconds=60,
        pnl=value,
        pnl_pct=value,
    )
    row.save()
    assert Trade.objects.get(pk=row.pk).pnl == value


def test_sqlite_keeps_money_as_text_without_exponent_or_trailing_zeros(sqlite_ledger: str) -> None:
    for text, kept in (("100.00", "100"), ("1E+3", "1000"), ("-0.00", "0"), ("0.10", "0.1"), ("-5.20", "-5.2")):
        record_trade(trade(text, pnl=Decimal(text)))
        assert stored("trade", "pnl") == kept
    assert stored("trade", "typeof(pnl)") == "text"


def test_postgresql_keeps_money_as_numeric(postgres_ledger: str) -> None:
    record_trade(trade(pnl=Decimal("12345678901234.5678")))
    assert stored("trade", "pg_typeof(pnl)::text") == "numeric"
    assert stored("trade", "pnl + 1") == Decimal("12345678901235.5678")


def test_the_same_amount_written_differently_is_found(each_ledger: str) -> None:
    record_trade(trade(pnl=Decimal("-5.20")))
    assert Trade.objects.filter(pnl=Decimal("-5.2000")).exists()
    assert Trade.objects.filter(pnl__in=[Decimal(1), Decimal("-5.2")]).exists()


@pytest.mark.parametrize("value", [1.5, True, float("nan")])
def test_floats_are_refused(ledger: str, value: float) -> None:
    with pytest.raises(TypeError, match="only Decimal, int and text are exact"):
        record_trade(trade(pnl=value))
    assert not Trade.objects.exists()


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_amount_is_refused(ledger: str, text: str) -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        record_trade(trade(pnl=Decimal(text)))


@pytest.mark.parametrize("lookup", ["gt", "gte", "lt", "lte", "range", "contains", "startswith"])
def test_the_database_is_never_asked_to_compare_money(each_ledger: str, lookup: str) -> None:
    with pytest.raises(FieldError, match="do it in Python"):
        Trade.objects.filter(**{f"pnl__{lookup}": Decimal(0)})


def test_a_sum_by_sqlite_is_refused_because_it_is_a_float(sqlite_ledger: str) -> None:
    record_trade(trade(pnl=Decimal("0.1")))
    with pytest.raises(TypeError, match="float"):
        Trade.objects.aggregate(total=Sum("pnl"))


@pytest.mark.parametrize("garbage", ["", "abc", "1.2.3", "1-2", "--1", ".", "1.", ".5", "1e3", "1 000", "NaN"])
def test_sqlite_itself_refuses_text_that_is_no_number(sqlite_ledger: str, garbage: str) -> None:
    record_new(order())
    with pytest.raises(IntegrityError), connection.cursor() as cursor:
        cursor.execute("UPDATE order_state SET qty_requested = %s", [garbage])


def test_a_sum_by_postgresql_is_exact(postgres_ledger: str) -> None:
    for text in ("0.1", "0.2"):
        record_trade(trade(text, pnl=Decimal(text)))
    assert Trade.objects.aggregate(total=Sum("pnl"))["total"] == Decimal("0.3")


def test_postgresql_itself_refuses_what_is_no_number(postgres_ledger: str) -> None:
    record_new(order())
    with pytest.raises(IntegrityError), connection.cursor() as cursor:
        cursor.execute("UPDATE order_state SET filled_value = 'NaN'")


def test_times_are_sortable_text_in_utc_with_microseconds_on_sqlite(sqlite_ledger: str) -> None:
    new_york = timezone(timedelta(hours=-5))
    record_new(order(created_at=datetime(2026, 3, 2, 9, 30, tzinfo=new_york)))
    assert stored("order_state", "created_at") == "2026-03-02T14:30:00.000000Z"
    assert stored("order_state", "recorded_real_at") == "2026-03-07T09:00:00.123456Z"


@PER_EXAMPLE
@given(moments=st.lists(st.datetimes(timezones=st.just(UTC)), min_size=2, max_size=5, unique=True))
def test_times_sort_as_text_as_they_do_as_times(moments: list[datetime]) -> None:
    as_text = partial(UtcDateTimeField().as_stored, is_text=True)
    assert sorted(map(as_text, moments)) == [as_text(moment) for moment in sorted(moments)]


def test_times_come_back_in_utc_and_are_found_by_range(each_ledger: str) -> None:
    for minute in (0, 1, 2):
        record_new(order(f"order {minute}", created_at=at(minute)))
    found = OrderState.objects.filter(created_at__gte=at(1), created_at__lt=at(2)).get().created_at
    assert found == at(1)
    assert found.tzinfo is UTC
    newest_first = OrderState.objects.order_by("-created_at").values_list("created_at", flat=True)
    assert list(newest_first) == [at(2), at(1), at(0)]


def test_a_time_without_zone_is_refused(ledger: str) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        record_new(order(expires_at=datetime(2026, 3, 2, 9, 30)))  # noqa: DTZ001  it is the point
    assert not OrderState.objects.exists()


@pytest.mark.parametrize("text", ["2026-03-02 14:30:00", "2026-03-02T14:30:00Z", "yesterday", ""])
def test_sqlite_itself_refuses_times_that_would_not_sort(sqlite_ledger: str, text: str) -> None:
    record_new(order())
    with pytest.raises(IntegrityError), connection.cursor() as cursor:
        cursor.execute("UPDATE order_state SET updated_at = %s", [text])


@pytest.mark.parametrize("part", ["year", "date", "hour"])
def test_parts_of_a_time_are_not_looked_up(ledger: str, part: str) -> None:
    with pytest.raises(FieldError):
        OrderState.objects.filter(**{f"created_at__{part}": 2026})


def test_ids_are_36_characters_of_text(each_ledger: str) -> None:
    record_new(order())
    local_id = stored("order_state", "local_id")
    assert (local_id, len(local_id)) == (uuid_of("entry"), 36)
    assert OrderState.objects.filter(local_id=UUID(local_id)).exists()
    with pytest.raises(IntegrityError), connection.cursor() as cursor:
        cursor.execute("UPDATE order_state SET correlation_id = 'short'")


def test_what_is_no_id_is_refused(ledger: str) -> None:
    with pytest.raises(ValueError, match="badly formed"):
        record_new(order(local_id="entry-1"))


def test_forms_turn_bad_values_into_errors_instead_of_tracebacks() -> None:
    for field, value in ((DecimalField(), "ten"), (DecimalField(), 0.5), (UtcDateTimeField(), "noon")):
        with pytest.raises(ValidationError):
            field.to_python(value)


def test_expressions_reach_the_database_untouched(ledger: str) -> None:
    record_new(order())
    OrderState.objects.update(requested_stop_price=F("stop_price"))
    assert OrderState.objects.get().requested_stop_price == Decimal(100)
