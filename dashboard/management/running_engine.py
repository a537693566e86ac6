"""The running engine as commands see it: over HTTP through its dashboard, else by its rows in the database."""

from typing import Any

import requests
from django.conf import settings

from dashboard import store
from orders.command import UserError
from risk import tokens
from risk.roles import Role
from trading import store as trading_store

ANSWER_SECONDS = 10.0
NAME = "command line"
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # what a server listens on, and where to reach it then


class NoAnswer(Exception):
    """Nobody answers at the dashboard's address, or somebody who is not our dashboard."""


def address() -> str:
    """HOST:PORT at which the settings have the dashboard."""
    return f"{settings.WEB_HOST}:{settings.WEB_PORT}"


def call(method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    """Status and JSON that the API answers. Raises NoAnswer."""
    host = EVERYWHERE.get(settings.WEB_HOST, settings.WEB_HOST)
    url = f"http://{f'[{host}]' if ':' in host else host}:{settings.WEB_PORT}/api/{path}"
    with requests.Session() as session:
        session.trust_env = False  # a proxy of the environment is not the way to this machine
        token = tokens.make(name=NAME, role=Role.ADMIN, seconds=tokens.COMMAND_SECONDS)
        session.headers["Authorization"] = f"Bearer {token}"
        if settings.SECURE_SSL_REDIRECT:
            session.headers["X-Forwarded-Proto"] = "https"  # this machine's own loopback needs no proxy
        try:
            response = session.request(method, url, json=body, timeout=ANSWER_SECONDS, allow_redirects=False)
            return response.status_code, response.json()
        except (requests.RequestException, ValueError) as error:
            raise NoAnswer(f"{url}: {error}") from error


def snapshot() -> dict[str, Any]:
    """The state of the running engine: what it says itself, or else what the database knows of it.

    Raises UserError when none runs.
    """
    try:
        status, answer = call("GET", "dashboard")
        if status == 200 and answer["connection"].get("engine") != "off":
            return dict(answer)
    except NoAnswer:
        pass
    if trading_store.live_lease() is None:
        raise not_running()
    return store.snapshot()


def not_running() -> UserError:
    """What commands say when there is no engine."""
    return UserError(f"Engine is not running (could not connect to {address()}).")
