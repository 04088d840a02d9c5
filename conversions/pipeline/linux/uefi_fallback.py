"""The loader that UEFI starts when it knows none: boot entries do not travel with the disks."""

from __future__ import annotations

from conversions.pipeline.context import Context
from conversions.pipeline.linux.files import GuestFiles
from conversions.pipeline.report import Level

_ESP_FOLDER = "EFI"
_SUFFIXES = {"x86_64": "x64", "i386": "ia32", "aarch64": "aa64", "riscv64": "riscv64",
             "loongarch64": "loongarch64"}  # fmt: skip


def ensure_fallback_loader(c: Context, files: GuestFiles) -> None:
    """Make sure that EFI/BOOT/BOOT<ARCH>.EFI is there; it is left there for the next move."""
    suffix = _SUFFIXES.get(c.guest.arch)
    mountpoints = [mountpoint for mountpoint, _device in c.guest.mountpoints]
    esp = next((m for m in ("/boot/efi", "/efi", "/boot") if m in mountpoints), None)
    if suffix is None or esp is None:
        c.report.log(
            Level.WARNING,
            "The EFI system partition of the guest is not mounted or its architecture "
            f"({c.guest.arch}) is not known; whether it starts is not certain.",
        )
        return
    top = f"{esp}/{_ESP_FOLDER}"
    names = {name.lower(): name for name in files.names(top)}
    boot = f"{top}/{names.get('boot', 'BOOT')}"
    fallback = f"BOOT{suffix.upper()}.EFI"
    if fallback.lower() in (name.lower() for name in files.names(boot)):
        return
    for folder in files.folders(top):
        if folder == boot:
            continue
        held = {name.lower(): f"{folder}/{name}" for name in files.names(folder)}
        shim, grub = held.get(f"shim{suffix}.efi"), held.get(f"grub{suffix}.efi")
        grub = grub or held.get("grub.efi")
        loader = shim or grub or held.get(f"systemd-boot{suffix}.efi")
        if loader is None:
            continue
        files.make_folder(boot)
        what = "loader for firmware without boot entries"
        files.copy(loader, f"{boot}/{fallback}", what)
        if shim and grub:
            files.copy(grub, f"{boot}/grub{suffix}.efi", what)
        for name in (f"mm{suffix}.efi", "grub.cfg", "grub.conf"):
            if path := held.get(name):
                target = f"BOOT{suffix.upper()}.conf" if name == "grub.conf" else name
                files.copy(path, f"{boot}/{target}", what)
        c.report.log(
            Level.INFO,
            f"{boot}/{fallback} was missing, which firmware starts that knows no boot entry of "
            f"this guest; it is made from {loader}.",
        )
        return
    c.report.log(
        Level.WARNING,
        f"There is no {boot}/{fallback} and nothing it could be made from; the guest will "
        "probably not start before a boot entry is made in its firmware.",
    )
