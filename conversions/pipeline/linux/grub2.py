"""GRUB 2: its configuration, the kernels in its menu, and the changes a new bus needs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.errors import GuestError
from conversions.pipeline.linux.files import GuestFiles
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import Inspection

CONFIGS = ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg")
_ENTRY = re.compile(
    r"""^\s*menuentry\s+(?:'(?P<q>[^']*)'|"(?P<d>[^"]*)")(?P<rest>[^\n]*)""", re.MULTILINE
)
_ID = re.compile(r"(?:\$menuentry_id_option|--id)\s+['\"]?([^'\"\s{]+)")
_LINUX = re.compile(r"^\s*linux(?:16|efi)?\s+(\S+)", re.MULTILINE)
_INITRD = re.compile(r"^\s*initrd(?:16|efi)?\s+(\S+)", re.MULTILINE)
_DEFAULT = re.compile(r"(?m)^\s*GRUB_DEFAULT=(['\"]?)([^'\"\n#]*)\1")


@dataclass(frozen=True, slots=True, kw_only=True)
class MenuEntry:
    """One entry: its title and id, and its kernel and initrd as paths of the guest."""

    title: str
    id: str
    vmlinuz: str
    initrd: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grub2:
    """A GRUB 2 found in a guest; `entries` in menu order, the default first."""

    config: str
    entries: tuple[MenuEntry, ...]
    uefi: bool

    def describe(self) -> str:
        """Return one line for messages."""
        return f"GRUB 2 ({'UEFI' if self.uefi else 'BIOS'}), {self.config}"


def detect_grub2(g: GuestFS, files: GuestFiles, guest: Inspection, report: Reporter) -> Grub2:
    """Find GRUB 2 and read its menu.  Raises GuestError without one."""
    config = next((path for path in CONFIGS if files.is_file(path)), None)
    if config is None:
        raise GuestError(
            f"No GRUB 2 configuration was found; looked for {' and '.join(CONFIGS)}.",
            remedy="Guests with another bootloader cannot be converted yet.",
            code="E-NO-BOOTLOADER",
        )
    # Paths in the menu are relative to the filesystem that holds /boot.
    prefix = "/boot" if "/boot" in dict(guest.mountpoints) else ""
    entries = parse_menu(files.read(config) or "", prefix)
    default = default_entry(entries, files.read("/etc/default/grub") or "")
    if default is not None:
        entries.insert(0, entries.pop(default))
    grub = Grub2(config=config, entries=tuple(entries), uefi=guest.is_uefi)
    report.log(Level.INFO, f"Bootloader: {grub.describe()}")
    report.report("bootloader", {"type": "grub2", "config": config, "uefi": grub.uefi})
    return grub


def parse_menu(text: str, prefix: str) -> list[MenuEntry]:
    """Return the entries of a grub.cfg that start a Linux kernel, in menu order."""
    heads = list(_ENTRY.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    entries = []
    for head, end in zip(heads, ends, strict=True):
        body = text[head.end() : end]
        linux, initrd = _LINUX.search(body), _INITRD.search(body)
        if linux is None or not linux[1].startswith("/"):
            continue
        identity = _ID.search(head["rest"])
        entries.append(
            MenuEntry(
                title=head["q"] if head["q"] is not None else head["d"],
                id=identity[1] if identity else "",
                vmlinuz=prefix + linux[1],
                initrd=prefix + initrd[1] if initrd else None,
            )
        )
    return entries


def default_entry(entries: list[MenuEntry], default_grub: str) -> int | None:
    """Return the index GRUB_DEFAULT means, None when that cannot be told (saved, other).

    A submenu's path such as 1>2 or a>b is taken by its last part when that is a title or an id.
    """
    match = _DEFAULT.search(default_grub)
    value = match[2].strip() if match else "0"
    if value == "0":
        return 0 if entries else None
    last = value.rsplit(">", 1)[-1]
    for index, entry in enumerate(entries):
        if last in (entry.title, entry.id):
            return index
    return None


def make_default(
    g: GuestFS, files: GuestFiles, grub: Grub2, vmlinuz: str, report: Reporter
) -> None:
    """Make another kernel the default and regenerate the menu.  Raises GuestError."""
    entry = next(e for e in grub.entries if e.vmlinuz == vmlinuz)
    value = entry.id or entry.title
    if "advanced" in value:
        value = f"{value.replace('-' + vmlinuz.rsplit('vmlinuz-', 1)[-1], '', 1)}>{value}"
    line = f'GRUB_DEFAULT="{value}"'

    def change(text: str) -> str:
        if _DEFAULT.search(text):
            return _DEFAULT.sub(lambda _m: line, text, count=1)
        return text.rstrip("\n") + "\n" + line + "\n"

    files.edit("/etc/default/grub", change, f"default kernel is now {vmlinuz}")
    report.log(Level.WARNING, f"The default kernel is changed to {vmlinuz}.")
    if files.change:
        regenerate(g, grub, report)


def regenerate(g: GuestFS, grub: Grub2, report: Reporter) -> None:
    """Run the guest's grub-mkconfig, without looking for other systems.  Raises GuestError."""
    for program in ("grub-mkconfig", "grub2-mkconfig"):
        try:
            g.sh(f"command -v {program}")
        except RuntimeError:
            continue
        try:
            g.sh(f"GRUB_DISABLE_OS_PROBER=true {program} -o {grub.config} 2>&1")
        except RuntimeError as error:
            raise GuestError(f"{program} failed in the guest: {error}.") from error
        report.log(Level.INFO, f"{grub.config} regenerated with {program}.")
        return
    raise GuestError("The guest has GRUB 2 but neither grub-mkconfig nor grub2-mkconfig.")
