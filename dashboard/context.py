"""What every template may ask about the login."""

from typing import Any

from django.http import HttpRequest

from risk.roles import Role, role_of


def roles(request: HttpRequest) -> dict[str, Any]:
    """`role` by name, `may_trade`, `may_enter_admin`, and the `theme` that the browser asks for."""
    user = getattr(request, "user", None)
    role = Role.NOBODY if user is None else role_of(user)
    return {
        "role": role.group,
        "theme": "light" if request.COOKIES.get("algotrader_theme") == "light" else "dark",
        "may_trade": role >= Role.TRADER,
        "may_enter_admin": role >= Role.ADMIN or bool(user and user.is_staff),
    }
