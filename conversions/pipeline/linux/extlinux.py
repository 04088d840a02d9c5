"""EXTLINUX and SYSLINUX: a menu of labels."""

from __future__ import annotations

import re
from functools import partial

from conversions.pipeline.linux.bootloader import BootEntry, Bootloader, default_first, in_boot
from conversions.pipeline.linux.files import GuestFiles

_CONFIGS = (
    "/boot/extlinux/extlinux.conf", "/boot/syslinux/extlinux.conf", "/boot/extlinux.conf",
    "/boot/syslinux/syslinux.cfg", "/extlinux.conf",
)  # fmt: skip
_APPEND = re.compile(r"(?mi)^\s*append\s.*$")
_DEFAULT = re.compile(r"(?mi)^(\s*(?:default|ontimeout)\s+)(\S+)")


def detect_extlinux(files: GuestFiles, mountpoints: list[str], *, uefi: bool) -> Bootloader | None:
    """Return EXTLINUX when its configuration is there, None else."""
    config = next((path for path in _CONFIGS if files.read(path)), None)
    if config is None:
        return None
    text = files.read(config) or ""
    folder = config.rsplit("/", 1)[0]
    entries = parse_labels(text, folder, "/boot" if "/boot" in mountpoints else "")
    default = _DEFAULT.search(text)
    index = next((i for i, e in enumerate(entries) if default and e.id == default[2]), None)
    return Bootloader(
        kind="EXTLINUX",
        config=config,
        uefi=uefi,
        entries=default_first(entries, index),
        arguments=((config, _APPEND),),
        set_default=partial(_set_default, config),
    )


def parse_labels(text: str, folder: str, prefix: str) -> list[BootEntry]:
    """Return the labels with a Linux kernel; a relative path is relative to the folder."""

    def path(word: str) -> str:
        return in_boot(word, prefix) if word.startswith("/") else f"{folder}/{word}"

    entries = []
    blocks = re.split(r"(?mi)^[ \t]*label[ \t]+(\S+)[ \t]*$", text)
    for label, body in zip(blocks[1::2], blocks[2::2], strict=True):
        kernel = re.search(r"(?mi)^[ \t]*(?:kernel|linux)[ \t]+(\S+)", body)
        if kernel is None or kernel[1].endswith(".c32"):
            continue
        initrd = re.search(r"(?mi)^[ \t]*initrd[ \t]+(\S+)|\binitrd=(\S+)", body)
        images = (initrd[1] or initrd[2]).split(",") if initrd else []
        title = re.search(r"(?mi)^[ \t]*menu[ \t]+label[ \t]+(.*)$", body)
        entries.append(
            BootEntry(
                title=title[1].strip() if title else label,
                id=label,
                vmlinuz=path(kernel[1]),
                initrd=path(images[-1]) if images else None,
            )
        )
    return entries


def _set_default(config: str, files: GuestFiles, entry: BootEntry) -> None:
    def change(text: str) -> str:
        if _DEFAULT.search(text):
            return _DEFAULT.sub(lambda m: m[1] + entry.id, text)
        return f"DEFAULT {entry.id}\n{text}"

    files.edit(config, change, f"default kernel is now {entry.vmlinuz}")
