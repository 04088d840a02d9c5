"""Copying the disks while the guest is still being converted.

The overlays that were inspected and trimmed change no more once the conversion goes into a second
layer above them.  They are copied meanwhile; at the end only that layer is committed into the
copies.  The time of both is then the longer of the two, not their sum.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from conversions.pipeline.appliance_shell import SUBVOLUME
from conversions.pipeline.commands import run
from conversions.pipeline.disk_copy import DiskCopier
from conversions.pipeline.host_files import allocated
from conversions.pipeline.job import Job, Mode
from conversions.pipeline.outputs.base import Output, Targets
from conversions.pipeline.overlay import create_layer
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.sizes import human
from conversions.pipeline.types import Inspection, Overlay, Place, TargetDisk

# Below it, starting the appliance a second time costs more than is gained.
WORTH_BYTES = 2 << 30
# Devices whose names may differ after another start of the appliance.
_UNSTABLE = (SUBVOLUME, "/dev/md")


def can_copy_early(
    job: Job, guest: Inspection, estimates: Mapping[str, int], disks: Sequence[TargetDisk]
) -> bool:
    """Tell whether the result is the same as copying at the end, and comes sooner.

    A commit neither compresses nor preallocates, and needs a file to go into.  Copies that wait on
    this host for their upload would all lie there together.
    """
    target = job.target
    if job.mode is not Mode.COPY or target is None or job.copy.overlap == "never":
        return False
    exact = (
        not target.compressed
        and target.allocation == "sparse"
        and all(disk.place is Place.FILE and not disk.staged for disk in disks)
        and not any(device.startswith(_UNSTABLE) for _point, device in guest.mountpoints)
    )
    worth = job.copy.overlap == "always" or sum(estimates.values()) >= WORTH_BYTES
    return exact and worth


class EarlyCopy:
    """The copy of one disk as it was before its conversion, perhaps not complete yet.

    `base` is the overlay that is copied; it stays as it is.
    """

    def __init__(self, base: Overlay, copied: Future[tuple[TargetDisk, dict[str, Any]]]) -> None:
        self.base = base
        self._copied = copied

    def wait(self, report: Reporter) -> None:
        """Wait until it is complete.  Raises whatever the copy failed with."""
        if not self._copied.done():
            report.log(Level.INFO, f"Disk {self.base.sd} is still being copied; waiting for that.")
        self._copied.result()

    def finish(self, disk: TargetDisk, report: Reporter) -> tuple[TargetDisk, dict[str, Any]]:
        """Commit what the conversion changed; return what was written and the copy's record.

        Raises CommandError, Stopped.
        """
        layer = disk.overlay
        opened, record = self._copied.result()
        begun = time.monotonic()
        rebase = ["qemu-img", "rebase", "-u", "-f", "qcow2"]
        # The copy is the same as the layer's backing; now it is where the changes go.
        run([*rebase, "-b", opened.part_path, "-F", opened.format, layer.path], report)
        # -d: the layer stays whole, for the checks of the copy.
        run(["qemu-img", "commit", "-d", "-f", "qcow2", "-t", "writeback", layer.path], report)
        run([*rebase, "-b", self.base.path, "-F", "qcow2", layer.path], report)
        changed, seconds = allocated(Path(layer.path)), time.monotonic() - begun
        report.log(
            Level.INFO, f"Disk {layer.sd}: {human(changed)} of changes added in {seconds:.1f} s."
        )
        record |= {
            "data_bytes": record["data_bytes"] + changed,
            "seconds": round(record["seconds"] + seconds, 1),
            "early": True,
        }
        return replace(opened, overlay=layer), record


@contextmanager
def copying_early(
    output: Output,
    targets: Targets,
    disks: Sequence[TargetDisk],
    job: Job,
    work: Path,
    report: Reporter,
) -> Iterator[tuple[Overlay, ...]]:
    """Copy the disks from threads; give the layers that the conversion goes into.

    Leaving it ends copies that are under way.  Raises CommandError.
    """
    copier = DiskCopier(targets, output.target, job.copy, len(disks), report)
    layers = [create_layer(disk.overlay, work, report) for disk in disks]
    report.log(
        Level.INFO, "The disks are copied while the guest is converted; its changes follow them."
    )
    with ThreadPoolExecutor(job.copy.parallel, thread_name_prefix="copy") as pool:
        pool.submit(copier.plan, disks)
        copies = [
            EarlyCopy(disk.overlay, pool.submit(copier.copy_base, number, disk))
            for number, disk in enumerate(disks, 1)
        ]
        try:
            yield tuple(
                replace(layer, early=copy) for layer, copy in zip(layers, copies, strict=True)
            )
        finally:
            copier.siblings.end()
            pool.shutdown(wait=False, cancel_futures=True)
