"""The pages of the targets: what there is, adding, changing, removing, checking again."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from conversions import targets, tasks
from conversions.models import OutputTarget, SavedMap
from conversions.target_forms import TargetForm, facts_of
from inventory.access import (
    MANAGE_TARGETS,
    OPERATE,
    operator_required,
    target_manager_required,
    viewer_required,
)
from v2vweb.celery import send


@require_GET
@viewer_required
def target_list(request: HttpRequest) -> HttpResponse:
    """Show every target with what the last check found, and the saved network maps."""
    own = targets.folder_targets()
    for target in own:
        target.free_bytes = targets.free_bytes(target)
    context = {
        "own": own,
        "named": [(target, facts_of(target)) for target in OutputTarget.objects.all()],
        "maps": SavedMap.objects.select_related("created_by"),
        "may_manage": request.user.has_perm(MANAGE_TARGETS),
        "may_operate": request.user.has_perm(OPERATE),
    }
    return render(request, "conversions/targets.html", context)


@require_http_methods(["GET", "POST"])
@target_manager_required
def target_add(request: HttpRequest) -> HttpResponse:
    """Add a target, or only look at the place."""
    return _edit(request, OutputTarget(created_by=request.user))  # type: ignore[misc]


@require_http_methods(["GET", "POST"])
@target_manager_required
def target_edit(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Change a target."""
    return _edit(request, get_object_or_404(OutputTarget, uuid=uuid))


def _edit(request: HttpRequest, target: OutputTarget) -> HttpResponse:
    is_look = request.POST.get("action") == "look"
    form = TargetForm(request.POST or None, instance=target, is_look=is_look)
    if request.method == "POST" and form.is_valid() and not is_look:
        form.save()
        messages.success(request, _("%(name)s is saved.") % {"name": target.name})
        return redirect("targets")
    context = {
        "form": form,
        "target": target if target.pk else None,
        "folders": targets.folder_targets(),
    }
    return render(request, "conversions/target_edit.html", context)


@require_http_methods(["GET", "POST"])
@target_manager_required
def target_remove(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Ask, then take a target off the list; its files and the history stay."""
    found = get_object_or_404(OutputTarget, uuid=uuid)
    active = found.conversions.active()
    if request.method == "POST" and not active.exists():
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
