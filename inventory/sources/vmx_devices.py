"""The devices a VMX file describes: disks, drives with removable media, network cards."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from inventory.sources.base import Warn
from inventory.sources.errors import DescriptorError
from inventory.sources.tar import printable
from inventory.sources.types import Controller, Nic, Removable, RemovableType, VnetType
from inventory.sources.vmx_text import VmxText

# VMware allows 256 disks on a machine (4 SCSI controllers of 64).
MAX_DISKS = 256
# The kinds of devices that are disks, by bus, in the order of the disks; "" is one not stated.
_DISKS = {
    "scsi": (Controller.SCSI, ("", "disk", "plaindisk", "rawdisk", "scsi-harddisk")),
    "nvme": (Controller.NVME, ("",)),
    "sata": (Controller.SATA, ("", "disk")),
    "ide": (Controller.IDE, ("ata-harddisk",)),
}
_CDROMS = ("atapi-cdrom", "cdrom-image", "cdrom-raw")
_ETHERNET = re.compile(r"ethernet(\d{1,4})")
_FLOPPY = re.compile(r"floppy(\d{1,2})")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class VmxDisk:
    """A disk; `unit` is its place such as scsi0:0, `file_name` the bytes of the file."""

    unit: str
    controller: Controller
    file_name: bytes


def disks(vmx: VmxText, warn: Warn) -> list[VmxDisk]:
    """Return the disks: SCSI, NVMe, SATA, IDE, and by their numbers.  Raises DescriptorError."""
    found = []
    for bus, (controller, kinds) in _DISKS.items():
        for _numbers, unit, kind in _units(vmx, bus):
            name = vmx.raw(f"{unit}.filename")
            if name is None or kind not in kinds:
                continue
            if not name or name.lower() == b"emptybackingstring":
                warn(f"The disk {unit} names no file; it is left out.")
                continue
            if any(byte < 32 for byte in name):
                raise DescriptorError(
                    "E-VMX-NAME", f"The file name of the disk {unit} holds control characters."
                )
            if unit.partition(":")[0] in vmx.absent:
                warn(f"The controller of the disk {unit} is not present; the disk is taken.")
            found.append(VmxDisk(unit=unit, controller=controller, file_name=name))
    if len(found) > MAX_DISKS:
        raise DescriptorError(
            "E-VMX-SIZE", f"The machine has {len(found)} disks; at most {MAX_DISKS} are accepted."
        )
    return found


def _units(vmx: VmxText, bus: str) -> Iterator[tuple[tuple[int, int], str, str]]:
    """Yield (controller, target), name and kind of a bus's devices by their numbers."""
    pattern = re.compile(rf"{bus}(\d{{1,3}}):(\d{{1,3}})")
    matches = [((int(m[1]), int(m[2])), m[0]) for m in vmx.units(pattern)]
    for numbers, unit in sorted(matches):
        yield numbers, unit, (vmx.text(f"{unit}.devicetype") or "").strip().lower()


def removables(vmx: VmxText) -> Iterator[Removable]:
    """Yield the CD-ROM drives on IDE, SATA and SCSI, then the floppies, by their places."""
    for bus in (Controller.IDE, Controller.SATA, Controller.SCSI):
        for (number, target), _unit, kind in _units(vmx, bus):
            if kind in _CDROMS:
                slot = 2 * number + target if bus is Controller.IDE else target
                yield Removable(type=RemovableType.CDROM, controller=bus, slot=slot)
    for slot in sorted(int(match[1]) for match in vmx.units(_FLOPPY)):
        yield Removable(type=RemovableType.FLOPPY, slot=slot)


def nics(vmx: VmxText, warn: Warn) -> Iterator[Nic]:
    """Yield the network cards by their numbers."""
    for name in sorted((m[0] for m in vmx.units(_ETHERNET)), key=lambda n: int(n[8:])):
        model = vmx.text(f"{name}.virtualdev")
        connection = (vmx.text(f"{name}.connectiontype") or "").strip().lower()
        yield Nic(
            vnet=vmx.text(f"{name}.networkname") or name,
            vnet_type=VnetType.BRIDGE if connection == "bridged" else VnetType.NETWORK,
            mac=_mac(vmx, name, warn),
            model=model.strip().lower() if model else None,
        )


def _mac(vmx: VmxText, name: str, warn: Warn) -> str | None:
    """Return a card's address: the one a person has given it, else the one VMware has."""
    is_static = (vmx.text(f"{name}.addresstype") or "").strip().lower() == "static"
    keys = ("address", "generatedaddress") if is_static else ("generatedaddress", "address")
    mac = next((m.strip() for key in keys if (m := vmx.text(f"{name}.{key}"))), None)
    if mac and not _MAC.fullmatch(mac):
        warn(f"The address {printable(mac)} of {name} is no MAC address; it is dropped.")
        return None
    return mac
