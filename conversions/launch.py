"""Starting runs: the convert form, its review, and the two that need no form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from auditlog.models import LogEntry
from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from conversions.actions import start_conversion
from conversions.drivers import default_windows_options
from conversions.forms import ConvertForm, suggested_name
from conversions.inputs import input_of
from conversions.models import Concern, Conversion, Inspection
from conversions.pipeline.job import Job, Mode
from conversions.pipeline.outputs.preview import preview
from conversions.sections import sections_for
from conversions.sections.base import Section
from conversions.sections.damage import DamageSection, damaging_run
from conversions.sections.encryption import EncryptionSection
from conversions.sections.system import SystemSection
from conversions.space import needs
from inventory.access import operator_required
from inventory.machines import get_vm_for
from inventory.models import SourceVM


def latest_inspection(vm: SourceVM) -> Inspection | None:
    """Return what is known about the inside of a machine, the newest."""
    return Inspection.objects.filter(vm=vm).select_related("conversion").first()


def open_concerns(inspection: Inspection | None, sections: Sequence[Section]) -> list[Concern]:
    """Return the concerns that nothing chosen in the form settles."""
    found = inspection.concerns.all() if inspection else ()
    return [concern for concern in found if not any(s.settles(concern) for s in sections)]


def blocking_concerns(inspection: Inspection | None, sections: Sequence[Section]) -> list[Concern]:
    """Return the concerns that stop the start."""
    found = open_concerns(inspection, sections)
    return [concern for concern in found if concern.level == Concern.Level.BLOCKS]


@require_http_methods(["GET", "POST"])
@operator_required
def convert(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Show the form, check it and show the review, or start what was reviewed.

    The button pressed says which: edit, review, start or rehearse; target and map fill the form
    with what the chosen one says, save_map keeps the networks under a name.
    """
    vm = get_vm_for(request.user, uuid)
    if vm.refusal:
        return not_ready(request, vm)
    inspection = latest_inspection(vm)
    if request.method == "GET":
        return _show_form(request, ConvertForm(vm=vm, inspection=inspection))
    form = ConvertForm(request.POST, vm=vm, inspection=inspection)
    button = request.POST.get("action", "review")
    if button in ("target", "map"):
        wanted = form.target_values() if button == "target" else form.map_values()
        return _show_form(request, _refilled(request, form, wanted))
    if button == "save_map":
        saved = form.save_map(request.user)
        if saved is not None:
            words = {"name": saved.name}
            messages.success(request, _("The networks are saved as %(name)s.") % words)
            wanted = {"map": str(saved.pk), "map_name": ""}
            return _show_form(request, _refilled(request, form, wanted))
        return _show_form(request, form)
    if not form.is_valid() or button == "edit":
        return _show_form(request, form)
    if button == "rehearse":
        return redirect(start_conversion(vm, form.job(Mode.REHEARSE), user=request.user))
    if button == "start":
        blocking = blocking_concerns(inspection, form.sections)
        reason = form.cleaned_data["override_reason"]
        if not blocking or reason:
            return redirect(_start(request, form, blocking, reason))
        form.add_error("override_reason", _("Type a reason; it is kept with the conversion."))
    return _show_review(request, form)


def _refilled(request: HttpRequest, form: ConvertForm, wanted: Mapping[str, Any]) -> ConvertForm:
    """Return the form as it was sent, with other values here and there."""
    data = request.POST.copy()
    for name, value in wanted.items():
        data[name] = value
    return ConvertForm(data, vm=form.vm, inspection=form.inspection)


def _start(
    request: HttpRequest, form: ConvertForm, blocking: list[Concern], reason: str
) -> Conversion:
    """Start the conversion; a reason given against concerns goes into its reports and the audit."""
    with transaction.atomic():
        conversion = start_conversion(
            form.vm, form.job(Mode.COPY), user=request.user, target=form.named_target()
        )
        if blocking:
            override = {
                "reason": reason,
                "concerns": [concern.title for concern in blocking],
                "by": request.user.get_username(),
            }
            conversion.reports = {**conversion.reports, "override": override}
            conversion.save(update_fields=["reports"])
            LogEntry.objects.log_create(
                conversion,
                force_log=True,
                action=LogEntry.Action.UPDATE,
                changes={"override": [None, reason]},
                actor=request.user,
            )
    return conversion


