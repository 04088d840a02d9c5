"""Disks that a conversion in place may have left corrupt: nothing reads them unasked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy

from conversions.models import Conversion, Inspection
from conversions.pipeline.job import Job, Mode
from conversions.sections.base import Section
from inventory.models import SourceVM


def damaging_run(vm: SourceVM) -> Conversion | None:
    """Return the newest run in place that left disks changed directly, or by half, as it ended.

    The engine itself knows of the latter on the host of that run only.  None when a later one was
    started with the word of a person that they were put back.
    """
    damaging = vm.conversions.filter(
        mode=Mode.IN_PLACE, reports__commit__state__in=["direct", "begun", "unfinished"]
    )
    ended = damaging.exclude(status__in=[*Conversion.ACTIVE, *Conversion.SUCCESS])
    run = ended.order_by("-pk").first()
    if run is None or vm.conversions.filter(pk__gt=run.pk, reports__has_key="restored").exists():
        return None
    return run


def word_in(sections: Sequence[Section]) -> dict[str, Any]:
    """Return the word as a report of the run that is started with it.  Call when valid."""
    return {"restored": True} if any(isinstance(s, DamageSection) for s in sections) else {}


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
