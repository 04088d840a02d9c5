"""Rows as a used console has them: for tests of pages and for looking at them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.utils import timezone

from conversions.models import (
    Concern,
    Conversion,
    ConversionDisk,
    ConversionHost,
    ConversionStep,
    Inspection,
)
from conversions.pipeline.job import Input, Job, Mode, Target
from conversions.pipeline.steps import Step
from conversions.secrets import take_secrets
from inventory.models import OvaUpload, SourceDisk, SourceNic, SourceVM
from inventory.sources import types

GIB = 2**30

GUEST: dict[str, Any] = {
    "root": "/dev/debvg/root",
    "type": "linux",
    "distro": "debian",
    "arch": "x86_64",
    "major_version": 12,
    "minor_version": 5,
    "package_format": "deb",
    "package_management": "apt",
    "product_name": "Debian GNU/Linux 12 (bookworm)",
    "product_variant": "unknown",
    "osinfo": "debian12",
    "hostname": "web01",
    "uefi_esps": [],
    "mountpoints": [["/", "/dev/debvg/root"], ["/boot", "/dev/sda1"]],
    "filesystems": [
        ["/dev/sda1", "ext4"],
        ["/dev/debvg/root", "ext4"],
        ["/dev/debvg/swap", "swap"],
    ],
    "applications": [
        {"name": name, "version": "1.2.3", "release": "1", "epoch": 0, "arch": "amd64"}
        for name in ("bash", "grub-pc", "linux-image-amd64", "nginx", "open-vm-tools", "openssl")
    ],
}
REPORTS: dict[str, Any] = {
    "appliance": {
        "accelerator": "tcg",
        "reason": "/dev/kvm is there, but a guest could not be started with it.",
        "memory_mib": 1280,
        "vcpus": 2,
        "libguestfs": "1.48.6",
        "qemu": "7.2.0",
        "kernel": "6.1.0",
        "seconds": 6.4,
    },
    "inspection": GUEST,
    "mpstats": [
        {
            "device": "/dev/debvg/root",
            "mountpoint": "/",
            "vfs": "ext4",
            "bsize": 4096,
            "blocks": 1500000,
            "bfree": 1100000,
            "bavail": 1020000,
            "files": 400000,
            "ffree": 350000,
        },
        {
            "device": "/dev/sda1",
            "mountpoint": "/boot",
            "vfs": "ext4",
            "bsize": 4096,
            "blocks": 120000,
            "bfree": 12000,
            "bavail": 9000,
            "files": 30000,
            "ffree": 29000,
        },
    ],
    "estimate": {
        "fs_total_size": 7 * GIB,
        "source_total_size": 8 * GIB,
        "ratio": 0.875,
        "fs_free": 4 * GIB,
        "scaled_saving": int(3.5 * GIB),
        "disks": {"sda": int(4.5 * GIB)},
    },
    "bootloader": {"type": "GRUB 2", "config": "/boot/grub/grub.cfg"},
    "kernels": [
        {
            "name": "linux-image-6.1.0-18-amd64",
            "version": "6.1.0-18-amd64",
            "package_version": "6.1.76-1",
            "arch": "x86_64",
            "vmlinuz": "/boot/vmlinuz-6.1.0-18-amd64",
            "initrd": "/boot/initrd.img-6.1.0-18-amd64",
            "config_file": "/boot/config-6.1.0-18-amd64",
            "modpath": "/lib/modules/6.1.0-18-amd64",
            "modules_count": 3920,
            "supports_virtio_blk": True,
            "supports_virtio_scsi": True,
            "supports_virtio_net": True,
            "supports_virtio_rng": True,
            "supports_virtio_balloon": True,
            "supports_isa_pvpanic": True,
            "supports_virtio_socket": True,
            "is_xen_pv_only": False,
            "is_debug": False,
        }
    ],
    "block_device_map": {"sda": "vda", "xvda": "vda"},
    "guestcaps": {
        "block_bus": "virtio-blk",
        "net_bus": "virtio-net",
        "virtio_rng": True,
        "virtio_balloon": True,
        "isa_pvpanic": True,
        "virtio_socket": False,
        "machine": "q35",
        "arch": "x86_64",
        "arch_min_version": 0,
        "virtio_1_0": True,
        "rtc_utc": True,
        "video": "vga",
        "acpi": True,
        "reasons": {
            "block_bus": "kernel 6.1.0-18-amd64 has virtio_blk in its initramfs",
            "net_bus": "kernel 6.1.0-18-amd64 has the module virtio_net",
            "machine": "Debian 12 knows PCI Express",
        },
    },
    "changes": [
        {"what": "removed open-vm-tools", "path": ""},
        {"what": "sda is now vda", "path": "/etc/fstab"},
    ],
}
CONCERNS = [
    (
        "warning",
        "C-NET-NAMES",
        "Network name will change: ens192 to enp1s0",
        "The guest has a fixed address 192.0.2.10 on ens192.",
        "It would come up without network.",
        "Change the name in /etc/network/interfaces after the first boot.",
    ),
    (
        "note",
        "C-VMWARE-TOOLS",
        "VMware tools found",
        "The package open-vm-tools is installed.",
        "It will be removed.",
        "",
    ),
]


def make_user(name: str, role: str | None) -> User:
    """Return a new user with a role; the password is the name."""
    user = User.objects.create_user(name, password=name)
    if role:
        user.groups.add(Group.objects.get(name=role))
    if role == "Administrators":
        user.is_staff = True
        user.save(update_fields=["is_staff"])
    return user


def make_source(name: str = "web01", *, nics: int = 1, mac: bool = True) -> types.Source:
    """Return a source with one disk."""
    return types.Source(
        name=name,
        original_name=name,
        hypervisor="vmware",
        memory_bytes=GIB,
        vcpus=2,
        disks=(
            types.SourceDisk(
                id=0,
                controller=types.Controller.SCSI,
                path=f"/srv/{name}.ova",
                format="vmdk",
                member=f"{name}-disk1.vmdk",
                offset_bytes=8192,
                length_bytes=GIB,
                virtual_size_bytes=8 * GIB,
                declared_capacity_bytes=8 * GIB,
            ),
        ),
        removables=(
            types.Removable(
                type=types.RemovableType.CDROM, controller=types.Controller.IDE, slot=0
            ),
        ),
        nics=tuple(
            types.Nic(
                vnet="VM Network",
                vnet_type=types.VnetType.NETWORK,
                mac=f"00:50:56:00:00:{index + 1:02x}" if mac else None,
                model="vmxnet3",
            )
            for index in range(nics)
        ),
        firmware=types.Firmware.BIOS,
        os_hint="Debian GNU/Linux 10 (64-bit)",
    )


def make_vm(
    name: str = "web01", *, source: types.Source | None = None, status: str = "ready"
) -> SourceVM:
    """Return a machine with its upload, disk and network card rows."""
    source = source or make_source(name)
    digest = {"file": f"{name}-disk1.vmdk", "algorithm": "SHA256", "status": "matches"}
    upload = OvaUpload.objects.create(
        filename=f"{name}.ova",
        path=f"/srv/{name}.ova",
        size_bytes=GIB,
        received_bytes=GIB,
        checked_bytes=GIB,
        status=OvaUpload.Status.READY,
        digests=[digest],
    )
    vm = SourceVM.objects.create(
        name=name,
        location=f"/srv/{name}.ova",
        upload=upload,
        status=status,
        hypervisor=source.hypervisor,
        os_hint=source.os_hint or "",
        firmware=source.firmware,
        memory_bytes=source.memory_bytes,
        vcpus=source.vcpus,
        disk_bytes=8 * GIB,
        record=source.to_dict(),
    )
    for disk in source.disks:
        SourceDisk.objects.create(
            vm=vm, index=disk.id, controller="scsi", format=disk.format, file=disk.member or ""
        )
    for index, nic in enumerate(source.nics):
        SourceNic.objects.create(
            vm=vm, index=index, vnet=nic.vnet, vnet_type=nic.vnet_type, mac=nic.mac or ""
        )
    return vm


def make_conversion(
    vm: SourceVM,
    *,
    mode: Mode = Mode.COPY,
    status: str = "done",
    user: User | None = None,
    **values: Any,
) -> Conversion:
    """Return a run with its steps; one that ended has its times."""
    target = Target(directory=str(settings.TARGET_DIRS[0])) if mode is Mode.COPY else None
    job = Job(
        mode=mode, source=Input(kind="ova", location=vm.location), target=target, name=vm.name
    )
    data, _sealed = take_secrets(job)
    now = timezone.now()
    if status != "waiting":
        values.setdefault("started_at", now - timedelta(minutes=11))
        values.setdefault("worker", settings.WORKER_NAME)
    if status not in Conversion.ACTIVE:
        values.setdefault("finished_at", now)
    conversion = Conversion.objects.create(
        vm=vm,
        vm_name=vm.name,
        name=vm.name,
        mode=mode,
        status=status,
        job=data,
        created_by=user,
        **values,
    )
    for position, step in enumerate(Step):
        ConversionStep.objects.create(
            conversion=conversion, position=position, name=step, status="done", seconds=1.5
        )
    return conversion


def make_inspection(conversion: Conversion, *, blocks: bool = False) -> Inspection:
    """Return the report of a run with its concerns, one of which may block."""
    conversion.reports = {**conversion.reports, **REPORTS}
    conversion.save(update_fields=["reports"])
    inspection = Inspection.objects.create(
        conversion=conversion,
        vm=conversion.vm,
        product_name=GUEST["product_name"],
        distro="debian",
        arch="x86_64",
    )
    rows = list(CONCERNS)
    if blocks:
        rows.insert(
            0,
            (
                "blocks",
                "C-HIBERNATED",
                "The guest was hibernated",
                "The swap partition holds a suspended system.",
                "The disks can only be opened read-only.",
                "Start it, shut it down, upload again.",
            ),
        )
    for position, row in enumerate(rows):
        names = ("level", "code", "title", "found", "meaning", "remedy")
        Concern.objects.create(
            inspection=inspection, position=position, **dict(zip(names, row, strict=True))
        )
    return inspection


def make_demo() -> None:
    """Fill an empty console as after a week of use."""
    from conversions.health import report_health

    admin = User.objects.create_superuser("admin", password="admin")
    ada = make_user("ada", "Operators")
    make_user("vera", "Viewers")
    web = make_vm("web01")
    shop = make_vm("shop-frontend-production-eu-west-1", source=make_source("shop", nics=2))
    database = make_vm("database <b>&amp;")
    make_vm("new-one")
    make_vm("old", status="gone")
    make_vm("arriving", status="arriving")
    OvaUpload.objects.create(filename="big.ova", size_bytes=40 * GIB, received_bytes=9 * GIB)
    first = make_conversion(web, mode=Mode.INSPECT, user=ada)
    make_inspection(first)
    make_inspection(make_conversion(database, mode=Mode.INSPECT, user=ada), blocks=True)
    make_inspection(make_conversion(shop, mode=Mode.REHEARSE, status="warned", user=admin))
    for status in ("done", "warned", "stopped", "lost"):
        done = make_conversion(web, status=status, user=ada)
        ConversionDisk.objects.create(
            conversion=done, index=0, name="sda", done_bytes=3 * GIB, total_bytes=3 * GIB
        )
    make_conversion(
        shop,
        status="failed",
        user=admin,
        result={
            "code": "E-GUEST",
            "message": "Not enough free space on /boot of shop: 31 MiB free, 50 MiB needed.",
            "remedy": "Remove an old kernel in the guest and convert again.",
            "step": "space",
        },
    )
    running = make_conversion(shop, status="running", user=ada)
    ConversionDisk.objects.create(
        conversion=running, index=0, name="sda", done_bytes=2 * GIB, total_bytes=5 * GIB
    )
    make_conversion(database, status="waiting", user=admin)
    report_health()
    ConversionHost.objects.create(
        name="kvm-lab-2", seen_at=timezone.now() - timedelta(hours=3), health={}
    )
