"""Step 3: a qcow2 overlay over every source disk; all changes go into it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from conversions.pipeline.commands import run
from conversions.pipeline.errors import GuestError
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import Overlay
from inventory.sources.base import disk_uri
from inventory.sources.types import Source, disk_letters


def create_overlays(
    source: Source, work: Path, report: Reporter, *, direct: bool = False
) -> tuple[Overlay, ...]:
    """Create one overlay per disk, in source order; `direct` takes the disks themselves instead.

    compat 1.1 makes discarded blocks cheap zero clusters; the backing format is stated, never
    probed.  Raises GuestError for a VM without disks or with an empty one, CommandError.
    """
    if not source.disks:
        raise GuestError(
            f"The machine {source.name} has no disks; there is nothing to convert.",
            remedy="See that its description names them, and that they are there.",
            code="E-NODISKS",
        )
    overlays = []
    for disk in source.disks:
        sd = "sd" + disk_letters(disk.id)
        uri = disk_uri(disk)
        path = Path(disk.path) if direct else work / f"v2vovl-{sd}.qcow2"
        format_ = disk.format if direct else "qcow2"
        if not direct:
            create = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", uri]
            run([*create, "-o", f"compat=1.1,backing_fmt={disk.format}", str(path)], report)
        command = ["qemu-img", "info", "--output=json", "-f", format_, str(path)]
        info = json.loads(run(command, report, level=Level.DEBUG))
        size = int(info["virtual-size"])
        backing = info.get("backing-filename") or info.get("full-backing-filename")
        if not direct and not backing:
            raise GuestError(f"qemu-img did not keep the backing file of {sd}.")
        if size == 0:
            raise GuestError(f"Disk {sd} of {source.name} has a size of 0 bytes.")
        overlays.append(
            Overlay(
                sd=sd,
                path=str(path),
                virtual_size_bytes=size,
                source_uri=uri,
                source_format=disk.format,
                source_controller=disk.controller,
                source_label=f"{disk.path} ({disk.member})" if disk.member else disk.path,
                format=format_,
            )
        )
    report_overlays(overlays, report)
    return tuple(overlays)


def report_overlays(overlays: Sequence[Overlay], report: Reporter) -> None:
    """Report the overlays of this run."""
    report.report(
        "overlays",
        [
            {
                "sd": o.sd,
                "path": o.path,
                "virtual_size_bytes": o.virtual_size_bytes,
                "source": o.source_label,
                "format": o.source_format,
            }
            for o in overlays
        ],
    )


def create_layer(overlay: Overlay, work: Path, report: Reporter) -> Overlay:
    """Create a second layer over an overlay, which must not change from then on.

    Raises CommandError.
    """
    path = work / f"v2vlayer-{overlay.sd}.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", overlay.path, "-F", "qcow2"]
    run([*create, "-o", "compat=1.1", str(path)], report)
    return replace(overlay, path=str(path))
