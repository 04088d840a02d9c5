"""GRUB 2: its configuration, the kernels in its menu, and how another becomes the default."""

from __future__ import annotations

import re
from functools import partial
from operator import contains

from conversions.pipeline.linux.bls import KERNEL_CMDLINE, OPTIONS, entry_files
from conversions.pipeline.linux.bls import read_entries as read_bls
from conversions.pipeline.linux.bootloader import (
    BootEntry,
    Bootloader,
    default_first,
    env_values,
    in_boot,
    resolved,
    set_env,
)
from conversions.pipeline.linux.files import GuestFiles

_CONFIGS = ("/boot/grub2/grub.cfg", "/boot/grub/grub.cfg")
_DEFAULTS = "/etc/default/grub"
_BLS = "/boot/loader/entries"
_HEAD = re.compile(r"""^\s*(menuentry|submenu)\s+(?:'([^']*)'|"([^"]*)"|(\S+))(.*)$""")
_ID = re.compile(r"(?:\$\{?menuentry_id_option\}?|--id)[ =]+['\"]?([^'\"\s{]+)")
_LINUX = re.compile(r"^\s*linux(?:16|efi)?\s+(\S+)")
_INITRD = re.compile(r"^\s*initrd(?:16|efi)?\s+(.*)$")
_MODULE = re.compile(r"^\s*module2?\s+(?:--\S+\s+)*(\S+)")
# A path, perhaps after a device; $2 alone is the argument of a function of the menu.
_PATH = re.compile(r"(?:\([^)]*\)|\$\{?\w+\}?)?/.")
_GRUB_DEFAULT = re.compile(r"(?m)^\s*GRUB_DEFAULT=(['\"]?)([^'\"\n#]*)\1")
# The line of the menu that holds when no other entry was asked for, for once or saved.
_SET_DEFAULT = re.compile(r"(?m)^(\s*set default=)\"(?!\$)([^\"\n]*)\"")

_MENU_LINES = re.compile(r"(?m)^\s*(?:linux(?:16|efi)?|module2?|set kernelopts=)[ \t]*\S.*$")
_DEFAULT_LINES = re.compile(r"(?m)^\s*(?:export\s+)?GRUB_CMDLINE\w*\+?=.*$")
_ENV_LINES = re.compile(r"(?m)^kernelopts=.*$")


def detect_grub2(files: GuestFiles, mountpoints: list[str], *, uefi: bool) -> Bootloader | None:
    """Return GRUB 2 when a menu of it is there, None else.

    On an ESP only a whole menu counts: what stands there is most often a stub that leads to /boot.
    """
    esp = [f"{d}/grub.cfg" for d in files.folders("/boot/efi/EFI")] if uefi else []
    whole = [p for p in esp if re.search(r"\bmenuentry\b|\bblscfg\b", files.read(p) or "")]
    config = next((path for path in (*_CONFIGS, *whole) if files.read(path)), None)
    if config is None:
        return None
    folder = config.rsplit("/", 1)[0]
    env_path = files.first_file(f"{folder}/grubenv", "/boot/grub2/grubenv") or f"{folder}/grubenv"
    prefix = "/boot" if "/boot" in mountpoints else ""
    menu, defaults = files.read(config) or "", files.read(_DEFAULTS) or ""
    entries = parse_menu(menu, prefix)
    by_bls = not entries and bool(entry_files(files, _BLS))
    if by_bls:
        entries = read_bls(files, _BLS, prefix)
    entries = [resolved(entry, files) for entry in entries]
    env = env_values(files.read(env_path) or "")
    saved = by_bls or _default_setting(defaults) == "saved"
    wanted = env.get("saved_entry") if saved else _default_setting(defaults)
    default = find_entry(entries, wanted or "0")
    bls = [(path, OPTIONS) for path in entry_files(files, _BLS)]
    return Bootloader(
        kind="GRUB 2",
        config=config,
        uefi=uefi,
        entries=default_first(entries, default),
        default_known=default is not None,
        arguments=(
            (_DEFAULTS, _DEFAULT_LINES), ("/etc/sysconfig/grub", _DEFAULT_LINES),
            (config, _MENU_LINES), (env_path, _ENV_LINES), *bls,
            *([KERNEL_CMDLINE] if bls else []),
        ),
        device_maps=("/boot/grub2/device.map", "/boot/grub/device.map"),
        set_default=partial(_set_saved, env_path) if saved else partial(_set_default, config),
    )  # fmt: skip


