"""Files that get their final names only when everything is complete."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from conversions.pipeline.errors import TargetError
from conversions.pipeline.host_files import allocated, fsync_path
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import Place, TargetDisk

MAX_NAME_BYTES = 200
_DISK_MODE = 0o640


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


def part_of(final: Path) -> Path:
    """Return the name a file has until it is complete."""
    return final.with_name(final.name + ".part")


def _meet(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def taken(part: Path) -> TargetError:
    """Return the error for an unfinished file that is not of this run."""
    return TargetError(
        f"{part} exists: another conversion writes there, or one was cut off.",
        remedy="Wait for it, or delete that file.",
    )


class FileTargets:
    """Disk files and metadata under `.part` names until `commit`.

    Disks on block devices are written where they are and never removed.
    """

    def __init__(
        self, disks: Sequence[TargetDisk], metadata: Sequence[Path], report: Reporter
    ) -> None:
        self.disks = disks
        self.metadata = metadata
        self.parts = {
            Path(d.part_path): Path(d.final_path) for d in disks if d.place is Place.FILE
        } | {part_of(path): path for path in metadata}
        self.committed = False
        self._made: list[Path] = []
        self._renamed: list[Path] = []
        self._modes = dict.fromkeys(self.parts, _DISK_MODE)
        self._report = report

    def refuse_shared(self) -> None:
        """Refuse two files with one path, or one below the other.  Raises TargetError."""
        files = [(Path(d.final_path), Path(d.part_path)) for d in self.disks]
        files += [(path, part_of(path)) for path in self.metadata]
        for one, other in combinations(files, 2):
            if any(_meet(a.resolve(), b.resolve()) for a in one for b in other):
                raise TargetError(
                    f"{one[0]} and {other[0]} cannot both be written: they are one file, or one "
                    "lies below the other.",
                    remedy="Give every disk a path of its own, and none that of the metadata.",
                )

    def refuse_existing(self, *, overwrite: bool) -> None:
        """Refuse names that are taken, and take them for this run.  Raises TargetError."""
        self._refuse_finals(overwrite=overwrite)
        self.take_names()
        self._tell(committing=False)
        # Whose the parts were before may have given them their final names meanwhile.
        self._refuse_finals(overwrite=overwrite)

    def _refuse_finals(self, *, overwrite: bool) -> None:
        for final in self.parts.values():
            if final.is_dir():
                raise TargetError(f"{final} is a folder.", remedy="Give the machine another name.")
            if (final.exists() or final.is_symlink()) and not overwrite:
                raise TargetError(
                    f"{final} exists already.",
                    remedy="Give the machine another name, or allow overwriting.",
                )

    def take_names(self) -> None:
        """Make every unfinished file, still empty.  Raises TargetError."""
        for part in self.parts:
            self.take(part)

    def take(self, part: Path) -> None:
        """Make an unfinished file unless this run has; whoever fills it truncates it.

        Raises TargetError for one that is not of this run.
        """
        if part in self._made:
            return
        try:
            part.touch(mode=_DISK_MODE, exist_ok=False)
        except FileExistsError as error:
            raise taken(part) from error
        self._made.append(part)

    def _tell(self, *, committing: bool) -> None:
        """Report the names; `committing` while some may be final of a result that is not whole."""
        self._report.report(
            "targets",
            {
                "parts": [str(p) for p in self.parts],
                "finals": [str(p) for p in self.parts.values()],
                "committing": committing,
            },
        )

    def open(self, disk: TargetDisk) -> TargetDisk:
        """Return the disk as it is: its file is filled by the copy."""
        return disk

    def close(self, disk: TargetDisk) -> None:
        """Leave the disk under its part name until all of them are complete."""

    def write(self, final: Path, text: str, *, mode: int = 0o640) -> None:
        """Write metadata under its part name; `mode` is what the final file will have."""
        part = part_of(final)
        self.take(part)
        part.write_text(text, encoding="utf-8")
        self._modes[part] = mode

    def commit(self) -> None:
        """Sync and rename every file, then sync the folders; report what was made."""
        self.rename_all()
        self.settle()

    def settle(self) -> None:
        """Say that the result is whole: who tidies up leaves the files from now on."""
        self._tell(committing=False)

    def rename_all(self) -> None:
        """Do the renaming of a commit; what else belongs to the result may follow."""
        self._tell(committing=True)
        for part, final in self.parts.items():
            part.chmod(self._modes[part])
            fsync_path(part)
            part.rename(final)
            self._renamed.append(final)
        for folder in {final.parent for final in self._renamed}:
            fsync_path(folder)
        created = [{"path": str(f), "bytes": allocated(f)} for f in self._renamed]
        self._report.report("files", {"created": created, "removed": []})
        for entry in created:
            self._report.log(Level.INFO, f"Written: {entry['path']}")
        self.committed = True

    def remove(self) -> None:
        """Delete what this run has made, also under final names; report it."""
        removed = []
        for path in [*self._made, *self._renamed]:
            if path.exists():
                path.unlink()
                removed.append(str(path))
        self._report.report("files", {"created": [], "removed": removed})
        for name in removed:
            self._report.log(Level.INFO, f"Removed: {name}")
