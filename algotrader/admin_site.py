"""Django's admin as a part of this product: who may enter it, and the site's name."""

from django.contrib.admin import AdminSite
from django.http import HttpRequest


class DeskAdminSite(AdminSite):
    """Open to staff, as everywhere, and to the group `admin`; what they may do there follows from their permissions."""

    site_title = site_header = "algo-trader"
    index_title = "Settings and records"
    enable_nav_sidebar = False

    def has_permission(self, request: HttpRequest) -> bool:
        """Whether this login may enter."""
        from risk.roles import Role, role_of  # users exist once all apps are loaded, and this is one of them

        return super().has_permission(request) or role_of(request.user) >= Role.ADMIN
