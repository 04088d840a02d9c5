"""Changes to the guest besides the conversion: names, passwords, keys, packages, scripts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from conversions.models import Inspection
from conversions.pipeline.errors import ConversionError, JobError
from conversions.pipeline.job import Customize, GuestFile, Job
from conversions.pipeline.passwords import crypted
from conversions.sections.base import Section
from inventory.models import SourceVM
from inventory.sealing import SealedField

MAX_SCRIPT_CHARACTERS = 64 << 10


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


class GuestSection(Section):
    """What an administrator would do by hand after the first start of a Linux guest."""

    title = gettext_lazy("Adjust the guest")
    hint = gettext_lazy("Each is optional. An empty field leaves the guest as it is.")

    hostname = forms.CharField(label=gettext_lazy("Host name"), required=False, max_length=253)
    timezone = forms.CharField(
        label=gettext_lazy("Time zone"),
        required=False,
        max_length=100,
        help_text=gettext_lazy("For example Europe/Berlin."),
    )
    root_password = SealedField(
        label=gettext_lazy("Password of root"),
        max_length=512,
        help_text=gettext_lazy("Only its hash goes into the guest and the records."),
    )
    ssh_keys = forms.CharField(
        label=gettext_lazy("SSH keys of root"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text=gettext_lazy("One public key on each line; they are added to those there."),
    )
    update = forms.BooleanField(
        label=gettext_lazy("Update all packages"),
        required=False,
        help_text=gettext_lazy("At the first start, which needs a network then."),
    )
    install = forms.CharField(
        label=gettext_lazy("Packages to install"),
        required=False,
        max_length=2000,
        help_text=gettext_lazy("Names separated by spaces; installed at the first start."),
    )
    uninstall = forms.CharField(
        label=gettext_lazy("Packages to remove"),
        required=False,
        max_length=2000,
        help_text=gettext_lazy("Names separated by spaces; removed during the conversion."),
    )
    file_path = forms.CharField(
        label=gettext_lazy("File to write"),
        required=False,
        max_length=1000,
        help_text=gettext_lazy("Its whole path, for example /etc/motd; one there is replaced."),
    )
    file_mode = forms.ChoiceField(
        label=gettext_lazy("That file can be"),
        required=False,
        choices=[
            ("644", gettext_lazy("read by all")),
            ("600", gettext_lazy("read by root alone")),
            ("755", gettext_lazy("read and run by all")),
        ],
        initial="644",
    )
    file_content = forms.CharField(
        label=gettext_lazy("What is in that file"),
        required=False,
        max_length=MAX_SCRIPT_CHARACTERS,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 4, "spellcheck": "false"}),
    )
    firstboot = forms.CharField(
        label=gettext_lazy("Script for the first start"),
        required=False,
        max_length=MAX_SCRIPT_CHARACTERS,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 4, "spellcheck": "false"}),
        help_text=gettext_lazy("Runs once as root, when the converted machine starts first."),
    )
    block_driver = forms.ChoiceField(
        label=gettext_lazy("Disks on"),
        required=False,
        choices=[("virtio-blk", "virtio-blk"), ("virtio-scsi", "virtio-scsi")],
        initial="virtio-blk",
        help_text=gettext_lazy("Where its kernel has the driver; else on the best bus it knows."),
    )
    guest_agent = forms.BooleanField(
        label=gettext_lazy("Install the QEMU guest agent"), required=False, initial=True
    )
    keep_nic_names = forms.BooleanField(
        label=gettext_lazy("Keep names and addresses of network cards"),
        required=False,
        initial=True,
        help_text=gettext_lazy("Cards are recognised by their MAC address after the move."),
    )
    fsck = forms.BooleanField(
        label=gettext_lazy("Check file systems before and after"), required=False, initial=True
    )

    @classmethod
    def suits(cls, vm: SourceVM, inspection: Inspection | None) -> bool:
        """Tell whether the machine may hold a Linux."""
        report = inspection.conversion.reports.get("inspection", {}) if inspection else {}
        return report.get("type", "linux") == "linux" and "windows" not in vm.os_hint.lower()

    def clean_timezone(self) -> str:
        """Refuse zones that do not exist."""
        zone: str = self.cleaned_data["timezone"]
        if zone and zone not in available_timezones():
            raise forms.ValidationError(
                _("%(zone)s is no time zone; Europe/Berlin is one.") % {"zone": zone}
            )
        return zone

    def clean_firstboot(self) -> str:
        """Return the script with the line ends of Linux."""
        return str(self.cleaned_data["firstboot"]).replace("\r\n", "\n")

    def clean_file_content(self) -> str:
        """Do the same for a file."""
        return str(self.cleaned_data["file_content"]).replace("\r\n", "\n")

    def clean_file_mode(self) -> str:
        """Return the first one when none was sent."""
        return self.cleaned_data["file_mode"] or "644"

    def clean_block_driver(self) -> str:
        """Do the same for the driver."""
        return self.cleaned_data["block_driver"] or "virtio-blk"

    def clean(self) -> dict[str, Any]:
        """Let the engine's own rules judge, field by field."""
        values = super().clean() or {}
        for name in ("hostname", "ssh_keys", "install", "uninstall"):
            try:
                Customize(**{name: self._wish(name, values.get(name, ""))})
            except JobError as error:
                self.add_error(name, error.message)
        try:
            self._files(values)
        except JobError as error:
            self.add_error("file_path", f"{error.message} {error.remedy}".strip())
        return values

    @staticmethod
    def _files(values: dict[str, Any]) -> tuple[GuestFile, ...]:
        path, content = values.get("file_path") or "", values.get("file_content") or ""
        if not path and not content:
            return ()
        mode = int(values.get("file_mode") or "644", 8)
        return (GuestFile(path=path, content=content, mode=mode),)

    @staticmethod
    def _wish(name: str, text: str) -> Any:
        match name:
            case "ssh_keys":
                return _lines(text)
            case "install" | "uninstall":
                return tuple(text.replace(",", " ").split())
        return text

    def apply(self, job: Job) -> Job:
        """Add the wishes; of the password only its hash."""
        values = self.cleaned_data
        try:
            hashed = crypted(values["root_password"]) if values["root_password"] else ""
        except ConversionError as error:
            raise JobError(error.message) from error
        wishes = Customize(
            hostname=values["hostname"] or "",
            timezone=values["timezone"] or "",
            root_password_hash=hashed,
            ssh_keys=_lines(values["ssh_keys"] or ""),
            update=bool(values["update"]),
            install=self._wish("install", values["install"] or ""),
            uninstall=self._wish("uninstall", values["uninstall"] or ""),
            files=self._files(values),
            firstboot=(values["firstboot"],) if (values["firstboot"] or "").strip() else (),
        )
        return replace(
            job,
            customize=wishes,
            windows=replace(job.windows, block_driver=values["block_driver"]),
            guest_agent=bool(values["guest_agent"]),
            keep_nic_names=bool(values["keep_nic_names"]),
            fsck=bool(values["fsck"]),
        )
