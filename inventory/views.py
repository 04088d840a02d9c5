"""The Sources place: uploads on their way in, and the import folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from inventory import actions, imports, uploads
from inventory.access import OPERATE, operator_required, viewer_required
from inventory.host_pages import host_context
from inventory.incoming import UploadRefusedError, free_bytes
from inventory.models import OvaUpload
from inventory.ova_uploads import OvaUploads
from inventory.sources.tar import storable

SHOWN = 50


@require_GET
@viewer_required
def sources(request: HttpRequest) -> HttpResponse:
    """Show what can be uploaded or registered, and what has been."""
    context = (
        upload_context(request)
        | host_context(request)
        | {
            "tus_url": OvaUploads.prefix,
            "free_bytes": free_bytes(Path(settings.UPLOAD_DIR)),
            "upload_dir": settings.UPLOAD_DIR,
            "import_dir": settings.IMPORT_DIR,
            "importable": import_entries(),
        }
    )
    return render(request, "inventory/sources.html", context)


@require_GET
@viewer_required
def upload_list(request: HttpRequest) -> HttpResponse:
    """Show the list of uploads alone, for the page that polls it."""
    return render(request, "inventory/_upload_list.html", upload_context(request))


@require_GET
@viewer_required
def upload(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Show one upload alone."""
    found = get_object_or_404(OvaUpload.objects.select_related("created_by", "vm"), uuid=uuid)
    context = {
        "upload": found,
        "uploads": [found],
        "is_active": found.status in actions.OPEN,
        "may_operate": request.user.has_perm(OPERATE),
    }
    return render(request, "inventory/upload.html", context)


def upload_context(request: HttpRequest) -> dict[str, Any]:
    """Return the newest uploads and whether any of them still changes."""
    found: QuerySet[OvaUpload] = OvaUpload.objects.select_related("created_by", "vm")[:SHOWN]
    return {
        "uploads": list(found),
        "is_active": any(u.status in actions.OPEN for u in found),
        "may_operate": request.user.has_perm(OPERATE),
    }


def import_entries() -> list[dict[str, Any]]:
    """Return what the import folder offers, with what is known of it."""
    known = set(
        OvaUpload.objects.filter(
            origin=OvaUpload.Origin.IMPORT, status__in=[*actions.OPEN, OvaUpload.Status.READY]
        ).values_list("path", flat=True)
    )
    entries: list[dict[str, Any]] = []
    for path in imports.offered():
        entry: dict[str, Any] = {"name": storable(path.name), "problem": imports.problem_of(path)}
        if not entry["problem"]:
            entry["is_folder"] = path.is_dir()
            entry["size_bytes"] = None if path.is_dir() else path.stat().st_size
            entry["is_registered"] = str(path.resolve()) in known
        entries.append(entry)
    return entries


@require_POST
@operator_required
def upload_plain(request: HttpRequest) -> HttpResponse:
    """Take a file from the plain form; it lies on its final file system already."""
    files = request.FILES.getlist("file")
    if not files:
        messages.error(request, _("No file was chosen."))
    for file in files:
        assert isinstance(file, TemporaryUploadedFile)  # noqa: S101  the only handler that is set
        try:
            upload = actions.create_upload(
                file.name or "", file.size or 0, user=request.user, is_stored=True
            )
        except UploadRefusedError as error:
            messages.error(request, str(error))
            continue
        Path(file.temporary_file_path()).rename(uploads.part_path(upload))
        actions.arrived(upload)
        messages.success(request, _("%(name)s has arrived.") % {"name": upload.filename})
    return redirect("sources")


@require_POST
@operator_required
def import_register(request: HttpRequest) -> HttpResponse:
    """Register a file of the import folder."""
    try:
        upload = actions.register_import(request.POST.get("name", ""), user=request.user)
    except UploadRefusedError as error:
        messages.error(request, str(error))
    else:
        messages.success(
            request, _("%(name)s is registered and being checked.") % {"name": upload.filename}
        )
    return redirect("sources")


@require_POST
@operator_required
def upload_cancel(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Cancel an upload that is not complete."""
    upload = get_object_or_404(OvaUpload, uuid=uuid)
    if actions.cancel_upload(upload, user=request.user):
        messages.success(
            request,
            _("%(name)s is cancelled; nothing of it was kept.") % {"name": upload.filename},
        )
    else:
        messages.info(request, _("%(name)s had ended already.") % {"name": upload.filename})
    return redirect("sources")
