"""Django's admin as a part of this product: who may enter it, and the site's name."""

from typing import Any

from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.urls import reverse


class DeskAdminSite(AdminSite):
    """Open to staff, as everywhere, and to the group `admin`; what they may do there follows from their permissions."""

    site_title = site_header = "algo-trader"
    index_title = "Settings and records"
    enable_nav_sidebar = False

    def has_permission(self, request: HttpRequest) -> bool:
        """Whether this login may enter."""
        from risk.roles import Role, role_of  # users exist once all apps are loaded, and this is one of them

        return super().has_permission(request) or role_of(request.user) >= Role.ADMIN

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The product's own login, or its refusal for a login that may not enter."""
        from django.contrib.auth.views import redirect_to_login

        if not request.user.is_authenticated:
            return redirect_to_login(request.GET.get("next") or reverse("admin:index"))
        if not self.has_permission(request):
            raise PermissionDenied("Only admins may enter here.")
        return super().login(request, extra_context)
