"""Metrics, the dashboard and alerts made of them, readiness, and log lines that belong together."""

import io
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml
from django.db import connection
from django.test import AsyncClient, Client
from prometheus_client.parser import text_string_to_metric_families

from algotrader import log as log_settings
from trading import store
from trading.live import meters

ROOT = Path(__file__).parents[2]
GRAFANA, ALERTS = ROOT / "deploy" / "grafana" / "algo-trader.json", ROOT / "deploy" / "prometheus" / "alerts.yml"
ONLY_SOMETIMES = {"algotrader_breaker_tripped"}  # a line for each that has tripped


def metrics_of_a_running_engine(page: Client, lease: str) -> dict[str, dict[tuple[str, ...], float]]:
    """The metrics as Prometheus reads them: values by label values, by name."""
    meters.BARS.inc()
    meters.DECISIONS.labels("daily_loss").inc()
    meters.RETRIES.labels("unavailable").inc()
    meters.LOST_STREAMS.labels("bars").inc()
    meters.STREAM_UP.labels("bars").set(1)
    meters.WRITE_SECONDS.labels("write").observe(0.002)
    store.beat(lease, meters=meters.text())
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(page.get("/api/metrics").content.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_metrics_tell_of_engine_ledger_and_processes(page: Client, lease: str) -> None:
    found = metrics_of_a_running_engine(page, lease)
    assert found["algotrader_engine_up"][()] == 1
    assert found["algotrader_bars_total"][()] >= 1
    assert found["algotrader_decisions_total"][("daily_loss",)] >= 1
    assert found["algotrader_orders"][("filled",)] == 3
    assert found["algotrader_ledger_seconds_count"][("write",)] >= 1
    assert found["algotrader_naked_seconds"].keys() == {("0.5",), ("0.99",), ("1",)}
    assert found["algotrader_worker_queue_depth"][()] == 0
    assert found["algotrader_engine_process_resident_memory_bytes"][()] > 1e6


def test_the_counts_of_an_engine_that_is_gone_are_not_told(page: Client, lease: str) -> None:
    store.beat(lease, meters=meters.text())
    store.drop_lease(lease)
    text = page.get("/api/metrics").content.decode()
    assert "algotrader_engine_up 0" in text
    assert "algotrader_bars_total" not in text


def expressions() -> list[str]:
    panels = json.loads(GRAFANA.read_text())["panels"]
    shown = [target["expr"] for panel in panels for target in panel["targets"]]
    rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    return shown + [rule["expr"] for rule in rules]


def test_dashboard_and_alerts_ask_for_metrics_that_exist(page: Client, lease: str) -> None:
    known = metrics_of_a_running_engine(page, lease).keys() | ONLY_SOMETIMES
    assert len(expressions()) > 25
    for expression in expressions():
        assert set(re.findall(r"algotrader_\w+", expression)) <= known, expression


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 10
    for rule in rules:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"].keys() == {"summary", "description"}
        assert rule["annotations"]["description"].endswith(".")


# --- liveness and readiness -------------------------------------------------------------------------------------------


def test_ready_is_who_has_a_database_that_protects_its_history(each_ledger: str) -> None:
    assert (Client().get("/api/health").json(), Client().get("/api/health/ready").json()) == (
        {"status": "ok"},
        {"status": "ready"},
    )
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TRIGGER no_delete_trade{' ON trade' if connection.vendor == 'postgresql' else ''}")
    assert Client().get("/api/health").status_code == 200
    refused = Client().get("/api/health/ready")
    assert (refused.status_code, refused.json()["detail"]) == (503, "Not ready: database.")


def test_nobody_is_ready_while_the_redis_that_is_set_is_away(ledger: str, settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1"
    assert Client().get("/api/health/ready").json()["detail"] == "Not ready: redis."


# --- log lines --------------------------------------------------------------------------------------------------------


async def test_a_request_has_an_id_which_its_answer_repeats(ledger: str) -> None:
    given = await AsyncClient().get("/api/health", headers={"X-Request-ID": "proxy-12345678"})
    assert given["X-Request-ID"] == "proxy-12345678"
    for unusable in ("short", "x" * 65, 'break"out-12345'):
        answer = await AsyncClient().get("/api/health", headers={"X-Request-ID": unusable})
        assert re.fullmatch(r"[0-9a-f-]{36}", answer["X-Request-ID"])


@pytest.fixture
def json_lines() -> Any:
    """What is logged, as JSON lines."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    configured = log_settings.configure(level="INFO", style="json", secrets=[])["formatters"]["structlog"]
    options = {name: value for name, value in configured.items() if name != "()"}
    handler.setFormatter(log_settings.MaskingFormatter(**options))
    logging.getLogger().addHandler(handler)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logging.getLogger().removeHandler(handler)


def test_json_lines_of_a_request_and_of_a_signal_can_be_found_by_their_ids(ledger: str, json_lines: Any) -> None:
    Client(enforce_csrf_checks=True).post("/login/", headers={"X-Request-ID": "proxy-12345678"})
    structlog.get_logger("engine").warning("order_filled", correlation_id="signal-1", symbol="AAPL")
    of_request, *_, of_signal = json_lines()
    assert (of_request["request_id"], of_request["level"]) == ("proxy-12345678", "warning")
    assert (of_signal["correlation_id"], of_signal["event"]) == ("signal-1", "order_filled")
    for line in (of_request, of_signal):
        assert line["timestamp"].endswith("Z")
        assert {"event", "level", "logger"} <= line.keys()
    assert "request_id" not in of_signal
