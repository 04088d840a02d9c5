"""The programs that build an initramfs, and how each is told what to put in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from conversions.pipeline.context import Context
from conversions.pipeline.linux.families import Family
from conversions.pipeline.linux.files import GuestFiles
from conversions.pipeline.types import KernelInfo

MARKER = "# Added by v2vweb: drivers of a KVM guest"
INITRAMFS_TOOLS_MODULES = "/etc/initramfs-tools/modules"
_MKINITCPIO_FOLDER = "/etc/mkinitcpio.conf.d"

Command = Callable[[Context, GuestFiles, KernelInfo, Sequence[str]], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A program that builds an initramfs; `command` returns the shell line for a kernel."""

    name: str
    command: Command


def find_tool(files: GuestFiles, family: Family) -> Tool | None:
    """Return the guest's tool, the one it uses itself where it has several; None without one."""
    table: list[tuple[str, tuple[str, ...], Callable[[str], Command]]] = [
        ("update-initramfs", ("/usr/sbin/update-initramfs",), _update_initramfs),
        ("dracut", ("/sbin/dracut", "/usr/bin/dracut", "/usr/sbin/dracut"), _dracut),
        ("mkinitcpio", ("/usr/bin/mkinitcpio",), _mkinitcpio),
        ("make-initrd", ("/usr/sbin/make-initrd",), _make_initrd),
        (
            "mkinitrd",
            ("/sbin/mkinitrd",),
            _mkinitrd_suse if family is Family.SUSE else _mkinitrd_redhat,
        ),
    ]
    if family is not Family.DEBIAN:  # there it may be an empty shell beside dracut
        table.append(table.pop(0))
    for name, paths, command in table:
        if path := files.first_file(*paths):
            return Tool(name=name, command=command(path))
    return None


def _update_initramfs(path: str) -> Command:
    def command(_c: Context, files: GuestFiles, kernel: KernelInfo, modules: Sequence[str]) -> str:
        files.edit(
            INITRAMFS_TOOLS_MODULES,
            lambda text: with_modules(text, modules),
            "virtio modules added",
            create=True,
        )
        files.edit("/etc/crypttab", with_initramfs_option, "opened in the initramfs")
        return f"{path} -c -k {shlex.quote(kernel.version)}"

    return command


def _dracut(path: str) -> Command:
    def command(_c: Context, _files: GuestFiles, kernel: KernelInfo, modules: Sequence[str]) -> str:
        drivers = shlex.quote(" ".join(modules))
        words = (kernel.initrd or "", kernel.version)
        return f"{path} --add-drivers {drivers} {shlex.join(words)}"

    return command


def _mkinitcpio(path: str) -> Command:
    def command(c: Context, files: GuestFiles, kernel: KernelInfo, modules: Sequence[str]) -> str:
        line = f"MODULES+=({' '.join(modules)})"
        if c.g.is_dir(_MKINITCPIO_FOLDER):
            files.write(f"{_MKINITCPIO_FOLDER}/v2vweb.conf", f"{MARKER}\n{line}\n",
                        "virtio modules added")  # fmt: skip
        else:
            files.edit(
                "/etc/mkinitcpio.conf",
                lambda t: t if line in t else f"{t.rstrip()}\n{MARKER}\n{line}\n",
                "virtio modules added",
            )
        return f"{path} -k {shlex.quote(kernel.version)} -g {shlex.quote(kernel.initrd or '')}"

    return command


def _make_initrd(path: str) -> Command:
    # It adds the virtio drivers by itself.
    return lambda _c, _files, kernel, _modules: f"{path} -k {shlex.quote(kernel.version)}"


def _mkinitrd_suse(path: str) -> Command:
    def command(c: Context, _files: GuestFiles, kernel: KernelInfo, modules: Sequence[str]) -> str:
        words = ["-m", " ".join(modules), "-i", kernel.initrd or "", "-k", kernel.vmlinuz]
        root = shlex.quote(c.guest.root)
        return f"rootdev={root} {path} {shlex.join(words)} -d {root}"

    return command


def _mkinitrd_redhat(path: str) -> Command:
    def command(c: Context, _files: GuestFiles, kernel: KernelInfo, modules: Sequence[str]) -> str:
        words = [f"--with={module}" for module in modules]
        words += [kernel.initrd or "", kernel.version]
        # RHEL 4 looks for its root only among the volumes it sees, which here are other ones.
        lvm = "root_lvm=1 " if c.guest.major_version == 4 else ""
        # It builds the image in a filesystem on a loop device; the appliance may not have both.
        load = "{ modprobe ext2; modprobe loop; } >/dev/null 2>&1; "
        return f"{load}{lvm}{path} {shlex.join(words)}"

    return command


def with_modules(text: str, modules: Sequence[str]) -> str:
    """Return /etc/initramfs-tools/modules with the modules in it, each once."""
    listed = {line.split()[0] for line in text.split("\n") if line.strip() and line[0] != "#"}
    new = [module for module in modules if module not in listed]
    if not new:
        return text
    head = text if not text or text.endswith("\n") else text + "\n"
    marker = "" if MARKER in text else MARKER + "\n"
    return head + marker + "\n".join(new) + "\n"


def with_initramfs_option(text: str) -> str:
    """Return a crypttab whose entries all have the option initramfs.

    update-initramfs leaves out what is not open where it runs, and it runs in the appliance.
    """

    def line(raw: str) -> str:
        fields = raw.split()
        if len(fields) < 2 or fields[0].startswith("#"):
            return raw
        options = fields[3].split(",") if len(fields) > 3 else []
        if "initramfs" in options:
            return raw
        if len(fields) > 3:
            return re.sub(r"(\S+)(\s*)$", r"\1,initramfs\2", raw)
        key = "" if len(fields) > 2 else " none"
        return f"{raw.rstrip()}{key} luks,initramfs"

    return "\n".join(line(raw) for raw in text.split("\n"))
