"""The pages of the targets: what there is, adding, changing, removing, checking again."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django import forms
from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from conversions import targets, tasks
from conversions.models import OutputTarget, SavedMap
from conversions.pipeline.errors import JobError
from conversions.pipeline.output_kinds import check_target
from conversions.pipeline.outputs.libvirt_host import check_uri
from inventory.access import (
    MANAGE_TARGETS,
    OPERATE,
    operator_required,
    target_manager_required,
    viewer_required,
)
from v2vweb.celery import send

_PLACE = ("kind", "directory", "uri", "storage")


class TargetForm(forms.ModelForm):  # type: ignore[type-arg]
    """A target: where it is, what the convert form starts with, what is the limit."""

    class Meta:
        model = OutputTarget
        fields = ["name", *_PLACE, "format", "allocation", "compressed", "rate_mib",
                  "max_disk_gib"]  # fmt: skip
        help_texts = {
            "name": gettext_lazy("What operators choose it by."),
            "directory": gettext_lazy("For a folder: it has to be there already."),
            "uri": gettext_lazy(
                "For a pool: qemu:///system for this server, or qemu+ssh://user@host/system."
            ),
            "storage": gettext_lazy("For a pool: one the host has. Look at the host to see them."),
            "format": gettext_lazy("KubeVirt starts machines from raw files only."),
            "compressed": gettext_lazy("Smaller files, a slower copy. Only for sparse qcow2."),
            "rate_mib": gettext_lazy("Empty: as fast as it goes."),
            "max_disk_gib": gettext_lazy(
                "Machines with more are refused, counted at their full size. Empty: no limit."
            ),
        }

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pools: list[dict[str, Any]] = []
        for name in ("directory", "uri", "storage"):
            self.fields[name].widget.attrs |= {"autocomplete": "off", "spellcheck": "false"}
        self.fields["directory"].widget.attrs["list"] = "target-folders"
        self.fields["storage"].widget.attrs["list"] = "target-pools"
        self.fields["compressed"].widget.attrs["class"] = "pf-v6-c-check__input"
        for name in ("rate_mib", "max_disk_gib"):
            self.fields[name].widget.attrs |= {"min": 1}

    def clean_uri(self) -> str:
        """Refuse addresses that are not on the engine's list of what is harmless."""
        uri: str = self.cleaned_data["uri"]
        if uri:
            try:
                check_uri(uri)
            except JobError as error:
                raise forms.ValidationError(f"{error.message} {error.remedy}") from error
        return uri

    def clean(self) -> dict[str, Any]:
        """Check what concerns several fields, and the place itself when it is a new one."""
        values = super().clean() or {}
        for name in ("rate_mib", "max_disk_gib"):
            if values.get(name) == 0:
                self.add_error(name, _("Zero would let nothing through. Leave it empty instead."))
        is_pool = values.get("kind") == OutputTarget.Kind.LIBVIRT
        of_pool, of_folder = ["uri", "storage"], ["directory"]
        wanted, idle = (of_pool, of_folder) if is_pool else (of_folder, of_pool)
        for name in wanted:
            if name not in self.errors and not values.get(name):
                self.add_error(name, _("A target of this kind needs it."))
        for name in idle:
            if values.get(name):
                self.add_error(name, _("A target of this kind has none. Leave it empty."))
        if self.errors:
            return values
        try:
            choices = {name: values[name] for name in ("format", "allocation", "compressed")}
            place = OutputTarget(**{name: values[name] for name in _PLACE})
            check_target(targets.engine_target(place, **choices))
        except JobError as error:
            raise forms.ValidationError(f"{error.message} {error.remedy}".strip()) from error
        if self.instance.pk is None or set(self.changed_data) & set(_PLACE):
            self._look(values)
        return values

    def _look(self, values: dict[str, Any]) -> None:
        """Refuse a place that cannot be used; a host gets ten seconds to answer."""
        for name in _PLACE:
            setattr(self.instance, name, values[name])
        # Of the place it was before.
        self.instance.pool_path, self.instance.free_bytes = "", None
        self.instance.networks, self.instance.bridges = [], []
        said = targets.look_at(self.instance)
        self.pools = said.get("pools", [])
        if self.instance.problem:
            field = "directory"
            if values["kind"] == OutputTarget.Kind.LIBVIRT:
                field = "storage" if said else "uri"
            self.add_error(field, self.instance.problem)


