"""Read an OVF descriptor, which a stranger wrote."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from lxml import etree

from inventory.sources.base import Warn
from inventory.sources.errors import DescriptorError
from inventory.sources.types import (
    Controller,
    CpuTopology,
    Firmware,
    Nic,
    Removable,
    RemovableType,
    VnetType,
)

MAX_BYTES = 16 << 20
MAX_DEPTH = 256
OVF = "http://schemas.dmtf.org/ovf/envelope/1"
RASD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
VMW = "http://www.vmware.com/schema/ovf"
NS = {"ovf": OVF, "rasd": RASD, "vmw": VMW}
DEFAULT_MEMORY_BYTES = 1 << 30
_WORDS = {"kilobytes": 1 << 10, "megabytes": 1 << 20, "gigabytes": 1 << 30}
_UNITS = re.compile(r"byte(?:s)?(?:\*(\d+)\^(\d+))?")
# As UTF-8 and as UTF-16 of either order; comments that hold the word are refused with it.
_DOCTYPE = re.compile(rb"<\0?!\0?(?:D\0?O\0?C\0?T|E\0?N\0?T\0?I)")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}")
_CONTROLLERS = {5: Controller.IDE, 6: Controller.SCSI, 20: Controller.SATA}


@dataclass(frozen=True, slots=True, kw_only=True)
class OvfDisk:
    """A disk as the descriptor tells it; `href` None is an empty disk of that capacity."""

    controller: Controller | None
    href: str | None
    capacity_bytes: int | None
    compression: str
    chunked: bool
    file_bytes: int | None


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
    root = _parse_xml(data)
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
    items = list(_items(root, hardware))
    by_id: dict[str | None, _Item] = {}
    for item in items:
        by_id.setdefault(item.get("InstanceID"), item)
    catalogue = _Catalogue(root)

    def controller(item: _Item) -> Controller | None:
        return _controller(item, by_id, warn)

    vcpus, topology = _cpus(items, warn)
    return Ovf(
        name=(system.findtext("ovf:Name", None, NS) or "").strip() or None,
        memory_bytes=_memory(items, warn),
        vcpus=vcpus,
        topology=topology,
        firmware=_firmware(hardware, warn),
        secureboot=(_config(hardware, "bootOptions.efiSecureBootEnabled") or "").lower() == "true",
        os_hint=_os_hint(system),
        disks=tuple(catalogue.disk(i, controller(i), warn) for i in items if i.type == 17),
        removables=tuple(
            Removable(
                type=RemovableType.FLOPPY if i.type == 14 else RemovableType.CDROM,
                controller=controller(i),
                slot=i.integer("AddressOnParent"),
            )
            for i in items
            if i.type in (14, 15, 16)
        ),
        nics=tuple(_nic(n, i, warn) for n, i in enumerate(i for i in items if i.type == 10)),
    )


def _parse_xml(data: bytes) -> etree._Element:
    """Parse without entities, DTD or network, within limits.  Raises DescriptorError."""
    if len(data) > MAX_BYTES:
        raise DescriptorError(
            "E-OVF-SIZE", f"The descriptor has {len(data)} bytes; at most {MAX_BYTES} are accepted."
        )
    # Refused before parsing: an internal subset could already define entities by the thousand.
    if _DOCTYPE.search(data):
        raise _doctype()
    parser = etree.XMLPullParser(
        events=("start", "end"), resolve_entities=False, load_dtd=False, no_network=True,
        huge_tree=False, remove_comments=True, remove_pis=True,
    )  # fmt: skip
    depth = 0
    try:
        for start in range(0, len(data), 1 << 16):
            parser.feed(data[start : start + (1 << 16)])
            for event, _element in parser.read_events():
                depth += 1 if event == "start" else -1
                if depth > MAX_DEPTH:
                    raise DescriptorError(
                        "E-XML-DEPTH", f"The descriptor is nested deeper than {MAX_DEPTH} levels."
                    )
        root = parser.close()
    except etree.XMLSyntaxError as error:
        raise DescriptorError(
            "E-XML-PARSE",
            f"The descriptor is not well-formed XML: {error}.",
            remedy="Export the machine again; the file is damaged or of another kind.",
        ) from error
    return root


def _doctype() -> DescriptorError:
    return DescriptorError(
        "E-XML-DTD",
        "The descriptor declares a document type, which an OVF never needs and attackers use.",
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


class _Item:
    """One hardware item; children by their local name."""

    def __init__(self, element: etree._Element) -> None:
        self._element = element
        self.type = self.integer("ResourceType")

    def get(self, name: str, namespace: str = RASD) -> str | None:
        text = self._element.findtext(f"{{{namespace}}}{name}")
        return text.strip() if text and text.strip() else None

    def integer(self, name: str, namespace: str = RASD) -> int | None:
        text = self.get(name, namespace)
        if text is None:
            return None
        if not re.fullmatch(r"-?\d{1,18}", text):
            raise DescriptorError(
                "E-OVF-INT", f"{name} in the descriptor is {text[:40]!r}, which is no whole number."
            )
        return int(text)


def _items(root: etree._Element, hardware: etree._Element | None) -> Iterator[_Item]:
    """Yield the items that describe the VM itself: no ranges, only the default configuration."""
    if hardware is None:
        return
    options = root.findall("ovf:DeploymentOptionSection/ovf:Configuration", NS)
    defaults = [o for o in options if o.get(f"{{{OVF}}}default") == "true"] or options[:1]
    allowed = {o.get(f"{{{OVF}}}id") for o in defaults}
    for element in hardware.findall("ovf:Item", NS):
        configurations = (element.get(f"{{{OVF}}}configuration") or "").split()
        if element.get(f"{{{OVF}}}bound") or (configurations and not allowed & set(configurations)):
            continue
        yield _Item(element)


def _controller(item: _Item, by_id: Mapping[str | None, _Item], warn: Warn) -> Controller | None:
    parent = item.get("Parent")
    if parent is None:
        return None
    found = by_id.get(parent)
    if found is None or found.type not in _CONTROLLERS:
        kind = "does not exist" if found is None else f"has the resource type {found.type}"
        warn(f"A drive names the controller {parent[:40]}, which {kind}; it is left open.")
        return None
    if found.type == 20 and "nvme" in (found.get("ResourceSubType") or "").lower():
        return Controller.NVME
    return _CONTROLLERS[found.type]


class _Catalogue:
    """The files and disks of the package, by their ids."""

    def __init__(self, root: etree._Element) -> None:
        self._files = _by_id(root.findall("ovf:References/ovf:File", NS), "id")
        self._disks = _by_id(root.findall("ovf:DiskSection/ovf:Disk", NS), "diskId")

    def disk(self, item: _Item, controller: Controller | None, warn: Warn) -> OvfDisk:
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
            raise DescriptorError(
                "E-OVF-FILEREF",
                f"The disk {identity!r} has no file in the package; empty disks cannot be "
                "converted yet.",
                remedy="Remove the empty disk from the machine and export it again.",
            )
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
        size = file.get(f"{{{OVF}}}size") or ""
        return OvfDisk(
            controller=controller,
            href=href,
            capacity_bytes=capacity,
            compression=file.get(f"{{{OVF}}}compression") or "identity",
            chunked=file.get(f"{{{OVF}}}chunkSize") is not None,
            file_bytes=int(size) if size.isdigit() and len(size) < 19 else None,
        )


def _by_id(elements: Iterable[etree._Element], attribute: str) -> dict[str, etree._Element]:
    found: dict[str, etree._Element] = {}
    for element in elements:
        identity = element.get(f"{{{OVF}}}{attribute}") or ""
        if identity in found:
            raise DescriptorError("E-OVF-DUP-ID", f"The id {identity!r} is used twice.")
        found[identity] = element
    return found


def unit_bytes(units: str, default: int, warn: Warn) -> int:
    """Return the bytes in one allocation unit such as `byte * 2^20` or MegaBytes."""
    text = re.sub(r"\s", "", units).lower()
    if not text:
        return default
    if text in _WORDS:
        return _WORDS[text]
    match = _UNITS.fullmatch(text)
    if match and match[1] is None:
        return 1
    if match and int(match[1]) in (2, 10) and int(match[2]) <= 60:
        return int(int(match[1]) ** int(match[2]))
    warn(f"The allocation unit {units[:40]!r} is not known; {default} bytes are taken.")
    return default


def _capacity(disk: etree._Element, warn: Warn) -> int | None:
    text = (disk.get(f"{{{OVF}}}capacity") or "").strip()
    if not re.fullmatch(r"\d{1,18}", text):
        return None
    return int(text) * unit_bytes(disk.get(f"{{{OVF}}}capacityAllocationUnits") or "", 1, warn)


def _memory(items: Iterable[_Item], warn: Warn) -> int:
    item = next((i for i in items if i.type == 4), None)
    quantity = item.integer("VirtualQuantity") if item else None
    if item is None or quantity is None:
        warn("The descriptor does not say how much memory the machine has; 1 GiB is taken.")
        return DEFAULT_MEMORY_BYTES
    memory = quantity * unit_bytes(item.get("AllocationUnits") or "", 1 << 20, warn)
    if not 0 < memory < 1 << 50:
        raise DescriptorError("E-OVF-INT", f"The machine's memory is {memory} bytes.")
    return memory


def _cpus(items: Iterable[_Item], warn: Warn) -> tuple[int, CpuTopology | None]:
    item = next((i for i in items if i.type == 3), None)
    if item is None:
        return 1, None
    quantity = item.integer("VirtualQuantity")
    vcpus = 1 if quantity is None else quantity
    if not 0 < vcpus <= 4096:
        raise DescriptorError("E-OVF-INT", f"The machine has {vcpus} vCPUs.")
    cores = item.integer("CoresPerSocket", VMW)
    if cores is None:
        return vcpus, None
    if cores <= 0 or vcpus // cores <= 0:
        warn(f"{cores} cores per socket do not fit {vcpus} vCPUs; no topology is taken.")
        return vcpus, None
    if vcpus % cores:
        warn(f"{vcpus} vCPUs are not a multiple of {cores} cores per socket.")
    return vcpus, CpuTopology(sockets=vcpus // cores, cores=cores, threads=1)


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
    known = {"efi": Firmware.UEFI, "uefi": Firmware.UEFI, "bios": Firmware.BIOS}
    found = known.get(value.lower())
    if found is None or value == "uefi":
        raise DescriptorError("E-OVF-FIRMWARE", f"The firmware {value[:40]!r} is not known.")
    if value not in known:
        warn(f"The firmware is spelled {value!r}.")
    return found


def _os_hint(system: etree._Element) -> str | None:
    section = system.find("ovf:OperatingSystemSection", NS)
    if section is None:
        return None
    text = section.findtext("ovf:Description", None, NS) or section.get(f"{{{VMW}}}osType")
    return text.strip()[:200] or None if text else None


def _nic(index: int, item: _Item, warn: Warn) -> Nic:
    connection, model, mac = (item.get(n) for n in ("Connection", "ResourceSubType", "Address"))
    if mac and not _MAC.fullmatch(mac):
        warn(f"The address {mac[:40]!r} of a network card is no MAC address; it is dropped.")
        mac = None
    return Nic(
        vnet=connection or f"eth{index}",
        vnet_type=VnetType.BRIDGE if connection else VnetType.NETWORK,
        mac=mac,
        model=model.lower() if model else None,
    )