def _show_form(request: HttpRequest, form: ConvertForm) -> HttpResponse:
    inspection = form.inspection
    context = {
        "vm": form.vm,
        "form": form,
        "inspection": inspection,
        "concerns": open_concerns(inspection, form.sections),
    }
    return render(request, "conversions/convert.html", context)


def _show_review(request: HttpRequest, form: ConvertForm) -> HttpResponse:
    vm, inspection = form.vm, form.inspection
    job = form.job(Mode.COPY)
    reports: Mapping[str, Any] = inspection.conversion.reports if inspection else {}
    place = form.targets[form.cleaned_data["target"]]
    table = needs(vm, job, reports, settings.WORK_DIR, remote_free_bytes=place.free_bytes)
    context = {
        "vm": vm,
        "form": form,
        "job": job,
        "place": place,
        "inspection": inspection,
        "changes": form.changes(),
        "hidden": hidden_values(form),
        "preview": preview(vm.source, reports, job),
        "needs": table,
        "too_little": [need for need in table if not need.is_enough],
        "blocking": blocking_concerns(inspection, form.sections),
        "active": vm.conversions.active(),
    }
    return render(request, "conversions/review.html", context)


def hidden_values(form: ConvertForm) -> list[tuple[str, str]]:
    """Return the form's values as a browser would send them again, without the reason."""
    pairs = []
    for name in form.fields:
        value = form.cleaned_data.get(name)
        if name in ("override_reason", "map_name") or value in (None, False, ""):
            continue
        pairs.append((name, "on" if value is True else str(value)))
    return [*pairs, *(pair for section in form.sections for pair in section.hidden())]


@require_http_methods(["GET", "POST"])
@operator_required
def inspect(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Start an inspection, or lead to the one that is under way.

    GET asks first for what only a person can say: passphrases, which of several systems.
    """
    vm = get_vm_for(request.user, uuid)
    if vm.refusal:
        return not_ready(request, vm)
    running = vm.conversions.active().filter(mode=Mode.INSPECT).first()
    if running is not None:
        messages.info(request, _("An inspection of this machine is under way already."))
        return redirect(running)
    job = quick_job(vm, Mode.INSPECT)
    kinds = (DamageSection, EncryptionSection, SystemSection)
    sent = request.POST if request.method == "POST" else None
    sections = sections_for(sent, vm, latest_inspection(vm), kinds)
    if sent is None and not sections:
        return redirect(vm)
    if sent is None or not all(section.is_valid() for section in sections):
        return render(request, "conversions/inspect.html", {"vm": vm, "sections": sections})
    for section in sections:
        job = section.apply(job)
    return redirect(start_conversion(vm, job, user=request.user))


@require_POST
@operator_required
def rehearse(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Start a rehearsal with the detected settings."""
    vm = get_vm_for(request.user, uuid)
    if vm.refusal:
        return not_ready(request, vm)
    if damaging_run(vm):
        return redirect("inspect", vm.uuid)
    return redirect(start_conversion(vm, quick_job(vm, Mode.REHEARSE), user=request.user))


def quick_job(vm: SourceVM, mode: Mode) -> Job:
    """Return a job with the detected settings for a mode that writes nothing."""
    return Job(
        mode=mode,
        source=input_of(vm),
        name=suggested_name(vm),
        # Digests were checked when the file arrived; a look inside need not read it all again.
        verify_digests=False,
        memory_mib=settings.APPLIANCE_MEMORY_MIB,
        windows=default_windows_options(),
    )


def not_ready(request: HttpRequest, vm: SourceVM) -> HttpResponse:
    """Say why a machine cannot be opened, on its page."""
    messages.error(request, vm.refusal)
    return redirect(vm)
