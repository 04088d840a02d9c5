"""The libvirt domain XML of a converted VM.

Source: libvirt's formatdomain; every rule that is ours is in the comments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lxml import etree

from conversions.pipeline.guestcaps import expected_guestcaps, guestcaps_from_dict
from conversions.pipeline.job import Job, NetworkMap, Target
from conversions.pipeline.networks import map_nics
from conversions.pipeline.types import (
    Guestcaps,
    Machine,
    NetBus,
    Slot,
    TargetBuses,
    TargetDisk,
    TargetMeta,
)
from inventory.sources.types import Firmware, Nic, Removable, Source, VnetType, disk_letters

_MACHINES = {Machine.I440FX: "pc", Machine.Q35: "q35", Machine.VIRT: "virt"}
_X86_FEATURES = {"i686": {"acpi", "apic", "pae"}, "x86_64": {"acpi", "apic"}}
_NIC_MODELS = {NetBus.E1000: "e1000", NetBus.RTL8139: "rtl8139"}


def domain_xml(meta: TargetMeta) -> str:
    """Return the domain XML, UTF-8 with declaration, two-space indent."""
    source, caps = meta.source, meta.guestcaps
    # Guests of the virtio 0.9 age need transitional devices on q35, where plain means 1.0.
    virtio = (
        "virtio-transitional" if caps.machine is Machine.Q35 and not caps.virtio_1_0 else "virtio"
    )
    domain = etree.Element("domain", type="kvm")
    domain.append(etree.Comment(" written by v2vweb "))
    _text(domain, "name", meta.name.replace("/", "_"))
    if source.genid:
        _text(domain, "genid", source.genid)
    for tag in ("memory", "currentMemory"):
        _text(domain, tag, str(source.memory_bytes // 1024), unit="KiB")
    _text(domain, "vcpu", str(source.vcpus))
    _cpu(domain, source)
    features = etree.SubElement(domain, "features")
    supported = _X86_FEATURES.get(caps.arch, set())
    for name in sorted((set(source.features) | {"acpi", "apic", "pae"}) & supported):
        etree.SubElement(features, name)
    _os(domain, meta)
    etree.SubElement(domain, "clock", offset="utc" if caps.rtc_utc else "localtime")
    for tag, action in (("poweroff", "destroy"), ("reboot", "restart"), ("crash", "restart")):
        _text(domain, f"on_{tag}", action)
    _devices(etree.SubElement(domain, "devices"), meta, virtio)
    etree.indent(domain, "  ")
    body: str = etree.tostring(domain, encoding="unicode")
    return "<?xml version='1.0' encoding='utf-8'?>\n" + body + "\n"


def _text(parent: etree._Element, tag: str, text: str, **attributes: str) -> etree._Element:
    element = etree.SubElement(parent, tag, attributes)
    element.text = text
    return element


def _cpu(domain: etree._Element, source: Source) -> None:
    if source.cpu_model:
        cpu = etree.SubElement(domain, "cpu", match="minimum")
        if source.cpu_vendor:
            _text(cpu, "vendor", source.cpu_vendor)
        _text(cpu, "model", source.cpu_model, fallback="allow")
    else:
        cpu = etree.SubElement(domain, "cpu", mode="host-model")
    if topology := source.cpu_topology:
        etree.SubElement(
            cpu,
            "topology",
            sockets=str(topology.sockets),
            cores=str(topology.cores),
            threads=str(topology.threads),
        )


def _os(domain: etree._Element, meta: TargetMeta) -> None:
    os_ = etree.SubElement(domain, "os")
    if meta.uefi:
        os_.set("firmware", "efi")
        firmware = etree.SubElement(os_, "firmware")
        secure = meta.source.uefi_secureboot
        etree.SubElement(firmware, "feature", name="secure-boot", enabled="yes" if secure else "no")
        if secure:
            etree.SubElement(firmware, "feature", name="enrolled-keys", enabled="yes")
    machine = _MACHINES[meta.guestcaps.machine]
    _text(os_, "type", "hvm", arch=meta.guestcaps.arch, machine=machine)


def _devices(devices: etree._Element, meta: TargetMeta, virtio: str) -> None:
    caps, buses = meta.guestcaps, meta.buses
    _drives(devices, buses, meta, virtio)
    if any(buses.scsi):
        # Without it libvirt may add an emulated controller the guest has no driver for.
        model = "virtio-scsi" if virtio == "virtio" else virtio
        etree.SubElement(devices, "controller", type="scsi", index="0", model=model)
    for nic in meta.nics:
        _nic(devices, nic, _NIC_MODELS.get(caps.net_bus, virtio))
    video = etree.SubElement(devices, "video")
    etree.SubElement(video, "model", type=caps.video, vram="16384", heads="1")
    # On the host itself only: a source's display may have been open to its network.
    etree.SubElement(devices, "graphics", type="vnc", autoport="yes", listen="127.0.0.1")
    if meta.source.sound:
        etree.SubElement(devices, "sound", model=meta.source.sound)
    if caps.virtio_rng:
        rng = etree.SubElement(devices, "rng", model=virtio)
        _text(rng, "backend", "/dev/urandom", model="random")
    balloon = virtio if caps.virtio_balloon else "none"
    etree.SubElement(devices, "memballoon", model=balloon)
    if caps.isa_pvpanic:
        panic = etree.SubElement(devices, "panic", model="isa")
        etree.SubElement(panic, "address", type="isa", iobase="0x505")
    if caps.virtio_socket:
        etree.SubElement(devices, "vsock", model=virtio)
    etree.SubElement(devices, "input", type="tablet", bus="usb")
    etree.SubElement(devices, "input", type="mouse", bus="ps2")
    etree.SubElement(devices, "console", type="pty")
    etree.SubElement(devices, "controller", type="virtio-serial", model=virtio)
    channel = etree.SubElement(devices, "channel", type="unix")
    etree.SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")


def _drives(devices: etree._Element, buses: TargetBuses, meta: TargetMeta, virtio: str) -> None:
    machine = meta.guestcaps.machine
    _bus(devices, buses.virtio_blk, "virtio", "vd", 0, meta, virtio)
    if machine is Machine.VIRT:
        first_scsi = 0  # that machine has neither IDE nor SATA
    else:
        bus, prefix = ("ide", "hd") if machine is Machine.I440FX else ("sata", "sd")
        _bus(devices, buses.ide, bus, prefix, 0, meta, virtio)
        # SATA and SCSI share the sdX names; libvirt refuses two disks of one name.
        first_scsi = len(buses.ide) if bus == "sata" else 0
    _bus(devices, buses.scsi, "scsi", "sd", first_scsi, meta, virtio)
    for number, slot in enumerate(buses.floppy):
        if slot is not None:
            floppy = etree.SubElement(devices, "disk", device="floppy", type="file")
            etree.SubElement(floppy, "driver", name="qemu", type="raw")
            etree.SubElement(floppy, "target", dev="fd" + disk_letters(number))


def _bus(
    devices: etree._Element,
    slots: Sequence[Slot],
    bus: str,
    prefix: str,
    first: int,
    meta: TargetMeta,
    virtio: str,
) -> None:
    for number, slot in enumerate(slots):
        name = prefix + disk_letters(first + number)
        if slot is None:
            devices.append(etree.Comment(f" no drive in {bus} slot {number} "))
        elif isinstance(slot, Removable):
            cdrom = etree.SubElement(devices, "disk", device="cdrom", type="file")
            etree.SubElement(cdrom, "driver", name="qemu", type="raw")
            etree.SubElement(cdrom, "target", dev=name, bus=bus)
        else:
            disk = etree.SubElement(devices, "disk", type="file", device="disk")
            if bus == "virtio" and virtio != "virtio":
                disk.set("model", virtio)
            etree.SubElement(disk, "driver", name="qemu", type=slot.format, discard="unmap")
            etree.SubElement(disk, "source", file=slot.final_path)
            etree.SubElement(disk, "target", dev=name, bus=bus)
            etree.SubElement(disk, "boot", order=str(boot_order(number, meta.boot_disk)))


def boot_order(index: int, boot_disk: int | None) -> int:
    """Return a disk's place in the boot order: the boot disk first, the others behind it."""
    if boot_disk is None:
        return index + 1
    return 1 if index == boot_disk else index + 2


