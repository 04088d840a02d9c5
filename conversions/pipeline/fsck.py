"""Checking the guest's filesystems without changing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.appliance_shell import SUBVOLUME, kernel_name, run_in_appliance
from conversions.pipeline.errors import GuestError
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import Inspection

# What to run; {} is the device.  Each only reads, and ends with 0 when all is well.
_CHECKS = {
    **dict.fromkeys(("ext2", "ext3", "ext4"), "e2fsck -f -n {} 2>&1"),
    "xfs": "xfs_repair -n -P {} 2>&1",
}
_TAIL_LINES = 5
_REMEDIES = {
    "before": "Repair it in the machine on its source (fsck), and convert it again.",
    "after": "It was whole before the conversion. Convert again; if this comes back, the log tells "
    "what was changed in it.",
}


def check_filesystems(
    g: GuestFS, filesystems: Sequence[tuple[str, str]], *, when: str, strict: bool, report: Reporter
) -> None:
    """Check every ext and xfs filesystem; nothing may be mounted.

    A mount first replays a journal that was left behind.  `when` is "before" or "after".  Raises
    GuestError for a damaged one when `strict`; else that is a warning.
    """
    results: list[dict[str, Any]] = []
    for device, kind in filesystems:
        if kind not in _CHECKS or device.startswith(SUBVOLUME):
            continue
        try:
            g.mount_options("ro", device, "/")
            g.umount_all()
        except RuntimeError as error:
            report.log(Level.DEBUG, f"{device} was not mounted before its check: {error}")
        name = kernel_name(g, device)
        status, text = run_in_appliance(g, _CHECKS[kind].format(name))
        text = text.replace(name, device)
        damaged = status != 0
        results.append({"filesystem": device, "type": kind, "when": when, "clean": not damaged})
        if not damaged:
            report.log(Level.INFO, f"{device} ({kind}) is clean.")
            continue
        report.log(Level.DEBUG, text)
        lines = [line for line in text.split("\n") if line.strip()][-_TAIL_LINES:]
        message = f"The filesystem {device} ({kind}) is damaged: {' / '.join(lines)}."
        if strict:
            report.report("fsck", results)
            raise GuestError(
                message,
                remedy=_REMEDIES[when],
                code="E-FSCK",
            )
        report.log(Level.WARNING, message)
    report.report("fsck", results)


def has_old_counters(guest: Inspection) -> bool:
    """Tell whether today's programs misjudge the counters that the guest's XFS keeps."""
    return guest.distro in ("rhel", "centos") and guest.major_version == 7
