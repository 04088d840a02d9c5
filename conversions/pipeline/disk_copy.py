"""Step 13: create each target disk and copy it, with progress in bytes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from conversions.pipeline.commands import Siblings, run
from conversions.pipeline.copy_progress import CopyProgress, looking_at
from conversions.pipeline.copy_slots import copy_slot
from conversions.pipeline.copy_verify import digest, verify_copy
from conversions.pipeline.errors import TargetError
from conversions.pipeline.host_files import allocated, fsync_path
from conversions.pipeline.job import CopyOptions, Target
from conversions.pipeline.outputs.base import Targets
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.sizes import human
from conversions.pipeline.stop import check_stop
from conversions.pipeline.types import Place, TargetDisk


def convert_command(disk: TargetDisk, target: Target, rate_bytes: int | None = None) -> list[str]:
    """Return the qemu-img command that fills one target disk.

    qemu-img creates the image itself, in a file that is empty: `-n` over a created one would undo
    preallocation.  A device exists, and may hold old data: `-n` then writes the zeros too.  Formats
    are stated on both sides.  Source: qemu-img(1); measured with qemu 7.2.
    """
    command = ["qemu-img", "convert", "-p", "-t", "writeback"]
    # Writing out of order is faster; qemu-img refuses it together with compression.
    command += ["-c"] if target.compressed else ["-W"]
    command += ["-r", str(rate_bytes)] if rate_bytes else []
    command += ["-f", "qcow2"]
    match disk.place:
        case Place.NULL:
            sink = f"driver=null-co,size={disk.overlay.virtual_size_bytes}"
            return [*command, "-n", "--target-image-opts", disk.overlay.path, sink]
        case Place.DEVICE:
            return [*command, "-n", "-O", target.format, disk.overlay.path, disk.part_path]
    compat = target.option("vdsm-compat", "1.1")
    options = [f"compat={compat}"] if target.format == "qcow2" else []
    if target.allocation == "preallocated":
        options.append("preallocation=falloc")
    command += ["-O", target.format]
    command += ["-o", ",".join(options)] if options else []
    return [*command, disk.overlay.path, disk.part_path]


def disk_map(overlay: str, report: Reporter) -> list[dict[str, Any]]:
    """Return the stretches of an overlay and its source in order: start, length, data, zero."""
    text = run(
        ["qemu-img", "map", "--output=json", "-f", "qcow2", overlay], report, level=Level.DEBUG
    )
    found: list[dict[str, Any]] = json.loads(text)
    return found


def data_bytes(overlay: str, report: Reporter, *, max_depth: int | None = None) -> int:
    """Return how many bytes of an overlay and its source hold data; the base of the progress.

    With `max_depth` 0 only those of the overlay itself.
    """
    return sum(
        int(e["length"])
        for e in disk_map(overlay, report)
        if e["data"] and not e["zero"] and (max_depth is None or e["depth"] <= max_depth)
    )


class Fill(Protocol):
    """Fills one disk that is open; for targets that qemu-img cannot write to.

    It keeps to the rate of the options and, where they ask for a full check, reads all of it back.
    What it starts it tells `siblings`.  Raises TargetError, Stopped.
    """

    def __call__(
        self, disk: TargetDisk, progress: CopyProgress, options: CopyOptions, siblings: Siblings
    ) -> None:
        """Write every byte and report how far it is."""
        ...


def copy_disks(
    targets: Targets,
    disks: Sequence[TargetDisk],
    target: Target,
    options: CopyOptions,
    report: Reporter,
    *,
    fill: Fill | None = None,
) -> None:
    """Copy every disk, started in source order, so many at once as the options and the host allow.

    After the first failure the other copies are ended and waited for.  Raises CommandError,
    TargetError, Stopped.
    """
    copier = DiskCopier(targets, target, options, len(disks), report, fill=fill)
    copier.plan(disks)
    with ThreadPoolExecutor(options.parallel, thread_name_prefix="copy") as pool:
        futures = [pool.submit(copier.copy, n, disk) for n, disk in enumerate(disks, 1)]
        done, _running = wait(futures, return_when=FIRST_EXCEPTION)
        if failed := [f for f in futures if f in done and f.exception()]:
            copier.siblings.end()
            for future in futures:
                future.cancel()
            wait(futures)
            failed[0].result()
    report.report("copy", [future.result() for future in futures])


class DiskCopier:
    """Copies `count` disks from several threads, which share the rate of the options.

    The commit that ends an early copy keeps to no rate: it writes little, and the source is not
    read for it.
    """

    def __init__(
        self,
        targets: Targets,
        target: Target,
        options: CopyOptions,
        count: int,
        report: Reporter,
        *,
        fill: Fill | None = None,
    ) -> None:
        self.siblings = Siblings()
        self._write = fill or self._convert
        self._targets = targets
        self._target = target
        at_once = min(options.parallel, count)
        rate = options.rate_bytes and max(1, options.rate_bytes // at_once)
        self._options = replace(options, rate_bytes=rate)
        self._count = count
        self._report = report
        self._totals: dict[str, int] = {}

    def plan(self, disks: Sequence[TargetDisk]) -> None:
        """Find out and report how much there is to copy of each disk, for a figure over all."""
        for overlay in (disk.overlay for disk in disks if disk.overlay.early is None):
            self._totals[overlay.sd] = data_bytes(overlay.path, self._report)
        if self._totals:
            self._report.report("copy_plan", dict(self._totals))

    def copy(self, number: int, disk: TargetDisk) -> dict[str, Any]:
        """Copy, check and hand over one disk; return its record."""
        early = disk.overlay.early
        if early:
            early.wait(self._report)  # before a slot is taken: it may need one itself
        with copy_slot(self._report):
            check_stop()
            self._report.log(
                Level.INFO,
                f"Copying disk {number}/{self._count} to {disk.final_path} ({disk.format})",
            )
            if early:
                opened, record = early.finish(disk, self._report)
                record["allocated_bytes"] = self._settle(opened)
            else:
                opened = self._targets.open(disk)
                record = self._fill(opened)
            record["verified"] = verify_copy(
                opened, self._options.verify, self._report, self.siblings
            )
            if self._options.digests and opened.place is Place.FILE:
                record["sha256"] = digest(Path(opened.part_path))
            self._targets.close(opened)
        return record

    def copy_base(self, number: int, disk: TargetDisk) -> tuple[TargetDisk, dict[str, Any]]:
        """Copy a disk whose changes follow later; return what was opened for it, and its record."""
        with copy_slot(self._report):
            check_stop()
            self._report.log(
                Level.INFO, f"Copying disk {number}/{self._count} to {disk.final_path} already"
            )
            opened = self._targets.open(disk)
            return opened, self._fill(opened)

    def _fill(self, disk: TargetDisk) -> dict[str, Any]:
        overlay = disk.overlay
        total = self._totals.get(overlay.sd) or data_bytes(overlay.path, self._report)
        progress = CopyProgress(overlay.sd, total, self._report)
        self._write(disk, progress, self._options, self.siblings)
        size = self._settle(disk)
        return progress.result(disk, total, size)

    def _convert(
        self, disk: TargetDisk, progress: CopyProgress, options: CopyOptions, siblings: Siblings
    ) -> None:
        with looking_at(progress) as looked_at:

            def started(process: subprocess.Popen[bytes]) -> None:
                siblings.started(process)
                looked_at(process)

            run(
                convert_command(disk, self._target, options.rate_bytes),
                self._report,
                on_output=progress.feed,
                on_start=started,
            )

    def _settle(self, disk: TargetDisk) -> int:
        """Wait until the copy is on stable storage; return the bytes it occupies.

        Raises TargetError when the storage refuses, and for a file that should be preallocated and
        is not.
        """
        if disk.place in (Place.NULL, Place.REMOTE):
            return 0
        part = Path(disk.part_path)
        try:
            fsync_path(part)
            if disk.place is Place.DEVICE:
                return disk.overlay.virtual_size_bytes
            size = allocated(part)
        except OSError as error:
            raise TargetError(
                f"{part} is copied, but not safe on its storage: {error.strerror}.",
                remedy="See that the target is still there and sound, then copy again.",
            ) from error
        if self._target.allocation == "preallocated" and size < disk.overlay.virtual_size_bytes:
            raise TargetError(
                f"{disk.final_path} was to be preallocated with "
                f"{human(disk.overlay.virtual_size_bytes)}, but occupies {human(size)}.",
                remedy="Choose sparse allocation, or another file system for the target.",
            )
        return size
