"""Which firmware the target needs, and which disk it boots from."""

from __future__ import annotations

import re
from collections.abc import Sequence

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import Inspection, Overlay
from inventory.sources.types import Firmware, Source

_PARTITION = re.compile(r"/dev/(sd[a-z]+)\d+")


def is_uefi_target(source: Source, guest: Inspection, report: Reporter) -> bool:
    """Return whether the target boots with UEFI: the source's word, else what the disks say."""
    if source.firmware is Firmware.UNKNOWN:
        return guest.is_uefi
    wanted = source.firmware is Firmware.UEFI
    if wanted != guest.is_uefi:
        report.log(
            Level.WARNING,
            f"The source says firmware {source.firmware}, the disks look like "
            f"{'UEFI' if guest.is_uefi else 'BIOS'}; the target gets {source.firmware}.",
        )
    return wanted


def detect_boot_disk(g: GuestFS, guest: Inspection, overlays: Sequence[Overlay]) -> int | None:
    """Return the index of the disk the firmware starts, None when it cannot be told.

    UEFI: that of the EFI system partition, of several the mounted one, else one on the disk of /.
    Linux: the first disk with GRUB in its first sector; else that of /boot, or of / without one.
    Windows: that of /.  Only Linux is asked for GRUB: a Windows disk can carry the remains of a
    boot loader that it never uses.
    """
    mounted = dict(guest.mountpoints)
    root = mounted.get("/", "")
    if esps := guest.uefi_esps:
        used = [esp for esp in esps if esp in mounted.values()]
        place = (*used, *(esp for esp in esps if _disk(esp) == _disk(root)), *esps)[0]
    elif guest.type == "windows":
        place = root
    else:
        for index, device in enumerate(g.list_devices()[: len(overlays)]):
            if b"GRUB" in g.pread_device(device, 512, 0):
                return index
        place = mounted.get("/boot", root)
    names = [overlay.sd for overlay in overlays]
    return names.index(_disk(place)) if _disk(place) in names else None


def _disk(partition: str) -> str:
    """Return the name of a partition's disk such as sda, "" for anything else."""
    match = _PARTITION.fullmatch(partition)
    return match[1] if match else ""
