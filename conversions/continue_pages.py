"""Kept files of a run: going on from the copy with them, and deleting them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from conversions import live
from conversions.actions import continue_conversion, discard_kept_files, job_of
from conversions.forms import ConvertForm
from conversions.health import host_answers
from conversions.launch import form_instead, starting
from conversions.models import Conversion, KeptWork, OutputTarget
from conversions.network_choice import kind_of
from conversions.pipeline.errors import JobError
from conversions.pipeline.job import Job, Mode
from conversions.sections.copying import CopySection
from inventory.access import operator_required
from inventory.models import SourceVM
from inventory.sources.types import VnetType


class ContinueForm(ConvertForm):
    """What can still be chosen when the guest is converted: where it goes, and how.

    It starts with what the run before was told.
    """

    section_kinds = (CopySection,)

    def __init__(
        self,
        data: Any = None,
        *,
        vm: SourceVM,
        kept: KeptWork,
        job: Job,
        place: OutputTarget | None,
    ) -> None:
        self.kept = kept
        self.earlier = job
        self.earlier_place = place
        super().__init__(data, vm=vm)
        for name in set(self.fields) - set(self.own_values()):
            del self.fields[name]
        [section] = self.sections
        assert isinstance(section, CopySection)  # noqa: S101  declared so above
        section.start_with(job.copy)
        # The guest is converted: there is nothing to copy meanwhile, and it is kept already.
        for name in ("overlap", "keep_converted"):
            section.fields.pop(name, None)

    def own_values(self) -> dict[str, Any]:
        """Return what the run before was told."""
        target = self.earlier.target
        assert target is not None  # noqa: S101  only copies are continued
        values: dict[str, Any] = {
            "name": self.earlier.name or self.vm.name,
            "target": str(self.earlier_place.uuid) if self.earlier_place else target.directory,
            "format": target.format,
            "allocation": target.allocation,
            "compressed": target.compressed,
        }
        told = self.earlier.network_map
        for index, nic in enumerate(self.nics):
            kind, name = kind_of(nic), nic.vnet
            by_name = told.networks if nic.vnet_type is VnetType.NETWORK else told.bridges
            kind, name = told.macs.get((nic.mac or "").lower(), (kind, by_name.get(name, name)))
            values[f"nic{index}_kind"], values[f"nic{index}_name"] = kind, name
        return values

    def job(self, mode: Mode) -> Job:
        """Return the job of the run before with what was chosen here.  Raises JobError."""
        job = replace(
            self.earlier,
            mode=mode,
            target=self.engine_target(),
            name=self.cleaned_data["name"],
            network_map=self._network_map(),
        )
        for section in self.sections:
            job = section.apply(job)
        return job


@require_http_methods(["GET", "POST"])
@operator_required
@starting
def conversion_continue(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Ask where the converted disks go, then go on from the copy."""
    found = live.get_conversion_for(request.user, uuid)
    kept = _kept_of(found)
    if kept is None or kept.conversion is None:
        messages.error(request, _("Nothing is kept of this run any more. It can be retried."))
        return redirect(found)
    if reason := refusal(kept):
        messages.error(request, reason)
        return redirect(found)
    vm = kept.conversion.vm
    assert vm is not None  # noqa: S101  `refusal` has looked
    if form_first := form_instead(request, found, vm):
        return form_first
    try:
        job = job_of(found)
    except JobError as error:
        messages.error(request, f"{error.message} {error.remedy}".strip())
        return redirect(found)
    form = ContinueForm(request.POST or None, vm=vm, kept=kept, job=job, place=found.target)
    if request.method == "POST" and form.is_valid():
        begun = continue_conversion(
            kept, form.job(Mode.COPY), user=request.user, target=form.named_target()
        )
        if begun is not None:
            return redirect(begun)
        messages.error(request, _("The kept files are in use by now, or gone."))
        return redirect(found)
    context = {
        "conversion": found,
        "kept": kept,
        "vm": vm,
        "form": form,
        "host_answers": host_answers(kept.worker),
        "has_remote_disks": len(vm.local_disks) < len(vm.source.disks),
    }
    return render(request, "conversions/continue.html", context)


@require_http_methods(["GET", "POST"])
@operator_required
def conversion_discard(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Say what is deleted, then have the host delete it."""
    found = live.get_conversion_for(request.user, uuid)
    kept = _kept_of(found)
    if kept is None:
        messages.info(request, _("Nothing is kept of this run any more."))
        return redirect(found)
    if request.method == "POST":
        if discard_kept_files(kept):
            words = {"host": kept.worker}
            messages.success(request, _("%(host)s deletes the kept files.") % words)
        else:
            messages.error(request, _("The kept files are in use. Stop the run that uses them."))
        return redirect(found)
    context = {"conversion": found, "kept": kept, "host_answers": host_answers(kept.worker)}
    return render(request, "conversions/discard.html", context)


def _kept_of(found: Conversion) -> KeptWork | None:
    """Return what is kept for a run that has ended."""
    return None if found.is_active or found.is_success else found.kept


def refusal(kept: KeptWork) -> str:
    """Return why kept files cannot be used now, "" when they can."""
    if kept.discarding:
        return _("The kept files are being deleted.")
    vm = kept.conversion.vm if kept.conversion else None
    if vm is None:
        return _("The machine is gone; without it the kept files are of no use.")
    if vm.refusal:
        return vm.refusal
    if kept.is_in_use:
        return _("A run goes on with the kept files already.")
    return ""
