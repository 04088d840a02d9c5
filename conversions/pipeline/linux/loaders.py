"""Finding the guest's bootloader among those that are known."""

from __future__ import annotations

from conversions.pipeline.errors import GuestError
from conversions.pipeline.linux.bls import detect_systemd_boot
from conversions.pipeline.linux.bootloader import BootEntry, Bootloader
from conversions.pipeline.linux.extlinux import detect_extlinux
from conversions.pipeline.linux.files import GuestFiles
from conversions.pipeline.linux.grub2 import detect_grub2
from conversions.pipeline.linux.grub_legacy import detect_grub_legacy
from conversions.pipeline.linux.versions import version_key
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import Inspection

# A leftover menu of GRUB legacy beside one of GRUB 2 is common, the other way round is not.
_DETECTORS = (detect_grub2, detect_grub_legacy, detect_systemd_boot, detect_extlinux)
_KERNEL_PREFIXES = ("vmlinuz-", "kernel-", "vmlinux-", "Image-", "image-", "bzImage-")
_LEFTOVERS = (".dpkg-old", ".dpkg-new", ".rpmsave", ".rpmnew", ".old", ".bak")


def find_bootloader(files: GuestFiles, guest: Inspection) -> Bootloader | None:
    """Return the guest's loader, None when none is known."""
    mountpoints = [mountpoint for mountpoint, _device in guest.mountpoints]
    found = (detect(files, mountpoints, uefi=guest.is_uefi) for detect in _DETECTORS)
    return next((one for one in found if one), None)


def detect_bootloader(files: GuestFiles, guest: Inspection, report: Reporter) -> Bootloader:
    """Return the guest's loader; one without a menu when none is known.

    Raises GuestError for guests whose kernels are unified images.
    """
    loader = find_bootloader(files, guest)
    kernels = kernel_files(files)
    if loader is None or not loader.entries:
        images = files.paths("/boot/efi/EFI/Linux", ".efi") if not kernels else []
        if images:
            raise GuestError(
                f"The guest starts unified kernel images ({images[0]}), which hold their initramfs "
                "signed inside; they cannot be given another one.",
                remedy="Install an ordinary kernel in the guest on its source and export it again.",
                code="E-UKI",
            )
        where = f"{loader.describe()} has no entry" if loader else "No bootloader was found"
        report.log(
            Level.WARNING,
            f"{where} that starts a Linux kernel; the kernels in /boot are taken, newest first.",
        )
        kept = loader or Bootloader(kind="unknown", config="", uefi=guest.is_uefi, entries=())
        loader = Bootloader(
            kind=kept.kind,
            config=kept.config,
            uefi=kept.uefi,
            entries=kernels,
            arguments=kept.arguments,
            device_maps=kept.device_maps,
        )
    report.log(Level.INFO, f"Bootloader: {loader.describe()}")
    report.report("bootloader", {"type": loader.kind, "config": loader.config, "uefi": loader.uefi})
    return loader


def kernel_files(files: GuestFiles) -> tuple[BootEntry, ...]:
    """Return the kernels that lie in /boot, newest first."""
    names = [
        name
        for name in files.names("/boot")
        if name.startswith(_KERNEL_PREFIXES)
        and not name.endswith(_LEFTOVERS)
        and "rescue" not in name
    ]
    names.sort(key=version_key, reverse=True)
    return tuple(BootEntry(title=n, id=n, vmlinuz=f"/boot/{n}", initrd=None) for n in names)