@require_GET
@viewer_required
def target_list(request: HttpRequest) -> HttpResponse:
    """Show every target with what the last check found, and the saved network maps."""
    own = targets.folder_targets()
    for target in own:
        target.free_bytes = targets.free_bytes(target)
    context = {
        "own": own,
        "named": OutputTarget.objects.all(),
        "maps": SavedMap.objects.select_related("created_by"),
        "may_manage": request.user.has_perm(MANAGE_TARGETS),
        "may_operate": request.user.has_perm(OPERATE),
    }
    return render(request, "conversions/targets.html", context)


@require_http_methods(["GET", "POST"])
@target_manager_required
def target_add(request: HttpRequest) -> HttpResponse:
    """Add a target, or only look at the libvirt host."""
    return _edit(request, OutputTarget(created_by=request.user))  # type: ignore[misc]


@require_http_methods(["GET", "POST"])
@target_manager_required
def target_edit(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Change a target."""
    return _edit(request, get_object_or_404(OutputTarget, uuid=uuid))


def _edit(request: HttpRequest, target: OutputTarget) -> HttpResponse:
    form = TargetForm(request.POST or None, instance=target)
    answer: dict[str, Any] = {}
    pools: list[dict[str, Any]] = []
    if request.method == "POST" and request.POST.get("action") == "look":
        answer, pools = look_at_host(request.POST.get("uri", ""))
        form = TargetForm(initial=request.POST.dict(), instance=target)
    elif request.method == "POST" and form.is_valid():
        form.save()
        messages.success(request, _("%(name)s is saved.") % {"name": target.name})
        return redirect("targets")
    context = {
        "form": form,
        "target": target if target.pk else None,
        "answer": answer,
        "pools": pools or form.pools,
        "folders": targets.folder_targets(),
    }
    return render(request, "conversions/target_edit.html", context)


def look_at_host(uri: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return in words what a host answers within ten seconds, and its pools."""
    try:
        check_uri(uri)
        said = targets.ask("libvirt", uri)
    except JobError as error:
        return {"is_good": False, "text": f"{error.message} {error.remedy}"}, []
    except targets.TargetRefusedError as error:
        return {"is_good": False, "text": str(error)}, []
    words = {
        "host": uri,
        "pools": ", ".join(p["name"] for p in said["pools"] if not p["problem"]) or _("none"),
        "networks": ", ".join(said["networks"]) or _("none"),
    }
    text = _("Connected to %(host)s. Pools for disks: %(pools)s. Networks: %(networks)s.") % words
    return {"is_good": True, "text": text}, said["pools"]


@require_http_methods(["GET", "POST"])
@target_manager_required
def target_remove(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Ask, then take a target off the list; its files and the history stay."""
    found = get_object_or_404(OutputTarget, uuid=uuid)
    active = targets.active_runs(found)
    if request.method == "POST" and not active:
        name = found.name
        found.delete()
        messages.success(request, _("%(name)s is removed. Its files stay.") % {"name": name})
        return redirect("targets")
    context = {"target": found, "active": active}
    return render(request, "conversions/target_remove.html", context)


@require_POST
@operator_required
def target_check(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Look at a target again, on a worker."""
    found = get_object_or_404(OutputTarget, uuid=uuid)
    transaction.on_commit(lambda: send(tasks.check_target, str(found.uuid)))
    words = {"name": found.name}
    messages.info(request, _("%(name)s is being looked at; reload in a moment.") % words)
    return redirect("targets")


@require_POST
@operator_required
def map_remove(request: HttpRequest, pk: int) -> HttpResponse:
    """Delete a saved network map; what was converted with it keeps its networks."""
    found = get_object_or_404(SavedMap, pk=pk)
    name = found.name
    found.delete()
    messages.success(request, _("%(name)s is removed.") % {"name": name})
    return redirect("targets")
