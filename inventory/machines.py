"""The Machines place: the list, a machine's page, its record as text, forgetting it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db.models import Count, Max, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_http_methods

from inventory.access import IN_PLACE, OPERATE, operator_required, viewer_required
from inventory.actions import forget_vm
from inventory.listing import make_listing, render_list, search_words
from inventory.models import LibvirtHost, SourceVM
from inventory.sources.text import legacy

SORTS = {
    "name": ["name"],
    "os": ["os_hint"],
    "vcpus": ["vcpus"],
    "memory": ["memory_bytes"],
    "disks": ["disk_bytes"],
    "created": ["created_at"],
}
# What the filter offers: key, words, condition.
FILTERS: list[tuple[str, Any, Q]] = [
    ("", gettext_lazy("Available"), ~Q(status=SourceVM.Status.GONE)),
    ("arriving", gettext_lazy("Arriving"), Q(status=SourceVM.Status.ARRIVING)),
    (
        "new",
        gettext_lazy("Not inspected yet"),
        Q(status=SourceVM.Status.READY, inspections__isnull=True),
    ),
    (
        "converted",
        gettext_lazy("Converted"),
        Q(conversions__mode__in=["copy", "in_place"], conversions__status__in=["done", "warned"]),
    ),
    ("running", gettext_lazy("Running on their host"), Q(power="running")),
    ("gone", gettext_lazy("Gone"), Q(status=SourceVM.Status.GONE)),
    ("all", gettext_lazy("All"), Q()),
]


def get_vm_for(user: Any, uuid: UUID) -> SourceVM:
    """Return the machine with that UUID, for someone who may read.  Raises Http404."""
    vm = SourceVM.objects.select_related("upload", "created_by", "host").filter(uuid=uuid).first()
    if vm is None:
        raise Http404(_("There is no such machine."))
    return vm


def search_machines(rows: QuerySet[SourceVM], words: Sequence[str]) -> QuerySet[SourceVM]:
    """Keep the machines whose name, system, file, network or MAC contains every word."""
    for word in words:
        rows = rows.filter(
            Q(name__icontains=word)
            | Q(os_hint__icontains=word)
            | Q(inspections__product_name__icontains=word)
            | Q(upload__filename__icontains=word)
            | Q(host__name__icontains=word)
            | Q(nics__vnet__icontains=word)
            | Q(nics__mac__icontains=word)
        )
    return rows


@require_GET
@viewer_required
def machines(request: HttpRequest) -> HttpResponse:
    """List the machines, filtered, sorted and paged by the address."""
    words = search_words(request)
    state = request.GET.get("state", "")
    conditions = {key: condition for key, _words, condition in FILTERS}
    everything = SourceVM.objects.filter(conditions.get(state, conditions[""]))
    host = _number(request.GET.get("host"))
    if host:
        everything = everything.filter(host=host)
    found = search_machines(everything, words).distinct()
    listing = make_listing(
        request,
        found.select_related("host").annotate(
            latest_conversion_pk=Max("conversions__pk"),
            latest_inspection_pk=Max("inspections__pk"),
            conversion_count=Count("conversions", distinct=True),
        ),
        sorts=SORTS,
        default="-created",
    )
    attach_latest(listing.page.object_list)
    context = {
        "listing": listing,
        "q": " ".join(words),
        "state": state,
        "host": host,
        "hosts": LibvirtHost.objects.values_list("pk", "name"),
        "filters": [(key, words) for key, words, _condition in FILTERS],
        "total": SourceVM.objects.filter(conditions[""]).count(),
        "may_operate": request.user.has_perm(OPERATE),
    }
    return render_list(request, "inventory/machines.html", "inventory/_machine_list.html", context)


def _number(text: str | None) -> int:
    """Return a primary key of the address; 0 for what is none."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 19 else 0


def attach_latest(vms: Any) -> None:
    """Give each row its `latest_conversion` and `latest_inspection`, in two queries for all."""
    for name in ("conversion", "inspection"):
        model: Any = SourceVM._meta.get_field(f"{name}s").related_model
        found = model.objects.in_bulk({getattr(vm, f"latest_{name}_pk") for vm in vms} - {None})
        for vm in vms:
            setattr(vm, f"latest_{name}", found.get(getattr(vm, f"latest_{name}_pk")))


@require_GET
@viewer_required
def machine(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Show one machine: its record, its inspections and conversions."""
    vm = get_vm_for(request.user, uuid)
    source = vm.source
    inspection = vm.inspections.select_related("conversion").first()
    newest = vm.conversions.first()
    context = {
        "vm": vm,
        "source": source,
        "source_text": legacy(source),
        "inspection": inspection,
        "concerns": inspection.concerns.all() if inspection else [],
        "conversions": vm.conversions.select_related("created_by", "inspection")[:20],
        "conversion_count": vm.conversions.count(),
        "active": vm.conversions.active(),
        "is_ready": not vm.refusal,
        "may_operate": request.user.has_perm(OPERATE),
        "may_change_disks": vm.kind in ("disk", "libvirt") and request.user.has_perm(IN_PLACE),
        "needs_key": newest is not None and newest.result.get("code") == "E-ENCRYPTED",
    }
    return render(request, "inventory/machine.html", context)


@require_GET
@viewer_required
def machine_source(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Give the source record as plain text, in the layout of the log."""
    vm = get_vm_for(request.user, uuid)
    return HttpResponse(legacy(vm.source), content_type="text/plain; charset=utf-8")


@require_http_methods(["GET", "POST"])
@operator_required
def machine_forget(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Ask, then delete the machine's uploaded file; its history stays."""
    vm = get_vm_for(request.user, uuid)
    active = vm.conversions.active()
    if request.method == "POST":
        if active.exists():
            messages.error(
                request,
                _("%(name)s is being converted. Stop that first, then forget the machine.")
                % {"name": vm.name},
            )
            return redirect(vm)
        forget_vm(vm, user=request.user)
        messages.success(
            request, _("%(name)s is forgotten. Its history stays.") % {"name": vm.name}
        )
        return redirect("machines")
    context = {"vm": vm, "active": active}
    return render(request, "inventory/machine_forget.html", context)
