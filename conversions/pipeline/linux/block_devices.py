"""Names of disks that change with the bus, and the files of a guest that hold them.

Everything here works on text; files.py carries it into the guest.  Values such as UUID=, LABEL=,
/dev/mapper/ and /dev/VG/LV do not change with the bus and are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from conversions.pipeline.types import BlockBus
from inventory.sources.types import (
    Controller,
    Removable,
    RemovableType,
    SourceDisk,
    disk_letters,
)

_PREFIX = {
    Controller.IDE: "hd",
    Controller.SATA: "sd",
    Controller.SCSI: "sd",
    Controller.VIRTIO_SCSI: "sd",
    Controller.VIRTIO_BLK: "vd",
}
_TARGET_PREFIX = {BlockBus.VIRTIO_BLK: "vd", BlockBus.VIRTIO_SCSI: "sd"}
_VALUE = re.compile(
    r"/dev/(?:(?P<disk>[a-z]+)(?P<part>\d*)|(?P<nvme>nvme\d+n1|cciss/c\d+d\d+)(?:p(?P<sub>\d+))?)"
)
# All that a device's name may consist of: of /dev/sda-vg/root the first half is no disk.
_NAME = r"(/dev/[\w.+/-]+)"
# root=/dev/sda1, cryptdevice=/dev/sda3:root and the like on a kernel command line.
_ARGUMENT = re.compile(rf"(?<![\w/.-])(root|resume|swap|cryptdevice|rd\.\w+(?:\.\w+)*)={_NAME}")
_RESUME = re.compile(rf"(?m)^(\s*RESUME=)([\"']?){_NAME}")
_NEVER_MAPPED = re.compile(r"(md|fd|sr|scd|loop|dm|mapper|ram|zram)\d*|cdrom|root")
# By the bus, or by the serial number of a disk; what LVM, LUKS and md call theirs is on the disk.
_UNSTABLE = re.compile(
    r"/dev/disk/by-(?:path|id(?!/(?:dm-uuid-(?:LVM|CRYPT)-|dm-name-|lvm-pv-uuid-|md-)))"
    r"/[^\s\"'|,;]+"
)
_ACCEPTED = re.compile(r"[\"']a(\W)(.*?)\1[\"']")

Rename = Callable[[str], str]
"""Takes a device name with /dev/ and returns the new one, or the same."""


def block_device_map(
    disks: Sequence[SourceDisk],
    bus: BlockBus,
    *,
    ide_prefix: str = "sd",
    target_ide_prefix: str = "sd",
) -> dict[str, str]:
    """Return {old name: new name} for every disk, sorted by old name.

    Each controller counts its own disks, as the kernel does: one IDE and one SCSI disk are sda
    (or hda) and sda.  Disks of an unknown controller may have had any of the names.  xvd names
    are added for every disk, since Xen shows both.  The prefixes are what the guest calls a disk
    on the IDE bus of the source, and on that of the target.
    """
    new = _TARGET_PREFIX.get(bus, target_ide_prefix)
    result: dict[str, str] = {}
    counts: dict[str, int] = {}
    for disk in disks:
        target = new + disk_letters(disk.id)
        if disk.controller is Controller.NVME:
            old = [f"nvme{counts.get('nvme', 0)}n1"]
            counts["nvme"] = counts.get("nvme", 0) + 1
        elif disk.controller is None:
            # An image says nothing of its bus; HP's Smart Array had names of its own.
            old = [prefix + disk_letters(disk.id) for prefix in ("sd", "hd", "vd")]
            old.append(f"cciss/c0d{disk.id}")
        else:
            prefix = ide_prefix if disk.controller is Controller.IDE else _PREFIX[disk.controller]
            old = [prefix + disk_letters(counts.get(prefix, 0))]
            counts[prefix] = counts.get(prefix, 0) + 1
        for name in [*old, "xvd" + disk_letters(disk.id)]:
            result.setdefault(name, target)
    return dict(sorted(result.items()))


def map_text(mapping: Mapping[str, str]) -> str:
    """Return the map in the layout of the text log."""
    return "\n".join(["block device map:", *(f"\t{o}\t-> {n}" for o, n in mapping.items())])


class Renamer:
    """Applies a block device map to values; remembers the names it could not place."""

    def __init__(self, mapping: Mapping[str, str]) -> None:
        self._mapping = mapping
        self._known = set(mapping.values())
        self.unknown: list[str] = []

    def __call__(self, value: str) -> str:
        """Return the new name of a device such as /dev/sda1, or the value as it is."""
        match = _VALUE.fullmatch(value)
        if match is None:
            return value
        disk = match["disk"] or match["nvme"]
        part = match["part"] or match["sub"] or ""
        if disk in self._mapping:
            return f"/dev/{self._mapping[disk]}{part}"
        if not _NEVER_MAPPED.fullmatch(disk) and disk not in self._known:
            self.unknown.append(value)
        return value


def cdrom_map(removables: Sequence[Removable], ide_prefix: str) -> dict[str, str]:
    """Return what the first IDE CD-ROM of an old guest is called afterwards: the link cdrom."""
    drives = [
        r for r in removables if r.type is RemovableType.CDROM and r.controller is Controller.IDE
    ]
    if ide_prefix != "hd" or not drives or drives[0].slot is None:
        return {}
    return {"hd" + disk_letters(drives[0].slot): "cdrom"}


def rename_fstab(text: str, rename: Rename) -> str:
    """Rename the first field of every entry of an fstab; comments and spacing stay."""
    return _rename_field(text, 0, rename)


def rename_crypttab(text: str, rename: Rename) -> str:
    """Rename the second field, the device, of every entry of a crypttab."""
    return _rename_field(text, 1, rename)


def _rename_field(text: str, index: int, rename: Rename) -> str:
    def line(raw: str) -> str:
        if raw.lstrip().startswith("#"):
            return raw
        pieces = re.split(r"(\s+)", raw)  # fields and the spaces between them
        fields = [i for i, piece in enumerate(pieces) if piece.strip()]
        if len(fields) > index:
            pieces[fields[index]] = rename(pieces[fields[index]])
        return "".join(pieces)

    return "\n".join(line(raw) for raw in text.split("\n"))


def rename_device_map(text: str, rename: Rename) -> str:
    """Rename the devices of GRUB's device.map: (hd0) /dev/sda."""
    return re.sub(r"(?m)^(\s*\(\w+\)\s+)(/dev/\S+)", lambda m: m[1] + rename(m[2]), text)


def rename_arguments(text: str, rename: Rename) -> str:
    """Rename the devices of kernel arguments (root=, resume=, rd.*= ...) wherever they are."""
    return _ARGUMENT.sub(lambda m: f"{m[1]}={rename(m[2])}", text)


def rename_resume(text: str, rename: Rename) -> str:
    """Rename RESUME=/dev/sda2 of initramfs-tools."""
    return _RESUME.sub(lambda m: m[1] + m[2] + rename(m[3]), text)


def unstable_names(text: str) -> list[str]:
    """Return names by path or id, which hold the old bus or serial and will disappear."""
    lines = (line for line in text.split("\n") if not line.lstrip().startswith("#"))
    return sorted({name for line in lines for name in _UNSTABLE.findall(line)})


def accepted_by_lvm(text: str) -> str:
    """Return the patterns by which lvm.conf takes devices, each on a line."""
    lines = (line for line in text.split("\n") if not line.lstrip().startswith("#"))
    return "\n".join(match[2] for line in lines for match in _ACCEPTED.finditer(line))