def parse_menu(text: str, prefix: str) -> list[BootEntry]:
    """Return the entries of a grub.cfg that start a Linux kernel, in menu order.

    The id of an entry in a submenu is SUBMENU>ENTRY, as GRUB wants it for the default.
    """
    entries: list[BootEntry] = []
    parents: list[tuple[int, tuple[str, ...]]] = []
    counts = [0]
    depth = 0
    head: tuple[tuple[str, ...], ...] | None = None
    vmlinuz: str | None = None
    initrd: str | None = None
    head_depth = 0
    for line in text.split("\n"):
        if match := _HEAD.match(line):
            title = next((m for m in match.groups()[1:4] if m is not None), "")
            identity = _ID.search(match[5])
            names = (identity[1] if identity else title, title, str(counts[-1]))
            counts[-1] += 1
            if match[1] == "submenu":
                parents.append((depth, names))
                counts.append(0)
            else:
                head = (*(above for _depth, above in parents), names)
                vmlinuz = initrd = None
                head_depth = depth
        elif head and (found := _LINUX.match(line)):
            vmlinuz = found[1]
        elif head and (found := _MODULE.match(line)):
            # Under a Xen hypervisor: the kernel first, then the initramfs.
            vmlinuz, initrd = (vmlinuz, initrd or found[1]) if vmlinuz else (found[1], None)
        elif head and (found := _INITRD.match(line)):
            images = [w for w in found[1].split() if "ucode" not in w]
            initrd = images[-1] if images else None
        depth += _opened(line)
        if head and depth <= head_depth:
            if vmlinuz and _PATH.match(vmlinuz):
                entries.append(
                    BootEntry(
                        title=head[-1][1],
                        id=">".join(names[0] for names in head),
                        vmlinuz=in_boot(vmlinuz, prefix),
                        initrd=in_boot(initrd, prefix) if initrd else None,
                        names=head,
                    )
                )
            head = None
        while parents and depth <= parents[-1][0]:
            parents.pop()
            counts.pop()
    return entries


def _opened(line: str) -> int:
    """Return by how many blocks a line goes deeper; braces inside words do not count."""
    words = line.split()
    return words.count("{") - words.count("}")


def _default_setting(text: str) -> str:
    match = _GRUB_DEFAULT.search(text)
    return match[2].strip() if match else "0"


def find_entry(entries: list[BootEntry], value: str) -> int | None:
    """Return the index that a default means: a number, an id, a title, or a path of these.

    A number counts all of its level, what starts no Linux and submenus too.
    """
    steps = value.split(">")
    last = steps[-1]

    def is_path_of(number: int, entry: BootEntry) -> bool:
        levels = entry.names or ((str(number),),)
        return len(steps) == len(levels) and all(map(contains, levels, steps))

    found = [i for i, e in enumerate(entries) if value in (e.id, e.title)]
    found += [i for i, e in enumerate(entries) if is_path_of(i, e)]
    if not last.isdigit():
        found += [i for i, e in enumerate(entries) if last in (_own_id(e), e.title)]
    return found[0] if found else None


def _own_id(entry: BootEntry) -> str:
    return entry.id.rsplit(">", 1)[-1].removesuffix(".conf")


def _set_saved(env_path: str, files: GuestFiles, entry: BootEntry) -> None:
    files.edit(
        env_path,
        lambda text: set_env(text or _EMPTY_ENV, "saved_entry", entry.id),
        f"default kernel is now {entry.vmlinuz}",
        create=True,
    )


_EMPTY_ENV = "# GRUB Environment Block\n".ljust(1024, "#")


def _set_default(config: str, files: GuestFiles, entry: BootEntry) -> None:
    """Write the default into the settings and, the same, into the menu made from them.

    Making the menu anew would put the appliance's devices and firmware into it.
    """
    what = f"default kernel is now {entry.vmlinuz}"
    line = f'GRUB_DEFAULT="{entry.id}"'

    def settings(text: str) -> str:
        if _GRUB_DEFAULT.search(text):
            return _GRUB_DEFAULT.sub(lambda _m: line, text, count=1)
        return text.rstrip("\n") + "\n" + line + "\n"

    files.edit(_DEFAULTS, settings, what, create=True)
    files.edit(config, lambda t: _SET_DEFAULT.sub(lambda m: f'{m[1]}"{entry.id}"', t), what)
