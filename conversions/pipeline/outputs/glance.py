"""Output `glance`: every disk as an image in Glance, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from conversions.pipeline.disk_copy import copy_disks
from conversions.pipeline.job import CopyOptions, Target
from conversions.pipeline.leftovers import Notes
from conversions.pipeline.outputs.base import Targets
from conversions.pipeline.outputs.files import safe_name
from conversions.pipeline.outputs.folder import check_staging_space
from conversions.pipeline.outputs.glance_images import ImageTargets
from conversions.pipeline.outputs.openstack_cloud import cloud_errors, place_of, sign_in
from conversions.pipeline.outputs.openstack_properties import image_properties
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import Overlay, TargetDisk, TargetMeta
from inventory.sources.types import Source


class GlanceOutput:
    """Makes NAME, NAME-disk2, NAME-disk3, ... as images, each from a copy in the work folder."""

    def __init__(self, target: Target, name: str | None, report: Reporter) -> None:
        self.target = target
        self._name = name
        self._report = report
        self._staging = Path("/")

    def describe(self) -> str:
        """Return one line for messages."""
        return f"{self.target.format} images in Glance"

    def name_for(self, source: Source) -> str:
        """Return the name asked for, else the source's."""
        return safe_name(self._name or source.name)

    @contextmanager
    def prepare(self, source: Source, overlays: Sequence[Overlay]) -> Iterator[ImageTargets]:
        """Sign in and ask Glance for something; on the way out remove what was not committed."""
        self._staging = Path(overlays[0].path).parent
        disks = self.target_disks(source, overlays, {})
        with sign_in(self.target, self._report) as cloud:
            with cloud_errors("Glance did not list its images"):
                next(cloud.image.images(limit=1), None)
            names = [disk.final_path for disk in disks]
            self._report.report("targets", {"parts": [], "finals": [], "images": names})
            notes = Notes(self._staging, self.target, place_of(cloud))
            targets = ImageTargets(cloud, disks, source.memory_bytes, notes, self._report)
            try:
                yield targets
            finally:
                if not targets.committed:
                    targets.remove()

    def target_disks(
        self, source: Source, overlays: Sequence[Overlay], estimates: Mapping[str, int]
    ) -> tuple[TargetDisk, ...]:
        """Return the images; their copies are made in the work folder."""
        stem = self.name_for(source)
        return tuple(
            TargetDisk(
                overlay=overlay,
                final_path=stem if number == 1 else f"{stem}-disk{number}",
                part_path=str(self._staging / f"upload-{overlay.sd}"),
                format=self.target.format,
                estimated_bytes=estimates.get(overlay.sd),
                staged=True,
            )
            for number, overlay in enumerate(overlays, 1)
        )

    def check_space(self, estimates: Mapping[str, int], overlays: Sequence[Overlay]) -> None:
        """Compare the work folder's free space with the largest disk: one is there at a time."""
        check_staging_space(self._staging, estimates, overlays, self.target, self._report)

    def check(self, meta: TargetMeta) -> None:
        """Accept every machine."""

    def copy(self, targets: Targets, disks: Sequence[TargetDisk], options: CopyOptions) -> None:
        """Convert each overlay into a file and upload it before the next one."""
        if options.parallel > 1:
            self._report.log(Level.INFO, "Images are made one after the other.")
        copy_disks(targets, disks, self.target, replace(options, parallel=1), self._report)

    def preview(self, meta: TargetMeta) -> None:
        """Report the properties that every image would get."""
        self._report.report("image_properties", image_properties(meta))

    def write_metadata(self, targets: Targets, meta: TargetMeta) -> None:
        """Give the images their properties."""
        assert isinstance(targets, ImageTargets)  # noqa: S101  ours, from prepare
        properties = image_properties(meta)
        targets.describe(properties)
        self._report.report("image_properties", properties)
        written = [{"path": d.final_path, "kind": "Glance image"} for d in targets.disks]
        self._report.report("metadata", written)
