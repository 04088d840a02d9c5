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

CODE = "E-ENCRYPTED"


def is_encrypted(vm: SourceVM, inspection: Inspection | None) -> bool:
    """Tell whether a run has met encryption in the machine that it could not look behind."""
    newest: Conversion | None = vm.conversions.order_by("-pk").first()
    return bool(encrypted_devices(inspection)) or (
        newest is not None and newest.result.get("code") == CODE
    )


def encrypted_devices(inspection: Inspection | None) -> list[str]:
    """Return the devices with LUKS that an inspection found."""
    report = inspection.conversion.reports.get("inspection", {}) if inspection else {}
    return [device for device, kind in report.get("filesystems", []) if kind == "crypto_LUKS"]


class EncryptionSection(Section):
    """One passphrase for all, and one for each device that is known."""

    title = gettext_lazy("Encryption")
    hint = gettext_lazy(
        "Disks encrypted with LUKS are opened with these for the time of the conversion. They are "
        "kept sealed until it ends well, and appear in no log."
    )
    optional = False

    every = SealedField(
        label=gettext_lazy("Passphrase"),
        max_length=512,
        help_text=gettext_lazy("Tried on every encrypted device."),
    )

    def __init__(self, data: Any = None, **options: Any) -> None:
        super().__init__(data, **options)
        self.devices = encrypted_devices(self.inspection)
        for index, device in enumerate(self.devices):
            self.fields[f"device{index}"] = SealedField(
                label=format_lazy(gettext_lazy("Passphrase of {device}"), device=device),
                max_length=512,
            )

    @classmethod
    def suits(cls, vm: SourceVM, inspection: Inspection | None) -> bool:
        """Tell whether something encrypted is known of."""
        return is_encrypted(vm, inspection)

    def apply(self, job: Job) -> Job:
        """Add the keys, those of single devices first."""
        values = self.cleaned_data
        pairs = [(d, values[f"device{i}"]) for i, d in enumerate(self.devices)]
        pairs.append(("all", values["every"]))
        keys = tuple(Key(selector=where, passphrase=text) for where, text in pairs if text)
        return replace(job, keys=keys)
