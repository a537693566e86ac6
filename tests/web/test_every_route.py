"""Every address, asked in every way by nobody, a viewer, a trader and an admin: who is let in where."""

import re
from collections.abc import Iterator
from itertools import product

import pytest
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.resolvers import RoutePattern

from algotrader.api import api
from algotrader.asgi import application, routes
from risk import tokens
from risk.roles import Role
from tests.db.samples import uuid_of
from tests.web.conftest import History

ROLES = tuple(Role)
SAFE, UNSAFE = ("GET", "HEAD"), ("POST", "PUT", "PATCH", "DELETE")
SAMPLES = {
    "int": "1", "uuid": uuid_of("nobody"), "uuidstr": uuid_of("nobody"), "str": "x", "slug": "x", "path": "1",
    "app_label": "orders", "url": "nowhere",
}  # fmt: skip
PUBLIC = ("login/", "favicon.ico", "api/health", "api/health/ready", "admin/login/")
FOR_ADMINS = ("admin/",)
UNSAFE_FOR_ADMINS = ("api/settings",)
ONLY_READ = ("api/docs", "api/openapi.json")  # answer every method with the same page
NOT_WALKED = ("logout/", "admin/logout/", "api/")  # these end the walk, and there is nothing at the last one


def addresses(resolver: URLResolver | None = None, prefix: str = "") -> Iterator[str]:
    """A sample address for each route."""
    for entry in (resolver or get_resolver()).url_patterns:
        address = prefix + sample(entry)
        if isinstance(entry, URLResolver):
            yield from addresses(entry, address)
        else:
            yield address


def sample(entry: URLPattern | URLResolver) -> str:
    if isinstance(entry.pattern, RoutePattern):
        return re.sub(r"<(?:(\w+):)?(\w+)>", lambda found: SAMPLES[found[1] or "str"], str(entry.pattern))
    text = re.sub(r"\(\?P<(\w+)>[^)]*\)", lambda found: SAMPLES[found[1]], str(entry.pattern))
    return text.replace("\\Z", "").replace("\\.", ".").strip("^$")


ADDRESSES = sorted(set(addresses()) - set(NOT_WALKED))


def least(method: str, address: str) -> Role:
    """Who may at least do this: looking is for viewers, all else for traders, but for the exceptions above."""
    if address in PUBLIC:
        return Role.NOBODY
    if address.startswith(FOR_ADMINS) or (method in UNSAFE and address in UNSAFE_FOR_ADMINS):
        return Role.ADMIN
    if address in ("backtests/new/", "sweeps/new/"):
        return Role.TRADER
    return Role.VIEWER if method in SAFE or address in ONLY_READ else Role.TRADER


@pytest.fixture
def clients(history: History) -> dict[Role, Client]:
    """A browser for each role, a login in the group of that name; nobody has none."""
    browsers = {Role.NOBODY: Client(raise_request_exception=False)}
    for role in ROLES[1:]:
        user = User.objects.create_user(role.group)
        user.groups.add(Group.objects.get(name=role.group))
        browsers[role] = Client(raise_request_exception=False)
        browsers[role].force_login(user)
    return browsers


def is_refused(browser: Client, method: str, address: str) -> bool | None:
    """Whether the answer is that of a closed door; None when there is no such door."""
    answer = browser.generic(method, f"/{address}", "{}" if method in UNSAFE else "", content_type="application/json")
    assert answer.status_code < 500, f"{method} /{address}: {answer.status_code}"
    if answer.status_code == 405:
        return None
    to_login = answer.status_code == 302 and answer["Location"].startswith(("/login/", "/admin/login/"))
    return to_login or answer.status_code in (401, 403)


def test_every_page_and_api_route_lets_in_whom_it_should(clients: dict[Role, Client]) -> None:
    wrong = []
    for address, role in product(ADDRESSES, ROLES):
        methods = ("GET", "POST") if address.startswith("admin/") else (*SAFE, *UNSAFE)
        for method in methods:
            refused, needed = is_refused(clients[role], method, address), least(method, address)
            should_be = role < needed
            if address.startswith("admin/") and not should_be:
                continue  # what an admin may do in there follows from Django's permissions
            if refused is not None and refused != should_be:
                wrong.append(f"{method} /{address} as {role.name}: {'refused' if refused else 'let in'}")
    assert wrong == []


def test_the_walk_meets_every_kind_of_route() -> None:
    assert len(ADDRESSES) > 60
    assert {"", "orders/", "trades.csv", "api/settings", "api/flatten", "admin/", "api/docs"} <= set(ADDRESSES)


@pytest.mark.parametrize("role", ROLES[1:], ids=lambda role: role.group)
def test_a_bearer_token_opens_what_its_role_may(history: History, role: Role) -> None:
    token = tokens.make(name="script", role=role, seconds=60)
    script = Client(headers={"Authorization": f"Bearer {token}"})
    wrong = []
    for address in (each for each in ADDRESSES if each.startswith("api/") and not each.startswith("api/docs")):
        if address == "api/openapi.json":
            continue  # for people: it takes a login
        for method in (*SAFE, *UNSAFE):
            refused = is_refused(script, method, address)
            if refused is not None and refused != (role < least(method, address)):
                wrong.append(f"{method} /{address}: {'refused' if refused else 'let in'}")
    assert wrong == []


def test_every_operation_of_the_api_is_among_the_addresses() -> None:
    walked = {f"/{address}" for address in ADDRESSES}
    for path in api.get_openapi_schema()["paths"]:
        pattern = re.compile(re.sub(r"\{\w+\}", "[^/]+", path))
        assert any(map(pattern.fullmatch, walked)), path


async def test_every_websocket_is_for_logins_alone(ledger: str) -> None:
    paths = [str(route.pattern) for route in routes if str(route.pattern)]
    assert paths == ["ws/dashboard"]
    for path in paths:
        headers = [(b"host", b"localhost:8000"), (b"origin", b"http://localhost:8000")]
        stranger = WebsocketCommunicator(application, f"/{path}", headers=headers)
        assert await stranger.connect() == (False, 4401)
        forged = (b"cookie", f"{settings.SESSION_COOKIE_NAME}=forged".encode())
        guesser = WebsocketCommunicator(application, f"/{path}", headers=[*headers, forged])
        assert await guesser.connect() == (False, 4401)
