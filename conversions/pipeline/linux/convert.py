"""Convert a guest of the Debian family: the order of its parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.guestcaps import (
    arch_min_version,
    guestcaps_text,
    has_virtio_1_0,
    machine_for,
)
from conversions.pipeline.linux import block_devices
from conversions.pipeline.linux.files import GuestFiles
from conversions.pipeline.linux.grub2 import Grub2, detect_grub2, make_default
from conversions.pipeline.linux.identity import refresh_identity, remove_device_caches
from conversions.pipeline.linux.initramfs import ensure_initramfs
from conversions.pipeline.linux.kernels import best_kernel, offered_kernels
from conversions.pipeline.linux.packages import remove_foreign_software
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import BlockBus, Guestcaps, Inspection, KernelInfo, NetBus
from inventory.sources.types import Source

_X86 = ("i386", "i486", "i586", "i686", "x86_64", "unknown")


class DebianConverter:
    """Debian, Ubuntu and what is made from them."""

    def convert(
        self, g: GuestFS, guest: Inspection, source: Source, report: Reporter, *, change: bool
    ) -> Guestcaps:
        """Convert the guest, or with `change` false only say what would be done."""
        files = GuestFiles(g, report, change=change)
        grub = detect_grub2(g, files, guest, report)
        kernels = offered_kernels(
            g, files, guest, [(e.vmlinuz, e.initrd) for e in grub.entries], report
        )
        kernel = best_kernel(kernels)
        report.log(Level.INFO, f"Kernel that will boot: {kernel.version}")
        remove_foreign_software(g, files, guest, report)
        if kernel is not kernels[0]:
            make_default(g, files, grub, kernel.vmlinuz, report)
        block_bus = BlockBus.VIRTIO_BLK if kernel.supports_virtio_blk else BlockBus.IDE
        rename_block_devices(files, grub, source, block_bus, report)
        remove_device_caches(files)
        finding = (
            ensure_initramfs(g, files, kernel, report)
            if block_bus is BlockBus.VIRTIO_BLK
            else f"kernel {kernel.version} has no virtio_blk"
        )
        refresh_identity(g, files)
        caps = linux_guestcaps(guest, kernel, block_bus, finding)
        report.log(Level.INFO, guestcaps_text(caps))
        report.log(
            Level.INFO,
            "This guest has virtio drivers installed."
            if block_bus is not BlockBus.IDE
            else "This guest has no virtio drivers; it will be slow.",
        )
        report.report("guestcaps", asdict(caps))
        report.report("changes", files.changes)
        return caps


def rename_block_devices(
    files: GuestFiles, grub: Grub2, source: Source, bus: BlockBus, report: Reporter
) -> None:
    """Carry the new names of the disks into every file that holds old ones.

    grub.cfg gets the same substitution as /etc/default/grub, so that the menu is right now and
    after the guest regenerates it; generating it here would write the appliance's device names.
    """
    mapping = block_devices.block_device_map(source.disks, bus)
    report.log(Level.INFO, block_devices.map_text(mapping))
    report.report("block_device_map", mapping)
    rename = block_devices.Renamer(mapping)
    what = "disk names changed"

    def edit(path: str, change: block_devices.Rename) -> None:
        files.edit(path, change, what)

    edit("/etc/fstab", lambda text: block_devices.rename_fstab(text, rename))
    edit("/etc/crypttab", lambda text: block_devices.rename_crypttab(text, rename))
    for path in ("/etc/default/grub", "/etc/sysconfig/grub"):
        edit(path, lambda text: block_devices.rename_default_grub(text, rename))
    for path in ("/boot/grub/device.map", "/boot/grub2/device.map"):
        edit(path, lambda text: block_devices.rename_device_map(text, rename))
    edit(grub.config, lambda text: block_devices.rename_grub_cfg(text, rename))
    edit(
        "/etc/initramfs-tools/conf.d/resume",
        lambda text: block_devices.rename_resume(text, rename),
    )
    for name in _unique(rename.unknown):
        report.log(
            Level.WARNING,
            f"{name} is named in the guest but is not one of its {len(source.disks)} disks; "
            "the entry is left as it is and probably needs a hand.",
        )


def _unique(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))


def linux_guestcaps(
    guest: Inspection, kernel: KernelInfo, block_bus: BlockBus, finding: str
) -> Guestcaps:
    """Derive what the guest can do from the kernel that will boot, with the reason for each."""
    version = f"kernel {kernel.version}"

    def has(flag: bool, driver: str) -> str:
        return f"{version} {'has' if flag else 'does not have'} {driver}"

    system = f"{guest.product_name} ({guest.arch})"
    machine = machine_for(guest.distro, guest.major_version, guest.arch)
    virtio_1_0 = has_virtio_1_0(guest.distro, guest.major_version)
    net_bus = NetBus.VIRTIO_NET if kernel.supports_virtio_net else NetBus.E1000
    level = arch_min_version(guest.distro, guest.major_version, guest.arch)
    return Guestcaps(
        block_bus=block_bus,
        net_bus=net_bus,
        virtio_rng=kernel.supports_virtio_rng,
        virtio_balloon=kernel.supports_virtio_balloon,
        isa_pvpanic=kernel.supports_isa_pvpanic,
        virtio_socket=kernel.supports_virtio_socket,
        machine=machine,
        arch="x86_64" if guest.arch in _X86 else guest.arch,
        arch_min_version=level,
        virtio_1_0=virtio_1_0,
        rtc_utc=True,
        video="vga",
        acpi=True,
        reasons={
            "block_bus": finding,
            "net_bus": has(kernel.supports_virtio_net, "virtio_net"),
            "virtio_rng": has(kernel.supports_virtio_rng, "virtio-rng"),
            "virtio_balloon": has(kernel.supports_virtio_balloon, "virtio_balloon"),
            "isa_pvpanic": has(kernel.supports_isa_pvpanic, "the pvpanic driver"),
            "virtio_socket": has(kernel.supports_virtio_socket, "vmw_vsock_virtio_transport"),
            "machine": f"{system} runs on {machine}",
            "arch": f"the programs of the guest are {guest.arch}",
            "arch_min_version": f"{system} needs "
            + (f"an x86-64-v{level} processor" if level else "no particular processor level"),
            "virtio_1_0": f"{system} "
            + ("speaks virtio 1.0" if virtio_1_0 else "is older than virtio 1.0"),
            "rtc_utc": "Linux keeps the hardware clock in UTC",
            "video": "every guest has a driver for standard VGA",
            "acpi": f"{system} uses ACPI",
        },
    )
