"""Committing overlays into the disks below them, all or nothing.

All changes wait in overlays.  When every step has succeeded a journal is written, and only then are
the overlays committed into the disks.  Until the journal is there a disk is bit for bit as it was;
from then on a crash is mended by committing again, which gives the same: `finish_commit`.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from conversions.pipeline.commands import run
from conversions.pipeline.errors import ConversionError, HostError, TargetError
from conversions.pipeline.host_files import fsync_path
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import TargetDisk

JOURNAL = "commit.json"
MARK_SUFFIX = ".v2vweb-commit"


def mark_of(disk: Path) -> Path:
    """Return the link beside a disk that leads to the journal of its commit."""
    return disk.with_name(disk.name + MARK_SUFFIX)


@contextmanager
def locked(disks: Sequence[Path], report: Reporter) -> Iterator[None]:
    """Hold the disks against a second job, and refuse those a machine has open.

    Finishes a commit that was cut off first.  Raises TargetError.
    """
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
            mark = mark_of(disk)
            if mark.is_symlink():
                report.log(
                    Level.WARNING, f"An earlier conversion of {disk} was cut off; it is finished."
                )
                finish_commit(mark.readlink().parent, report)
                mark.unlink(missing_ok=True)
        yield


def journal_of(work: Path) -> Path:
    """Return the journal's path in a work folder."""
    return work / JOURNAL


def write_journal(work: Path, disks: Sequence[TargetDisk]) -> None:
    """Write down what is to be committed, and mark the disks; from here on it will be."""
    entries = [{"overlay": d.overlay.path, "disk": d.final_path} for d in disks]
    for entry in entries:
        fsync_path(Path(entry["overlay"]))
    part = work / f"{JOURNAL}.part"
    part.write_text(json.dumps({"disks": entries}))
    fsync_path(part)
    for disk in disks:
        mark = mark_of(Path(disk.final_path))
        mark.unlink(missing_ok=True)
        mark.symlink_to(journal_of(work))
        fsync_path(mark.parent)
    part.rename(journal_of(work))
    fsync_path(work)


def finish_commit(
    work: Path,
    report: Reporter,
    *,
    progress: Callable[[str, bytes], None] = lambda _overlay, _chunk: None,
) -> None:
    """Commit what the journal of a work folder names; without one nothing was begun.

    Doing it twice gives the same.  Raises CommandError; the journal stays then.
    """
    journal = journal_of(work)
    if journal.exists():
        entries: list[Mapping[str, str]] = json.loads(journal.read_text())["disks"]
        for entry in entries:
            overlay, disk = entry["overlay"], Path(entry["disk"])
            # -d: the overlay stays whole until all are done.
            command = ["qemu-img", "commit", "-p", "-d", "-f", "qcow2", "-t", "writeback", overlay]
            run(command, report, on_output=partial(progress, overlay))
            fsync_path(disk)
            report.log(Level.INFO, f"{disk} is converted.")
        for entry in entries:
            mark = mark_of(Path(entry["disk"]))
            mark.unlink(missing_ok=True)
        journal.unlink()


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
