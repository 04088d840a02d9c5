"""What a conversion makes where only a connection reaches, noted before it is made.

An engine that is killed cannot remove it; whoever tidies up reads the notes in the work folder and
removes it then.  Files of this host need no note: their names are in the report `targets`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from conversions.pipeline.commit import keep_if_begun
from conversions.pipeline.errors import HostError
from conversions.pipeline.host_files import fsync_path
from conversions.pipeline.kept import keep_converted
from conversions.pipeline.report import Reporter
from conversions.pipeline.work import MIN_FREE_BYTES, remove_folder

NOTES = "made-elsewhere.jsonl"
# By the kind of output: what removes all that its notes of one work folder name.
_REMOVERS = {"libvirt": "conversions.pipeline.outputs.libvirt_targets:remove_noted"}

Note = Mapping[str, Any]
Remover = Callable[[Sequence[Note], Reporter], list[str]]


def note(work: Path, kind: str, **values: str) -> None:
    """Note what is about to be made; it is on stable storage when this returns."""
    path = work / NOTES
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"kind": kind, **values}) + "\n")
    fsync_path(path)


def notes_of(work: Path) -> list[Note]:
    """Return the notes, oldest first; one that was cut off while it was written counts as none."""
    path = work / NOTES
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    # What was to be made after a note that has no end of line was not made.
    return [json.loads(line) for line in lines[:-1]]


def forget_notes(work: Path) -> None:
    """Remove the notes: what they name is removed, or is a result."""
    (work / NOTES).unlink(missing_ok=True)


def clean_up(work: Path, report: Reporter) -> list[str]:
    """Remove what a killed run with this work folder left: what it noted, then the folder.

    Finishes a commit that was begun, and keeps converted overlays where the job wanted that.
    Returns what was removed.  Raises HostError, TargetError; the folder stays then.
    """
    if not work.is_dir():
        raise HostError(f"There is no work folder {work}.")
    keep_if_begun(work, report)
    removed = []
    noted = notes_of(work)
    for kind in dict.fromkeys(str(entry["kind"]) for entry in noted):
        module, _, name = _REMOVERS[kind].partition(":")
        remover: Remover = getattr(import_module(module), name)
        removed += remover([entry for entry in noted if entry["kind"] == kind], report)
    forget_notes(work)
    if not keep_converted(work, MIN_FREE_BYTES, report):
        remove_folder(work, report)
        removed.append(str(work))
    report.report("files", {"created": [], "removed": removed})
    return removed
