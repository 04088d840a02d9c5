"""Disks that a conversion in place may have left corrupt: nothing reads them unasked."""

from __future__ import annotations

from django import forms
from django.utils.translation import gettext_lazy

from conversions.models import Conversion, Inspection
from conversions.pipeline.job import Job, Mode
from conversions.sections.base import Section
from inventory.models import SourceVM


def damaging_run(vm: SourceVM) -> Conversion | None:
    """Return the newest run when it changed the disks directly and did not end well.

    Whatever was started after it was started with the word of a person that they were put back.
    """
    run = vm.conversions.order_by("-pk").first()
    if run is None or run.mode != Mode.IN_PLACE or run.is_active or run.is_success:
        return None
    return run if run.reports.get("commit", {}).get("state") == "direct" else None


class DamageSection(Section):
    """The word of a person that the disks were put back."""

    title = gettext_lazy("Disks that may be damaged")
    hint = gettext_lazy(
        "A conversion in place was changing the disks of this machine directly when it ended. "
        "Their state is unknown, possibly corrupt."
    )
    optional = False

    restored = forms.BooleanField(
        label=gettext_lazy("The disks were put back from a backup since then"),
        error_messages={
            "required": gettext_lazy("Put the disks back first; nothing starts from them before.")
        },
    )

    @classmethod
    def suits(cls, vm: SourceVM, inspection: Inspection | None) -> bool:
        """Tell whether there was such a run."""
        return damaging_run(vm) is not None

    def apply(self, job: Job) -> Job:
        """Change nothing: the word was wanted, not a setting."""
        return job

    def changes(self) -> list[tuple[str, str, str]]:
        """Tell of no setting."""
        return []
