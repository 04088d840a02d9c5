"""The serial console of a guest that came from Xen, whose console has another name there."""

from __future__ import annotations

import re

from conversions.pipeline.linux.bootloader import Bootloader
from conversions.pipeline.linux.files import GuestFiles

_XEN = re.compile(r"\b(?:xvc0|hvc0)\b")
_ANY = re.compile(r"\b(?:xvc0|hvc0|ttyS0)\b")
_WANTS = "/etc/systemd/system/getty.target.wants"


def adapt_console(files: GuestFiles, loader: Bootloader, *, keep: bool = True) -> None:
    """Move a login on Xen's console to ttyS0; the kernel command line gets nothing new.

    Without `keep` the target has no serial console: logins there would fail over and over.
    """
    what = "serial console " + ("moved to ttyS0" if keep else "removed")
    files.edit("/etc/inittab", inittab if keep else without_logins, what)
    files.edit("/etc/securetty", securetty if keep else without_terminals, what)
    loader.edit_arguments(files, arguments if keep else without_console, what)
    for name in ("hvc0", "xvc0"):
        files.remove(f"{_WANTS}/serial-getty@{name}.service", "login on Xen's console removed")


def inittab(text: str) -> str:
    """Return an inittab whose processes are on ttyS0 instead of Xen's console."""

    def line(raw: str) -> str:
        fields = raw.split(":", 3)
        if raw.lstrip().startswith("#") or len(fields) < 4:
            return raw
        return ":".join([*fields[:3], _XEN.sub("ttyS0", fields[3])])

    return "\n".join(line(raw) for raw in text.split("\n"))


def securetty(text: str) -> str:
    """Return a securetty that names ttyS0 instead of Xen's console, once."""
    lines: list[str] = []
    for raw in text.split("\n"):
        line = "ttyS0" if raw.strip() in ("xvc0", "hvc0") else raw
        if line != "ttyS0" or line not in lines:
            lines.append(line)
    return "\n".join(lines)


def arguments(text: str) -> str:
    """Return kernel arguments with the console on ttyS0 instead of Xen's."""
    return re.sub(r"\bconsole=(?:xvc0|hvc0)\b", "console=ttyS0", text)


def without_logins(text: str) -> str:
    """Return an inittab without the processes on a serial console."""

    def is_login(raw: str) -> bool:
        fields = raw.split(":", 3)
        is_entry = len(fields) == 4 and not raw.lstrip().startswith("#")
        return is_entry and bool(_ANY.search(fields[3]))

    return "\n".join(raw for raw in text.split("\n") if not is_login(raw))


def without_terminals(text: str) -> str:
    """Return a securetty that does not name Xen's console."""
    return "\n".join(raw for raw in text.split("\n") if raw.strip() not in ("xvc0", "hvc0"))


def without_console(text: str) -> str:
    """Return kernel arguments that do not name Xen's console."""
    return re.sub(r"\bconsole=(?:xvc0|hvc0)\b ?", "", text)
