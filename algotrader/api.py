"""The HTTP API under `/api/`: every app's router, behind a login session with CSRF or the bearer token."""

from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest
from ninja.errors import HttpError
from ninja.openapi.docs import ABS_TPL_PATH, Swagger
from ninja.security import HttpBearer, SessionAuth

from algotrader.problems import ProblemAPI
from backtests.api import router as backtests_router
from dashboard.api import router as dashboard_router
from dashboard.shapes import ChartShape, Snapshot
from risk import tokens
from risk.api import needed
from risk.api import router as settings_router
from risk.roles import Role, role_of
from trading.api import router as trading_router


class Docs(Swagger):
    """The page of `/api/docs` with the files that are served here; Django Ninja not being an app, it takes a CDN's."""

    template_cdn = str(ABS_TPL_PATH / "swagger.html")


SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class Token(HttpBearer):
    """`Authorization: Bearer TOKEN`, with what `manage.py apitoken` prints."""

    def authenticate(self, request: HttpRequest, token: str) -> tokens.Bearer:
        """The token stands for a name and a role; with a wrong one no other way in is tried."""
        try:
            bearer = tokens.read(token)
        except tokens.BadToken:
            raise HttpError(401, "Unauthorized") from None
        require_role(request, bearer.role)
        return bearer


class Login(SessionAuth):
    """The session of a login, with its CSRF token for everything that changes something."""

    def authenticate(self, request: HttpRequest, key: str | None) -> Any:
        """The user who has signed in, if any."""
        user = super().authenticate(request, key)
        if user is not None:
            require_role(request, role_of(user))
        return user


def require_role(request: HttpRequest, role: Role) -> None:
    """Viewers look; whatever else a route does, it refuses them before it reads what they sent."""
    if request.method not in SAFE_METHODS and role < Role.TRADER:
        raise HttpError(403, needed(Role.TRADER))


# The token goes first: the session's check refuses a request without CSRF token before the next one is asked.
api = ProblemAPI(
    shapes=(Snapshot, ChartShape),
    title="algo-trader",
    version="1",
    auth=[Token(), Login()],
    docs=Docs(),
    docs_decorator=login_required,
)

for router in (dashboard_router, trading_router, settings_router, backtests_router):
    api.add_router("", router)
