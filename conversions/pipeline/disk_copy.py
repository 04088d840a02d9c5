"""Step 13: create each target disk and copy it, with progress in bytes."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conversions.pipeline.commands import run
from conversions.pipeline.errors import TargetError
from conversions.pipeline.host_files import allocated, fsync_path
from conversions.pipeline.job import Target
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.sizes import human
from conversions.pipeline.types import TargetDisk

_PERCENT = re.compile(rb"\((\d+\.\d+)/100%\)")
# qemu-img's percentage runs ahead of what is on disk: 100 only after exit 0 and fsync.
_CAP = 0.999
_MIN_SECONDS = 0.25


class ProgressParser:
    """Turns qemu-img's `-p` output, in chunks of any size, into bytes that never fall."""

    def __init__(self, total_bytes: int) -> None:
        self.total = max(1, total_bytes)
        self.done = 0
        self._rest = b""

    def feed(self, chunk: bytes) -> int:
        """Take output and return the bytes done so far."""
        self._rest += chunk
        for match in _PERCENT.finditer(self._rest):
            share = min(float(match[1]) / 100, _CAP)
            self.done = max(self.done, int(share * self.total))
        self._rest = self._rest[-32:]
        return self.done


def convert_command(disk: TargetDisk, target: Target) -> list[str]:
    """Return the qemu-img command that creates and fills one target disk.

    qemu-img creates the file itself: `-n` over a created one would undo preallocation.  Formats
    are stated on both sides.  Source: qemu-img(1); measured with qemu 7.2.
    """
    options = ["compat=1.1"] if target.format == "qcow2" else []
    if target.allocation == "preallocated":
        options.append("preallocation=falloc")
    command = ["qemu-img", "convert", "-p", "-t", "writeback"]
    # Writing out of order is faster; qemu-img refuses it together with compression.
    command += ["-c"] if target.compressed else ["-W"]
    command += ["-f", "qcow2", "-O", target.format]
    command += ["-o", ",".join(options)] if options else []
    return [*command, disk.overlay.path, disk.part_path]


def data_bytes(overlay: str, report: Reporter, *, max_depth: int | None = None) -> int:
    """Return how many bytes of an overlay and its source hold data; the base of the progress.

    With `max_depth` 0 only those of the overlay itself.
    """
    text = run(
        ["qemu-img", "map", "--output=json", "-f", "qcow2", overlay], report, level=Level.DEBUG
    )
    return sum(
        int(e["length"])
        for e in json.loads(text)
        if e["data"] and not e["zero"] and (max_depth is None or e["depth"] <= max_depth)
    )


class CopyProgress:
    """Reports how much of one disk is done, from what qemu-img prints, and how fast it went."""

    def __init__(self, sd: str, total_bytes: int, report: Reporter) -> None:
        self._parser = ProgressParser(total_bytes)
        self._sd = sd
        self._report = report
        self._begun = self._last = time.monotonic()
        report.progress(sd, 0, self._parser.total)

    def feed(self, chunk: bytes) -> None:
        """Take output of qemu-img; report four times a second at most."""
        done = self._parser.feed(chunk)
        if time.monotonic() - self._last >= _MIN_SECONDS:
            self._last = time.monotonic()
            self._report.progress(self._sd, done, self._parser.total)

    def result(self, disk: TargetDisk, total_bytes: int) -> dict[str, Any]:
        """Say that all is written, and return the report's record of the disk."""
        seconds = time.monotonic() - self._begun
        self._report.progress(self._sd, self._parser.total, self._parser.total)
        size = allocated(Path(disk.part_path))
        rate = total_bytes / seconds if seconds else 0.0
        self._report.log(
            Level.INFO,
            f"Disk {self._sd}: {human(total_bytes)} of data written in {seconds:.1f} s "
            f"({human(rate)}/s), {human(size)} allocated.",
        )
        return {
            "disk": self._sd,
            "path": disk.final_path,
            "format": disk.format,
            "virtual_bytes": disk.overlay.virtual_size_bytes,
            "data_bytes": total_bytes,
            "allocated_bytes": size,
            "seconds": round(seconds, 1),
            "rate": round(rate),
        }


def copy_disks(disks: Sequence[TargetDisk], target: Target, report: Reporter) -> None:
    """Copy every disk in source order.  Raises CommandError, TargetError, Stopped."""
    results: list[dict[str, Any]] = []
    for number, disk in enumerate(disks, 1):
        report.log(
            Level.INFO,
            f"Copying disk {number}/{len(disks)} to {disk.final_path} ({disk.format})",
        )
        results.append(_copy_disk(disk, target, report))
    report.report("copy", results)


def _copy_disk(disk: TargetDisk, target: Target, report: Reporter) -> dict[str, Any]:
    total = data_bytes(disk.overlay.path, report)
    progress = CopyProgress(disk.overlay.sd, total, report)
    run(convert_command(disk, target), report, on_output=progress.feed)
    part = Path(disk.part_path)
    fsync_path(part)
    result = progress.result(disk, total)
    size = result["allocated_bytes"]
    if target.allocation == "preallocated" and size < disk.overlay.virtual_size_bytes:
        raise TargetError(
            f"{disk.final_path} was to be preallocated with "
            f"{human(disk.overlay.virtual_size_bytes)}, but occupies {human(size)}.",
            remedy="Choose sparse allocation, or another file system for the target.",
        )
    return result
