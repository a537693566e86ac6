"""The HTTP API under `/api/`: every app's router, behind a login session with CSRF or the bearer token."""

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare
from ninja import NinjaAPI
from ninja.errors import HttpError
from ninja.openapi.docs import ABS_TPL_PATH, Swagger
from ninja.security import HttpBearer, SessionAuth

from backtests.api import router as backtests_router
from dashboard.api import router as dashboard_router
from risk.api import TOKEN_USER
from risk.api import router as settings_router
from trading.api import router as trading_router


class Docs(Swagger):
    """The page of `/api/docs` with the files that are served here; Django Ninja not being an app, it takes a CDN's."""

    template_cdn = str(ABS_TPL_PATH / "swagger.html")


class Token(HttpBearer):
    """`Authorization: Bearer <ALGO_WEB__API_TOKEN>`, or the key kept in the data folder."""

    def authenticate(self, request: HttpRequest, token: str) -> str:
        """The token stands for an operator; with a wrong one no other way in is tried."""
        if not constant_time_compare(token, settings.API_TOKEN):
            raise HttpError(401, "Unauthorized")
        return TOKEN_USER


# The token goes first: the session's check refuses a request without CSRF token before the next one is asked.
api = NinjaAPI(
    title="algo-trader", version="1", auth=[Token(), SessionAuth()], docs=Docs(), docs_decorator=login_required
)

for router in (dashboard_router, trading_router, settings_router, backtests_router):
    api.add_router("", router)
