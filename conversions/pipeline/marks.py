"""Marks on disks that a commit is writing into: by them whoever opens a disk finds its journal.

They lie in a private folder of the engine's user that outlives a restart, not beside the disks:
there it may not be allowed to write, /dev starts empty, and whoever else may write there could lead
the next job to a journal of theirs.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from conversions.pipeline.errors import HostError, TargetError
from conversions.pipeline.host_files import fsync_path

BY_ID = Path("/dev/disk/by-id")
HALF_WRITTEN = "E-HALF-WRITTEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The mark on one disk; `path` is the file that it is itself."""

    path: Path
    disk: str
    ids: Sequence[str]
    journal: Path


def marks_folder() -> Path:
    """Return the folder of this user's marks.  Raises HostError for a user without a home."""
    state = os.environ.get("XDG_STATE_HOME")
    if not state:
        try:
            # Not HOME, which under sudo may be that of another user.
            state = f"{pwd.getpwuid(os.geteuid()).pw_dir}/.local/state"
        except KeyError as error:
            raise _unusable("the home folder", "the engine's user has none") from error
    return Path(state) / "v2vweb/commits"


def make_marks_folder() -> None:
    """Make the folder where it is missing.  Raises HostError when marks cannot be kept there."""
    folder = marks_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error.strerror) from error
    if not is_own_folder(folder) or not os.access(folder, os.W_OK):
        raise _unusable(folder, "it must belong to the user of the engine, and be writable")


def _unusable(folder: object, why: object) -> HostError:
    return HostError(
        f"Which disks are being changed cannot be noted in {folder}: {why}.",
        remedy="Set XDG_STATE_HOME to a folder of the engine's user that outlives a restart.",
    )


def is_own_folder(folder: Path) -> bool:
    """Tell whether it is there, a folder and no link, and belongs to this user."""
    return folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.geteuid()


def ids_of(disk: Path) -> list[str]:
    """Return the names by which udev knows a block device for good.

    Any other, /dev/sdb as well, may be that of another device after a restart.  A file has none.
    """
    links = (link for link in BY_ID.glob("*") if link.exists())
    return sorted(link.name for link in links if disk.exists() and link.samefile(disk))


def is_same_disk(path: Path, ids: Sequence[str], disk: Path) -> bool:
    """Tell whether `disk` is the one that was at `path` with these ids."""
    if ids:
        return not set(ids).isdisjoint(ids_of(disk))
    return path.exists() and path.samefile(disk)


def mark_of(disk: Path) -> Mark | None:
    """Return the mark on a disk, by whichever name that is opened."""
    with suppress(HostError):
        for path in marks_folder().glob("*.json"):
            with suppress(FileNotFoundError):  # finished just now
                data = json.loads(path.read_text())
                if is_same_disk(Path(data["disk"]), data["ids"], disk):
                    return Mark(
                        path=path, disk=data["disk"], ids=data["ids"], journal=Path(data["journal"])
                    )
    return None


def _path_for(disk: Path) -> Path:
    return marks_folder() / f"{hashlib.sha256(os.fsencode(disk)).hexdigest()[:32]}.json"


def set_marks(disks: Iterable[Path], journal: Path) -> None:
    """Mark disks; the marks are on stable storage when this returns.  Raises OSError."""
    for disk in disks:
        path = _path_for(disk)
        part = path.with_suffix(".part")
        data = {"disk": str(disk), "ids": ids_of(disk), "journal": str(journal)}
        part.write_text(json.dumps(data))
        fsync_path(part)
        part.rename(path)
    fsync_path(marks_folder())


def remove_marks(disks: Iterable[Path]) -> None:
    """Remove the marks, for good when this returns."""
    for disk in disks:
        _path_for(disk).unlink(missing_ok=True)
    if marks_folder().exists():
        fsync_path(marks_folder())


def refuse_half_written(files: Iterable[Path]) -> None:
    """Raise TargetError for a disk that a commit is writing into, or that one left by half."""
    for file in files:
        if mark_of(file):
            raise TargetError(
                f"{file} is written by half: a conversion in place is writing into it, or was cut "
                "off in that.",
                remedy="Wait where it goes on. Where it was cut off, the next start of the worker "
                "or of that conversion in place finishes it.",
                code=HALF_WRITTEN,
            )
