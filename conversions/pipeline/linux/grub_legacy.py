"""GRUB legacy: grub.conf or menu.lst."""

from __future__ import annotations

import re
from functools import partial

from conversions.pipeline.linux.bootloader import BootEntry, Bootloader, default_first, in_boot
from conversions.pipeline.linux.files import GuestFiles

_CONFIGS = ("/boot/grub/grub.conf", "/boot/grub/menu.lst", "/etc/grub.conf")
_DEFAULT = re.compile(r"(?m)^(\s*default[ \t=]+)(\S+)")
_KERNEL = re.compile(r"(?m)^\s*(?:kernel|module)[ \t]+\S.*$")
_SYSCONFIG_BOOT = re.compile(r"(?m)^\s*boot=.*$")


def detect_grub_legacy(
    files: GuestFiles, mountpoints: list[str], *, uefi: bool
) -> Bootloader | None:
    """Return GRUB legacy when its configuration is there, None else."""
    esp = [f"{d}/grub.conf" for d in files.folders("/boot/efi/EFI")] if uefi else []
    config = next((path for path in (*esp, *_CONFIGS) if files.read(path)), None)
    if config is None:
        return None
    # Paths in the menu are relative to the filesystem that holds them.
    prefix = next((m for m in ("/boot/grub", "/boot") if m in mountpoints), "")
    text = files.read(config) or ""
    default = _DEFAULT.search(text)
    wanted = default[2] if default else "0"
    entries = parse_legacy_menu(text, prefix)
    index = next((i for i, e in enumerate(entries) if e.id == wanted), None)
    return Bootloader(
        kind="GRUB legacy",
        config=config,
        uefi=uefi,
        entries=default_first(entries, index),
        default_known=index is not None,
        arguments=((config, _KERNEL), ("/etc/sysconfig/grub", _SYSCONFIG_BOOT)),
        device_maps=("/boot/grub/device.map",),
        set_default=partial(_set_default, config),
    )


def parse_legacy_menu(text: str, prefix: str) -> list[BootEntry]:
    """Return the entries with a Linux kernel; an entry's id is its place among all, from 0.

    Under a Xen hypervisor the kernel is the first module and the initramfs the second.
    """
    entries = []
    blocks = re.split(r"(?m)^[ \t]*title[ \t=]+(.*)$", text)
    for number, (title, body) in enumerate(zip(blocks[1::2], blocks[2::2], strict=True)):
        words = re.findall(r"(?m)^[ \t]*(kernel|module|initrd)[ \t]+(?:--\S+[ \t]+)*(\S+)", body)
        kernels = [w for key, w in words if key == "kernel"]
        modules = [w for key, w in words if key == "module"]
        initrds = [w for key, w in words if key == "initrd"]
        if not kernels:
            continue
        xen = "xen" in kernels[0].rsplit("/", 1)[-1] and modules
        kernel = modules[0] if xen else kernels[0]
        initrd = (modules[1:2] if xen else initrds[:1]) or [""]
        entries.append(
            BootEntry(
                title=title.strip(),
                id=str(number),
                vmlinuz=in_boot(kernel, prefix),
                initrd=in_boot(initrd[0], prefix) if initrd[0] else None,
            )
        )
    return entries


def _set_default(config: str, files: GuestFiles, entry: BootEntry) -> None:
    def change(text: str) -> str:
        if _DEFAULT.search(text):
            return _DEFAULT.sub(lambda m: m[1] + entry.id, text, count=1)
        return f"default={entry.id}\n{text}"

    files.edit(config, change, f"default kernel is now {entry.vmlinuz}")
