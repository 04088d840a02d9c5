"""Converting a machine in place: the page that names the disks, and the start."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from django import forms
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods

from conversions.actions import start_conversion
from conversions.forms import ROOTS
from conversions.launch import blocking_concerns, latest_inspection, not_ready, quick_job
from conversions.models import Inspection
from conversions.pipeline.job import Job, Mode
from conversions.sections import sections_for
from conversions.sections.system import known_roots
from inventory.access import in_place_required
from inventory.machines import get_vm_for
from inventory.models import SourceVM


class InPlaceForm(forms.Form):
    """What a person may choose, and the name they type to confirm."""

    root = forms.ChoiceField(label=gettext_lazy("Operating system to convert"), choices=ROOTS)
    define = forms.BooleanField(
        label=gettext_lazy("Give the machine the hardware that suits it afterwards"),
        required=False,
        initial=True,
        help_text=gettext_lazy(
            "Its definition on the host is replaced: virtio disks and network cards, the right "
            "machine type. Otherwise the new definition is only shown in the report."
        ),
    )
    direct = forms.BooleanField(
        label=gettext_lazy("There is no room for an overlay: change the disks directly"),
        required=False,
        help_text=gettext_lazy(
            "Only with a backup of your own. Nothing stops it once it has begun, and after a "
            "failure the state of the disks is unknown."
        ),
    )
    confirm = forms.CharField(
        label=gettext_lazy("Type the machine's name to confirm"), max_length=255
    )

    def __init__(
        self, data: Any = None, *, vm: SourceVM, inspection: Inspection | None = None
    ) -> None:
        self.vm = vm
        self.sections = sections_for(data, vm, inspection)
        super().__init__(data)
        root = self.fields["root"]
        assert isinstance(root, forms.ChoiceField)  # noqa: S101  declared so above
        root.choices = [*ROOTS, *known_roots(vm)]
        for name in ("define", "direct"):
            self.fields[name].widget.attrs["class"] = "pf-v6-c-check__input"
        self.fields["confirm"].widget.attrs["autocomplete"] = "off"
        if vm.kind != "libvirt":
            del self.fields["define"]

    def is_valid(self) -> bool:
        """Tell whether everything fits, in all sections too."""
        fits = [section.is_valid() for section in self.sections]
        return super().is_valid() and all(fits)

    def clean_confirm(self) -> str:
        """Refuse anything but the machine's name."""
        typed: str = self.cleaned_data["confirm"]
        if typed != self.vm.name:
            raise forms.ValidationError(
                _("This is not its name. Type %(name)s, and only if these disks may change.")
                % {"name": self.vm.name}
            )
        return typed

    def job(self) -> Job:
        """Return the job.  Call when valid.  Raises JobError."""
        values = self.cleaned_data
        job = replace(
            quick_job(self.vm, Mode.IN_PLACE),
            name=None,
            root=values["root"],
            define=bool(values.get("define")),
            direct=values["direct"],
        )
        for section in self.sections:
            job = section.apply(job)
        return job


@require_http_methods(["GET", "POST"])
@in_place_required
def convert_in_place(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Show which disks would change and how it is safe; start when the name was typed."""
    vm = get_vm_for(request.user, uuid)
    if not vm.may_change_in_place:
        raise Http404(_("Only disks of this server and of libvirt hosts convert in place."))
    if vm.refusal:
        return not_ready(request, vm)
    inspection = latest_inspection(vm)
    form = InPlaceForm(request.POST or None, vm=vm, inspection=inspection)
    blocking = blocking_concerns(inspection, form.sections)
    if request.method == "POST" and form.is_valid() and not blocking:
        return redirect(start_conversion(vm, form.job(), user=request.user))
    context = {
        "vm": vm,
        "form": form,
        "inspection": inspection,
        "disks": vm.source.disks,
        "blocking": blocking,
        "active": vm.conversions.active(),
    }
    return render(request, "conversions/in_place.html", context)
