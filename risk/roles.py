"""Who may do what: three Django groups. A viewer looks, a trader also acts on the engine, an admin also changes it.

A superuser is an admin. So is a staff user in none of the groups, as on installations from before there were any; any
other login in none of them is a viewer.
"""

from enum import IntEnum
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, Group, Permission, User
from django.db.models import Q

OUR_APPS = ("orders", "risk", "trading", "backtests", "dashboard")


class Role(IntEnum):
    """A role includes those below it; its name in lower case is its group's."""

    NOBODY = 0
    VIEWER = 1
    TRADER = 2
    ADMIN = 3

    @property
    def group(self) -> str:
        """Name of the Django group."""
        return self.name.lower()


def role_of(user: AbstractBaseUser | AnonymousUser) -> Role:
    """The highest role that a login has."""
    if not isinstance(user, User) or not user.is_active:
        return Role.NOBODY
    if user.is_superuser:
        return Role.ADMIN
    groups = set(user.groups.values_list("name", flat=True))
    roles = [role for role in (Role.ADMIN, Role.TRADER, Role.VIEWER) if role.group in groups]
    if roles:
        return roles[0]
    return Role.ADMIN if user.is_staff else Role.VIEWER


def make_groups_after_migrate(**signal: Any) -> None:
    """Makes the groups, and gives each what it may do in the admin; what an operator added stays."""
    may = Permission.objects.filter
    looking = Q(content_type__app_label__in=OUR_APPS, codename__startswith="view_")
    noting = Q(content_type__app_label="orders", codename__endswith="_tradenote")
    ruling = (
        Q(content_type__app_label="risk", codename="change_settingsoverride")
        | Q(content_type__app_label="trading", content_type__model="notificationchannel")
        | Q(content_type__app_label="auth", content_type__model="user")
    )
    for role, allowed in (
        (Role.VIEWER, looking),
        (Role.TRADER, looking | noting),
        (Role.ADMIN, looking | noting | ruling),
    ):
        group, _ = Group.objects.get_or_create(name=role.group)
        group.permissions.add(*may(allowed))
