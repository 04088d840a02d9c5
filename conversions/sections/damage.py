"""Disks that a conversion in place may have left corrupt: nothing reads them unasked."""

from __future__ import annotations

from django import forms
from django.utils.translation import gettext_lazy

from conversions.models import Conversion, Inspection
from conversions.pipeline.job import Job, Mode
from conversions.sections.base import Section
from inventory.models import SourceVM


def damaging_run(vm: SourceVM) -> Conversion | None:
    """Return the newest run when it was changing the disks as it ended, or left them by half.

    The engine itself knows of the latter on the host of that run only.  Whatever was started after
    it was started with the word of a person that they were put back.
    """
    run = vm.conversions.order_by("-pk").first()
    if run is None or run.mode != Mode.IN_PLACE or run.is_active or run.is_success:
        return None
    state = run.reports.get("commit", {}).get("state")
    return run if state in ("direct", "begun", "unfinished") else None


class DamageSection(Section):
    """The word of a person that the disks were put back."""

    title = gettext_lazy("Disks that may be damaged")
    hint = gettext_lazy(
        "A conversion in place was changing the disks of this machine when it ended. Their state "
        "is unknown, possibly corrupt. Where it had an overlay, the next start of its worker "
        "finishes it, and this question is gone."
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
