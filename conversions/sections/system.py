"""Which of several operating systems of a machine is meant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy

from conversions.models import Inspection
from conversions.pipeline.job import Job
from conversions.sections.base import Section
from inventory.models import SourceVM

CODE = "E-ROOT-CHOICE"


def known_roots(vm: SourceVM) -> list[tuple[str, str]]:
    """Return the systems that the newest look inside found: device, and words for a list.

    Empty when it found one, or nobody looked.
    """
    run = vm.conversions.filter(reports__has_key="roots").order_by("-pk").first()
    roots = run.reports["roots"] if run else []
    if len(roots) < 2:
        return []
    return [(root["device"], f"{root['product_name']} ({root['device']})") for root in roots]


class SystemSection(Section):
    """A choice between the systems that are known."""

    title = gettext_lazy("Operating system")
    hint = gettext_lazy("There are several on the disks; one is looked into and converted.")
    optional = False

    root = forms.ChoiceField(label=gettext_lazy("System"))

    def __init__(self, data: Any = None, **options: Any) -> None:
        super().__init__(data, **options)
        field = self.fields["root"]
        assert isinstance(field, forms.ChoiceField)  # noqa: S101  declared so above
        field.choices = known_roots(self.vm)

    @classmethod
    def suits(cls, vm: SourceVM, inspection: Inspection | None) -> bool:
        """Tell whether there are several."""
        return bool(known_roots(vm))

    def apply(self, job: Job) -> Job:
        """Name the root."""
        return replace(job, root=self.cleaned_data["root"])
