"""Convert a Linux guest: the order of its parts."""

from __future__ import annotations

import platform
import re
from dataclasses import asdict

from conversions.pipeline.context import Context
from conversions.pipeline.errors import GuestError
from conversions.pipeline.guestcaps import (
    arch_min_version,
    guestcaps_text,
    has_virtio_1_0,
    machine_for,
    target_arch,
)
from conversions.pipeline.linux.bootloader import Bootloader
from conversions.pipeline.linux.console import adapt_console
from conversions.pipeline.linux.customize import customize
from conversions.pipeline.linux.families import family_of, is_tested
from conversions.pipeline.linux.files import GuestFiles
from conversions.pipeline.linux.firstboot import FirstBoot
from conversions.pipeline.linux.guest_agent import arrange_guest_agent
from conversions.pipeline.linux.hypervisors import remove_foreign_software
from conversions.pipeline.linux.identity import refresh_identity, remove_device_caches
from conversions.pipeline.linux.initramfs import ensure_initramfs, warn_of_others
from conversions.pipeline.linux.kernels import best_kernel, offered_kernels
from conversions.pipeline.linux.loaders import detect_bootloader
from conversions.pipeline.linux.module_aliases import adapt_aliases
from conversions.pipeline.linux.network_names import keep_names
from conversions.pipeline.linux.rename_devices import rename_block_devices
from conversions.pipeline.linux.selinux import relabel
from conversions.pipeline.linux.uefi_fallback import ensure_fallback_loader
from conversions.pipeline.linux.x_driver import adapt_x_driver
from conversions.pipeline.output_kinds import has_serial_console
from conversions.pipeline.report import Level
from conversions.pipeline.types import BlockBus, Guestcaps, Inspection, KernelInfo, NetBus

_DEFAULT_KERNEL = re.compile(r"(?m)^(\s*DEFAULTKERNEL=)(['\"]?)([^'\"\n]*)\2")


class LinuxConverter:
    """Every family of Linux distributions."""

    def convert(self, c: Context) -> Guestcaps:
        """Convert the guest, or with `c.change` false only say what would be done."""
        family = family_of(c.guest)
        if family is None:
            raise GuestError(f"{c.guest.product_name} is of no Linux family that is known.")
        if not is_tested(c.guest):
            c.report.log(
                Level.WARNING,
                f"{c.guest.distro} is not a tested distribution; it is converted as one of the "
                f"{family} family, whose package tools it has.",
            )
        check_runnable(c)
        files = GuestFiles(c.g, c.report, change=c.change)
        remove_rpm_locks(files)
        loader = detect_bootloader(files, c.guest, c.report)
        kernels = offered_kernels(c.g, files, c.guest, loader.entries, c.report)
        kernel = best_kernel(kernels)
        c.report.log(Level.INFO, f"Kernel that will boot: {kernel.version}")
        remove_foreign_software(c, files)
        if c.change and not files.is_file(kernel.vmlinuz):
            raise GuestError(
                f"{kernel.vmlinuz} went away together with the packages of the old hypervisor.",
                remedy="Remove those packages in the guest on its source, and export it again.",
                code="E-NO-KERNEL",
            )
        if kernel.vmlinuz != loader.entries[0].vmlinuz or not loader.default_known:
            _make_default(c, files, loader, kernel)
        if kernel.name != kernel.vmlinuz.rsplit("/", 1)[-1]:  # which it has without a package
            files.edit(
                "/etc/sysconfig/kernel",
                lambda t: _DEFAULT_KERNEL.sub(lambda m: f"{m[1]}{m[2]}{kernel.name}{m[2]}", t),
                f"kernel package of updates is {kernel.name}",
            )
        wanted = BlockBus(c.job.windows.block_driver)
        block, net = buses_for(kernel, wanted)
        if wanted is BlockBus.VIRTIO_SCSI and block is not wanted:
            c.report.log(
                Level.WARNING,
                f"Kernel {kernel.version} has no virtio_scsi; its disks are put on {block}.",
            )
        adapt_console(files, loader, keep=has_serial_console(c.job.target))
        adapt_x_driver(c, files)
        rename_block_devices(c, files, loader, family, block)
        remove_device_caches(files)
        if loader.uefi:
            ensure_fallback_loader(c, files)
        adapt_aliases(c, files, kernel, block, net)
        keep_names(c, files, net)
        finding = ensure_initramfs(c, files, family, kernel, block)
        warn_of_others(c, family, [k for k in kernels if k is not kernel], block)
        if block is BlockBus.IDE:
            finding = f"kernel {kernel.version} has no virtio_blk; {finding}"
        firstboot = FirstBoot(files)
        if c.job.guest_agent:
            arrange_guest_agent(c, firstboot, family)
        customize(c, files, firstboot)
        refresh_identity(c.g, files, family)
        relabel(c, files)
        caps = linux_guestcaps(c.guest, kernel, block, net, finding)
        c.report.log(Level.INFO, guestcaps_text(caps))
        c.report.log(
            Level.INFO,
            "This guest has virtio drivers installed."
            if block is not BlockBus.IDE
            else "This guest has no virtio drivers; it will be slow.",
        )
        c.report.report("guestcaps", asdict(caps))
        c.report.report("changes", files.changes)
        return caps


