"""The pages of libvirt hosts: add, look at, read again, remove."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django import forms
from django.contrib import messages
from django.db import transaction
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from inventory import hosts
from inventory.access import (
    MANAGE_HOSTS,
    OPERATE,
    host_manager_required,
    operator_required,
    viewer_required,
)
from inventory.models import LibvirtHost, SourceVM
from inventory.sources.errors import SourceError
from inventory.sources.uris import checked_uri
from inventory.tasks import refresh_host
from v2vweb.celery import send

TEST_SECONDS = 10


class HostForm(forms.ModelForm):  # type: ignore[type-arg]
    """A host's name and address."""

    class Meta:
        model = LibvirtHost
        fields = ["name", "uri"]
        help_texts = {
            "name": gettext_lazy("What it is called here."),
            "uri": gettext_lazy(
                "For example qemu:///system for this server, or qemu+ssh://user@host/system. "
                "Passwords and parameters that run programs or read files are refused."
            ),
        }

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["uri"].widget.attrs |= {"autocomplete": "off", "spellcheck": "false"}

    def clean_uri(self) -> str:
        """Refuse addresses that are not on the list of what is harmless."""
        try:
            return checked_uri(self.cleaned_data["uri"])
        except SourceError as error:
            raise forms.ValidationError(f"{error.message} {error.remedy}") from error


def host_rows() -> list[LibvirtHost]:
    """Return the hosts with the numbers of their machines."""
    here = ~Q(vms__status=SourceVM.Status.GONE)
    return list(LibvirtHost.objects.annotate(machine_count=Count("vms", filter=here)))


@require_http_methods(["GET", "POST"])
@host_manager_required
def host_add(request: HttpRequest) -> HttpResponse:
    """Add a host, or only test the connection to it."""
    form = HostForm(request.POST or None)
    answer: dict[str, Any] = {}
    if request.method == "POST" and form.is_valid():
        if request.POST.get("action") == "test":
            answer = connection_test(form.cleaned_data["uri"])
        else:
            host: LibvirtHost = form.save(commit=False)
            host.created_by = request.user  # type: ignore[assignment]
            host.save()
            refresh_later(host)
            messages.success(
                request, _("%(name)s is added; its machines are being read.") % {"name": host.name}
            )
            return redirect(host)
    return render(request, "inventory/host_add.html", {"form": form, "answer": answer})


def connection_test(uri: str) -> dict[str, Any]:
    """Return what a host answers within a few seconds, or why it does not."""
    try:
        lines = hosts.read_domains(uri, seconds=TEST_SECONDS)
    except SourceError as error:
        return {"is_good": False, "text": f"{error.message} {error.remedy}".strip()}
    first = lines[0]
    text = _("Connected to %(host)s, which has %(count)d machines.") % {
        "host": first["host"], "count": first["domains"],
    }  # fmt: skip
    return {"is_good": True, "text": text}


def refresh_later(host: LibvirtHost) -> None:
    """Ask a worker to read the host."""
    transaction.on_commit(lambda: send(refresh_host, str(host.uuid)))


@require_GET
@viewer_required
def host(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Show one host: how fresh it is, what went wrong, its machines."""
    found = get_object_or_404(LibvirtHost, uuid=uuid)
    vms = found.vms.exclude(status=SourceVM.Status.GONE).order_by("name", "pk")
    context = {
        "host": found,
        "vms": vms[:100],
        "vm_count": vms.count(),
        "gone_count": found.vms.filter(status=SourceVM.Status.GONE).count(),
        "may_operate": request.user.has_perm(OPERATE),
        "may_manage": request.user.has_perm(MANAGE_HOSTS),
    }
    return render(request, "inventory/host.html", context)


@require_POST
@operator_required
def host_refresh(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Read a host again, on a worker."""
    found = get_object_or_404(LibvirtHost, uuid=uuid)
    refresh_later(found)
    messages.info(request, _("%(name)s is being read; reload in a moment.") % {"name": found.name})
    return redirect(found)


@require_http_methods(["GET", "POST"])
@host_manager_required
def host_remove(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Ask, then take a host and its machines off the list; the history of its machines stays."""
    found = get_object_or_404(LibvirtHost, uuid=uuid)
    active = found.vms.filter(conversions__status__in=["waiting", "running", "stopping"])
    if request.method == "POST" and not active.exists():
        name = found.name
        found.delete()
        messages.success(
            request, _("%(name)s is removed. What was done with its machines stays readable.")
            % {"name": name},
        )  # fmt: skip
        return redirect("sources")
    context = {"host": found, "active": active.distinct(), "vm_count": found.vms.count()}
    return render(request, "inventory/host_remove.html", context)
