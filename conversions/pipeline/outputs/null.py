"""Output `null`: everything runs, the copy too, and nothing is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from conversions.pipeline.disk_copy import copy_disks
from conversions.pipeline.job import CopyOptions, Target
from conversions.pipeline.outputs.base import Targets
from conversions.pipeline.outputs.files import safe_name
from conversions.pipeline.outputs.libvirt_xml import public_xml
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import Overlay, Place, TargetDisk, TargetMeta
from inventory.sources.types import Source


class NullTargets:
    """Places that swallow what is written."""

    def __init__(self, disks: Sequence[TargetDisk], report: Reporter) -> None:
        self.disks = disks
        self._report = report

    def open(self, disk: TargetDisk) -> TargetDisk:
        """Return the disk as it is."""
        return disk

    def close(self, disk: TargetDisk) -> None:
        """Leave nothing."""

    def commit(self) -> None:
        """Report that there is no file."""
        self._report.report("files", {"created": [], "removed": []})
        self._report.log(Level.INFO, "The result was discarded, as asked.")


class NullOutput:
    """Reads every converted disk to its end and discards it."""

    def __init__(self, target: Target, name: str | None, report: Reporter) -> None:
        self.target = target
        self._name = name
        self._report = report

    def describe(self) -> str:
        """Return one line for messages."""
        return "nothing: the result is discarded"

    def name_for(self, source: Source) -> str:
        """Return the name asked for, else the source's."""
        return safe_name(self._name or source.name)

    @contextmanager
    def prepare(self, source: Source, overlays: Sequence[Overlay]) -> Iterator[NullTargets]:
        """Check nothing: there is nothing to be in the way."""
        yield NullTargets(self.target_disks(source, overlays, {}), self._report)

    def target_disks(
        self, source: Source, overlays: Sequence[Overlay], estimates: Mapping[str, int]
    ) -> tuple[TargetDisk, ...]:
        """Return one place per overlay."""
        return tuple(
            TargetDisk(
                overlay=overlay,
                final_path=f"null:{overlay.sd}",
                part_path="",
                format="raw",
                estimated_bytes=estimates.get(overlay.sd),
                place=Place.NULL,
            )
            for overlay in overlays
        )

    def check_space(self, estimates: Mapping[str, int], overlays: Sequence[Overlay]) -> None:
        """Need no space."""

    def check(self, meta: TargetMeta) -> None:
        """Accept every machine."""

    def copy(self, targets: Targets, disks: Sequence[TargetDisk], options: CopyOptions) -> None:
        """Convert each overlay into what stands for it here."""
        copy_disks(targets, disks, self.target, options, self._report)

    def preview(self, meta: TargetMeta) -> None:
        """Report the XML that output local would write."""
        self._report.report("libvirt_xml", {"xml": public_xml(meta)})

    def write_metadata(self, targets: Targets, meta: TargetMeta) -> None:
        """Write nothing."""
        self._report.report("metadata", [])
