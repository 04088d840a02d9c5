"""Proof that a copied disk is what the overlay was: its structure, every byte, its digest."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from conversions.pipeline.commands import Siblings, run
from conversions.pipeline.errors import CommandError, TargetError
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.stop import check_stop
from conversions.pipeline.types import Place, TargetDisk

_CHUNK = 1 << 20


def verify_copy(disk: TargetDisk, level: str, report: Reporter, siblings: Siblings) -> str:
    """Check one finished copy and return what was done: "none", "quick" or "full".

    Must run while the overlay exists.  Raises TargetError when the copy is not what it should be.
    """
    if level == "none" or disk.place is Place.NULL:
        return "none"
    try:
        if disk.place is Place.REMOTE:
            pass  # what sent it has checked it: nothing here could be looked at
        elif level == "full":
            run(compare_command(disk), report, on_start=siblings.started)
        elif disk.format == "qcow2":
            run(
                ["qemu-img", "check", "-f", "qcow2", disk.part_path],
                report,
                on_start=siblings.started,
            )
        else:
            _check_size(disk)
    except CommandError as error:
        raise TargetError(
            f"The copy of {disk.overlay.sd} is not what was converted: {error.message}",
            remedy="Look at the storage of the target for faults, then copy again.",
            code="E-VERIFY",
        ) from error
    report.log(Level.INFO, f"Disk {disk.overlay.sd}: {level} check of the copy passed.")
    return level


def compare_command(disk: TargetDisk) -> list[str]:
    """Return the command that compares every byte the guest can see.

    What existed before may be larger than the disk: only as much of it is compared.
    """
    command = ["qemu-img", "compare", "-f", "qcow2"]
    if disk.place is not Place.DEVICE:
        return [*command, "-F", disk.format, disk.overlay.path, disk.part_path]
    driver = "host_device" if Path(disk.part_path).is_block_device() else "file"
    node: dict[str, object] = {"driver": driver, "filename": disk.part_path}
    if disk.format != "raw":
        node = {"driver": disk.format, "file": node}
    part = {"driver": "raw", "size": disk.overlay.virtual_size_bytes, "file": node}
    return [*command, "-F", "raw", disk.overlay.path, "json:" + json.dumps(part)]


def _check_size(disk: TargetDisk) -> None:
    with Path(disk.part_path).open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
    wanted = disk.overlay.virtual_size_bytes
    if size < wanted or (disk.place is Place.FILE and size != wanted):
        raise TargetError(
            f"The copy of {disk.overlay.sd} has {size} bytes; the disk has {wanted}.",
            code="E-VERIFY",
        )


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes.  Raises Stopped."""
    state = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            check_stop()
            state.update(chunk)
    return state.hexdigest()
