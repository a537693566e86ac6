"""Lockout, headers, tokens, cookies, and what production settings are."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import AsyncClient, Client

from algotrader.log import MaskingReporter
from algotrader.middleware import HEADERS
from risk import tokens
from risk.roles import Role

ROOT = Path(__file__).parents[2]
PASSWORD = "correct horse battery"


def sign_in(browser: Client, password: str, **headers: Any) -> int:
    form = {"username": "operator", "password": password}
    return browser.post("/login/", form, **headers).status_code


# --- guessing passwords -----------------------------------------------------------------------------------------------


def test_after_five_wrong_passwords_the_right_one_opens_nothing_either(ledger: str) -> None:
    User.objects.create_user("operator", password=PASSWORD, is_staff=True)
    browser = Client()
    assert [sign_in(browser, f"guess {number}") for number in range(5)] == [200] * 4 + [429]
    assert sign_in(browser, PASSWORD) == 429
    assert "15 minutes" in browser.post("/login/", {"username": "operator", "password": PASSWORD}).content.decode()
    assert browser.get("/").status_code == 302


def test_the_records_have_no_door_of_their_own(ledger: str) -> None:
    User.objects.create_user("operator", password=PASSWORD, is_staff=True)
    browser = Client()
    answer = browser.post("/admin/login/?next=/admin/auth/", {"username": "operator", "password": PASSWORD})
    assert (answer.status_code, answer["Location"]) == (302, "/login/?next=/admin/auth/")
    assert browser.get("/").status_code == 302


def test_a_guesser_locks_out_neither_other_names_nor_other_addresses(ledger: str) -> None:
    User.objects.create_user("operator", password=PASSWORD)
    User.objects.create_user("second", password=PASSWORD)
    for number in range(6):
        sign_in(Client(), f"guess {number}", REMOTE_ADDR="10.0.0.66")
    assert sign_in(Client(), PASSWORD, REMOTE_ADDR="10.0.0.1") == 302
    other = Client().post("/login/", {"username": "second", "password": PASSWORD}, REMOTE_ADDR="10.0.0.66")
    assert other.status_code == 302


def test_signing_in_forgets_earlier_slips(ledger: str) -> None:
    User.objects.create_user("operator", password=PASSWORD)
    for _ in range(3):
        assert [sign_in(Client(), word) for word in ("slip", "slip", PASSWORD)] == [200, 200, 302]


# --- tokens -----------------------------------------------------------------------------------------------------------


def status(token: str) -> int:
    return Client(headers={"Authorization": f"Bearer {token}"}).get("/api/settings").status_code


def test_a_token_that_is_over_changed_or_signed_by_another_key_opens_nothing(ledger: str, settings: Any) -> None:
    token = tokens.make(name="script", role=Role.VIEWER, seconds=60)
    assert status(token) == 200
    assert status(tokens.make(name="script", role=Role.ADMIN, seconds=-1)) == 401
    claims, _, signature = token.partition(":")
    other_claims = tokens.make(name="script", role=Role.ADMIN, seconds=60).partition(":")[0]
    assert other_claims != claims
    assert status(f"{other_claims}:{signature}") == 401
    settings.API_TOKEN = "another key"
    assert status(token) == 401


def test_the_name_in_a_token_is_noted_beside_what_was_asked(lease: str) -> None:
    token = tokens.make(name="night watch", role=Role.TRADER, seconds=60)
    answer = Client(headers={"Authorization": f"Bearer {token}"}).post("/api/halt").json()
    assert answer["requested_by"] == "night watch"


def test_apitoken_prints_a_token_that_ends(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    from dashboard.management.commands.apitoken import Command

    Command().run_from_argv(["manage.py", "apitoken", "--role", "trader", "--minutes", "5"])
    token = capsys.readouterr().out.strip()
    assert tokens.read(token) == tokens.Bearer(name="token", role=Role.TRADER)
    assert status(token) == 200
    with pytest.raises(SystemExit) as refused:
        Command().run_from_argv(["manage.py", "apitoken", "--minutes", "10081"])
    assert refused.value.code == 2


# --- headers and cookies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/login/", "/admin/", "/api/health", "/api/settings", "/static/css/base.css", "/nowhere", "/api/docs"]
)
async def test_every_answer_forbids_foreign_and_inline_code(ledger: str, path: str) -> None:
    answer = await AsyncClient().get(path)
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_session_cookie_is_for_us_alone_and_ends_with_the_day(ledger: str) -> None:
    User.objects.create_user("operator", password=PASSWORD)
    browser = Client()
    assert sign_in(browser, PASSWORD) == 302
    cookie = browser.cookies[settings.SESSION_COOKIE_NAME]
    assert (cookie["httponly"], cookie["samesite"], cookie["max-age"]) == (True, "Lax", 12 * 60 * 60)


# --- production -------------------------------------------------------------------------------------------------------

PRODUCTION = {
    "ALGO_WEB__HTTPS": "true",
    "ALGO_WEB__HOST": "0.0.0.0",
    "ALGO_WEB__ALLOWED_HOSTS": "trader.example.com",
    "ALGO_SECRET_KEY": "a-long-random-text-of-the-operator-0123456789-abcdefghijklmnopqrstuvwxyz",
}


def run(folder: Path, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ALGO_", "DJANGO_"))}
    ours = {"ALGO_DATA_DIR": str(folder), "ALGO_ENV_FILE": os.devnull}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=clean | ours | variables,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_djangos_deployment_check_has_nothing_to_say(tmp_path: Path) -> None:
    checked = run(tmp_path, "manage.py", "check", "--deploy", "--fail-level", "INFO", **PRODUCTION)
    assert (checked.returncode, checked.stdout) == (0, "System check identified no issues (0 silenced).\n"), checked


ASK = """
import django; django.setup()
from django.test import Client
plain, proxied = Client(), Client(headers={"X-Forwarded-Proto": "https"})
for client in (plain, proxied):
    answer = client.get("/login/", headers={"Host": "trader.example.com"})
    print(answer.status_code, answer.headers.get("Location"), answer.headers.get("Strict-Transport-Security"))
print(proxied.cookies["algotrader_csrf"]["secure"], plain.get("/api/health", headers={"Host": "localhost"}).status_code)
"""


def test_in_production_plain_http_is_sent_to_https_and_cookies_stay_there(tmp_path: Path) -> None:
    migrated = run(tmp_path, "manage.py", "migrate", "-v0", **PRODUCTION)
    assert migrated.returncode == 0, migrated.stderr
    asked = run(tmp_path, "-c", ASK, DJANGO_SETTINGS_MODULE="algotrader.settings", **PRODUCTION)
    assert asked.stdout.splitlines() == [
        "301 https://trader.example.com/login/ None",
        "200 None max-age=31536000; includeSubDomains; preload",
        "True 200",
    ], asked.stderr


def test_the_debug_page_hides_keys_in_settings_and_in_local_variables(settings: Any) -> None:
    key = settings.SECRET_KEY
    try:
        time.sleep("not a number: " + key)
    except TypeError:
        reporter = MaskingReporter(None, *sys.exc_info())
    for page in (reporter.get_traceback_html(), reporter.get_traceback_text()):
        assert "TypeError" in page
        assert key not in page
        assert settings.API_TOKEN not in page
