"""libvirt's domain XML as a Source; the one reader for files of it and for hosts."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import prod
from pathlib import Path

from lxml import etree

from inventory.sources.base import Warn
from inventory.sources.display import Display, DisplayType, Listen, ListenType
from inventory.sources.errors import DescriptorError
from inventory.sources.images import FORMATS
from inventory.sources.network_disks import NotReadFromHereError, Place, network_disk
from inventory.sources.ovf_xml import parse_xml
from inventory.sources.types import (
    Controller,
    CpuTopology,
    Firmware,
    Nic,
    Removable,
    RemovableType,
    Source,
    SourceDisk,
    VnetType,
)

_BUS = {"ide": Controller.IDE, "sata": Controller.SATA, "virtio": Controller.VIRTIO_BLK}
_UNITS = {"b": 1, "bytes": 1, "KB": 1000, "k": 1 << 10, "KiB": 1 << 10, "MB": 10**6,
          "M": 1 << 20, "MiB": 1 << 20, "GB": 10**9, "G": 1 << 30, "GiB": 1 << 30,
          "TB": 10**12, "T": 1 << 40, "TiB": 1 << 40}  # fmt: skip
_GET_AT_IT = (
    "Copy it into a file where libvirt runs (qemu-img convert) and let the machine use that, or "
    "detach it there. Or write the definition into a file (virsh dumpxml), take the disk out of "
    "it, and convert that (-i libvirtxml)."
)
_DEFAULT_MEMORY_BYTES = 1 << 30
_NO_MAC = "00:00:00:00:00:00"
_SLOT = re.compile(r"(?:sr(?P<number>\d{1,4})|(?:xv|[hsvf])d(?P<letters>[a-z]{1,3}))")
_SOUNDS = ("ac97", "es1370", "ich6", "ich9", "pcspk", "sb16", "usb")


OnDisk = Callable[[SourceDisk, etree._Element], None]
FindVolume = Callable[[str, str], Place | None]
"""Takes the names of a pool and a volume; None when that volume cannot be read."""


def parse_domain(
    data: bytes,
    warn: Warn,
    find_volume: FindVolume,
    *,
    folder: Path | None = None,
    default_format: str | None = "raw",
    on_disk: OnDisk = lambda _disk, _element: None,
) -> Source:
    """Return the machine a domain describes.

    Names of files that are not absolute count from `folder`; without one such disks are refused.
    So is a machine with any disk that cannot be read: it would lack data.  Empty drives are left
    out.
    A disk that states no format has `default_format`, "" for None: whoever reads it looks.
    `on_disk` gets each disk that is taken with what describes it.
    Raises DescriptorError: E-XML-..., E-LV-TYPE, E-LV-NAME, E-LV-DISK, E-LV-NODISK.
    """
    root = parse_xml(data)
    if root.tag != "domain":
        raise DescriptorError("E-LV-TYPE", f"The XML describes a {root.tag!r}, not a domain.")
    hypervisor = root.get("type", "").strip()
    name = (root.findtext("name") or "").strip()
    if not hypervisor or not name:
        missing = "type" if not hypervisor else "name"
        raise DescriptorError(f"E-LV-{missing.upper()}", f"The domain has no {missing}.")
    if root.find("devices/hostdev") is not None:
        warn("The domain uses devices of its host (hostdev); they are left out.")
    if root.find("devices/interface[@type='direct']") is not None:
        warn("The domain has a NIC of type direct; it is left out.")
    return Source(
        name=name,
        original_name=name,
        hypervisor=hypervisor,
        memory_bytes=_memory(root, warn),
        vcpus=_vcpus(root),
        disks=_disks(
            root, warn, find_volume, vmware=hypervisor == "vmware", folder=folder,
            default_format=default_format or "", on_disk=on_disk,
        ),
        removables=_removables(root, warn),
        nics=_nics(root),
        firmware=_firmware(root),
        uefi_secureboot=root.find(
            "os/firmware/feature[@name='secure-boot'][@enabled='yes']"
        ) is not None,
        genid=(root.findtext("genid") or "").strip() or None,
        cpu_vendor=(root.findtext("cpu/vendor") or "").strip() or None,
        cpu_model=(root.findtext("cpu/model") or "").strip() or None,
        cpu_topology=_topology(root),
        features=tuple(str(child.tag) for child in root.findall("features/*")),
        display=_display(root, warn),
        sound=_sound(root, warn),
    )  # fmt: skip


def _attribute(parent: etree._Element, path: str, name: str) -> str:
    element = parent.find(path)
    return (element.get(name, "") if element is not None else "").strip()


def _number(text: str | None) -> int | None:
    plain = (text or "").strip()
    return int(plain) if plain.isdecimal() and len(plain) < 20 else None


def _memory(root: etree._Element, warn: Warn) -> int:
    element = root.find("memory")
    value = _number(element.text) if element is not None else None
    if element is None or value is None:
        return _DEFAULT_MEMORY_BYTES
    unit = element.get("unit", "KiB")
    if unit not in _UNITS:
        warn(f"The unit of the memory, {unit!r}, is not known; KiB is taken.")
    return value * _UNITS.get(unit, 1 << 10)


def _topology_counts(root: etree._Element) -> list[int | None]:
    """Return sockets, cores and threads, None for what is not stated."""
    element = root.find("cpu/topology")
    if element is None:
        return [None, None, None]
    return [_number(element.get(name)) or None for name in ("sockets", "cores", "threads")]


def _topology(root: etree._Element) -> CpuTopology | None:
    sockets, cores, threads = _topology_counts(root)
    if sockets is None or cores is None or threads is None:
        return None
    return CpuTopology(sockets=sockets, cores=cores, threads=threads)


def _vcpus(root: etree._Element) -> int:
    stated = _number(root.findtext("vcpu"))
    return stated or prod(count or 1 for count in _topology_counts(root))


def _firmware(root: etree._Element) -> Firmware:
    stated = _attribute(root, "os", "firmware")
    if stated:
        return {"bios": Firmware.BIOS, "efi": Firmware.UEFI}.get(stated, Firmware.UNKNOWN)
    by_flash = _attribute(root, "os/loader", "type") == "pflash"
    return Firmware.UEFI if by_flash else Firmware.UNKNOWN


def _sound(root: etree._Element, warn: Warn) -> str | None:
    model = _attribute(root, "devices/sound", "model")
    if model and model not in _SOUNDS:
        warn(f"The sound card {model[:40]!r} has no counterpart on the target; it is left out.")
        return None
    return model or None


def _display(root: etree._Element, warn: Warn) -> Display | None:
    element = root.find("devices/graphics")
    if element is None:
        return None
    kind = element.get("type", "")
    if kind not in ("vnc", "spice"):
        warn(f"A display of type {kind!r} has no counterpart on the target; it is left out.")
        return None
    port = _number(element.get("port")) if element.get("autoport") == "no" else None
    return Display(
        type=DisplayType(kind),
        keymap=element.get("keymap"),
        password=element.get("passwd"),
        port=port if port and port < 65536 else None,
        listen=_listen(element, warn),
    )


def _listen(graphics: etree._Element, warn: Warn) -> Listen | None:
    element = graphics.find("listen")
    if element is None:
        address = graphics.get("listen")
        return Listen(type=ListenType.ADDRESS, value=address) if address else None
    kind = element.get("type", "")
    if kind not in set(ListenType):
        warn(f"The display listens on {kind[:40]!r}, which is not known; that is left out.")
        return None
    value = element.get(kind) if kind != ListenType.NONE else None
    if value is None and kind in (ListenType.ADDRESS, ListenType.NETWORK):
        return None
    return Listen(type=ListenType(kind), value=value)


def _controller(root: etree._Element, disk: etree._Element) -> Controller | None:
    bus = _attribute(disk, "target", "bus")
    if bus == "scsi":
        virtio = root.find("devices/controller[@model='virtio-scsi']") is not None
        return Controller.VIRTIO_SCSI if virtio else Controller.SCSI
    return _BUS.get(bus)


def _disks(
    root: etree._Element, warn: Warn, find_volume: FindVolume, *, vmware: bool,
    folder: Path | None, default_format: str, on_disk: OnDisk,
) -> tuple[SourceDisk, ...]:  # fmt: skip
    found = [d for d in root.findall("devices/disk") if d.get("device", "disk") == "disk"]
    disks: list[SourceDisk] = []
    for number, element in enumerate(found):
        if _is_empty(element):
            warn(f"Disk {number + 1} of the domain is left out: its drive is empty.")
            continue
        try:
            place = _place_of(
                element, find_volume, vmware=vmware, folder=folder, default_format=default_format
            )
        except NotReadFromHereError as error:
            target = _attribute(element, "target", "dev")
            raise DescriptorError(
                "E-LV-DISK",
                f"Disk {number + 1} of the domain{f' ({target})' if target else ''} cannot be read "
                f"from here: {error}. Without it the machine would not be whole.",
                remedy=_GET_AT_IT,
            ) from error
        disk = SourceDisk(
            id=len(disks),
            controller=_controller(root, element),
            path=place.path,
            format=place.format,
            remote=place.remote,
            node=place.node,
        )
        on_disk(disk, element)
        disks.append(disk)
    if not disks:
        raise DescriptorError(
            "E-LV-NODISK",
            f"The domain has no disk that can be read; {len(found)} were named, without a medium.",
            remedy="Files, block devices, volumes, and disks of NBD, iSCSI, Ceph, https and ssh "
            "servers can be read.",
        )
    return tuple(disks)


def _is_empty(disk: etree._Element) -> bool:
    """Tell whether a drive has no medium."""
    named_by = {"file": "file", "block": "dev"}.get(disk.get("type", ""))
    return named_by is not None and not _attribute(disk, "source", named_by)


def _place_of(
    element: etree._Element, find_volume: FindVolume, *, vmware: bool, folder: Path | None,
    default_format: str,
) -> Place:  # fmt: skip
    """Return where a disk lies.  Raises NotReadFromHereError, DescriptorError."""
    stated = _attribute(element, "driver", "type") or default_format
    fmt = "raw" if stated == "aio" else stated
    if fmt and fmt not in FORMATS:
        raise NotReadFromHereError(f"its format {fmt!r} is not known")
    kind = element.get("type", "")
    if kind == "network":
        return network_disk(element, fmt or "raw")
    if kind == "volume":
        volume = find_volume(
            _attribute(element, "source", "pool"), _attribute(element, "source", "volume")
        )
        if volume is None:
            raise NotReadFromHereError("its volume is no file, no device and no image of Ceph")
        return volume
    path = _attribute(element, "source", {"file": "file", "block": "dev"}.get(kind, "none"))
    if vmware and kind == "file" and path.startswith("["):
        return Place(path=path, format="raw", remote=True)
    # Anything else than a path, such as json:{...}, would be a word of command to qemu.
    if path and folder is not None:
        path = str(folder / path)
    if not path.startswith("/"):
        raise NotReadFromHereError("it is neither a file nor a device")
    return Place(path=path, format=fmt)


def _removables(root: etree._Element, warn: Warn) -> tuple[Removable, ...]:
    kinds = {"cdrom": RemovableType.CDROM, "floppy": RemovableType.FLOPPY}
    result = []
    for element in root.findall("devices/disk"):
        if kind := kinds.get(element.get("device", "")):
            target = _attribute(element, "target", "dev")
            match = _SLOT.fullmatch(target)
            if target and match is None:
                warn(f"The place of the drive {target!r} is not understood.")
            result.append(
                Removable(
                    type=kind,
                    controller=_controller(root, element),
                    slot=_slot(match) if match else None,
                )
            )
    return tuple(result)


def _slot(match: re.Match[str]) -> int:
    if match["number"]:
        return int(match["number"])
    slot = 0
    for letter in match["letters"]:
        slot = slot * 26 + ord(letter) - ord("a") + 1
    return slot - 1


def _nics(root: etree._Element) -> tuple[Nic, ...]:
    result = []
    for index, element in enumerate(root.findall("devices/interface")):
        kind = element.get("type")
        source = element.find("source")
        if kind not in ("network", "bridge") or source is None:
            continue
        vnet = source.get("network", source.get("bridge"))
        if vnet is None:
            continue
        mac = _attribute(element, "mac", "address").lower()
        result.append(
            Nic(
                # The drivers for VMware leave the name empty.
                vnet=vnet or f"eth{index}",
                vnet_type=VnetType.NETWORK if kind == "network" else VnetType.BRIDGE,
                mac=mac if mac and mac != _NO_MAC else None,
                model=_attribute(element, "model", "type") or None,
            )
        )
    return tuple(result)
