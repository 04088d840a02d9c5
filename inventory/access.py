"""Who may do what: viewers read, operators act, administrators manage."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

from django.contrib.auth.models import Group, Permission
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.http import HttpRequest, HttpResponseBase
from django.utils.translation import gettext as _

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponseBase]

VIEW = "inventory.view_sourcevm"
OPERATE = "conversions.run_conversion"
IN_PLACE = "conversions.convert_in_place"
MANAGE_DRIVERS = "conversions.manage_drivers"
MANAGE_TARGETS = "conversions.manage_targets"
MANAGE_HOSTS = "inventory.add_libvirthost"
PURGE = "conversions.purge_conversion"

VIEWER_PERMISSIONS = (
    "inventory.view_ovaupload",
    "inventory.view_sourcevm",
    "inventory.view_libvirthost",
    "conversions.view_conversion",
    "conversions.view_inspection",
)
OPERATOR_PERMISSIONS = (
    *VIEWER_PERMISSIONS,
    "inventory.add_ovaupload",
    "inventory.change_ovaupload",
    "inventory.delete_ovaupload",
    "inventory.add_sourcevm",
    "inventory.delete_sourcevm",
    OPERATE,
)
ADMINISTRATOR_PERMISSIONS = (
    *OPERATOR_PERMISSIONS,
    IN_PLACE,
    MANAGE_DRIVERS,
    MANAGE_TARGETS,
    MANAGE_HOSTS,
    "inventory.change_libvirthost",
    "inventory.delete_libvirthost",
    PURGE,
    "auth.add_user",
    "auth.change_user",
    "auth.view_user",
    "auth.view_group",
    "auditlog.view_logentry",
)
ROLES = {
    "Viewers": VIEWER_PERMISSIONS,
    "Operators": OPERATOR_PERMISSIONS,
    "Administrators": ADMINISTRATOR_PERMISSIONS,
}


# The permissions that were there before migrating; None when nothing migrates.
_before: set[int] | None = None


def note_permissions(**_kwargs: object) -> None:
    """Remember, before migrating, which permissions there are already."""
    global _before
    is_made = Permission._meta.db_table in connection.introspection.table_names()
    _before = set(Permission.objects.values_list("pk", flat=True)) if is_made else set()


def create_roles(**_kwargs: object) -> None:
    """Create the groups that are missing with their permissions, and grant those that are new.

    What was granted besides stays, and what was taken from a role stays away.  Connected to
    post_migrate, so a new version's permissions reach the groups by migrating.
    """
    global _before
    before, _before = _before, None
    for name, wanted in ROLES.items():
        group, is_new = Group.objects.get_or_create(name=name)
        for full_name in wanted:
            app, codename = full_name.split(".")
            permission = Permission.objects.filter(
                content_type__app_label=app, codename=codename
            ).first()
            if permission is None:
                continue
            if is_new or (before is not None and permission.pk not in before):
                group.permissions.add(permission)


def viewer_required(view: View[P]) -> View[P]:
    """Let only those in who may read."""
    return _requires(VIEW, view)


def operator_required(view: View[P]) -> View[P]:
    """Let only those in who may upload, inspect, convert and stop."""
    return _requires(OPERATE, view)


def driver_manager_required(view: View[P]) -> View[P]:
    """Let only those in who may add and remove drivers for Windows."""
    return _requires(MANAGE_DRIVERS, view)


def target_manager_required(view: View[P]) -> View[P]:
    """Let only those in who may add, change and remove targets."""
    return _requires(MANAGE_TARGETS, view)


def host_manager_required(view: View[P]) -> View[P]:
    """Let only those in who may add, change and remove hosts."""
    return _requires(MANAGE_HOSTS, view)


def in_place_required(view: View[P]) -> View[P]:
    """Let only those in who may change the disks of a source."""
    return _requires(IN_PLACE, view)


def _requires(permission: str, view: View[P]) -> View[P]:
    @wraps(view)
    def guarded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        if not request.user.has_perm(permission):
            raise PermissionDenied(missing_role(permission))
        return view(request, *args, **kwargs)

    return guarded


def missing_role(permission: str) -> str:
    """Return the sentence that says which role is missing and who can grant it."""
    if permission == VIEW:
        return _("Your account has no role yet. An administrator can make you a viewer.")
    if permission in (MANAGE_DRIVERS, MANAGE_TARGETS, MANAGE_HOSTS):
        return _("This needs the role Administrators. An administrator can grant it.")
    if permission == IN_PLACE:
        return _(
            "Changing the disks of a source needs the role Administrators, or that permission "
            "alone. An administrator can grant it."
        )
    return _("This needs the role Operators. An administrator can grant it.")
