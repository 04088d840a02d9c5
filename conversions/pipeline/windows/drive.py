r"""The letter of the drive that Windows lives on, from MountedDevices in SYSTEM."""

from __future__ import annotations

import struct
import uuid

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.windows.registry import BINARY, Hive

_GPT = b"DMIO:ID:"


def system_drive(g: GuestFS, system: Hive, root: str) -> str:
    """Return the letter of `root`, C when the registry does not say."""
    key = system.key("MountedDevices")
    places = _places(g, root)
    for letter in "CDEFGHIJKLMNOPQRSTUVWXYZAB" if key else "":
        value = key.get(f"\\DosDevices\\{letter}:") if key else None
        if value and value.type == BINARY and value.data in places:
            return letter
    return "C"


def _places(g: GuestFS, root: str) -> list[bytes]:
    """Return what MountedDevices may hold for a partition: disk and offset, or its GUID."""
    try:
        disk, number = g.part_to_dev(root), g.part_to_partnum(root)
        start = next(p["part_start"] for p in g.part_list(disk) if p["part_num"] == number)
        places = [bytes(g.pread_device(disk, 4, 0x1B8)) + struct.pack("<Q", start)]
        if g.part_get_parttype(disk) == "gpt":
            places.append(_GPT + uuid.UUID(g.part_get_gpt_guid(disk, number)).bytes_le)
    except (RuntimeError, StopIteration):
        return []  # no partition: a logical volume, a mapped or a whole device
    return places
