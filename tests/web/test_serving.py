"""Static files, the page's WebSocket and the API's door, as the ASGI application serves them."""

import warnings
from pathlib import Path

import pytest
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth.models import User
from django.test import AsyncClient, Client

from algotrader.asgi import application
from risk import tokens
from risk.roles import Role

STATIC_FILE = "/static/admin/css/base.css"


# --- static files -----------------------------------------------------------------------------------------------------


async def test_a_static_file_is_served_whole_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        response = await AsyncClient().get(STATIC_FILE)
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/css")
    assert len(response.content) == int(response["Content-Length"]) > 1000
    assert "Access-Control-Allow-Origin" not in response


async def test_an_unchanged_static_file_is_not_sent_again_and_a_part_can_be_asked_for() -> None:
    first = await AsyncClient().get(STATIC_FILE)
    again = await AsyncClient().get(STATIC_FILE, headers={"If-None-Match": first["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    part = await AsyncClient().get(STATIC_FILE, headers={"Range": "bytes=2-5"})
    assert (part.status_code, part.content) == (206, first.content[2:6])


def test_static_files_are_served_to_a_synchronous_client_too() -> None:
    response = Client().get(STATIC_FILE)
    assert (response.status_code, Client().post(STATIC_FILE).status_code) == (200, 405)


@pytest.mark.parametrize("path", ["/static/../manage.py", "/static/%2e%2e/manage.py", "/static//etc/passwd"])
async def test_nothing_outside_the_static_folders_is_served(path: str, ledger: str) -> None:
    assert (await AsyncClient().get(path)).status_code == 404


# --- WebSocket --------------------------------------------------------------------------------------------------------


async def is_refused(path: str = "/ws/dashboard", **headers: str) -> bool:
    """Whether the connection is refused before anything is said; the login is looked at only after this door."""
    named = [(name.encode(), value.encode()) for name, value in headers.items()]
    communicator = WebsocketCommunicator(application, path, headers=named)
    _, code = await communicator.connect()
    await communicator.disconnect()
    return bool(code != LOGIN_NEEDED)


LOGIN_NEEDED = 4401


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("localhost", "https://localhost:443"),
        ("LOCALHOST:8000", "http://localhost:8000"),
    ],
)
async def test_a_page_of_this_host_and_port_may_open_the_websocket(ledger: str, host: str, origin: str) -> None:
    assert not await is_refused(host=host, origin=origin)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://evil.example"),
        ("localhost:8000", "http://localhost:9000"),
        ("localhost:8000", "http://localhost.evil.example:8000"),
        ("evil.example", "http://evil.example"),  # a name that an attacker points at this machine
        ("localhost:8000", "null"),
        ("localhost:8000", ""),
    ],
)
async def test_a_page_of_another_origin_may_not(ledger: str, host: str, origin: str) -> None:
    assert await is_refused(host=host, origin=origin)


async def test_there_is_no_other_websocket(ledger: str) -> None:
    assert await is_refused("/ws/other", host="localhost:8000", origin="http://localhost:8000")


# --- the API's door ---------------------------------------------------------------------------------------------------


def viewers_token() -> str:
    return tokens.make(name="token", role=Role.VIEWER, seconds=60)


@pytest.mark.parametrize("path", ["settings", "orders", "trades", "backtests"])
def test_the_api_is_closed_to_strangers_and_open_to_the_token_and_to_a_login(ledger: str, path: str) -> None:
    assert Client().get(f"/api/{path}").status_code == 401
    for token, status in (("guess", 401), ("ünïcode", 401), (settings.API_TOKEN, 401), (viewers_token(), 200)):
        assert Client(headers={"Authorization": f"Bearer {token}"}).get(f"/api/{path}").status_code == status
    page = Client()
    page.force_login(User.objects.create_user("operator"))
    assert page.get(f"/api/{path}").status_code == 200


def test_a_login_without_csrf_token_changes_nothing_while_the_bearer_token_needs_none(ledger: str) -> None:
    page = Client(enforce_csrf_checks=True)
    page.force_login(User.objects.create_user("operator"))
    assert page.put("/api/settings", "{}", content_type="application/json").status_code == 403
    script = Client(enforce_csrf_checks=True, headers={"Authorization": f"Bearer {viewers_token()}"})
    assert script.put("/api/settings", "{}", content_type="application/json").json()["detail"].startswith("This needs")


def test_health_says_that_we_live_to_anybody(ledger: str) -> None:
    assert Client().get("/api/health").status_code == 200


def test_another_host_name_is_refused(ledger: str) -> None:
    assert Client().get("/api/health", headers={"Host": "evil.example"}).status_code == 400


def test_the_key_of_the_tokens_is_kept_beside_the_database_for_commands_on_this_machine() -> None:
    assert (Path(settings.DATA_DIR) / "api_token").read_text().strip() == settings.API_TOKEN
