"""The pages to read: overview, history, reports."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db.models import Count, Q, Sum
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET

from conversions import findings, history
from conversions.forms import HistoryFilter
from conversions.health import is_answering
from conversions.models import Concern, Conversion, ConversionHost, Inspection, KeptWork
from conversions.pipeline.inspector_xml import inspector_xml
from inventory.access import OPERATE, PURGE, viewer_required
from inventory.listing import make_listing, render_list, search_words
from inventory.models import OvaUpload, SourceVM

HISTORY_SORTS = {
    "number": ["pk"],
    "machine": ["vm_name"],
    "status": ["status"],
    "asked": ["created_at"],
    "who": ["created_by__username"],
    "bytes": ["copied_bytes"],
}
REPORT_SORTS = {
    "machine": ["conversion__vm_name"],
    "os": ["product_name"],
    "created": ["created_at"],
}


@require_GET
@viewer_required
def overview(request: HttpRequest) -> HttpResponse:
    """Show what runs, what ended, how the hosts are and what to do next."""
    vms = SourceVM.objects.available()
    active = Conversion.objects.active().select_related("created_by").prefetch_related("disks")
    context = {
        "active": active.order_by("created_at"),
        "recent": Conversion.objects.exclude(status__in=Conversion.ACTIVE).select_related(
            "created_by", "inspection"
        )[:8],
        "hosts": [describe_host(host) for host in ConversionHost.objects.all()],
        "uploads": OvaUpload.objects.filter(
            status__in=[OvaUpload.Status.RECEIVING, OvaUpload.Status.CHECKING]
        )[:8],
        "machine_count": SourceVM.objects.filter(status=SourceVM.Status.READY).count(),
        "uninspected": vms.filter(inspections__isnull=True)[:5],
        "unconverted": vms.filter(inspections__isnull=False)
        .exclude(conversions__mode="copy")
        .distinct()[:5],
        "has_history": Conversion.objects.exists(),
        "may_forget": request.user.is_staff and request.user.has_perm(PURGE),
        "may_operate": request.user.has_perm(OPERATE),
    }
    return render(request, "conversions/overview.html", context)


def describe_host(host: ConversionHost) -> dict[str, Any]:
    """Return a host's health and what its last run found out about the accelerator."""
    last = (
        Conversion.objects.filter(worker=host.name, reports__has_key="appliance")
        .order_by("-pk")
        .first()
    )
    return {
        "pk": host.pk,
        "name": host.name,
        "seen_at": host.seen_at,
        "is_answering": is_answering(host.seen_at),
        "health": host.health,
        "appliance": last.reports["appliance"] if last else {},
        "running": Conversion.objects.on_worker().filter(worker=host.name).count(),
        "kept": KeptWork.objects.filter(worker=host.name).aggregate(
            count=Count("pk"), bytes=Sum("bytes")
        ),
    }


@require_GET
@viewer_required
def conversions(request: HttpRequest) -> HttpResponse:
    """List every run, filtered by the address."""
    form = HistoryFilter(request.GET)
    chosen = request.GET.get("status", "")
    rows = history.filtered(form)
    listing = make_listing(
        request,
        history.with_bytes(history.with_status(rows, chosen)),
        sorts=HISTORY_SORTS,
        default="-number",
    )
    people = get_user_model().objects.filter(conversions__isnull=False).distinct()
    context = {
        "form": form,
        "listing": listing,
        "chips": history.chips(rows, chosen),
        "status": chosen,
        "modes": Conversion.MODES,
        "people": people.order_by("username"),
        "total": Conversion.objects.count(),
        "is_filtered": any(request.GET.get(name) for name in form.fields),
        "may_operate": request.user.has_perm(OPERATE),
    }
    return render_list(
        request, "conversions/conversions.html", "conversions/_history.html", context
    )


def _chosen_rows(request: HttpRequest) -> Any:
    rows = history.filtered(HistoryFilter(request.GET))
    chosen = history.with_status(rows, request.GET.get("status", ""))
    return history.with_bytes(chosen).order_by("-pk").iterator(chunk_size=500)


