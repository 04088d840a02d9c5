"""The virtual hardware in an OVF for oVirt: one Item for each device, by its CIM resource type."""

from __future__ import annotations

from lxml import etree

from conversions.pipeline.outputs.ovirt_os import Warn
from conversions.pipeline.outputs.ovirt_xml import (
    NO_UUID,
    Flavour,
    OvirtVm,
    Volume,
    file_ref,
    ovf_time,
    random_uuid,
    text,
)
from conversions.pipeline.types import NetBus, TargetMeta
from inventory.sources.types import Nic

_MIB = 1 << 20
_VIDEO = {Flavour.API: 32768, Flavour.EXPORT: 20}
_NICS = {NetBus.RTL8139: 1, NetBus.E1000: 2, NetBus.VIRTIO_NET: 3}
_SOUNDS = ("ac97", "ich6")


def add_hardware(
    section: etree._Element, meta: TargetMeta, vm: OvirtVm, flavour: Flavour, warn: Warn
) -> None:
    """Append every device; `warn` hears what oVirt's machines cannot have."""
    source, caps = meta.source, meta.guestcaps
    memory_mib = source.memory_bytes // _MIB
    text(section, "Info", f"{source.vcpus} CPU, {memory_mib} MiB of memory")
    _processors(section, meta)
    item = _item(section, "Memory", "2", 4)
    text(item, "rasd:AllocationUnits", "MegaBytes")
    text(item, "rasd:VirtualQuantity", memory_mib)
    item = _item(section, "USB controller", "3", 23)
    text(item, "rasd:UsbPolicy", "Disabled")
    item = _item(section, "Graphics", random_uuid(), _VIDEO[flavour])
    text(item, "Type", "video")
    text(item, "rasd:VirtualQuantity", 1)
    text(item, "Device", "vga")
    if caps.virtio_rng:
        _device(section, "RNG device", "rng", "virtio", source="urandom")
    if caps.virtio_balloon:
        _device(section, "Memory balloon", "balloon", "memballoon", model="virtio")
    for number, volume in enumerate(vm.volumes):
        is_boot = number == (meta.boot_disk or 0)
        _drive(section, number + 1, volume, vm, flavour, is_boot=is_boot)
    for number, nic in enumerate(meta.nics):
        _nic(section, number, nic, _NICS[caps.net_bus])
    if source.sound in _SOUNDS:
        _device(section, "Sound adapter", "sound", source.sound)
    elif source.sound:
        warn(f"oVirt has no sound device {source.sound}; the machine gets none.")
    if source.display and source.display.password:
        warn("oVirt sets the password of a screen itself; the one of the source is lost.")


def _item(section: etree._Element, caption: str, instance: str, resource: int) -> etree._Element:
    item = etree.SubElement(section, "Item")
    text(item, "rasd:Caption", caption)
    text(item, "rasd:InstanceId", instance)
    text(item, "rasd:ResourceType", resource)
    return item


def _processors(section: etree._Element, meta: TargetMeta) -> None:
    topology = meta.source.cpu_topology
    item = _item(section, f"{meta.source.vcpus} virtual CPU", "1", 3)
    text(item, "rasd:num_of_sockets", topology.sockets if topology else 1)
    text(item, "rasd:cpu_per_socket", topology.cores if topology else meta.source.vcpus)
    if topology:
        text(item, "rasd:threads_per_cpu", topology.threads)


def _device(section: etree._Element, caption: str, kind: str, device: str, **params: str) -> None:
    item = _item(section, caption, random_uuid(), 0)
    text(item, "Type", kind)
    text(item, "Device", device)
    if params:
        element = etree.SubElement(item, "SpecParams")
        for name, value in params.items():
            text(element, name, value)


def _drive(
    section: etree._Element,
    number: int,
    volume: Volume,
    vm: OvirtVm,
    flavour: Flavour,
    *,
    is_boot: bool,
) -> None:
    """Append a disk; oVirt takes an item for one only when its caption begins with "Drive "."""
    item = _item(section, f"Drive {number}", volume.volume, 17)
    text(item, "Type", "disk")
    text(item, "rasd:HostResource", file_ref(volume, flavour))
    text(item, "rasd:Parent", NO_UUID)
    text(item, "rasd:Template", NO_UUID)
    text(item, "rasd:ApplicationList")
    text(item, "rasd:StorageId", vm.storage_domain)
    text(item, "rasd:StoragePoolId", NO_UUID)
    for name in ("rasd:CreationDate", "rasd:LastModified", "rasd:last_modified_date"):
        text(item, name, ovf_time(vm.now))
    if is_boot:
        text(item, "BootOrder", 1)


def _nic(section: etree._Element, number: int, nic: Nic, model: int) -> None:
    item = _item(section, f"Ethernet adapter on {nic.vnet}", random_uuid(), 10)
    text(item, "rasd:ResourceSubType", model)
    text(item, "Type", "interface")
    text(item, "rasd:Connection", nic.vnet)
    text(item, "rasd:Name", f"eth{number}")
    if nic.mac:
        text(item, "rasd:MACAddress", nic.mac)
