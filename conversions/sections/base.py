"""What a section of the convert form is."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.functional import Promise
from django.utils.translation import gettext as _

from conversions.models import Concern, Inspection
from conversions.pipeline.job import Job
from inventory.models import SourceVM
from inventory.sealing import SealedField, seal


class Section(forms.Form):
    """A group of fields with a title; its rules are its own, and it adds its part to the job."""

    title: str | Promise = ""
    hint: str | Promise = ""
    # Shown folded when nothing in it differs from the start.
    optional = True

    def __init__(
        self, data: Any = None, *, vm: SourceVM, inspection: Inspection | None = None
    ) -> None:
        self.vm = vm
        self.inspection = inspection
        super().__init__(data, prefix=type(self).__name__.removesuffix("Section").lower())
        for field in self.fields.values():
            if isinstance(field, forms.BooleanField):
                field.widget.attrs["class"] = "pf-v6-c-check__input"

    @classmethod
    def suits(cls, vm: SourceVM, inspection: Inspection | None) -> bool:
        """Tell whether the machine has this section."""
        raise NotImplementedError

    @property
    def report(self) -> dict[str, Any]:
        """What the newest inspection says of the system; empty without one."""
        found = self.inspection.conversion.reports if self.inspection else {}
        return dict(found.get("inspection", {}))

    def apply(self, job: Job) -> Job:
        """Return the job with this section's part.  Call when valid.  Raises JobError."""
        raise NotImplementedError

    def settles(self, concern: Concern) -> bool:
        """Tell whether what is chosen here, valid or not, does away with what an inspection found.

        The engine judges again before it changes anything.
        """
        return False

    @property
    def is_open(self) -> bool:
        """Tell whether the page shows it unfolded."""
        return not self.optional or bool(self.errors) or bool(self.changes())

    def changes(self) -> list[tuple[str, str, str]]:
        """Return what differs from the start: label, before, after; secrets are not told."""
        found = []
        for name, field in self.fields.items():
            before = self.get_initial_for_field(field, name)
            after = getattr(self, "cleaned_data", {}).get(name, before)
            if (after or None) != (before or None):
                found.append((str(field.label), _words(before), self._shown(field, after)))
        return found

    @staticmethod
    def _shown(field: forms.Field, value: Any) -> str:
        if isinstance(field, SealedField):
            return _("given")
        if isinstance(field, forms.ChoiceField):
            choices: Any = field.choices
            return str(dict(choices).get(value, value))
        return _words(value)

    def hidden(self) -> list[tuple[str, str]]:
        """Return the values as a browser would send them again; secrets sealed."""
        pairs = []
        for name, field in self.fields.items():
            value = self.cleaned_data.get(name)
            if value in (None, False, ""):
                continue
            text = seal(value) if isinstance(field, SealedField) else str(value)
            pairs.append((self.add_prefix(name), "on" if value is True else text))
        return pairs


def _words(value: Any) -> str:
    if value is True:
        return _("yes")
    if value is False:
        return _("no")
    return _("nothing") if value in (None, "") else str(value)
