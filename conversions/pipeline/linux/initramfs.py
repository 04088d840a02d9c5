"""The initramfs: look whether it holds the virtio drivers, rebuild it only when it does not."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.errors import GuestError
from conversions.pipeline.linux.files import GuestFiles
from conversions.pipeline.linux.kernels import parse_modules
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import KernelInfo

# Without these the root filesystem is not found on a virtio-blk disk.
REQUIRED = ("virtio_pci", "virtio_blk")
# Order matters to old kernels, which number devices as drivers come.
ADDED = ("virtio", "virtio_ring", "virtio_blk", "virtio_scsi", "virtio_net", "virtio_pci")
MODULES_FILE = "/etc/initramfs-tools/modules"
MARKER = "# Added by v2vweb: drivers of a KVM guest"


def missing_drivers(contents: Iterable[str], kernel: KernelInfo) -> list[str]:
    """Return the required drivers that are neither in an initramfs nor built into the kernel.

    `contents` are the module names in the initramfs.
    """
    present = set(contents) | set(kernel.builtin)
    return [driver for driver in REQUIRED if driver not in present]


def with_modules(text: str, kernel: KernelInfo) -> str:
    """Return /etc/initramfs-tools/modules with the virtio modules the kernel has, each once."""
    listed = {line.split()[0] for line in text.split("\n") if line.strip() and line[0] != "#"}
    new = [m for m in ADDED if m in kernel.modules and m not in listed]
    if not new:
        return text
    head = text if not text or text.endswith("\n") else text + "\n"
    marker = "" if MARKER in text else MARKER + "\n"
    return head + marker + "\n".join(new) + "\n"


def ensure_initramfs(g: GuestFS, files: GuestFiles, kernel: KernelInfo, report: Reporter) -> str:
    """Make sure that the kernel finds its root on virtio; return the finding in one sentence.

    With `files.change` false it says what would be done.  Raises GuestError when there is no
    initramfs, no tool for it, or when a rebuild did not bring a driver.
    """
    if kernel.initrd is None:
        if not missing_drivers([], kernel):
            return f"kernel {kernel.version} has virtio built in and needs no initramfs"
        raise GuestError(
            f"Kernel {kernel.version} has no initramfs and no virtio drivers built in; "
            "it would not find its disk.",
            remedy="Run update-initramfs in the guest on its source and export it again.",
            code="E-NO-INITRAMFS",
        )
    missing = missing_drivers(_contents(g, kernel.initrd), kernel)
    if not missing:
        text = (
            f"{kernel.initrd} already holds the virtio drivers of kernel {kernel.version}; "
            "it is not rebuilt."
        )
        report.log(Level.INFO, text)
        return f"{kernel.initrd} holds virtio_pci and virtio_blk of kernel {kernel.version}"
    report.log(Level.INFO, f"{kernel.initrd} lacks {', '.join(missing)}; it has to be rebuilt.")
    if not files.change:
        return f"{kernel.initrd} lacks {', '.join(missing)} and will be rebuilt with them"
    _rebuild(g, files, kernel, report)
    still = missing_drivers(_contents(g, kernel.initrd), kernel)
    if still:
        raise GuestError(
            f"{kernel.initrd} was rebuilt, but still lacks {', '.join(still)}.",
            remedy="Look at what update-initramfs said in the log; the modules may be missing "
            f"from {kernel.modpath} or excluded by /etc/initramfs-tools.",
            code="E-INITRAMFS-DRIVER",
        )
    report.log(Level.INFO, f"{kernel.initrd} holds the virtio drivers now.")
    return f"{kernel.initrd} was rebuilt with {', '.join(missing)}"


def _contents(g: GuestFS, initrd: str) -> tuple[str, ...]:
    """Return the names of the modules in an initramfs, by the guest's own lsinitramfs."""
    try:
        listing = g.command(["lsinitramfs", initrd])
    except RuntimeError as error:
        raise GuestError(f"{initrd} could not be listed in the guest: {error}.") from error
    return parse_modules(re.sub(r":", "", listing))


def _rebuild(g: GuestFS, files: GuestFiles, kernel: KernelInfo, report: Reporter) -> None:
    tool = next((t for t in ("/usr/sbin/update-initramfs",) if files.is_file(t)), None)
    if tool is None:
        raise GuestError(
            "The guest has no update-initramfs, so its initramfs cannot be rebuilt.",
            remedy="Install initramfs-tools in the guest on its source and export it again.",
            code="E-NO-INITRAMFS-TOOL",
        )
    old = files.read(MODULES_FILE) or ""
    new = with_modules(old, kernel)
    if new != old:
        files.write(MODULES_FILE, new, "virtio modules added")
    begun = time.monotonic()
    command = [tool, "-u", "-k", kernel.version]
    report.log(Level.INFO, "In the guest: " + " ".join(command))
    try:
        output = g.command(command)
    except RuntimeError as error:
        raise GuestError(
            f"update-initramfs failed in the guest: {error}.",
            remedy="Often /boot is full or a hook script of the guest fails; the log shows which.",
            code="E-INITRAMFS",
        ) from error
    report.log(Level.DEBUG, output)
    report.log(Level.INFO, f"initramfs rebuilt in {time.monotonic() - begun:.1f} s.")
    files.record("initramfs rebuilt", kernel.initrd or "")
