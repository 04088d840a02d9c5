"""Boot Loader Specification entries: one small file for each kernel, read at boot time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from conversions.pipeline.linux.bootloader import BootEntry, Bootloader, default_first, in_boot
from conversions.pipeline.linux.files import GuestFiles
from conversions.pipeline.linux.versions import version_key

OPTIONS = re.compile(r"(?m)^options\s.*$")
KERNEL_CMDLINE = ("/etc/kernel/cmdline", re.compile(r"(?m)^.*$"))
_FOLDERS = ("/boot/loader/entries", "/boot/efi/loader/entries", "/efi/loader/entries")


def entry_files(files: GuestFiles, folder: str) -> list[str]:
    """Return the entries of a folder as GRUB sorts them: newest version first, rescue last."""
    names = [name for name in files.names(folder) if name.endswith(".conf")]
    names.sort(key=lambda name: ("rescue" not in name, version_key(name)), reverse=True)
    return [f"{folder}/{name}" for name in names]


def parse_entry(path: str, text: str, prefix: str) -> BootEntry | None:
    """Return the entry of a file, None when it starts no Linux kernel."""
    values: dict[str, str] = {}
    for line in text.split("\n"):
        key, *value = line.split(None, 1)[:2] or [""]
        values.setdefault(key, value[0].strip() if value else "")
    if not values.get("linux"):
        return None
    initrds = [word for word in values.get("initrd", "").split() if word[:1] in "/("]
    images = [word for word in initrds if "ucode" not in word]
    identity = path.rsplit("/", 1)[-1].removesuffix(".conf")
    return BootEntry(
        title=values.get("title", identity),
        id=identity,
        vmlinuz=in_boot(values["linux"], prefix),
        initrd=in_boot(images[-1], prefix) if images else None,
    )


def read_entries(files: GuestFiles, folder: str, prefix: str) -> list[BootEntry]:
    """Return the entries of a folder that start a Linux kernel."""
    found = (parse_entry(p, files.read(p) or "", prefix) for p in entry_files(files, folder))
    return [entry for entry in found if entry]


def detect_systemd_boot(
    files: GuestFiles, mountpoints: Sequence[str], *, uefi: bool
) -> Bootloader | None:
    """Return systemd-boot, or another loader that reads these entries by itself; None without."""
    folder = next((f for f in _FOLDERS if entry_files(files, f)), None)
    if folder is None:
        return None
    top = folder.removesuffix("/loader/entries")
    entries = read_entries(files, folder, top if top in mountpoints else "")
    config = f"{top}/loader/loader.conf"
    match = re.search(r"(?m)^default\s+(\S+)", files.read(config) or "")
    wanted = (match[1] if match else "").removesuffix(".conf").rstrip("*")
    default = next((i for i, e in enumerate(entries) if wanted and e.id.startswith(wanted)), None)
    return Bootloader(
        kind="systemd-boot",
        config=folder,
        uefi=uefi,
        entries=default_first(entries, default),
        arguments=(*((path, OPTIONS) for path in entry_files(files, folder)), KERNEL_CMDLINE),
        set_default=partial(_set_default, config),
    )


def _set_default(config: str, files: GuestFiles, entry: BootEntry) -> None:
    line, old = f"default {entry.id}.conf", re.compile(r"(?m)^default\s.*$")

    def change(text: str) -> str:
        return old.sub(lambda _m: line, text) if old.search(text) else f"{line}\n{text}"

    files.edit(config, change, f"default kernel is now {entry.vmlinuz}", create=True)
