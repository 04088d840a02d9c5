"""What a Windows guest gets: drivers, how it finds its disks, fixed addresses, a script."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django import forms
from django.utils.text import format_lazy
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from conversions.drivers import default_drivers, default_tools, has_drivers_for, list_drivers
from conversions.models import Concern, Inspection
from conversions.pipeline.errors import JobError
from conversions.pipeline.job import Job, StaticIp, WindowsOptions
from conversions.pipeline.windows.static_ip import parse_static_ip
from conversions.sections.base import Section
from conversions.sections.guest import MAX_SCRIPT_CHARACTERS
from inventory.models import SourceVM


class WindowsSection(Section):
    """The options for Windows guests."""

    title = gettext_lazy("Windows")
    optional = False

    virtio_win = forms.ChoiceField(
        label=gettext_lazy("Drivers"),
        required=False,
        help_text=gettext_lazy("An administrator adds them on the page Windows drivers."),
    )
    block_driver = forms.ChoiceField(
        label=gettext_lazy("Disks on"),
        choices=[("virtio-blk", "virtio-blk"), ("virtio-scsi", "virtio-scsi")],
        initial="virtio-blk",
    )
    emulated_devices = forms.BooleanField(
        label=gettext_lazy("Without drivers, let it run on IDE and an emulated network card"),
        required=False,
        help_text=gettext_lazy("Slow, but it starts. Otherwise the conversion stops."),
    )
    sibling_drivers = forms.BooleanField(
        label=gettext_lazy("Take drivers of an older Windows where there are none of its own"),
        required=False,
    )
    disable_vmware = forms.BooleanField(
        label=gettext_lazy("Turn off the services of VMware Tools"), required=False
    )
    remove_boot_keys = forms.BooleanField(
        label=gettext_lazy("Remove the temporary entries of the boot driver at the first start"),
        required=False,
    )
    guest_agent = forms.BooleanField(
        label=gettext_lazy("Install the QEMU guest agent"), required=False, initial=True
    )
    firstboot = forms.CharField(
        label=gettext_lazy("Script for the first start"),
        required=False,
        max_length=MAX_SCRIPT_CHARACTERS,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 4, "spellcheck": "false"}),
        help_text=gettext_lazy(
            "Lines of a batch file. Runs once as LocalSystem, when the converted machine starts "
            "first."
        ),
    )

    def __init__(self, data: Any = None, **options: Any) -> None:
        super().__init__(data, **options)
        choices = [(str(d.path), d.name) for d in list_drivers() if not d.problem]
        field = self.fields["virtio_win"]
        assert isinstance(field, forms.ChoiceField)  # noqa: S101  declared so above
        field.choices = [*choices, ("", _("What the conversion host has"))]
        field.initial = default_drivers()
        self.macs = [nic.mac.lower() for nic in self.vm.source.nics if nic.mac]
        for index, mac in enumerate(self.macs):
            self.fields[f"addresses{index}"] = forms.CharField(
                label=format_lazy(gettext_lazy("Fixed addresses of {mac}"), mac=mac),
                required=False,
                max_length=2000,
                widget=forms.Textarea(attrs={"rows": 2, "spellcheck": "false"}),
                help_text=gettext_lazy(
                    "One on each line: address, gateway, prefix length, name servers, as in "
                    "192.0.2.10,192.0.2.1,24,192.0.2.53. Empty: as the guest has it, by DHCP."
                ),
            )

    @classmethod
    def suits(cls, vm: SourceVM, inspection: Inspection | None) -> bool:
        """Tell whether the machine is a Windows, by its report or its descriptor."""
        report = inspection.conversion.reports.get("inspection", {}) if inspection else {}
        kind = report.get("type")
        return kind == "windows" or (kind is None and "windows" in vm.os_hint.lower())

    def settles(self, concern: Concern) -> bool:
        """Tell whether what an inspection missed has been supplied or can be done without."""
        if concern.code == "C-NO-SERVICE-PROGRAM":
            return bool(default_tools())
        if concern.code != "C-NO-DRIVERS" or "virtio_win" in self.errors:
            return False
        options = WindowsOptions(
            virtio_win=self["virtio_win"].value() or "",
            sibling_drivers=bool(self["sibling_drivers"].value()),
        )
        return bool(self["emulated_devices"].value()) or has_drivers_for(self.report, options)

    def clean(self) -> dict[str, Any]:
        """Let the engine judge the addresses."""
        values = super().clean() or {}
        for index, mac in enumerate(self.macs):
            try:
                self._addresses(mac, values.get(f"addresses{index}", ""))
            except JobError as error:
                self.add_error(f"addresses{index}", f"{error.message} {error.remedy}".strip())
        return values

    @staticmethod
    def _addresses(mac: str, text: str) -> list[StaticIp]:
        lines = [line.replace(" ", "") for line in text.splitlines() if line.strip()]
        return [parse_static_ip(f"{mac}:ip:{line}") for line in lines]

    def apply(self, job: Job) -> Job:
        """Add the options."""
        values = self.cleaned_data
        addresses = [
            entry
            for index, mac in enumerate(self.macs)
            for entry in self._addresses(mac, values[f"addresses{index}"] or "")
        ]
        script = values["firstboot"] or ""
        wishes = replace(job.customize, firstboot=(script,) if script.strip() else ())
        return replace(
            job,
            customize=wishes,
            guest_agent=values["guest_agent"],
            windows=WindowsOptions(
                virtio_win=values["virtio_win"],
                virt_tools=default_tools(),
                block_driver=values["block_driver"],
                emulated_devices=values["emulated_devices"],
                sibling_drivers=values["sibling_drivers"],
                disable_vmware=values["disable_vmware"],
                remove_boot_keys=values["remove_boot_keys"],
                static_ips=tuple(addresses),
            ),
        )
