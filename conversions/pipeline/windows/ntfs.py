"""What is repaired in the filesystem itself, with nothing mounted."""

from __future__ import annotations

import shlex
import struct

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.appliance_shell import kernel_name, run_in_appliance
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.windows.registry import Changes

_HEADS_AT = 0x1A
# Sizes in bytes up to which a BIOS reports that many heads.
_HEADS = ((2114445312, 0x40), (4228374780, 0x80))


def heads_for(disk_bytes: int) -> int:
    """Return the number of heads a BIOS reports for a disk of this size."""
    return next((heads for limit, heads in _HEADS if disk_bytes < limit), 0xFF)


def fix_heads(g: GuestFS, root: str, changes: Changes) -> None:
    """Write the geometry into the boot sector: Windows before Vista starts by it."""
    if g.is_whole_device(root) or bytes(g.pread_device(root, 8, 3)) != b"NTFS    ":
        return
    heads = heads_for(g.blockdev_getsize64(g.part_to_dev(root)))
    g.pwrite_device(root, struct.pack("<H", heads), _HEADS_AT)
    changes.record(f"boot sector: heads = {heads:#x}", root)


def protect_folder(g: GuestFS, root: str, folder: str, report: Reporter, changes: Changes) -> None:
    """Let only administrators write a folder: what is in it runs as LocalSystem.

    Files written from here are open to everybody.
    """
    device = shlex.quote(kernel_name(g, root))
    command = f"ntfssecaudit -r {device} 755 {shlex.quote(folder)} 2>&1"
    try:
        status, text = run_in_appliance(g, command)
    except RuntimeError as error:
        status, text = 1, str(error)
    if status == 0:
        changes.record("written by administrators only", folder)
        return
    report.log(
        Level.WARNING,
        f"{folder} of the guest could not be protected: {text.strip()[-300:]}. Every user of the "
        "guest may change the scripts of its first start (ignored).",
    )
