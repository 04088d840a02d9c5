"""The Machines place: the list, a machine's page, its record as text, forgetting it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db.models import Max, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_http_methods

from inventory.access import IN_PLACE, MANAGE_HOSTS, OPERATE, operator_required, viewer_required
from inventory.actions import forget_vm
from inventory.changes import WORDS as CHANGE_WORDS
from inventory.listing import Listing, make_listing, render_list, search_words
from inventory.models import LibvirtHost, SourceNic, SourceVM
from inventory.sources.power import BUSY, Power
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
        Q(status=SourceVM.Status.READY)
        & ~Q(pk__in=SourceVM.objects.filter(inspections__isnull=False).values("pk")),
    ),
    (
        "converted",
        gettext_lazy("Converted"),
        # By key: a machine converted twice is listed once, without comparing whole rows.
        Q(
            pk__in=SourceVM.objects.filter(
                conversions__mode__in=["copy", "in_place"],
                conversions__status__in=["done", "warned"],
            ).values("pk")
        ),
    ),
    (
        "off",
        gettext_lazy("Shut off on their host"),
        Q(status=SourceVM.Status.READY, power=Power.SHUT_OFF),
    ),
    (
        "running",
        gettext_lazy("Running on their host"),
        Q(status=SourceVM.Status.READY, power__in=list(BUSY)),
    ),
    (
        "unreadable",
        gettext_lazy("Cannot be used"),
        Q(status=SourceVM.Status.READY) & ~Q(problem=""),
    ),
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
    """Keep the machines whose name, system, file, host, network or MAC contains every word."""
    for word in words:
        cards = SourceNic.objects.filter(Q(vnet__icontains=word) | Q(mac__icontains=word))
        inspected = SourceVM.objects.filter(inspections__product_name__icontains=word)
        rows = rows.filter(
            Q(name__icontains=word)
            | Q(os_hint__icontains=word)
            | Q(upload__filename__icontains=word)
            | Q(host__name__icontains=word)
            | Q(pk__in=cards.values("vm"))
            | Q(pk__in=inspected.values("pk"))
        )
    return rows


def list_machines(request: HttpRequest, rows: QuerySet[SourceVM], *, default: str) -> Listing:
    """Return the page of machines that the address asks for, ready for the table."""
    # The record is the largest part of a row and no list shows it.
    lean = rows.select_related("host").defer("record", "changes", "warnings")
    listing = make_listing(request, lean, sorts=SORTS, default=default)
    attach_latest(listing.page.object_list)
    return listing


def on_host(rows: QuerySet[SourceVM], chosen: str) -> QuerySet[SourceVM]:
    """Keep the machines of a host (its key), those of no host ("none"), or all."""
    if chosen == "none":
        return rows.filter(host=None)
    # Longer ones are no key, and no database takes them.
    is_key = chosen.isascii() and chosen.isdecimal() and len(chosen) < 19
    return rows.filter(host=int(chosen)) if is_key else rows


@require_GET
@viewer_required
def machines(request: HttpRequest) -> HttpResponse:
    """List the machines, filtered, sorted and paged by the address."""
    words = search_words(request)
    state = request.GET.get("state", "")
    chosen_host = request.GET.get("host", "")
    conditions = {key: condition for key, _words, condition in FILTERS}
    rows = SourceVM.objects.filter(conditions.get(state, conditions[""]))
    found = search_machines(on_host(rows, chosen_host), words)
    context = {
        "listing": list_machines(request, found, default="-created"),
        "q": " ".join(words),
        "state": state,
        "filters": [(key, words) for key, words, _condition in FILTERS],
        "hosts": LibvirtHost.objects.all(),
        "chosen_host": chosen_host,
        "total": SourceVM.objects.filter(conditions[""]).count(),
        "may_operate": request.user.has_perm(OPERATE),
        "may_manage_hosts": request.user.has_perm(MANAGE_HOSTS),
    }
    return render_list(request, "inventory/machines.html", "inventory/_machine_list.html", context)


def attach_latest(vms: Any) -> None:
    """Give each row its `latest_conversion` and `latest_inspection`, in four queries for all."""
    for name in ("conversion", "inspection"):
        model: Any = SourceVM._meta.get_field(f"{name}s").related_model
        of_vms = model.objects.filter(vm__in=[vm.pk for vm in vms]).order_by()
        newest = dict(of_vms.values_list("vm").annotate(Max("pk")))
        found = model.objects.in_bulk(newest.values())
        for vm in vms:
            setattr(vm, f"latest_{name}", found.get(newest.get(vm.pk)))


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
        "changes": shown_changes(vm),
        "may_operate": request.user.has_perm(OPERATE),
        "may_change_disks": vm.may_change_in_place and request.user.has_perm(IN_PLACE),
        "ended_with": newest.result.get("code", "") if newest is not None else "",
    }
    return render(request, "inventory/machine.html", context)


def shown_changes(vm: SourceVM) -> list[dict[str, Any]]:
    """Return what changed between readings, newest first, with words and times to show."""
    return [
        {
            **change,
            "words": CHANGE_WORDS.get(change["what"], ""),
            "at": parse_datetime(change["at"]),
        }
        for change in vm.changes
    ]


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
    if vm.is_of_host:
        messages.error(
            request,
            _(
                "%(name)s is a machine of a host: it leaves the list when it is no longer there, "
                "or when the host is removed."
            )
            % {"name": vm.name},
        )
        return redirect(vm)
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
    kept = vm.conversions.filter(own_kept__isnull=False).count()
    context = {"vm": vm, "active": active, "kept": kept}
    return render(request, "inventory/machine_forget.html", context)
