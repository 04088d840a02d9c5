r"""The EFI system partition: boot configuration and the loader that firmware finds by itself.

The variables of the old firmware are not moved, so the first start uses the fallback path.
"""

from __future__ import annotations

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.context import Context
from conversions.pipeline.report import Level
from conversions.pipeline.windows.files import WindowsFiles
from conversions.pipeline.windows.registry import Changes, HiveError, Registry

_BOOT_MANAGER = "Objects\\{9dea862c-5cdd-4e70-acc1-f32b344d4795}\\Elements\\23000003"
_NO_GRAPHICS = "16000046"
_FALLBACKS = {"x86_64": "bootx64.efi", "i386": "bootia32.efi"}
_BCD = "BCD"


def repair_esps(c: Context, files: WindowsFiles, changes: Changes) -> None:
    """Mount each EFI system partition within the guest in turn and repair what is in it."""
    if not c.guest.is_uefi:
        return
    g = c.g
    parent = files.resolve(f"{c.guest.windows_systemroot}/Temp")
    if not g.is_dir(parent):
        parent = c.guest.windows_systemroot
    folder = str(g.mkdtemp(f"{parent}/ESP_XXXXXX")) if c.change else ""
    try:
        for device in c.guest.uefi_esps:
            _repair(c, device, folder, changes)
    finally:
        if folder:
            g.rmdir(folder)


def _repair(c: Context, device: str, folder: str, changes: Changes) -> None:
    if not folder:
        c.report.log(Level.INFO, f"{device} is an EFI system partition; its loader is checked.")
        return
    try:
        c.g.mount(device, folder)
    except RuntimeError as error:
        c.report.log(Level.WARNING, f"{device} could not be mounted: {error} (ignored).")
        return
    try:
        restore_graphics(c, f"{folder}/EFI/Microsoft/Boot/BCD", changes)
        restore_fallback(c, folder, device, changes)
    finally:
        c.g.umount(folder)


def restore_graphics(c: Context, path: str, changes: Changes) -> None:
    """Delete "no graphics" of the default boot entry, which leaves the screen black.

    Some tools of Parallels set it.  A damaged BCD is left alone: Windows repairs it by itself.
    """
    if not c.g.is_file(path):
        return
    try:
        with Registry(c.g, {_BCD: path}, changes, change=c.change).editing(_BCD) as bcd:
            default = bcd.key(_BOOT_MANAGER)
            entry = default.text("Element") if default else None
            key = bcd.key(f"Objects\\{entry}\\Elements\\{_NO_GRAPHICS}") if entry else None
            if key:
                key.delete()
    except HiveError as error:
        c.report.log(Level.WARNING, f"{error.message} (ignored).")


def restore_fallback(c: Context, folder: str, device: str, changes: Changes) -> None:
    """Put the boot manager of Windows where firmware without variables looks for a loader.

    What else is in efi/boot goes away: loaders there start each other by name.
    """
    g: GuestFS = c.g
    name = _FALLBACKS.get(c.guest.arch)
    manager = f"{folder}/efi/microsoft/boot/bootmgfw.efi"
    if name is None or not g.is_file(manager):
        return
    place = f"{folder}/efi/boot"
    target = f"{place}/{name}"
    if g.is_file(target) and g.equal(manager, target):
        return
    g.rm_rf(place)
    g.mkdir_p(place)
    g.cp(manager, target)
    changes.record("fallback loader is the boot manager of Windows", f"{device}: /efi/boot/{name}")
    c.report.log(Level.INFO, f"UEFI fallback loader of {device} repaired: efi/boot/{name}.")
