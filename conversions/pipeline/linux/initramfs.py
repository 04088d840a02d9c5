"""The initramfs: look whether it holds the virtio drivers, rebuild it only when it does not."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack

from conversions.pipeline.appliance_shell import SUBVOLUME, layers_below
from conversions.pipeline.context import Context
from conversions.pipeline.errors import GuestError
from conversions.pipeline.guest_errors import naming
from conversions.pipeline.guest_programs import INITRAMFS_MINUTES, run_in_guest
from conversions.pipeline.guestcaps import machine_for
from conversions.pipeline.linux.cpio import InitramfsError, list_initramfs
from conversions.pipeline.linux.families import Family
from conversions.pipeline.linux.files import GuestFiles
from conversions.pipeline.linux.initramfs_tools import find_tool
from conversions.pipeline.linux.kernels import parse_modules
from conversions.pipeline.linux.rename_devices import target_ide_prefix
from conversions.pipeline.report import Level
from conversions.pipeline.sizes import human
from conversions.pipeline.types import BlockBus, Inspection, KernelInfo, Machine

# Without these the root filesystem is not found on the new bus.
REQUIRED = {
    BlockBus.VIRTIO_BLK: ("virtio_pci", "virtio_blk"),
    BlockBus.VIRTIO_SCSI: ("virtio_pci", "virtio_scsi", "sd_mod"),
}
# The same for IDE, where the kernel has them as modules: by the machine, or by the driver of
# kernels that call their disks hda.
_IDE_OLD = ("piix", "ide_disk")
_IDE = {Machine.I440FX: ("ata_piix", "sd_mod"), Machine.Q35: ("ahci", "sd_mod")}
# What a layer below the root filesystem (see layers_below) is opened with.
LAYER_DRIVERS = {
    "lvm": ("dm_mod",),
    "crypt": ("dm_mod", "dm_crypt"),
    "raid0": ("md_mod", "raid0"),
    "raid1": ("md_mod", "raid1"),
    "raid10": ("md_mod", "raid10"),
    **dict.fromkeys(("raid4", "raid5", "raid6"), ("md_mod", "raid456")),
}
# Order matters to old kernels, which number devices as drivers come.
ADDED = ("virtio", "virtio_ring", "virtio_blk", "virtio_scsi", "virtio_net", "virtio_pci", "xts",
         "bochs_drm", "bochs")  # fmt: skip
BACKUP_SUFFIX = ".pre-v2v"
_SPARE_BYTES = 50 << 20
_MAX_BYTES = 1 << 30  # ten times a large one; a sparse file of terabytes costs the guest nothing


def required_drivers(
    guest: Inspection, family: Family, kernel: KernelInfo, bus: BlockBus
) -> tuple[str, ...]:
    """Return the drivers without which the kernel does not find its root on the bus."""
    if bus in REQUIRED:
        return REQUIRED[bus]
    machine = machine_for(guest.distro, guest.major_version, guest.arch)
    old = target_ide_prefix(guest, family) == "hd"
    return tuple(m for m in (_IDE_OLD if old else _IDE.get(machine, ())) if m in kernel.modules)


def missing_drivers(
    contents: Iterable[str], kernel: KernelInfo, required: Iterable[str]
) -> list[str]:
    """Return the required drivers that are neither in an initramfs nor built into the kernel.

    `contents` are the module names in the initramfs.
    """
    present = set(contents) | set(kernel.builtin)
    return [driver for driver in required if driver not in present]


def added_modules(kernel: KernelInfo, required: Iterable[str]) -> list[str]:
    """Return the modules a rebuilt initramfs is asked to hold: those of them the kernel has."""
    return [m for m in dict.fromkeys((*ADDED, *required)) if m in kernel.modules]


def ensure_initramfs(
    c: Context, files: GuestFiles, family: Family, kernel: KernelInfo, bus: BlockBus
) -> str:
    """Make sure that the kernel finds its root on the bus; return the finding in one sentence.

    With `c.change` false it says what would be done.  Raises GuestError when there is no
    initramfs, no tool for it, or when a rebuild did not bring a driver.
    """
    required = required_drivers(c.guest, family, kernel, bus)
    lacking = missing_drivers([], kernel, required)
    if not lacking:
        return f"kernel {kernel.version} needs no driver in its initramfs to find its disk"
    if kernel.initrd is None:
        raise GuestError(
            f"Kernel {kernel.version} has no initramfs and {', '.join(lacking)} not built in; "
            "it would not find its disk.",
            remedy="Make an initramfs in the guest on its source and export it again.",
            code="E-NO-INITRAMFS",
        )
    held = initramfs_modules(c, kernel.initrd)
    missing = missing_drivers(held, kernel, required)
    if not missing:
        drivers = ", ".join(required)
        c.report.log(
            Level.INFO,
            f"{kernel.initrd} already holds {drivers} of kernel {kernel.version}; "
            "it is not rebuilt.",
        )
        return f"{kernel.initrd} holds {drivers} of kernel {kernel.version}"
    lacks = ", ".join(missing)
    c.report.log(Level.INFO, f"{kernel.initrd} lacks {lacks}; it has to be rebuilt.")
    if not c.change:
        return f"{kernel.initrd} lacks {lacks} and will be rebuilt with it"
    # What the old initramfs mounted the root with has to be in the new one as well.
    kept = [m for m in _root_drivers(c) if m in held and m in kernel.modules]
    _rebuild(c, files, family, kernel, required, kept)
    return f"{kernel.initrd} was rebuilt with {lacks}"


def warn_of_others(
    c: Context, family: Family, kernels: Iterable[KernelInfo], bus: BlockBus
) -> None:
    """Name the other kernels of the menu that will not find their root; they stay as they are."""
    blind = []
    for kernel in kernels:
        required = required_drivers(c.guest, family, kernel, bus)
        missing = missing_drivers([], kernel, required)
        if missing and kernel.initrd:
            try:
                held = initramfs_modules(c, kernel.initrd)
            except GuestError as error:
                c.report.log(Level.DEBUG, error.message)
                held = ()
            missing = missing_drivers(held, kernel, required)
        if missing:
            blind.append(f"{kernel.version} (lacks {', '.join(missing)})")
    if blind:
        c.report.log(
            Level.WARNING,
            f"Other kernels of the boot menu will not find their disk: {', '.join(blind)}. "
            "Rebuild the initramfs of those that are still wanted when the guest runs on KVM.",
        )


def _root_drivers(c: Context) -> set[str]:
    """Return the drivers of the root filesystem and of every layer below it."""
    root = c.guest.root
    if root.startswith(SUBVOLUME):
        root = "/".join(root.removeprefix(SUBVOLUME).split("/")[:3])
    layers = layers_below(c.g, root)
    return {dict(c.guest.filesystems).get(c.guest.root, "")}.union(
        *(LAYER_DRIVERS.get(layer, ()) for layer in layers)
    )


def initramfs_modules(c: Context, initrd: str) -> tuple[str, ...]:
    """Return the names of the modules in an initramfs.  Raises GuestError when it is damaged."""
    copy = c.work / "initramfs"
    try:
        if (size := c.g.filesize(initrd)) > _MAX_BYTES:
            raise InitramfsError(f"it has {human(size)}, far more than an initramfs")
        c.g.download(initrd, str(copy))
        with copy.open("rb") as stream:
            names = list_initramfs(stream)
    except InitramfsError as error:
        raise GuestError(
            f"{initrd} could not be read: {error}.",
            remedy="Rebuild it in the guest on its source, see that it starts, and export again.",
            code="E-INITRAMFS-DAMAGED",
        ) from error
    finally:
        copy.unlink(missing_ok=True)
    return parse_modules("\n".join(names))


def _rebuild(
    c: Context, files: GuestFiles, family: Family, kernel: KernelInfo,
    required: Sequence[str], kept: Sequence[str],
) -> None:  # fmt: skip
    """Rebuild with the guest's own tool and look again; the old file comes back on failure.

    Raises GuestError.
    """
    initrd = kernel.initrd or ""
    tool = find_tool(files, family)
    if tool is None:
        raise GuestError(
            f"{initrd} has to be rebuilt, but the guest has no program for that that is known "
            "(dracut, update-initramfs, mkinitrd, make-initrd, mkinitcpio).",
            remedy="Install one in the guest on its source and export it again.",
            code="E-NO-INITRAMFS-TOOL",
        )
    backup = _backup(c, initrd)
    command = tool.command(c, files, kernel, added_modules(kernel, required))
    with naming(initrd, "moved aside"):
        c.g.mv(initrd, backup)
    begun = time.monotonic()
    with ExitStack() as failing:
        failing.callback(c.g.mv, backup, initrd)
        try:
            run_in_guest(c.g, command, c.report, minutes=INITRAMFS_MINUTES)
            still = missing_drivers(initramfs_modules(c, initrd), kernel, [*required, *kept])
        except RuntimeError as error:
            raise GuestError(
                f"{tool.name} failed in the guest: {_cleaned(str(error))}.",
                remedy="Often /boot is full or a hook script of the guest fails; the log shows "
                "which.",
                code="E-INITRAMFS",
            ) from error
        if still:
            raise GuestError(
                f"{initrd} was rebuilt by {tool.name}, but lacks {', '.join(still)}.",
                remedy=f"Look at what {tool.name} said in the log; the modules may be missing "
                f"from {kernel.modpath} or excluded by its settings.",
                code="E-INITRAMFS-DRIVER",
            )
        failing.pop_all()
    c.g.rm_f(backup)
    c.report.log(
        Level.INFO,
        f"{initrd} rebuilt by {tool.name} in {time.monotonic() - begun:.1f} s; "
        f"it holds {', '.join(required)} now.",
    )
    files.record(f"initramfs rebuilt by {tool.name}", initrd)


def _backup(c: Context, initrd: str) -> str:
    """Return where the old file waits: beside the new one if both fit, else in /var/tmp.

    Raises GuestError when there is room for it nowhere.
    """
    size = c.g.filesize(initrd)
    needs = size + _SPARE_BYTES
    free = 0
    for folder in (initrd.rsplit("/", 1)[0], "/var/tmp"):  # noqa: S108  a folder of the guest
        if not c.g.is_dir(folder, followsymlinks=True):
            continue
        stats = c.g.statvfs(folder)
        free = dict(stats)["bfree"] * dict(stats)["bsize"]
        if free >= needs:
            return f"{folder}/{initrd.rsplit('/', 1)[1]}{BACKUP_SUFFIX}"
    raise GuestError(
        f"There is no room in the guest to rebuild {initrd} ({human(size)}): "
        f"{human(free)} free, {human(needs)} needed.",
        remedy="Delete an old kernel in the guest on its source and export it again.",
        code="E-GUEST-SPACE",
    )


def _cleaned(text: str) -> str:
    """Return the last lines of a program's words, on one line."""
    lines = [line for line in re.sub(r"^sh: ", "", text).strip().split("\n") if line.strip()]
    return " / ".join(lines[-5:])
