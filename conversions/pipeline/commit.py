"""Committing overlays into the disks below them, all or nothing.

All changes wait in overlays.  When every step has succeeded a journal is written, then the disks
are marked, and only then are the overlays committed into them.  Until the journal is there a disk
is bit for bit as it was; from then on a crash is mended by committing again, which gives the same:
`finish_commit`.  A disk with a mark whose journal is gone is written by half, for good.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from conversions.pipeline.commands import run
from conversions.pipeline.errors import ConversionError, HostError, TargetError
from conversions.pipeline.host_files import fsync_path
from conversions.pipeline.marks import (
    HALF_WRITTEN,
    Mark,
    ids_of,
    is_own_folder,
    make_marks_folder,
    mark_of,
    remove_marks,
    set_marks,
)
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import TargetDisk

JOURNAL = "commit.json"


@contextmanager
def locked(disks: Sequence[Path], report: Reporter) -> Iterator[None]:
    """Hold the disks against a second job, and refuse those a machine has open.

    Finishes a commit that was cut off first.  Raises CommandError, HostError, TargetError.
    """
    make_marks_folder()
    with ExitStack() as stack:
        for disk in disks:
            descriptor = os.open(disk, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise TargetError(
                    f"{disk} is being converted by another job.",
                    remedy="Wait until that has ended.",
                    code="E-IN-USE",
                ) from error
            if not os.access(disk, os.W_OK):
                raise TargetError(
                    f"{disk} may not be written, so it cannot be converted in place.",
                    remedy="Give the user of the engine the right to write it, or copy instead.",
                )
        for disk in disks:
            if mark := mark_of(disk):
                _finish_marked(disk, mark, report)
        yield


def _finish_marked(disk: Path, mark: Mark, report: Reporter) -> None:
    work = mark.journal.parent
    # Where the folder was deleted, another user may have made one of the same name.
    entries = _entries(work) if is_own_folder(work) else []
    if mark.disk not in [entry["disk"] for entry in entries]:
        raise TargetError(
            f"{disk} is written by half: a conversion in place was cut off in that, and "
            f"{mark.journal}, by which it could be finished, is gone.",
            remedy=f"Put the disk back from a backup, then remove {mark.path}.",
            code=HALF_WRITTEN,
        )
    report.log(Level.WARNING, f"An earlier conversion of {disk} was cut off; it is finished.")
    finish_commit(work, report)


def journal_of(work: Path) -> Path:
    """Return the journal's path in a work folder."""
    return work / JOURNAL


def _entries(work: Path) -> list[Mapping[str, Any]]:
    """Return the entries of a work folder's journal; none where nothing was begun."""
    journal = journal_of(work)
    entries: list[Mapping[str, Any]] = []
    if journal.exists():
        entries = json.loads(journal.read_text())["disks"]
    return entries


def write_journal(work: Path, disks: Sequence[TargetDisk]) -> None:
    """Write down what is to be committed, and mark the disks; from here on it will be.

    Raises HostError; then nothing will be.
    """
    paths = [Path(disk.final_path) for disk in disks]
    entries = [
        {"overlay": disk.overlay.path, "disk": str(path), "ids": ids_of(path)}
        for disk, path in zip(disks, paths, strict=True)
    ]
    part, journal = work / f"{JOURNAL}.part", journal_of(work)
    try:
        for disk in disks:
            fsync_path(Path(disk.overlay.path))
        part.write_text(json.dumps({"disks": entries}))
        fsync_path(part)
        part.rename(journal)
        fsync_path(work)
        # After the journal: a mark without one tells that it was lost, never that it was to come.
        set_marks(paths, journal)
    except OSError as error:
        remove_marks(paths)
        journal.unlink(missing_ok=True)
        raise HostError(
            f"That the disks are to be changed could not be noted: {error}. They are unchanged.",
            remedy="See that the file systems of the work folder and of the home folder have room.",
        ) from error


def finish_commit(
    work: Path,
    report: Reporter,
    *,
    progress: Callable[[str, bytes], None] = lambda _overlay, _chunk: None,
) -> None:
    """Commit what the journal of a work folder names; without one nothing was begun.

    Doing it twice gives the same.  Raises CommandError, TargetError; the journal stays then.
    """
    entries = _entries(work)
    if not entries:
        return
    for entry in entries:
        _refuse_exchanged(Path(entry["disk"]), entry["ids"])
    for entry in entries:
        overlay, disk = entry["overlay"], Path(entry["disk"])
        # -d: the overlay stays whole until all are done.
        command = ["qemu-img", "commit", "-p", "-d", "-f", "qcow2", "-t", "writeback", overlay]
        run(command, report, on_output=partial(progress, overlay))
        fsync_path(disk)
        report.log(Level.INFO, f"{disk} is converted.")
    remove_marks(Path(entry["disk"]) for entry in entries)
    journal_of(work).unlink()


def _refuse_exchanged(disk: Path, ids: Sequence[str]) -> None:
    """Refuse to go on at a name that another device has got since."""
    if ids and set(ids).isdisjoint(ids_of(disk)):
        raise TargetError(
            f"{disk} is another device now than the one whose conversion was begun ({ids[0]}).",
            remedy=f"See that {disk} leads to that one again, and start once more.",
        )


def keep_if_begun(work: Path, report: Reporter) -> bool:
    """Finish a commit that was begun in a work folder, before the folder may go; tell if it was.

    Raises HostError when it cannot be finished now; the folder has to stay then.
    """
    begun = journal_of(work).exists()
    try:
        finish_commit(work, report)
        return begun
    except (ConversionError, OSError, ValueError, KeyError) as error:
        raise HostError(
            f"The commit begun in {work} could not be finished: {error}.",
            remedy="See that the disks can be written, and keep that folder: the next start "
            "finishes it.",
        ) from error
