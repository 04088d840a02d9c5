"""Output `local`: disk files and a libvirt XML file in a folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from conversions.pipeline.disk_copy import copy_disks
from conversions.pipeline.errors import TargetError
from conversions.pipeline.host_files import allocated, fsync_path
from conversions.pipeline.job import Target
from conversions.pipeline.outputs.base import Targets
from conversions.pipeline.outputs.libvirt_xml import domain_xml
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.sizes import human
from conversions.pipeline.types import Overlay, TargetDisk, TargetMeta
from inventory.sources.types import Source

RESERVE_BYTES = 1 << 30
MAX_NAME_BYTES = 200
_FILE_MODE = 0o640


def safe_name(name: str) -> str:
    """Return a VM's name as the stem of file names: `/` becomes `_`.

    Raises TargetError for names that are empty, `.`, `..`, too long or hold control characters.
    """
    stem = name.replace("/", "_")
    if not stem.strip() or stem in (".", "..") or not stem.isprintable():
        raise TargetError(
            f"{name!r} cannot be the name of a machine on the target.",
            remedy="Give another name: not empty, without control characters.",
        )
    if len(stem.encode()) > MAX_NAME_BYTES:
        raise TargetError(
            f"The name has {len(stem.encode())} bytes; {MAX_NAME_BYTES} are possible.",
            remedy="Give a shorter name.",
        )
    return stem


class LocalTargets:
    """Disk files and metadata under `.part` names until `commit`."""

    def __init__(self, disks: Sequence[TargetDisk], xml: Path, report: Reporter) -> None:
        self.disks = disks
        self.metadata_final = xml
        self.metadata_part = part_of(xml)
        self._report = report

    @property
    def parts(self) -> dict[Path, Path]:
        """Part name to final name, disks first."""
        pairs = {Path(d.part_path): Path(d.final_path) for d in self.disks}
        return pairs | {self.metadata_part: self.metadata_final}

    def commit(self) -> None:
        """Sync and rename every file, then sync the folder; report what was made."""
        for part, final in self.parts.items():
            part.chmod(_FILE_MODE)
            fsync_path(part)
            part.rename(final)
        fsync_path(self.metadata_final.parent)
        created = [{"path": str(f), "bytes": allocated(f)} for f in self.parts.values()]
        self._report.report("files", {"created": created, "removed": []})
        for entry in created:
            self._report.log(Level.INFO, f"Written: {entry['path']}")

    def remove(self) -> None:
        """Delete whatever has been written; report it."""
        removed = []
        for part in self.parts:
            if part.exists():
                part.unlink()
                removed.append(str(part))
        self._report.report("files", {"created": [], "removed": removed})
        for path in removed:
            self._report.log(Level.INFO, f"Removed: {path}")


def part_of(final: Path) -> Path:
    """Return the name a file has until it is complete."""
    return final.with_name(final.name + ".part")


class LocalOutput:
    """Writes NAME-sda, NAME-sdb, ... and NAME.xml into a folder that exists."""

    def __init__(self, target: Target, name: str | None, report: Reporter) -> None:
        self.target = target
        self._folder = Path(target.directory).absolute()
        self._name = name
        self._report = report

    def describe(self) -> str:
        """Return one line for messages."""
        return f"{self.target.format} disks in {self._folder}"

    def name_for(self, source: Source) -> str:
        """Return the name asked for, else the source's."""
        return safe_name(self._name or source.name)

    def target_disks(
        self, source: Source, overlays: Sequence[Overlay], estimates: Mapping[str, int]
    ) -> tuple[TargetDisk, ...]:
        """Return what will be written, one per overlay."""
        stem = self.name_for(source)
        finals = [self._folder / f"{stem}-{o.sd}" for o in overlays]
        return tuple(
            TargetDisk(
                overlay=overlay,
                final_path=str(final),
                part_path=str(part_of(final)),
                format=self.target.format,
                estimated_bytes=estimates.get(overlay.sd),
            )
            for overlay, final in zip(overlays, finals, strict=True)
        )

    @contextmanager
    def prepare(self, source: Source, overlays: Sequence[Overlay]) -> Iterator[LocalTargets]:
        """Check folder and names; on the way out remove what was not committed."""
        if not self._folder.is_dir() or not os.access(self._folder, os.W_OK | os.X_OK):
            raise TargetError(
                f"The target folder {self._folder} does not exist or may not be written.",
                remedy="Create it, or choose another one.",
            )
        xml = self._folder / f"{self.name_for(source)}.xml"
        targets = LocalTargets(self.target_disks(source, overlays, {}), xml, self._report)
        for part, final in targets.parts.items():
            if final.exists() and not self.target.overwrite:
                raise TargetError(
                    f"{final} exists already.",
                    remedy="Give the machine another name, or allow overwriting.",
                )
            if part.exists():
                raise TargetError(
                    f"{part} exists: another conversion writes there, or one was cut off.",
                    remedy="Wait for it, or delete that file.",
                )
        self._report.report(
            "targets",
            {
                "parts": [str(p) for p in targets.parts],
                "finals": [str(p) for p in targets.parts.values()],
            },
        )
        try:
            yield targets
        except BaseException:
            targets.remove()
            raise

    def check_space(self, estimates: Mapping[str, int], overlays: Sequence[Overlay]) -> None:
        """Compare the folder's free space with the estimate, or all bytes when preallocated."""
        free = shutil.disk_usage(self._folder).free
        if self.target.allocation == "preallocated":
            need = sum(o.virtual_size_bytes for o in overlays)
        else:
            need = sum(estimates.get(o.sd, o.virtual_size_bytes) for o in overlays) * 105 // 100
        need += RESERVE_BYTES
        self._report.log(
            Level.INFO, f"Target folder: at most {human(need)} needed, {human(free)} free."
        )
        if free < need:
            raise TargetError(
                f"Not enough free space in {self._folder}: {human(free)} free, "
                f"up to {human(need)} needed ({human(RESERVE_BYTES)} of it in reserve).",
                remedy="Free some space there or choose another folder.",
            )

    def copy(self, disks: Sequence[TargetDisk], report: Reporter) -> None:
        """Convert each overlay into a file of the folder."""
        copy_disks(disks, self.target, report)

    def preview(self, meta: TargetMeta) -> None:
        """Report the libvirt XML that would be written."""
        self._report.report("libvirt_xml", {"xml": domain_xml(meta)})

    def write_metadata(self, targets: Targets, meta: TargetMeta) -> None:
        """Write NAME.xml under its part name."""
        xml = domain_xml(meta)
        targets.metadata_part.write_text(xml, encoding="utf-8")
        self._report.report("libvirt_xml", {"xml": xml})
        self._report.report(
            "metadata", [{"path": str(targets.metadata_final), "kind": "libvirt domain XML"}]
        )
        self._report.log(Level.INFO, f"libvirt XML for {meta.name}: {targets.metadata_final}")
