"""The passphrases of encrypted disks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy

from conversions.models import Conversion, Inspection
from conversions.pipeline.job import Job, Key
from conversions.sections.base import Section
from inventory.models import SourceVM
from inventory.sealing import SealedField

CODES = ("E-ENCRYPTED", "E-KEY")


def is_encrypted(vm: SourceVM) -> bool:
    """Tell whether a run has met encryption in the machine."""
    newest: Conversion | None = vm.conversions.order_by("-pk").first()
    return bool(encrypted_devices(vm)) or (
        newest is not None and newest.result.get("code") in CODES
    )


def encrypted_devices(vm: SourceVM) -> list[str]:
    """Return the devices with LUKS or BitLocker that the newest run to get so far has met.

    Whether a key opened them or not, and whatever became of the run.
    """
    runs = vm.conversions.filter(reports__has_key="encrypted").order_by("-pk")
    run: Conversion | None = runs.first()
    return [found["device"] for found in run.reports["encrypted"]] if run else []


class EncryptionSection(Section):
    """One passphrase for all, and one for each device that is known."""

    title = gettext_lazy("Encryption")
    hint = gettext_lazy(
        "Disks encrypted with LUKS or BitLocker are opened with these for the time of the "
        "conversion. They are kept sealed until it ends well, and appear in no log."
    )
    optional = False

    every = SealedField(
        label=gettext_lazy("Passphrase"),
        max_length=512,
        help_text=gettext_lazy(
            "Tried on every encrypted device. For BitLocker it may be the recovery password."
        ),
    )

    def __init__(self, data: Any = None, *, vm: SourceVM, **options: Any) -> None:
        super().__init__(data, vm=vm, **options)
        self.devices = encrypted_devices(vm)
        for index, device in enumerate(self.devices):
            self.fields[f"device{index}"] = SealedField(
                label=format_lazy(gettext_lazy("Passphrase of {device}"), device=device),
                max_length=512,
            )

    @classmethod
    def suits(cls, vm: SourceVM, inspection: Inspection | None) -> bool:
        """Tell whether something encrypted is known of."""
        return is_encrypted(vm)

    def apply(self, job: Job) -> Job:
        """Add the keys, those of single devices first."""
        values = self.cleaned_data
        pairs = [(d, values[f"device{i}"]) for i, d in enumerate(self.devices)]
        pairs.append(("all", values["every"]))
        keys = tuple(Key(selector=where, passphrase=text) for where, text in pairs if text)
        return replace(job, keys=keys)
