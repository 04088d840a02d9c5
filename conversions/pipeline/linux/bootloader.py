"""The guest's bootloader: which one it is, what it offers, and where its kernel arguments stand."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from conversions.pipeline.linux.files import GuestFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class BootEntry:
    """One entry of a boot menu; kernel and initramfs are paths of the guest.

    `names` has, for each level of the menu down to the entry, what it can be called there.
    """

    title: str
    id: str
    vmlinuz: str
    initrd: str | None
    names: tuple[tuple[str, ...], ...] = ()


SetDefault = Callable[[GuestFiles, BootEntry], None]


def _cannot_set(files: GuestFiles, entry: BootEntry) -> None:
    """Stand for a loader without a menu of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootloader:
    """A loader found in the guest.

    `entries` has the default first, unless `default_known` is false.  `arguments` says where kernel
    arguments stand: (path, pattern of the lines).  `set_default` makes another entry the default.
    """

    kind: str
    config: str
    uefi: bool
    entries: tuple[BootEntry, ...]
    default_known: bool = True
    arguments: tuple[tuple[str, re.Pattern[str]], ...] = ()
    device_maps: tuple[str, ...] = ()
    set_default: SetDefault = field(default=_cannot_set)

    def describe(self) -> str:
        """Return one line for messages."""
        where = f", {self.config}" if self.config else ""
        return f"{self.kind} ({'UEFI' if self.uefi else 'BIOS'}){where}"

    def argument_lines(self, files: GuestFiles) -> list[str]:
        """Return every line that holds kernel arguments."""
        return [
            match[0]
            for path, pattern in self.arguments
            for match in pattern.finditer(files.read(path) or "")
        ]

    def edit_arguments(self, files: GuestFiles, change: Callable[[str], str], what: str) -> None:
        """Pass every line that holds kernel arguments through `change`, and nothing else."""

        def edited(text: str, pattern: re.Pattern[str]) -> str:
            return pattern.sub(lambda match: change(match[0]), text)

        patterns = dict(self.arguments)
        for path in files.distinct(patterns):
            plain = partial(edited, pattern=patterns[path])
            files.edit(path, partial(edit_env, change=plain) if is_env(path) else plain, what)


def is_env(path: str) -> bool:
    """Tell whether a file is an environment block of GRUB, whose size may not change."""
    return path.endswith("/grubenv")


def default_first(entries: Sequence[BootEntry], default: int | None) -> tuple[BootEntry, ...]:
    """Return the entries with the default in front; file order when it is not known."""
    ordered = list(entries)
    if default is not None and 0 <= default < len(ordered):
        ordered.insert(0, ordered.pop(default))
    return tuple(ordered)


def in_boot(path: str, prefix: str) -> str:
    """Return a path of a boot menu as a path of the guest.

    Menus may name a device first, as in (hd0,0)/vmlinuz or $root/vmlinuz; `prefix` is /boot where
    that is a filesystem of its own.
    """
    plain = re.sub(r"^(?:\([^)]*\)|\$\{?\w+\}?)", "", path)
    return f"{prefix}/{plain.lstrip('/')}"


def resolved(entry: BootEntry, files: GuestFiles) -> BootEntry:
    """Return the entry with the path that exists, where the prefix of the menu was misread.

    On btrfs and on hand-made menus paths may be those of the guest or of a subvolume.
    """

    def there(path: str) -> str:
        if files.is_file(path):
            return path
        name = path.rsplit("/", 1)[-1]
        others = (path.removeprefix("/boot"), f"/boot{path}", f"/boot/{name}")
        return next((p for p in others if p.startswith("/") and files.is_file(p)), path)

    initrd = there(entry.initrd) if entry.initrd else None
    return replace(entry, vmlinuz=there(entry.vmlinuz), initrd=initrd)


def edit_env(text: str, change: Callable[[str], str]) -> str:
    """Change GRUB's environment block and pad it to its size again, which GRUB insists on."""
    body = text.rstrip("#")
    new = change(body)
    size = len(text.encode("utf-8", "surrogateescape"))
    used = len(new.encode("utf-8", "surrogateescape"))
    while size < used:
        size += 1024
    return new + "#" * (size - used)


def env_values(text: str) -> dict[str, str]:
    """Return the variables of GRUB's environment block."""
    lines = (line for line in text.rstrip("#").split("\n") if "=" in line and line[:1] != "#")
    return dict(line.split("=", 1) for line in lines)


def set_env(text: str, name: str, value: str) -> str:
    """Return an environment block with one variable set."""

    def change(body: str) -> str:
        line, found = f"{name}={value}", re.compile(rf"(?m)^{re.escape(name)}=.*$")
        if found.search(body):
            return found.sub(lambda _m: line, body, count=1)
        return body.rstrip("\n") + f"\n{line}\n"

    return edit_env(text, change)
