"""Hosts on the Sources place: add, change, look at, read again, remove."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.db.models import Count, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from inventory import hosts
from inventory.access import (
    MANAGE_HOSTS,
    OPERATE,
    host_manager_required,
    operator_required,
    viewer_required,
)
from inventory.forms import HostForm
from inventory.listing import render_list
from inventory.machines import get_vm_for, list_machines
from inventory.models import LibvirtHost, SourceVM
from inventory.sources.errors import SourceError
from inventory.sources.libvirt_child import read_host


def hosts_with_counts() -> QuerySet[LibvirtHost]:
    """Return the hosts with the number of machines that they have now, and have no longer."""
    gone = Q(vms__status=SourceVM.Status.GONE)
    return LibvirtHost.objects.select_related("created_by").annotate(
        machine_count=Count("vms", filter=~gone), gone_count=Count("vms", filter=gone)
    )


def get_host_for(user: Any, uuid: UUID) -> LibvirtHost:
    """Return the host with that UUID, for someone who may read.  Raises Http404."""
    host = hosts_with_counts().filter(uuid=uuid).first()
    if host is None:
        raise Http404(_("There is no such host."))
    return host


def host_context(request: HttpRequest) -> dict[str, Any]:
    """Return what the list of hosts shows."""
    rows = list(hosts_with_counts())
    return {
        "hosts": rows,
        "is_reading": any(host.is_awaited for host in rows),
        "may_operate": request.user.has_perm(OPERATE),
        "may_manage_hosts": request.user.has_perm(MANAGE_HOSTS),
    }


@require_GET
@viewer_required
def host_list(request: HttpRequest) -> HttpResponse:
    """Show the list of hosts alone, for the page that polls it."""
    return render(request, "inventory/_host_list.html", host_context(request))


@require_http_methods(["GET", "POST"])
@host_manager_required
def host_add(request: HttpRequest) -> HttpResponse:
    """Show the form, test the connection, or add the host; the button pressed says which."""
    form = HostForm(request.POST or None)
    if request.method == "POST" and form.is_valid() and request.POST.get("action") != "test":
        added = hosts.add_host(form.values(), form.new_password() or "", user=request.user)
        messages.success(request, _("%(name)s is added and being read.") % {"name": added.name})
        return redirect(added)
    return _show_form(request, form)


@require_http_methods(["GET", "POST"])
@host_manager_required
def host_change(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Show the form of a host, test the connection, or change the host."""
    found = get_host_for(request.user, uuid)
    form = HostForm(request.POST or None, host=found)
    if request.method == "POST" and form.is_valid() and request.POST.get("action") != "test":
        hosts.change_host(found, form.values(), form.new_password())
        messages.success(
            request, _("%(name)s is changed and being read again.") % {"name": found.name}
        )
        return redirect(found)
    return _show_form(request, form)


def _show_form(request: HttpRequest, form: HostForm) -> HttpResponse:
    """Show the form; one that was sent and is right is shown with what the host answers."""
    context: dict[str, Any] = {"form": form, "host": form.host}
    if form.is_bound and form.is_valid():
        try:
            context["answer"] = read_host(
                form.access(), with_domains=False, seconds=settings.HOST_TEST_SECONDS
            )
        except SourceError as error:
            context["error"] = error
    return render(request, "inventory/host_edit.html", context)


@require_GET
@viewer_required
def host(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Show one host: how fresh it is, what went wrong, its machines."""
    found = get_host_for(request.user, uuid)
    rows = SourceVM.objects.filter(host=found).exclude(status=SourceVM.Status.GONE)
    listing = list_machines(request, rows, default="name")
    context = {
        "host": found,
        "listing": listing,
        "total": listing.page.paginator.count,
        "may_operate": request.user.has_perm(OPERATE),
        "may_manage_hosts": request.user.has_perm(MANAGE_HOSTS),
    }
    return render_list(request, "inventory/host.html", "inventory/_host_machines.html", context)


@require_GET
@viewer_required
def host_state(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Show a host's state alone; the list of machines is told to reload when it is another.

    ?since= says which one the page shows.
    """
    found = get_host_for(request.user, uuid)
    context = {"host": found, "may_operate": request.user.has_perm(OPERATE)}
    response = render(request, "inventory/_host_state.html", context)
    if request.GET.get("since") != found.list_version:
        response["HX-Trigger"] = "host-read"
    return response


@require_POST
@operator_required
def host_refresh(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Have a host read now."""
    found = get_host_for(request.user, uuid)
    hosts.request_refresh(found)
    messages.info(request, _("%(name)s is being read again.") % {"name": found.name})
    return redirect(found)


@require_POST
@operator_required
def machine_refresh(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Have the host of a machine read now, and stay with the machine."""
    vm = get_vm_for(request.user, uuid)
    if vm.host is None:
        messages.error(
            request, _("%(name)s is on no host, so it cannot be read again.") % {"name": vm.name}
        )
    else:
        hosts.request_refresh(vm.host)
        messages.info(
            request,
            _("%(name)s is being read again, with all of %(host)s. Load this page in a moment.")
            % {"name": vm.name, "host": vm.host.name},
        )
    return redirect(vm)


@require_http_methods(["GET", "POST"])
@host_manager_required
def host_remove(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Ask, saying what goes and what stays; then take the host off the inventory."""
    found = get_host_for(request.user, uuid)
    active = found.vms.filter(conversions__status__in=["waiting", "running", "stopping"])
    if request.method == "POST" and not active.exists():
        hosts.remove_host(found, user=request.user)
        messages.success(
            request, _("%(name)s is removed. Its history stays.") % {"name": found.name}
        )
        return redirect("sources")
    with_history = found.vms.filter(Q(conversions__isnull=False) | Q(inspections__isnull=False))
    context = {
        "host": found,
        "active": active.distinct(),
        "all_count": found.vms.count(),
        "kept_count": with_history.distinct().count(),
        "disks_of": found.vms.filter(conversions__own_kept__isnull=False).count(),
    }
    return render(request, "inventory/host_remove.html", context)
