"""Output `openstack`: volumes in Cinder, filled while they are attached to this very server."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from openstack.connection import Connection

from conversions.pipeline.disk_copy import copy_disks
from conversions.pipeline.errors import JobError, TargetError
from conversions.pipeline.job import CopyOptions, Target
from conversions.pipeline.leftovers import Notes
from conversions.pipeline.outputs.base import Targets
from conversions.pipeline.outputs.files import safe_name
from conversions.pipeline.outputs.openstack_cloud import (
    check_sign_in,
    cloud_errors,
    place_of,
    sign_in,
)
from conversions.pipeline.outputs.openstack_properties import image_properties
from conversions.pipeline.outputs.openstack_volumes import VolumeTargets, gib_of
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import Overlay, Place, TargetDisk, TargetMeta
from inventory.sources.types import Source

_SERVER_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


class OpenStackOutput:
    """Makes NAME-sda, NAME-sdb, ... as volumes; the machine is started from them by hand."""

    def __init__(self, target: Target, name: str | None, report: Reporter) -> None:
        check_sign_in(target)
        self._server = target.option("server-id")
        if not _SERVER_ID.fullmatch(self._server):
            raise JobError(f"{self._server[:80]!r} is no id of a server (-oo server-id).")
        self.target = target
        self._name = name
        self._report = report

    def describe(self) -> str:
        """Return one line for messages."""
        kind = f" of type {self.target.storage}" if self.target.storage else ""
        return f"Cinder volumes{kind} by way of server {self._server}"

    def name_for(self, source: Source) -> str:
        """Return the name asked for, else the source's."""
        return safe_name(self._name or source.name)

    @contextmanager
    def prepare(self, source: Source, overlays: Sequence[Overlay]) -> Iterator[VolumeTargets]:
        """Sign in and refuse what cannot work; on the way out remove what was not committed."""
        disks = self.target_disks(source, overlays, {})
        with sign_in(self.target, self._report) as cloud:
            self._check_cloud(cloud)
            self._check_quota(cloud, overlays)
            if os.geteuid() != 0:
                self._report.log(
                    Level.WARNING,
                    "Writing to attached volumes usually takes root; this runs as another user.",
                )
            names = [disk.final_path for disk in disks]
            self._report.report("targets", {"parts": [], "finals": [], "volumes": names})
            notes = Notes(Path(overlays[0].path).parent, self.target, place_of(cloud))
            targets = VolumeTargets(
                cloud, self.target, self.name_for(source), disks, notes, self._report
            )
            try:
                yield targets
            finally:
                if not targets.committed:
                    targets.remove()

    def _check_cloud(self, cloud: Connection) -> None:
        """Look for the server and the volume type.  Raises TargetError."""
        with cloud_errors(
            f"Server {self._server} was not found",
            remedy="Give the id of the server that this runs on: -oo server-id.",
        ):
            cloud.compute.get_server(self._server)
        if self.target.storage:
            with cloud_errors(
                f"Volume type {self.target.storage} was not found", remedy="Choose another: -os."
            ):
                cloud.block_storage.find_type(self.target.storage, ignore_missing=False)

    def _check_quota(self, cloud: Connection, overlays: Sequence[Overlay]) -> None:
        """Refuse what the project has no room for.  Raises TargetError with the numbers."""
        with cloud_errors("The quota of the project could not be read"):
            limits = cloud.block_storage.get_limits().absolute
        gib = sum(gib_of(overlay.virtual_size_bytes) for overlay in overlays)
        for what, limit, used, need in (
            ("volumes", limits.max_total_volumes, limits.total_volumes_used, len(overlays)),
            ("GiB", limits.max_total_volume_gigabytes, limits.total_gigabytes_used, gib),
        ):
            # A negative limit is none.
            if limit is not None and 0 <= limit < (used or 0) + need:
                raise TargetError(
                    f"The project's quota of {what} in Cinder is {limit}; {used} are in use and "
                    f"{need} more are needed.",
                    remedy="Delete volumes, or have the quota raised.",
                )

    def target_disks(
        self, source: Source, overlays: Sequence[Overlay], estimates: Mapping[str, int]
    ) -> tuple[TargetDisk, ...]:
        """Return the volumes; their devices are known once they are attached."""
        stem = self.name_for(source)
        return tuple(
            TargetDisk(
                overlay=overlay,
                final_path=f"{stem}-{overlay.sd}",
                part_path="",
                format="raw",
                estimated_bytes=estimates.get(overlay.sd),
                place=Place.DEVICE,
            )
            for overlay in overlays
        )

    def check_space(self, estimates: Mapping[str, int], overlays: Sequence[Overlay]) -> None:
        """Need no space here: the quota was checked for the disks' whole size."""

    def check(self, meta: TargetMeta) -> None:
        """Accept every machine."""

    def copy(self, targets: Targets, disks: Sequence[TargetDisk], options: CopyOptions) -> None:
        """Convert each overlay into what stands for it here."""
        copy_disks(targets, disks, self.target, options, self._report)

    def preview(self, meta: TargetMeta) -> None:
        """Report the properties that the volume to start from would get."""
        self._report.report("image_properties", image_properties(meta))

    def write_metadata(self, targets: Targets, meta: TargetMeta) -> None:
        """Describe the volumes."""
        assert isinstance(targets, VolumeTargets)  # noqa: S101  ours, from prepare
        self._report.report("image_properties", targets.describe(meta))
        written = [{"path": d.final_path, "kind": "Cinder volume"} for d in targets.disks]
        self._report.report("metadata", written)
