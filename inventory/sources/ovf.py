"""Read an OVF descriptor, which a stranger wrote."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lxml import etree

from inventory.sources.base import Warn
from inventory.sources.errors import DescriptorError
from inventory.sources.ovf_items import (
    Item,
    controller_of,
    cpus,
    hardware_items,
    memory_bytes,
    nic,
    unit_bytes,
)
from inventory.sources.ovf_xml import NS, OVF, VMW, parse_xml
from inventory.sources.types import (
    Controller,
    CpuTopology,
    Firmware,
    Nic,
    Removable,
    RemovableType,
)

# VMware allows 256 disks on a machine (4 SCSI controllers of 64).
MAX_DISKS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class OvfDisk:
    """A disk as the descriptor tells it; `href` names its file, relative to the descriptor.

    An empty disk has the href "" and a capacity.  `chunk_bytes` is set for one that may be cut into
    pieces; `size_bytes` is what its file, or all its pieces together, should have.
    """

    controller: Controller | None
    href: str
    capacity_bytes: int | None
    compression: str = "identity"
    chunk_bytes: int | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ovf:
    """The virtual system of a descriptor; `name` None when it has none."""

    name: str | None
    memory_bytes: int
    vcpus: int
    topology: CpuTopology | None
    firmware: Firmware
    secureboot: bool
    os_hint: str | None
    disks: tuple[OvfDisk, ...]
    removables: tuple[Removable, ...]
    nics: tuple[Nic, ...]


def parse_ovf(data: bytes, warn: Warn) -> Ovf:
    """Read a descriptor.  Raises DescriptorError; oddities go to `warn`.

    Source: DSP0243 (OVF 1.1), and what VMware, VirtualBox and oVirt write.
    """
    root = parse_xml(data)
    if root.tag != f"{{{OVF}}}Envelope":
        if isinstance(root.tag, str) and root.tag.endswith("ovf/envelope/2}Envelope"):
            raise DescriptorError(
                "E-OVF-VERSION",
                "The descriptor is OVF 2, which is not supported.",
                remedy="Export the machine as OVF 1 (VMware and VirtualBox offer it).",
            )
        raise DescriptorError("E-OVF-ROOT", "The descriptor is not an OVF envelope.")
    system = _system(root)
    hardware = system.find("ovf:VirtualHardwareSection", NS)
    items = list(hardware_items(root, hardware))
    by_id: dict[str | None, Item] = {}
    for item in items:
        by_id.setdefault(item.get("InstanceID"), item)
    catalogue = _Catalogue(root)
    drives = [item for item in items if item.type == 17]
    if len(drives) > MAX_DISKS:
        raise DescriptorError(
            "E-OVF-SIZE", f"The machine has {len(drives)} disks; at most {MAX_DISKS} are accepted."
        )

    def controller(item: Item) -> Controller | None:
        return controller_of(item, by_id, warn)

    vcpus, topology = cpus(items, warn)
    return Ovf(
        name=" ".join((system.findtext("ovf:Name", None, NS) or "").split()) or None,
        memory_bytes=memory_bytes(items, warn),
        vcpus=vcpus,
        topology=topology,
        firmware=_firmware(hardware, warn),
        secureboot=(_config(hardware, "bootOptions.efiSecureBootEnabled") or "").lower() == "true",
        os_hint=_os_hint(system),
        disks=tuple(catalogue.disk(i, controller(i), warn) for i in drives),
        removables=tuple(
            Removable(
                type=RemovableType.FLOPPY if i.type == 14 else RemovableType.CDROM,
                controller=controller(i),
                slot=_slot(i, warn),
            )
            for i in items
            if i.type in (14, 15, 16)
        ),
        nics=tuple(nic(n, i, warn) for n, i in enumerate(i for i in items if i.type == 10)),
    )


def _system(root: etree._Element) -> etree._Element:
    systems = list(root.iter(f"{{{OVF}}}VirtualSystem"))
    if len(systems) != 1:
        ids = ", ".join(str(s.get(f"{{{OVF}}}id")) for s in systems) or "none"
        raise DescriptorError(
            "E-OVF-MULTI-VM" if systems else "E-OVF-NO-VM",
            f"The descriptor must hold one virtual system; it holds {len(systems)} ({ids}).",
            remedy="Export the machines one by one.",
        )
    return systems[0]


class _Catalogue:
    """The files and disks of the package, by their ids."""

    def __init__(self, root: etree._Element) -> None:
        self._files = _by_id(root.findall("ovf:References/ovf:File", NS), "id")
        self._disks = _by_id(root.findall("ovf:DiskSection/ovf:Disk", NS), "diskId")

    def disk(self, item: Item, controller: Controller | None, warn: Warn) -> OvfDisk:
        """Follow HostResource to the file.  Raises DescriptorError."""
        resource = item.get("HostResource") or ""
        match = re.fullmatch(r"(?:ovf:)?/(disk|file)/(.+)", resource)
        if match is None:
            raise DescriptorError(
                "E-OVF-HOSTRES", f"A disk names its data as {resource[:80]!r}, not ovf:/disk/ID."
            )
        kind, identity = match.groups()
        if kind == "file":
            return self._from_file(identity, controller, None)
        disk = self._disks.get(identity)
        if disk is None:
            raise DescriptorError(
                "E-OVF-FILEREF", f"The disk {identity!r} is not in the disk section."
            )
        if disk.get(f"{{{OVF}}}parentRef"):
            raise DescriptorError(
                "E-OVF-DELTA",
                f"The disk {identity!r} is only a difference to another one.",
                remedy="Merge the snapshots on the source and export the machine again.",
            )
        capacity = _capacity(disk, warn)
        reference = disk.get(f"{{{OVF}}}fileRef")
        if reference is None:
            if not capacity:
                raise DescriptorError(
                    "E-OVF-FILEREF",
                    f"The disk {identity!r} has neither a file in the package nor a capacity.",
                    remedy="Remove the empty disk from the machine and export it again.",
                )
            warn(f"The disk {identity[:40]!r} is empty: {capacity} bytes, no file (made anew).")
            return OvfDisk(controller=controller, href="", capacity_bytes=capacity)
        return self._from_file(reference, controller, capacity)

    def _from_file(
        self, identity: str, controller: Controller | None, capacity: int | None
    ) -> OvfDisk:
        file = self._files.get(identity)
        href = file.get(f"{{{OVF}}}href") if file is not None else None
        if file is None or not href:
            raise DescriptorError(
                "E-OVF-HREF", f"The file {identity!r} of a disk is not among the references."
            )
        chunk_bytes = _positive(file, "chunkSize")
        return OvfDisk(
            controller=controller,
            href=href,
            capacity_bytes=capacity,
            compression=file.get(f"{{{OVF}}}compression", "identity"),
            chunk_bytes=chunk_bytes,
            size_bytes=_positive(file, "size") if chunk_bytes else None,
        )


def _by_id(elements: Iterable[etree._Element], attribute: str) -> dict[str, etree._Element]:
    found: dict[str, etree._Element] = {}
    for element in elements:
        identity = element.get(f"{{{OVF}}}{attribute}") or ""
        if not identity:
            continue  # nothing can refer to it
        if identity in found:
            raise DescriptorError("E-OVF-DUP-ID", f"The id {identity!r} is used twice.")
        found[identity] = element
    return found


def _positive(file: etree._Element, attribute: str) -> int | None:
    text = file.get(f"{{{OVF}}}{attribute}")
    if text is None:
        return None
    if not re.fullmatch(r"\s*[0-9]{1,18}\s*", text) or not int(text):
        raise DescriptorError(
            "E-OVF-INT", f"{attribute} of a file is {text[:40]!r}, which is no number above 0."
        )
    return int(text)


def _capacity(disk: etree._Element, warn: Warn) -> int | None:
    text = (disk.get(f"{{{OVF}}}capacity") or "").strip()
    if not re.fullmatch(r"\d{1,18}", text):
        return None
    return int(text) * unit_bytes(disk.get(f"{{{OVF}}}capacityAllocationUnits") or "", 1, warn)


def _config(hardware: etree._Element | None, key: str) -> str | None:
    if hardware is None:
        return None
    for element in hardware.iter(f"{{{VMW}}}Config"):
        if element.get(f"{{{VMW}}}key") == key:
            return element.get(f"{{{VMW}}}value")
    return None


def _firmware(hardware: etree._Element | None, warn: Warn) -> Firmware:
    value = _config(hardware, "firmware")
    if value is None:
        return Firmware.UNKNOWN
    known = {"efi": Firmware.UEFI, "bios": Firmware.BIOS}
    found = known.get(value.lower())
    if found is None:
        raise DescriptorError(
            "E-OVF-FIRMWARE",
            f"The descriptor gives the firmware as {value[:40]!r}; efi and bios are known.",
            remedy="Correct the descriptor, or export the machine again.",
        )
    if value not in known:
        warn(f"The descriptor spells the firmware {value!r}; {found} is taken.")
    return found


def _slot(item: Item, warn: Warn) -> int | None:
    slot = item.integer("AddressOnParent")
    if slot is not None and not 0 <= slot < 256:
        warn(f"A drive with removable media is in slot {slot}, which cannot be; it is left open.")
        return None
    return slot


def _os_hint(system: etree._Element) -> str | None:
    section = system.find("ovf:OperatingSystemSection", NS)
    if section is None:
        return None
    text = section.findtext("ovf:Description", None, NS) or section.get(f"{{{VMW}}}osType")
    return text.strip()[:200] or None if text else None
