"""The ASGI application: Django for HTTP, Channels for the dashboard's WebSocket.

The engine serves it beside itself; `daphne algotrader.asgi:application` serves it alone.
"""

import os
import sys
from typing import Any
from urllib.parse import urlsplit

from django.apps import apps
from django.core.asgi import get_asgi_application

from risk.config import ConfigError

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "algotrader.settings")
serves_alone = not apps.ready  # else whoever set Django up has looked at the database
try:
    http_application = get_asgi_application()
except ConfigError as error:
    sys.exit(str(error))

from channels.auth import AuthMiddlewareStack  # noqa: E402  after Django is set up
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator, WebsocketDenier  # noqa: E402
from django.urls import path, re_path  # noqa: E402

from dashboard.consumers import DashboardConsumer  # noqa: E402
from orders import guards  # noqa: E402
from orders.command import UserError, one_line_database_errors  # noqa: E402

if serves_alone:
    try:
        with one_line_database_errors():
            guards.require()
    except (guards.UnguardedLedger, UserError) as error:
        sys.exit(f"The pages are not served: {error}")


class SameOrigin:
    """Refuses a WebSocket that a page of another host or port opens; browsers send the cookies along with it."""

    def __init__(self, application: Any) -> None:
        self.application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Any:
        headers = {name: value.decode("latin1").lower() for name, value in scope["headers"]}
        origin = urlsplit(headers.get(b"origin", ""))
        default_port = {"http": ":80", "https": ":443"}.get(origin.scheme, "")
        host = headers.get(b"host", "")
        if not host or origin.netloc.removesuffix(default_port) != host.removesuffix(default_port):
            return await WebsocketDenier()(scope, receive, send)
        return await self.application(scope, receive, send)


routes = [path("ws/dashboard", DashboardConsumer.as_asgi()), re_path("", WebsocketDenier.as_asgi())]

application = ProtocolTypeRouter(
    {
        "http": http_application,
        "websocket": SameOrigin(AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(routes)))),
    }
)