def check_runnable(c: Context) -> None:
    """Refuse a guest whose programs this host cannot run; only looking, that is a warning.

    Raises GuestError.
    """
    host = platform.machine()
    arch = "i386" if re.fullmatch(r"i[3-6]86", c.guest.arch) else c.guest.arch
    if arch in (host, "unknown") or (arch, host) == ("i386", "x86_64"):
        return
    message = f"The programs of the guest are for {arch}, and this host runs those of {host}."
    if c.change:
        raise GuestError(
            f"{message} Its initramfs could not be rebuilt.",
            remedy=f"Convert it on a host of {arch}.",
            code="E-GUEST-ARCH",
        )
    c.report.log(Level.WARNING, message)


def remove_rpm_locks(files: GuestFiles) -> None:
    """Delete what a killed rpm leaves behind, on which the next one would hang."""
    for name in files.names("/var/lib/rpm"):
        if re.fullmatch(r"__db\.00.", name):
            files.remove(f"/var/lib/rpm/{name}", "stale lock of the package database deleted")


def buses_for(kernel: KernelInfo, wanted: BlockBus) -> tuple[BlockBus, NetBus]:
    """Return the best buses the kernel has drivers for, that of the disks as wanted if it can."""
    block = BlockBus.VIRTIO_BLK if kernel.supports_virtio_blk else BlockBus.IDE
    if wanted is BlockBus.VIRTIO_SCSI and kernel.supports_virtio_scsi:
        block = wanted
    return block, NetBus.VIRTIO_NET if kernel.supports_virtio_net else NetBus.E1000


def _make_default(c: Context, files: GuestFiles, loader: Bootloader, kernel: KernelInfo) -> None:
    entry = next(e for e in loader.entries if e.vmlinuz == kernel.vmlinuz)
    why = (
        f"The default kernel ({loader.entries[0].vmlinuz}) has no virtio drivers, runs under Xen "
        "only or could not be looked at"
        if loader.default_known
        else f"Which kernel {loader.describe()} starts cannot be told"
    )
    c.report.log(Level.WARNING, f"{why}; {kernel.vmlinuz} becomes the default.")
    loader.set_default(files, entry)


def linux_guestcaps(
    guest: Inspection, kernel: KernelInfo, block_bus: BlockBus, net_bus: NetBus, finding: str
) -> Guestcaps:
    """Derive what the guest can do from the kernel that will boot, with the reason for each."""
    version = f"kernel {kernel.version}"

    def has(flag: bool, driver: str) -> str:
        return f"{version} {'has' if flag else 'does not have'} {driver}"

    system = f"{guest.product_name} ({guest.arch})"
    machine = machine_for(guest.distro, guest.major_version, guest.arch)
    virtio_1_0 = has_virtio_1_0(guest.distro, guest.major_version)
    level = arch_min_version(guest.distro, guest.major_version, guest.arch)
    return Guestcaps(
        block_bus=block_bus,
        net_bus=net_bus,
        virtio_rng=kernel.supports_virtio_rng,
        virtio_balloon=kernel.supports_virtio_balloon,
        isa_pvpanic=kernel.supports_isa_pvpanic,
        virtio_socket=kernel.supports_virtio_socket,
        machine=machine,
        arch=target_arch(guest.arch),
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