@require_GET
@viewer_required
def conversions_csv(request: HttpRequest) -> StreamingHttpResponse:
    """Give the filtered history as CSV."""
    return StreamingHttpResponse(
        history.csv_lines(_chosen_rows(request)),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="conversions.csv"'},
    )


@require_GET
@viewer_required
def conversions_json(request: HttpRequest) -> StreamingHttpResponse:
    """Give the filtered history as JSON."""
    return StreamingHttpResponse(
        history.json_parts(_chosen_rows(request)),
        content_type="application/json",
        headers={"Content-Disposition": 'attachment; filename="conversions.json"'},
    )


@require_GET
@viewer_required
def reports(request: HttpRequest) -> HttpResponse:
    """List what was found in guests, newest first."""
    words = search_words(request)
    rows = Inspection.objects.select_related("conversion", "vm").prefetch_related("concerns")
    total = rows.count()
    for word in words:
        rows = rows.filter(Q(conversion__vm_name__icontains=word) | Q(product_name__icontains=word))
    listing = make_listing(request, rows, sorts=REPORT_SORTS, default="-created")
    for inspection in listing.page.object_list:
        levels = [concern.level for concern in inspection.concerns.all()]
        inspection.levels = [
            (level, levels.count(level)) for level in Concern.Level.values if level in levels
        ]
    context = {
        "listing": listing,
        "q": " ".join(words),
        "total": total,
        "may_operate": request.user.has_perm(OPERATE),
    }
    return render_list(
        request, "conversions/reports.html", "conversions/_report_list.html", context
    )


def get_inspection_for(user: Any, uuid: UUID) -> Inspection:
    """Return the inspection with that UUID, for someone who may read.  Raises Http404."""
    rows = Inspection.objects.select_related("conversion", "conversion__created_by", "vm")
    inspection = rows.filter(uuid=uuid).first()
    if inspection is None:
        raise Http404(_("There is no such report."))
    return inspection


@require_GET
@viewer_required
def inspection(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Show what is in a guest and what converting it will meet."""
    found = get_inspection_for(request.user, uuid)
    data = found.conversion.reports
    guest = data.get("inspection", {})
    context = {
        "inspection": found,
        "conversion": found.conversion,
        "vm": found.vm,
        "guest": guest,
        "applications": guest.get("applications", []),
        "filesystems": guest.get("filesystems", []),
        "mount_points": findings.mount_points(data.get("mpstats", [])),
        "estimate": data.get("estimate", {}),
        "bootloader": data.get("bootloader", {}),
        "kernels": findings.kernels(data.get("kernels", [])),
        "capabilities": findings.capabilities(data.get("guestcaps", {})),
        "block_device_map": data.get("block_device_map", {}),
        "changes": data.get("changes", []),
        "concerns": found.concerns.all(),
        "may_operate": request.user.has_perm(OPERATE),
    }
    return render(request, "conversions/inspection.html", context)


@require_GET
@viewer_required
def inspection_json(request: HttpRequest, uuid: UUID) -> JsonResponse:
    """Give everything the run reported, as JSON."""
    found = get_inspection_for(request.user, uuid)
    data = {
        "machine": found.conversion.vm_name,
        "conversion": str(found.conversion.uuid),
        "at": found.created_at.isoformat(),
        "reports": found.conversion.reports,
    }
    return JsonResponse(
        data,
        json_dumps_params={"indent": 2},
        headers={"Content-Disposition": f'attachment; filename="report-{found.uuid}.json"'},
    )


@require_GET
@viewer_required
def inspection_xml(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Give what was found as the XML that virt-v2v-inspector writes."""
    found = get_inspection_for(request.user, uuid)
    try:
        text = inspector_xml(found.conversion.reports)
    except ValueError as error:
        raise Http404(_("The run ended before it knew what is inside.")) from error
    return HttpResponse(
        text,
        content_type="application/xml; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="inspection-{found.uuid}.xml"'},
    )
