"""Checking the guest's filesystems without changing them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.appliance_shell import SUBVOLUME, kernel_name, run_in_appliance
from conversions.pipeline.errors import GuestError
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import Inspection


@dataclass(frozen=True, slots=True)
class _Check:
    """A program that only reads, and how its exit status and words say that something is damaged.

    {} is the device; with `mounted` it lies on /sysroot.  Another status but 0 means that nothing
    was found out.
    """

    command: str
    is_damage: Callable[[int, str], bool]
    mounted: bool = False


def _is_rotten(_status: int, text: str) -> bool:
    """Read the words of a scrub: its status tells what it could not repair, and it only looks."""
    summary = re.search(r"Error summary:\s*(.*)", text)
    return bool(summary and summary[1] != "no errors found")


_E2FSCK = _Check("e2fsck -f -n {} 2>&1", lambda status, _text: bool(status & 4))
_SCRUB_SECONDS = 60
_CHECKS = {
    **dict.fromkeys(("ext2", "ext3", "ext4"), _E2FSCK),
    "xfs": _Check("xfs_repair -n -P {} 2>&1", lambda status, _text: status == 1),
    # It reads all data, which is hours of a large one: what it finds in its time has to do.
    "btrfs": _Check(
        f"timeout -s INT {_SCRUB_SECONDS} btrfs scrub start -B -r /sysroot 2>&1",
        _is_rotten,
        mounted=True,
    ),
}
_TAIL_LINES = 5
_REMEDIES = {
    "before": "Repair it in the machine on its source (fsck), and convert it again.",
    "after": "It was whole before the conversion. Convert again; if this comes back, the log tells "
    "what was changed in it.",
}
_NOT_RUN = 127  # as of a shell
_OUT_OF_TIME = 124  # of timeout


def check_filesystems(
    g: GuestFS, filesystems: Sequence[tuple[str, str]], *, when: str, strict: bool, report: Reporter
) -> None:
    """Check every ext, xfs and btrfs filesystem; nothing may be mounted.

    A mount first replays a journal that was left behind.  `when` is "before" or "after".  Raises
    GuestError for a damaged one when `strict`; else that is a warning, as is one that could not be
    checked.
    """
    results: list[dict[str, Any]] = []
    for device, kind in filesystems:
        check = _CHECKS.get(kind)
        if check is None or device.startswith(SUBVOLUME):
            continue
        status, text = _run(g, check, device, report)
        damaged = check.is_damage(status, text)
        clean = None if status and not damaged else not damaged
        results.append({"filesystem": device, "type": kind, "when": when, "clean": clean})
        if clean:
            report.log(Level.INFO, f"{device} ({kind}) is clean.")
            continue
        report.log(Level.DEBUG, text)
        if status == _OUT_OF_TIME and not damaged:
            report.log(Level.INFO, f"{device} ({kind}) is large: a part was checked, and is clean.")
            continue
        words = " / ".join([line for line in text.split("\n") if line.strip()][-_TAIL_LINES:])
        if not damaged:
            report.log(Level.WARNING, f"{device} ({kind}) could not be checked: {words} (ignored).")
            continue
        message = f"The filesystem {device} ({kind}) is damaged: {words}."
        if strict:
            report.report("fsck", results)
            raise GuestError(
                message,
                remedy=_REMEDIES[when],
                code="E-FSCK",
            )
        report.log(Level.WARNING, message)
    report.report("fsck", results)


def _run(g: GuestFS, check: _Check, device: str, report: Reporter) -> tuple[int, str]:
    """Return the exit status of the check, and what it wrote."""
    name = kernel_name(g, device)
    try:
        try:
            g.mount_options("ro", device, "/")
        except RuntimeError as error:
            if check.mounted:
                return _NOT_RUN, f"it cannot be mounted: {error}"
            report.log(Level.DEBUG, f"{device} was not mounted before its check: {error}")
        if not check.mounted:
            g.umount_all()
        status, text = run_in_appliance(g, check.command.format(name))
    finally:
        g.umount_all()
    return status, text.replace(name, device)


def has_old_counters(guest: Inspection) -> bool:
    """Tell whether today's programs misjudge the counters that the guest's XFS keeps."""
    return guest.distro in ("rhel", "centos") and guest.major_version == 7
