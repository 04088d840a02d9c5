"""The OVF that oVirt reads a machine from, in both of its flavours.

oVirt's OVF is of version 0.9 with many additions of its own.  Source: OvfReader and OvfWriter of
oVirt's engine, and what virt-v2v writes; spellings such as IsInitilized are theirs.
"""

from __future__ import annotations

import re

from lxml import etree

from conversions.pipeline.outputs.ovirt_hardware import add_hardware
from conversions.pipeline.outputs.ovirt_os import Warn, ovirt_os
from conversions.pipeline.outputs.ovirt_xml import (
    GENERATOR,
    NAMESPACES,
    NO_UUID,
    Flavour,
    OvirtVm,
    Volume,
    file_ref,
    ovf_time,
    q,
    random_uuid,
    section,
    text,
    xml_text,
)
from conversions.pipeline.types import BlockBus, Inspection, Machine, TargetMeta

_GIB = 1 << 30
_BYTES = "http://en.wikipedia.org/wiki/Byte"
_INTERFACES = {
    BlockBus.VIRTIO_BLK: "VirtIO",
    BlockBus.VIRTIO_SCSI: "VirtIO_SCSI",
    BlockBus.IDE: "IDE",
}
_ORIGINS = {"vmware": 1, "xen": 2, "qemu": 7, "kvm": 7, "physical": 8, "hyperv": 9}


def ovf(meta: TargetMeta, vm: OvirtVm, flavour: Flavour, warn: Warn = lambda _text: None) -> str:
    """Return the OVF as text; `warn` hears what the machine will not have."""
    envelope = etree.Element(q("ovf:Envelope"), {q("ovf:version"): "0.9"}, nsmap=NAMESPACES)
    envelope.append(etree.Comment(f" {GENERATOR} "))
    references = etree.SubElement(envelope, "References")
    networks = section(envelope, "NetworkSection", flavour)
    text(networks, "Info", "List of networks")
    disks = section(envelope, "DiskSection", flavour)
    text(disks, "Info", "List of virtual disks")
    for number, volume in enumerate(vm.volumes):
        _file(references, volume, flavour)
        _disk(disks, meta, vm, volume, flavour, is_boot=number == (meta.boot_disk or 0))
    for nic in meta.nics:
        etree.SubElement(networks, "Network", {q("ovf:name"): xml_text(nic.vnet)})
    content = _content(envelope, meta, vm, flavour)
    _system(content, meta, vm, flavour, warn)
    hardware = section(content, "VirtualHardwareSection", flavour)
    add_hardware(hardware, meta, vm, flavour, warn)
    etree.indent(envelope, "  ")
    body: str = etree.tostring(envelope, encoding="unicode")
    return "<?xml version='1.0' encoding='utf-8'?>\n" + body + "\n"


def _gib(size: int) -> str:
    return str(-(-size // _GIB))


def _file(references: etree._Element, volume: Volume, flavour: Flavour) -> None:
    file = etree.SubElement(references, "File")
    file.set(q("ovf:href"), file_ref(volume, flavour))
    file.set(q("ovf:id"), volume.volume)
    file.set(q("ovf:description"), GENERATOR)
    if volume.actual_bytes is not None:
        file.set(q("ovf:size"), str(volume.actual_bytes))


def _disk(
    disks: etree._Element,
    meta: TargetMeta,
    vm: OvirtVm,
    volume: Volume,
    flavour: Flavour,
    *,
    is_boot: bool,
) -> None:
    size = volume.disk.overlay.virtual_size_bytes
    values = {
        "diskId": volume.image if flavour is Flavour.API else volume.volume,
        "size": _gib(size),
        "capacity": str(size),
        "fileRef": file_ref(volume, flavour),
        "parentRef": "",
        "vm_snapshot_id": random_uuid(),
        "volume-format": volume.format,
        "volume-type": vm.allocation.capitalize(),
        "format": _BYTES,
        "disk-interface": _INTERFACES[meta.guestcaps.block_bus],
        "disk-type": "System",
        "boot": str(is_boot),
    }
    if vm.measured:
        actual = volume.actual_bytes
        values["actual_size"] = "" if actual is None else _gib(actual)
    etree.SubElement(disks, "Disk", {q(f"ovf:{key}"): value for key, value in values.items()})


def _content(
    envelope: etree._Element, meta: TargetMeta, vm: OvirtVm, flavour: Flavour
) -> etree._Element:
    if flavour is Flavour.API:
        content = etree.SubElement(envelope, "VirtualSystem", {q("ovf:id"): vm.uuid})
    else:
        attributes = {q("ovf:id"): "out", q("xsi:type"): "ovf:VirtualSystem_Type"}
        content = etree.SubElement(envelope, "Content", attributes)
    for name, value in (
        ("Name", meta.name),
        ("TemplateId", NO_UUID),
        ("TemplateName", "Blank"),
        ("Description", GENERATOR),
        ("Domain", ""),
        ("CreationDate", ovf_time(vm.now)),
        ("IsInitilized", "True"),
        ("IsAutoSuspend", "False"),
        ("TimeZone", ""),
        ("IsStateless", "False"),
        ("VmType", vm_type(meta.guest)),
        ("DefaultDisplayType", 2),
        ("BiosType", bios_type(meta)),
        ("CustomCpuName", meta.source.cpu_model),
        ("Origin", _ORIGINS.get(meta.source.hypervisor)),
    ):
        if value is not None:
            text(content, name, value)
    return content


def _system(
    content: etree._Element, meta: TargetMeta, vm: OvirtVm, flavour: Flavour, warn: Warn
) -> None:
    system = ovirt_os(meta.guest, warn)
    found = section(content, "OperatingSystemSection", flavour)
    found.set(q("ovf:id"), vm.uuid)
    found.set(q("ovf:required"), "false")
    if flavour is Flavour.API:
        found.set(q("ovirt:id"), str(system.number))
    text(found, "Info", meta.guest.product_name if meta.guest else "")
    text(found, "Description", system.name)


def bios_type(meta: TargetMeta) -> int | None:
    """Return oVirt's number for chipset and firmware; None for what it has no number for.

    Ours: 3, q35 with secure boot, which virt-v2v never writes (spec 4, section 8, line 17).
    """
    caps = meta.guestcaps
    if caps.arch != "x86_64":
        return 0
    match caps.machine, meta.uefi:
        case Machine.I440FX, False:
            return 0
        case Machine.Q35, False:
            return 1
        case Machine.Q35, True:
            return 3 if meta.source.uefi_secureboot else 2
    return None


def vm_type(guest: Inspection | None) -> int:
    """Return 0 for a desktop and 1 for a server, which is also what is not known."""
    if guest is None:
        return 1
    product = guest.product_name
    if guest.distro in ("rhel", "centos") and guest.major_version == 4:
        return int(bool(re.search(r"\b(ES|AS)\b", product)))
    if guest.type == "windows" and guest.product_variant != "unknown":
        return int(guest.product_variant != "Client")
    if "Server" in product:
        return 1
    return 0 if "Desktop" in product else 1
