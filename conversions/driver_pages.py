"""The page of the Windows drivers: what there is, what is on its way, adding, removing."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from conversions.driver_intake import take_drivers
from conversions.driver_uploads import DriverUploads, IncomingDrivers, arriving
from conversions.drivers import list_drivers, list_tools, remove_drivers
from inventory.access import MANAGE_DRIVERS, driver_manager_required, viewer_required
from inventory.incoming import UploadRefusedError, free_bytes


@require_GET
@viewer_required
def drivers(request: HttpRequest) -> HttpResponse:
    """Show every collection with what it covers, and the first-start programs."""
    folder = Path(settings.DRIVERS_DIR)
    context = list_context(request) | {
        "folder": folder,
        "tus_url": DriverUploads.prefix,
        "free_bytes": free_bytes(folder),
    }
    return render(request, "conversions/drivers.html", context)


@require_GET
@viewer_required
def driver_list(request: HttpRequest) -> HttpResponse:
    """Show what there is alone, for the page that asks anew when something has arrived."""
    return render(request, "conversions/_driver_list.html", list_context(request))


def list_context(request: HttpRequest) -> dict[str, Any]:
    """Return what there is and what is on its way."""
    return {
        "arriving": arriving(),
        "collections": list_drivers(),
        "tools": list_tools(),
        "may_manage": request.user.has_perm(MANAGE_DRIVERS),
    }


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
            name = take_drivers(file, user=request.user)
        except UploadRefusedError as error:
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
        if remove_drivers(name, user=request.user):
            messages.success(request, _("%(name)s is removed.") % {"name": name})
        else:
            messages.info(request, _("%(name)s was not there any more.") % {"name": name})
        return redirect("drivers")
    return render(request, "conversions/drivers_remove.html", {"name": name})


@require_POST
@driver_manager_required
def drivers_cancel(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Cancel an upload that is not complete, whoever began it."""
    upload = IncomingDrivers.load(uuid)
    if upload is None:
        raise Http404
    if upload.cancel(user=request.user):
        messages.success(
            request, _("%(name)s is cancelled; nothing of it was kept.") % {"name": upload.name}
        )
    else:
        messages.info(request, _("%(name)s had ended already.") % {"name": upload.name})
    return redirect("drivers")