def _nic(devices: etree._Element, nic: Nic, model: str) -> None:
    kind = "bridge" if nic.vnet_type is VnetType.BRIDGE else "network"
    interface = etree.SubElement(devices, "interface", type=kind)
    etree.SubElement(interface, "source", {kind: nic.vnet})
    etree.SubElement(interface, "model", type=model)
    if nic.mac:
        etree.SubElement(interface, "mac", address=nic.mac)


def preview_xml(source: Source, reports: Mapping[str, Any], job: Job) -> str:
    """Return the XML a job would write, from the reports of an earlier inspection.

    Without one, the capabilities of a current guest are expected.  Paths and names are the job's.
    """
    caps = guestcaps_from_dict(reports["guestcaps"]) if "guestcaps" in reports else None
    caps = caps or expected_guestcaps()
    target = job.target or Target()
    name = job.name or source.name
    disks = tuple(
        (f"{target.directory.rstrip('/')}/{name.replace('/', '_')}-sd{disk_letters(d.id)}")
        for d in source.disks
    )
    inspection = reports.get("inspection", {})
    uefi = source.firmware is Firmware.UEFI or (
        source.firmware is Firmware.UNKNOWN and bool(inspection.get("uefi_esps"))
    )
    return domain_xml(
        TargetMeta(
            source=source,
            name=name,
            guestcaps=caps,
            buses=_preview_buses(source, disks, target, caps),
            nics=map_nics(source.nics, job.network_map or NetworkMap()),
            uefi=uefi,
            boot_disk=reports.get("boot_disk"),
        )
    )


def _preview_buses(
    source: Source, paths: Sequence[str], target: Target, caps: Guestcaps
) -> TargetBuses:
    from conversions.pipeline.report import RecordingReporter
    from conversions.pipeline.target_buses import assign_target_buses
    from conversions.pipeline.types import Overlay

    disks = [
        TargetDisk(
            overlay=Overlay(
                sd="sd" + disk_letters(disk.id),
                path="",
                virtual_size_bytes=disk.virtual_size_bytes or 0,
                source_uri="",
                source_format=disk.format,
                source_controller=disk.controller,
                source_label=disk.path,
            ),
            final_path=path,
            part_path="",
            format=target.format,
        )
        for disk, path in zip(source.disks, paths, strict=True)
    ]
    return assign_target_buses(disks, source.removables, caps, RecordingReporter())
