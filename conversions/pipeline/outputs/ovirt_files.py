"""What the outputs share that write a storage domain's files: volumes, their .meta, the OVF."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from conversions.pipeline.disk_copy import copy_disks
from conversions.pipeline.errors import TargetError
from conversions.pipeline.host_files import allocated
from conversions.pipeline.job import CopyOptions, Target
from conversions.pipeline.outputs.base import Targets
from conversions.pipeline.outputs.files import FileTargets, part_of, safe_name, taken
from conversions.pipeline.outputs.folder import check_folder_space
from conversions.pipeline.outputs.ovirt_meta import meta_text, sectors
from conversions.pipeline.outputs.ovirt_ovf import ovf
from conversions.pipeline.outputs.ovirt_owner import as_vdsm
from conversions.pipeline.outputs.ovirt_xml import Flavour, OvirtVm, Volume
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import Overlay, TargetDisk, TargetMeta
from inventory.sources.types import Source

MAX_DISKS = 23
_FILE_MODE = 0o666  # root, who is nobody on an NFS server, writes into what vdsm made
_FOLDER_MODE = 0o755


def refuse_many_disks(count: int) -> None:
    """Refuse more disks than oVirt's machines can have.  Raises TargetError."""
    if count > MAX_DISKS:
        raise TargetError(
            f"The machine has {count} disks; in oVirt it can have {MAX_DISKS} at most.",
            remedy="Convert it for another target, or detach disks at its source.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where things go: the storage domain's folder, the OVF, and (image, volume) of each disk."""

    domain: Path
    ovf: Path
    vm: str
    volumes: tuple[tuple[str, str], ...]

    def path(self, number: int) -> Path:
        """Return the file of a disk."""
        image, volume = self.volumes[number]
        return self.domain / "images" / image / volume

    def meta(self, number: int) -> Path:
        """Return the file that describes a disk."""
        path = self.path(number)
        return path.with_name(path.name + ".meta")


class VolumeFiles(FileTargets):
    """Volumes and what describes them, as their owner; folders made for them go with them."""

    def __init__(
        self, layout: Layout, disks: Sequence[TargetDisk], report: Reporter, *, ours: bool
    ) -> None:
        metadata = [layout.meta(n) for n in range(len(disks))]
        # In the order in which they get their names: the OVF last, since it names the others.
        super().__init__(disks, [*metadata, layout.ovf], report)
        self.layout = layout
        self._modes = dict.fromkeys(self.parts, _FILE_MODE)
        self._ours = ours
        self._folders: list[Path] = []

    def _as_owner(self) -> AbstractContextManager[None]:
        return as_vdsm() if self._ours else nullcontext()

    def take_names(self) -> None:
        """Refuse names that are taken; the files are made when their folders are.

        Raises TargetError.
        """
        for part in self.parts:
            if part.exists():
                raise taken(part)

    def open(self, disk: TargetDisk) -> TargetDisk:
        """Make the file, so that it is its owner's; the copy fills it.  Raises TargetError."""
        part = Path(disk.part_path)
        with self._as_owner():
            self._make_folder(part)
            self.take(part)
            part.chmod(_FILE_MODE)
        return disk

    def write(self, final: Path, text: str, *, mode: int = _FILE_MODE) -> None:
        """Write metadata under its part name."""
        with self._as_owner():
            self._make_folder(final)
            super().write(final, text, mode=mode)

    def _make_folder(self, path: Path) -> None:
        """Make the folder of a file where that is ours to make; images and machines have one."""
        folder = path.parent
        if self._ours and folder not in self._folders:
            folder.mkdir(mode=_FOLDER_MODE)
            self._folders.append(folder)
            folder.chmod(_FOLDER_MODE)

    def commit(self) -> None:
        """Give every file its name."""
        with self._as_owner():
            super().commit()

    def remove(self) -> None:
        """Delete the files, and the folders that were made."""
        with self._as_owner():
            super().remove()
            for folder in self._folders:
                shutil.rmtree(folder, ignore_errors=True)
        if left := [str(folder) for folder in self._folders if folder.exists()]:
            self._report.log(Level.WARNING, f"Not removed: {', '.join(left)}")


class VolumeOutput:
    """Writes IMAGE/VOLUME, VOLUME.meta and an OVF; a kind says where and who they belong to.

    `ours` says whether folders are made and files belong to vdsm; `measured` whether the OVF tells
    how much the disks occupy.
    """

    title = ""
    ours = False
    measured = False

    def __init__(self, target: Target, name: str | None, report: Reporter) -> None:
        self.target = target
        self._name = name
        self._report = report
        self._layout: Layout | None = None

    @property
    def flavour(self) -> Flavour:
        """The flavour of the OVF."""
        return Flavour.EXPORT

    def enter(self, stack: ExitStack, count: int) -> Layout:
        """Reach the storage domain and check it; what has to be undone goes onto the stack.

        Raises TargetError.
        """
        raise NotImplementedError

    def assumed_layout(self, count: int) -> Layout:
        """Return where things would go, without a look at the storage.  Raises TargetError."""
        raise NotImplementedError

    def describe(self) -> str:
        """Return one line for messages."""
        return f"{self.target.format} disks in {self.title} {self.target.directory}"

    def name_for(self, source: Source) -> str:
        """Return the name asked for, else the source's."""
        return safe_name(self._name or source.name)

    @contextmanager
    def prepare(self, source: Source, overlays: Sequence[Overlay]) -> Iterator[VolumeFiles]:
        """Check storage and disks; on the way out remove what was not committed."""
        self.name_for(source)
        refuse_many_disks(len(overlays))
        for overlay in overlays:
            sectors(overlay)
        with ExitStack() as stack:
            self._layout = self.enter(stack, len(overlays))
            disks = self.target_disks(source, overlays, {})
            targets = VolumeFiles(self._layout, disks, self._report, ours=self.ours)
            targets.refuse_existing(overwrite=self.target.overwrite)
            try:
                yield targets
            except BaseException:
                if not targets.committed:
                    targets.remove()
                raise

    def target_disks(
        self, source: Source, overlays: Sequence[Overlay], estimates: Mapping[str, int]
    ) -> tuple[TargetDisk, ...]:
        """Return the volumes, one per overlay."""
        layout = self._layout or self.assumed_layout(len(overlays))
        return tuple(
            TargetDisk(
                overlay=overlay,
                final_path=str(layout.path(number)),
                part_path=str(part_of(layout.path(number))),
                format=self.target.format,
                estimated_bytes=estimates.get(overlay.sd),
            )
            for number, overlay in enumerate(overlays)
        )

    def check_space(self, estimates: Mapping[str, int], overlays: Sequence[Overlay]) -> None:
        """Compare the free space of the storage with what the disks need."""
        assert self._layout  # noqa: S101  prepare comes first
        check_folder_space(self._layout.domain, estimates, overlays, self.target, self._report)

    def check(self, meta: TargetMeta) -> None:
        """Accept every machine: what oVirt's cannot have is left out with a warning."""

    def copy(self, targets: Targets, disks: Sequence[TargetDisk], options: CopyOptions) -> None:
        """Convert each overlay into its volume."""
        copy_disks(targets, disks, self.target, options, self._report)

    def preview(self, meta: TargetMeta) -> None:
        """Report the OVF that would be written."""
        disks = fixed_disks(meta)
        layout = self.assumed_layout(len(disks))
        self._report.report("ovf", {"text": ovf(meta, self._vm(layout, disks), self.flavour)})

    def write_metadata(self, targets: Targets, meta: TargetMeta) -> None:
        """Write a .meta for every volume, then the OVF, under their part names."""
        assert isinstance(targets, VolumeFiles)  # noqa: S101  ours, from prepare
        layout = targets.layout
        vm = self._vm(layout, targets.disks, measured=self.measured)
        allocation = self.target.allocation
        for number, volume in enumerate(vm.volumes):
            text = meta_text(volume, layout.domain.name, allocation, vm.now)
            targets.write(layout.meta(number), text)
        text = ovf(meta, vm, self.flavour, lambda line: self._report.log(Level.WARNING, line))
        targets.write(layout.ovf, text)
        self._report.report("ovf", {"text": text})
        self._report.report("metadata", [{"path": str(layout.ovf), "kind": "OVF of oVirt"}])
        self._report.log(Level.INFO, f"OVF for {meta.name}: {layout.ovf}")

    def _vm(
        self, layout: Layout, disks: Sequence[TargetDisk], *, measured: bool = False
    ) -> OvirtVm:
        return OvirtVm(
            uuid=layout.vm,
            storage_domain=layout.domain.name,
            volumes=[
                Volume(
                    disk=disk,
                    image=image,
                    volume=volume,
                    actual_bytes=allocated(Path(disk.part_path)) if measured else None,
                )
                for disk, (image, volume) in zip(disks, layout.volumes, strict=True)
            ],
            allocation=self.target.allocation,
            now=datetime.now(UTC),
            measured=measured,
        )


def fixed_disks(meta: TargetMeta) -> list[TargetDisk]:
    """Return the disks of a machine in source order: they are all on one bus."""
    slots = (*meta.buses.virtio_blk, *meta.buses.scsi, *meta.buses.ide)
    return [slot for slot in slots if isinstance(slot, TargetDisk)]
