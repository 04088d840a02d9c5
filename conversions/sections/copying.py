"""How the disks are copied: how many at once, how fast, and what is checked afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django import forms
from django.conf import settings
from django.utils.translation import gettext_lazy

from conversions.models import Inspection
from conversions.pipeline.job import CopyOptions, Job
from conversions.sections.base import Section
from inventory.models import SourceVM

MIB = 1 << 20


class CopySection(Section):
    """The copy of the disks."""

    title = gettext_lazy("Copying")
    hint = gettext_lazy("How the disks are copied, and what is checked when they are there.")

    parallel = forms.IntegerField(
        label=gettext_lazy("Disks copied at once"), min_value=1, max_value=16, initial=1
    )
    rate_mib = forms.IntegerField(
        label=gettext_lazy("Rate limit (MiB a second)"),
        required=False,
        min_value=1,
        max_value=1_000_000,
        help_text=gettext_lazy("For all disks together. Empty: as fast as it goes."),
    )
    verify = forms.ChoiceField(
        label=gettext_lazy("Check of the result"),
        choices=[
            ("none", gettext_lazy("None")),
            ("quick", gettext_lazy("Quick: the structure of each disk")),
            ("full", gettext_lazy("Full: every byte is compared; takes as long as the copy")),
        ],
        initial="none",
    )
    overlap = forms.ChoiceField(
        label=gettext_lazy("Copy while the guest is being converted"),
        required=False,
        choices=[
            ("auto", gettext_lazy("When the disks are large")),
            ("always", gettext_lazy("Always, where the result is the same")),
            ("never", gettext_lazy("Never")),
        ],
        initial="auto",
        help_text=gettext_lazy(
            "What the conversion changes is added to the copies at the end. Not for compressed or "
            "preallocated disks, btrfs and RAID."
        ),
    )
    keep_converted = forms.BooleanField(
        label=gettext_lazy("Keep the converted disks if the copy fails or is stopped"),
        required=False,
        initial=True,
        help_text=gettext_lazy(
            "It can then go on from the copy, also to another target, without converting again."
        ),
    )
    digests = forms.BooleanField(
        label=gettext_lazy("Put SHA-256 digests of the files into the report"), required=False
    )

    @classmethod
    def suits(cls, vm: SourceVM, inspection: Inspection | None) -> bool:
        """Tell whether the machine has disks to copy; all have."""
        return True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if settings.KEEP_DAYS <= 0:
            del self.fields["keep_converted"]

    def start_with(self, options: CopyOptions) -> None:
        """Begin with what an earlier run was told."""
        self.initial = {
            "parallel": options.parallel,
            "rate_mib": options.rate_bytes // MIB if options.rate_bytes else None,
            "verify": options.verify,
            "digests": options.digests,
        }

    def apply(self, job: Job) -> Job:
        """Set the options."""
        values = self.cleaned_data
        rate = values["rate_mib"]
        return replace(
            job,
            copy=CopyOptions(
                parallel=values["parallel"],
                rate_bytes=rate * MIB if rate else None,
                verify=values["verify"],
                digests=values["digests"],
                overlap=values.get("overlap") or "auto",
                keep_converted=values.get("keep_converted", False),
            ),
        )
