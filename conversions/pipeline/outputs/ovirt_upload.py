"""Output `ovirt-upload`: disks sent through oVirt's image server, a machine made by its engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from conversions.pipeline.commands import Siblings
from conversions.pipeline.copy_progress import CopyProgress
from conversions.pipeline.disk_copy import copy_disks, disk_map
from conversions.pipeline.errors import JobError, TargetError
from conversions.pipeline.job import CopyOptions, Target
from conversions.pipeline.leftovers import Notes
from conversions.pipeline.outputs import ovirt_api as api
from conversions.pipeline.outputs.base import Targets
from conversions.pipeline.outputs.files import safe_name
from conversions.pipeline.outputs.folder import RESERVE_BYTES, needed_bytes
from conversions.pipeline.outputs.imageio import ImageServer, Sender, pieces
from conversions.pipeline.outputs.ovirt_files import fixed_disks, refuse_many_disks
from conversions.pipeline.outputs.ovirt_ovf import ovf
from conversions.pipeline.outputs.ovirt_prechecks import (
    DEFAULT_CLUSTER,
    Place,
    check_storage_name,
    check_vm_name,
    disk_uuids,
    find_place,
    refuse_taken,
)
from conversions.pipeline.outputs.ovirt_transfers import UploadTargets
from conversions.pipeline.outputs.ovirt_xml import NO_UUID, Flavour, OvirtVm, Volume, random_uuid
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.sizes import human
from conversions.pipeline.types import Overlay, TargetDisk, TargetMeta
from conversions.pipeline.types import Place as DiskPlace
from inventory.sources.types import Source

_ARCHES = {"ppc64le": "ppc64"}


class OvirtUploadOutput:
    """Makes a disk for every overlay, fills it, then makes the machine from an OVF."""

    def __init__(self, target: Target, name: str | None, report: Reporter) -> None:
        self.target = target
        self._name = name
        self._report = report
        self._url, _user = api.split_url(target.uri)
        self._cluster = target.option("ovirt-cluster", DEFAULT_CLUSTER)
        self._context = api.trust_of(target)
        self._by_proxy = target.flag(
            "ovirt-proxy", default=not target.flag("ovirt-direct", default=True)
        )
        if self._by_proxy and target.flag("ovirt-direct"):
            raise JobError("-oo ovirt-direct and -oo ovirt-proxy exclude each other.")
        self._place: Place | None = None

    def describe(self) -> str:
        """Return one line for messages."""
        return f"storage domain {self.target.storage} of oVirt ({self._url})"

    def name_for(self, source: Source) -> str:
        """Return the name asked for, else the source's."""
        return safe_name(self._name or source.name)

    @contextmanager
    def prepare(self, source: Source, overlays: Sequence[Overlay]) -> Iterator[UploadTargets]:
        """Sign in and refuse what cannot work; on the way out remove what was not committed."""
        name = self.name_for(source)
        check_vm_name(name)
        check_storage_name(self.target.storage)
        refuse_many_disks(len(overlays))
        uuids = disk_uuids(self.target, len(overlays))
        with api.connected(self.target, self._context, self._report) as engine:
            self._place = find_place(engine, self.target.storage, self._cluster)
            refuse_taken(engine, name, uuids)
            disks = self.target_disks(source, overlays, {})
            notes = Notes(Path(overlays[0].path).parent, self.target, engine.url)
            targets = UploadTargets(
                engine, self._place, disks, uuids, notes, self._report, by_proxy=self._by_proxy
            )
            self._report.report(
                "targets",
                {
                    "parts": [], "finals": [], "engine": self._url,
                    "disks": [disk.final_path for disk in disks],
                },
            )  # fmt: skip
            try:
                yield targets
            except BaseException:
                if not targets.committed:
                    targets.remove()
                raise

    def target_disks(
        self, source: Source, overlays: Sequence[Overlay], estimates: Mapping[str, int]
    ) -> tuple[TargetDisk, ...]:
        """Return the disks: STORAGE/NAME-000, NAME-001, ..."""
        stem = f"{self.target.storage}/{self.name_for(source)}"
        return tuple(
            TargetDisk(
                overlay=overlay,
                final_path=f"{stem}-{number:03}",
                part_path="",
                format=self.target.format,
                estimated_bytes=estimates.get(overlay.sd),
                place=DiskPlace.REMOTE,
            )
            for number, overlay in enumerate(overlays)
        )

    def check_space(self, estimates: Mapping[str, int], overlays: Sequence[Overlay]) -> None:
        """Compare the storage domain's free space with what the disks need."""
        assert self._place  # noqa: S101  prepare comes first
        need, free = needed_bytes(estimates, overlays, self.target), self._place.free_bytes
        shown = "free space unknown" if free is None else f"{human(free)} free"
        self._report.log(
            Level.INFO, f"Storage {self._place.storage}: at most {human(need)} needed, {shown}."
        )
        if free is not None and free < need:
            raise TargetError(
                f"Not enough free space in storage domain {self._place.storage}: {human(free)} "
                f"free, up to {human(need)} needed ({human(RESERVE_BYTES)} of it in reserve).",
                remedy="Free some space there or choose another storage domain.",
            )

    def check(self, meta: TargetMeta) -> None:
        """Refuse a machine for other processors than the cluster's.  Raises TargetError."""
        assert self._place  # noqa: S101  prepare comes first
        arch = _ARCHES.get(meta.guestcaps.arch, meta.guestcaps.arch)
        if arch != self._place.arch:
            raise TargetError(
                f"The machine is for {arch}; the hosts of cluster {self._place.cluster} are "
                f"{self._place.arch}.",
                remedy="Choose a cluster of that architecture with -oo ovirt-cluster=.",
            )

    def copy(self, targets: Targets, disks: Sequence[TargetDisk], options: CopyOptions) -> None:
        """Send each overlay into its disk."""
        assert isinstance(targets, UploadTargets)  # noqa: S101  ours, from prepare

        def fill(
            disk: TargetDisk, progress: CopyProgress, options: CopyOptions, siblings: Siblings
        ) -> None:
            found = list(pieces(disk_map(disk.overlay.path, self._report)))
            server = ImageServer(targets.url_of(disk), self._context)
            try:
                Sender(server, disk.overlay, options, siblings, progress.reach).send(found)
            finally:
                server.close()

        copy_disks(targets, disks, self.target, options, self._report, fill=fill)

    def preview(self, meta: TargetMeta) -> None:
        """Report the OVF that would be sent."""
        volumes = [
            Volume(disk=disk, image=random_uuid(), volume=random_uuid())
            for disk in fixed_disks(meta)
        ]
        self._report.report("ovf", {"text": ovf(meta, self._vm(NO_UUID, volumes), Flavour.API)})

    def write_metadata(self, targets: Targets, meta: TargetMeta) -> None:
        """Hand the OVF to the targets, which have the machine made when everything is in place."""
        assert isinstance(targets, UploadTargets) and self._place  # noqa: S101  from prepare
        vm = self._vm(self._place.storage_id, targets.volumes())
        warn = lambda line: self._report.log(Level.WARNING, line)  # noqa: E731
        targets.name = meta.name
        targets.ovf = ovf(meta, vm, Flavour.API, warn)
        self._report.report("ovf", {"text": targets.ovf})
        self._report.report("metadata", [{"path": meta.name, "kind": "machine of oVirt"}])

    def _vm(self, storage_id: str, volumes: Sequence[Volume]) -> OvirtVm:
        return OvirtVm(
            uuid=random_uuid(),
            storage_domain=storage_id,
            volumes=volumes,
            allocation=self.target.allocation,
            now=datetime.now(UTC),
        )
