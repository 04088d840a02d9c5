"""An inspection's reports as the report page shows them: numbers worked out, values in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


@dataclass(frozen=True, slots=True, kw_only=True)
class MountPoint:
    """One mounted file system of the guest, in bytes."""

    path: str
    device: str
    kind: str
    total_bytes: int
    used_bytes: int
    available_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """One value of guestcaps in plain words; `reason` is the finding that decided it."""

    title: str | Promise
    words: str | Promise
    value: str
    reason: str


BLOCK_BUS = {
    "virtio-blk": _("Virtio disks (virtio-blk), the fast way"),
    "virtio-scsi": _("Virtio SCSI disks (virtio-scsi), the fast way for many disks"),
    "ide": _("Emulated IDE disks: slow, but any system knows them"),
}
NET_BUS = {
    "virtio-net": _("Virtio network card (virtio-net), the fast way"),
    "e1000": _("Emulated Intel card (e1000): slower, widely known"),
    "rtl8139": _("Emulated Realtek card (rtl8139): slow, known by old systems"),
}
MACHINE = {
    "i440fx": _("Classic PC (i440fx)"),
    "q35": _("Modern PC with PCI Express (q35)"),
    "virt": _("Virtual board (virt)"),
}
DEVICES = {
    "virtio_rng": _("Random numbers from the host"),
    "virtio_balloon": _("Memory that can be given back (balloon)"),
    "isa_pvpanic": _("Reports a crash to the host (pvpanic)"),
    "virtio_socket": _("Socket to the host (vsock)"),
    "virtio_1_0": _("Current virtio (1.0)"),
    "acpi": _("ACPI"),
}
TITLES: dict[str, str | Promise] = {
    "block_bus": _("Disks"),
    "net_bus": _("Network"),
    "machine": _("Machine type"),
    "arch": _("Processor"),
    "video": _("Display"),
    "rtc_utc": _("Clock"),
    **DEVICES,
}


def mount_points(stats: Sequence[Mapping[str, Any]]) -> list[MountPoint]:
    """Return the report mpstats in bytes, sorted by path."""
    found = [
        MountPoint(
            path=stat["mountpoint"],
            device=stat["device"],
            kind=stat["vfs"],
            total_bytes=stat["blocks"] * stat["bsize"],
            used_bytes=(stat["blocks"] - stat["bfree"]) * stat["bsize"],
            available_bytes=stat["bavail"] * stat["bsize"],
        )
        for stat in stats
    ]
    return sorted(found, key=lambda mount: mount.path)


def capabilities(guestcaps: Mapping[str, Any]) -> list[Capability]:
    """Return the report guestcaps in plain words, the important ones first."""
    reasons = guestcaps.get("reasons", {})
    return [
        Capability(
            title=title,
            words=_words(key, guestcaps[key]),
            value=_value(guestcaps[key]),
            reason=reasons.get(key, ""),
        )
        for key, title in TITLES.items()
        if key in guestcaps
    ]


def _value(value: Any) -> str:
    return (
        {True: "true", False: "false"}.get(value, str(value))
        if isinstance(value, bool)
        else str(value)
    )


def _words(key: str, value: Any) -> str | Promise:
    tables = {"block_bus": BLOCK_BUS, "net_bus": NET_BUS, "machine": MACHINE}
    if key in tables:
        return tables[key].get(value, str(value))
    if key == "rtc_utc":
        return _("Runs in UTC") if value else _("Runs in local time")
    if isinstance(value, bool):
        return _("Yes") if value else _("No")
    return str(value)


def kernels(report: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the report kernels, the first one marked as what boots."""
    return [{**kernel, "is_default": index == 0} for index, kernel in enumerate(report)]
