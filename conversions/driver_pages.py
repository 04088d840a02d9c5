"""The page of the Windows drivers: what there is, adding, removing."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from conversions.drivers import (
    DriversRefusedError,
    list_drivers,
    list_tools,
    remove_drivers,
    take_drivers,
)
from inventory.access import MANAGE_DRIVERS, driver_manager_required, viewer_required


@require_GET
@viewer_required
def drivers(request: HttpRequest) -> HttpResponse:
    """Show every collection with what it covers, and the first-start programs."""
    context = {
        "collections": list_drivers(),
        "tools": list_tools(),
        "folder": settings.DRIVERS_DIR,
        "may_manage": request.user.has_perm(MANAGE_DRIVERS),
    }
    return render(request, "conversions/drivers.html", context)


@require_POST
@driver_manager_required
def drivers_add(request: HttpRequest) -> HttpResponse:
    """Take an ISO or programs from the form."""
    files = request.FILES.getlist("file")
    if not files:
        messages.error(request, _("No file was chosen."))
    for file in files:
        assert isinstance(file, TemporaryUploadedFile)  # noqa: S101  the only handler that is set
        try:
            name = take_drivers(file)
        except DriversRefusedError as error:
            messages.error(request, str(error))
        else:
            messages.success(request, _("%(name)s is added.") % {"name": name})
    return redirect("drivers")


@require_http_methods(["GET", "POST"])
@driver_manager_required
def drivers_remove(request: HttpRequest) -> HttpResponse:
    """Ask, then delete a collection or a program (?name=)."""
    name = request.GET.get("name", "")
    if request.method == "POST":
        if remove_drivers(name):
            messages.success(request, _("%(name)s is removed.") % {"name": name})
        else:
            messages.info(request, _("%(name)s was not there any more.") % {"name": name})
        return redirect("drivers")
    return render(request, "conversions/drivers_remove.html", {"name": name})
