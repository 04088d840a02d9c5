"""What the outputs share that write disk files and one metadata file into a folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from conversions.pipeline.disk_copy import copy_disks
from conversions.pipeline.errors import TargetError
from conversions.pipeline.job import CopyOptions, Target
from conversions.pipeline.outputs.base import Targets
from conversions.pipeline.outputs.files import FileTargets, part_of, safe_name
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.sizes import human
from conversions.pipeline.types import Overlay, Place, TargetDisk, TargetMeta
from inventory.sources.types import Source

RESERVE_BYTES = 1 << 30


def needed_bytes(estimates: Mapping[str, int], overlays: Sequence[Overlay], target: Target) -> int:
    """Return what must be free: 5 % over the estimate, or all bytes when preallocated; 1 GiB."""
    if target.allocation == "preallocated":
        need = sum(o.virtual_size_bytes for o in overlays)
    else:
        need = sum(estimates.get(o.sd, o.virtual_size_bytes) for o in overlays) * 105 // 100
    return need + RESERVE_BYTES


def check_folder_space(
    folder: Path,
    estimates: Mapping[str, int],
    overlays: Sequence[Overlay],
    target: Target,
    report: Reporter,
    *,
    name: str = "Target folder",
    remedy: str = "Free some space there or choose another folder.",
) -> None:
    """Compare a folder's free space with what the disks need.

    Raises TargetError with both numbers.
    """
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise TargetError(
            f"How much is free in {folder} cannot be told: {error.strerror}.",
            remedy="See that the folder is still there.",
        ) from error
    need = needed_bytes(estimates, overlays, target)
    report.log(Level.INFO, f"{name}: at most {human(need)} needed, {human(free)} free.")
    if free < need:
        raise TargetError(
            f"Not enough free space in {folder}: {human(free)} free, "
            f"up to {human(need)} needed ({human(RESERVE_BYTES)} of it in reserve).",
            remedy=remedy,
        )


def check_staging_space(
    folder: Path,
    estimates: Mapping[str, int],
    overlays: Sequence[Overlay],
    target: Target,
    report: Reporter,
) -> None:
    """Compare a folder's free space with the largest disk, for copies that wait there.

    Raises TargetError with both numbers.
    """
    largest = max(overlays, key=lambda o: estimates.get(o.sd, o.virtual_size_bytes))
    check_folder_space(
        folder,
        estimates,
        [largest],
        target,
        report,
        name="Work folder, where each copy waits for its upload",
        remedy="Free some space there, or name another place for work files (VIRT_V2V_TMPDIR).",
    )


def how_many_fit(folder: Path, disks: Sequence[TargetDisk], target: Target, wanted: int) -> int:
    """Return how many disks, whichever they are, find room in a folder at once; 1 to `wanted`."""
    free = shutil.disk_usage(folder).free
    sizes = {d.overlay.sd: d.estimated_bytes or d.overlay.virtual_size_bytes for d in disks}
    largest = sorted((d.overlay for d in disks), key=lambda o: sizes[o.sd], reverse=True)
    while wanted > 1 and needed_bytes(sizes, largest[:wanted], target) > free:
        wanted -= 1
    return wanted


class FolderOutput:
    """Writes NAME-sda, NAME-sdb, ... and a metadata file; a kind says what that file holds."""

    suffix = ""
    title = ""
    report_name = ""
    metadata_mode = 0o640

    def __init__(self, target: Target, name: str | None, report: Reporter) -> None:
        self.target = target
        self._folder = Path(target.directory).absolute()
        self._name = name
        self._report = report
        # The disks that are written to where they are, and have their space.
        self._existing: frozenset[str] = frozenset()

    def metadata(self, meta: TargetMeta, *, quiet: bool = False) -> str:
        """Return the text of the metadata file; `quiet` without warnings.  Raises TargetError."""
        raise NotImplementedError

    def reported(self, meta: TargetMeta) -> Mapping[str, str]:
        """Return what the report shows of it."""
        return {"text": self.metadata(meta, quiet=True)}

    def on_committed(self, targets: FileTargets) -> None:
        """Do what follows once every file has its final name."""

    def describe(self) -> str:
        """Return one line for messages."""
        return f"{self.target.format} disks and {self.title} in {self._folder}"

    def name_for(self, source: Source) -> str:
        """Return the name asked for, else the source's."""
        return safe_name(self._name or source.name)

    def target_disks(
        self, source: Source, overlays: Sequence[Overlay], estimates: Mapping[str, int]
    ) -> tuple[TargetDisk, ...]:
        """Return what will be written, one per overlay."""
        stem = self.name_for(source)
        return tuple(
            self._disk(self.final_path(stem, number, o), o, estimates.get(o.sd))
            for number, o in enumerate(overlays)
        )

    def final_path(self, stem: str, number: int, overlay: Overlay) -> Path:
        """Return where a disk of the machine whose files begin with `stem` will be."""
        return self._folder / f"{stem}-{overlay.sd}"

    def exists(self, final: Path) -> bool:
        """Tell whether a disk is written where it is, and kept whatever happens."""
        return final.is_block_device()

    def check_existing(self, disk: TargetDisk) -> None:
        """Refuse to write to a disk where it is.  Raises TargetError."""
        check_device(disk, self.target)

    def folders(self, disks: Sequence[TargetDisk]) -> set[Path]:
        """Return the folders that are written to."""
        return {self._folder}

    def _disk(self, final: Path, overlay: Overlay, estimate: int | None) -> TargetDisk:
        exists = self.exists(final)
        return TargetDisk(
            overlay=overlay,
            final_path=str(final),
            part_path=str(final if exists else part_of(final)),
            format=self.target.format,
            estimated_bytes=estimate,
            place=Place.DEVICE if exists else Place.FILE,
        )

    @contextmanager
    def prepare(self, source: Source, overlays: Sequence[Overlay]) -> Iterator[FileTargets]:
        """Check folder and names; on the way out remove what was not committed."""
        disks = self.target_disks(source, overlays, {})
        targets = FileTargets(disks, [self._metadata_path(source)], self._report)
        targets.refuse_shared()
        for folder in sorted(self.folders(disks)):
            if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
                raise TargetError(
                    f"The target folder {folder} does not exist or may not be written.",
                    remedy="Create it, or choose another one.",
                )
        for disk in disks:
            if disk.place is Place.DEVICE:
                self.check_existing(disk)
                self._existing |= {disk.overlay.sd}
        try:
            targets.refuse_existing(overwrite=self.target.overwrite)
            yield targets
            if targets.committed:
                self.on_committed(targets)
        except BaseException:
            if not targets.committed:
                targets.remove()
            raise

    def _metadata_path(self, source: Source) -> Path:
        return self._folder / f"{self.name_for(source)}{self.suffix}"

    def check_space(self, estimates: Mapping[str, int], overlays: Sequence[Overlay]) -> None:
        """Compare the folder's free space with what the disks need that are made there."""
        made = [overlay for overlay in overlays if overlay.sd not in self._existing]
        if made:
            check_folder_space(self._folder, estimates, made, self.target, self._report)

    def check(self, meta: TargetMeta) -> None:
        """Refuse what the metadata cannot say.  Raises TargetError."""
        self.metadata(meta, quiet=True)

    def copy(self, targets: Targets, disks: Sequence[TargetDisk], options: CopyOptions) -> None:
        """Convert each overlay into what stands for it here."""
        copy_disks(targets, disks, self.target, options, self._report)

    def preview(self, meta: TargetMeta) -> None:
        """Report the metadata that would be written."""
        self._report.report(self.report_name, self.reported(meta))

    def write_metadata(self, targets: Targets, meta: TargetMeta) -> None:
        """Write the metadata file under its part name."""
        path = self._metadata_path(meta.source)
        assert isinstance(targets, FileTargets)  # noqa: S101  ours, from prepare
        targets.write(path, self.metadata(meta), mode=self.metadata_mode)
        self._report.report(self.report_name, self.reported(meta))
        self._report.report("metadata", [{"path": str(path), "kind": self.title}])
        self._report.log(Level.INFO, f"{self.title} for {meta.name}: {path}")

    def warner(self, *, quiet: bool) -> Callable[[str], None]:
        """Return what hears about the things that the target will not have."""
        if quiet:
            return lambda _text: None
        return lambda text: self._report.log(Level.WARNING, text)


def check_device(disk: TargetDisk, target: Target) -> None:
    """Refuse a block device that was not asked for or is too small.  Raises TargetError."""
    path = Path(disk.final_path)
    if target.format != "raw" or not target.overwrite:
        raise TargetError(
            f"{path} is a block device; everything on it would be replaced.",
            remedy="Allow overwriting and choose format raw if that is wanted.",
        )
    check_device_size(path, disk)


def check_device_size(path: Path, disk: TargetDisk) -> None:
    """Refuse a device that is smaller than the disk.  Raises TargetError with both numbers."""
    with path.open("rb") as device:
        size = device.seek(0, os.SEEK_END)
    if size < disk.overlay.virtual_size_bytes:
        raise TargetError(
            f"{path} has {human(size)}; the disk needs {human(disk.overlay.virtual_size_bytes)}.",
            remedy="Use a larger device.",
        )
