"""Records that several tests of the pipeline start from."""

from __future__ import annotations

from dataclasses import replace

from conversions.pipeline.guestcaps import expected_guestcaps
from conversions.pipeline.types import (
    Inspection,
    KernelInfo,
    Overlay,
    TargetBuses,
    TargetDisk,
    TargetMeta,
)
from inventory.sources.types import (
    Controller,
    Nic,
    Removable,
    RemovableType,
    Source,
    SourceDisk,
    VnetType,
    disk_letters,
)

KERNEL = KernelInfo(
    name="linux-image-6.1.0-1-amd64",
    version="6.1.0-1-amd64",
    package_version="6.1.1",
    arch="x86_64",
    vmlinuz="/boot/vmlinuz-6.1.0-1-amd64",
    initrd="/boot/initrd.img-6.1.0-1-amd64",
    config_file=None,
    modpath="/lib/modules/6.1.0-1-amd64",
    modules=("virtio_blk", "virtio_net", "virtio_scsi", "virtio_ring"),
    builtin=("virtio_pci",),
    supports_virtio_blk=True,
    supports_virtio_scsi=True,
    supports_virtio_net=True,
    supports_virtio_rng=True,
    supports_virtio_balloon=True,
    supports_isa_pvpanic=True,
    supports_virtio_socket=True,
    is_xen_pv_only=False,
    is_debug=False,
)
GUEST = Inspection(
    root="/dev/sda1",
    type="linux",
    distro="debian",
    arch="x86_64",
    major_version=12,
    minor_version=5,
    package_format="deb",
    package_management="apt",
    product_name="Debian GNU/Linux 12",
    product_variant="unknown",
    osinfo="debian12",
    hostname="web",
    uefi_esps=(),
    mountpoints=(("/", "/dev/sda1"),),
    filesystems=(("/dev/sda1", "ext4"),),
    applications=(),
)
CDROM = Removable(type=RemovableType.CDROM, controller=Controller.IDE, slot=0)


def source_disk(number: int, controller: Controller | None = Controller.SCSI) -> SourceDisk:
    """Return a fixed disk."""
    return SourceDisk(id=number, controller=controller, path=f"/d{number}", format="raw")


def make_source(**values: object) -> Source:
    """Return a source with one SCSI disk, a CD-ROM and a NIC."""
    base = Source(
        name="web_01",
        original_name="web_01",
        hypervisor="vmware",
        memory_bytes=(1 << 30) + 1000,
        vcpus=2,
        disks=(source_disk(0),),
        removables=(CDROM,),
        nics=(Nic(vnet="br0", vnet_type=VnetType.BRIDGE, mac="52:54:00:aa:bb:01"),),
    )
    return replace(base, **values)  # type: ignore[arg-type]


def target_disk(number: int) -> TargetDisk:
    """Return a target disk in a folder that need not exist."""
    sd = "sd" + disk_letters(number)
    overlay = Overlay(
        sd=sd,
        path=f"/w/{sd}.qcow2",
        virtual_size_bytes=1 << 30,
        source_uri=f"/d{number}",
        source_format="raw",
        source_controller=Controller.SCSI,
        source_label=f"/d{number}",
    )
    return TargetDisk(
        overlay=overlay, final_path=f"/t/web_01-{sd}", part_path=f"/t/{sd}.part", format="qcow2"
    )


def make_meta(**values: object) -> TargetMeta:
    """Return what an output describes: one virtio disk and a CD-ROM on q35."""
    source = make_source()
    base = TargetMeta(
        source=source,
        name="web_01",
        guestcaps=expected_guestcaps(),
        buses=TargetBuses(virtio_blk=(target_disk(0),), ide=(None, None, CDROM)),
        nics=source.nics,
        uefi=False,
        boot_disk=0,
    )
    return replace(base, **values)  # type: ignore[arg-type]
