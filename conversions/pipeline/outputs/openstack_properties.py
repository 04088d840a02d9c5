"""What OpenStack has to know of a machine to start it: properties of its image."""

from __future__ import annotations

from conversions.pipeline.types import BlockBus, Guestcaps, Inspection, Machine, NetBus, TargetMeta
from inventory.sources.types import Source

_DISK_BUSES = {BlockBus.VIRTIO_BLK: "virtio", BlockBus.VIRTIO_SCSI: "scsi", BlockBus.IDE: "ide"}
_VIF_MODELS = {NetBus.VIRTIO_NET: "virtio", NetBus.E1000: "e1000", NetBus.RTL8139: "rtl8139"}
_MACHINES = {Machine.I440FX: "pc", Machine.Q35: "q35", Machine.VIRT: "virt"}
# Where libguestfs and OpenStack differ.
_DISTROS = {"archlinux": "arch", "sles": "sled"}


def image_properties(meta: TargetMeta) -> dict[str, str]:
    """Return the properties, of a Cinder volume's image metadata or of a Glance image.

    There is none for the balloon, pvpanic, the clock and secure boot.
    Source: spec 2.6; the "useful image properties" of Glance's administrator guide.
    """
    caps = meta.guestcaps
    found = {
        "architecture": caps.arch,
        "hypervisor_type": "kvm",
        "vm_mode": "hvm",
        "hw_disk_bus": _DISK_BUSES[caps.block_bus],
        "hw_vif_model": _VIF_MODELS[caps.net_bus],
        "hw_video_model": "vga",
        "hw_machine_type": _MACHINES[caps.machine],
        **_cpu(meta.source),
        **(_system(meta.guest) if meta.guest else {}),
    }
    return found | _extras(caps, uefi=meta.uefi)


def _extras(caps: Guestcaps, *, uefi: bool) -> dict[str, str]:
    found = {}
    if caps.block_bus is BlockBus.VIRTIO_SCSI:
        found["hw_scsi_model"] = "virtio-scsi"
    if caps.virtio_rng:
        found["hw_rng_model"] = "virtio"
    if uefi:
        found["hw_firmware_type"] = "uefi"
    return found


def _cpu(source: Source) -> dict[str, str]:
    topology = source.cpu_topology
    if topology is None:
        return {"hw_cpu_sockets": "1", "hw_cpu_cores": str(source.vcpus)}
    return {
        "hw_cpu_sockets": str(topology.sockets),
        "hw_cpu_cores": str(topology.cores),
        "hw_cpu_threads": str(topology.threads),
    }


def _system(guest: Inspection) -> dict[str, str]:
    """Return what the guest is; a version of 0.0 means that it was not found."""
    found = {"os_type": guest.type, "os_distro": _DISTROS.get(guest.distro, guest.distro)}
    if guest.major_version or guest.minor_version:
        minor = f".{guest.minor_version}" if guest.minor_version else ""
        found["os_version"] = f"{guest.major_version}{minor}"
    return found
