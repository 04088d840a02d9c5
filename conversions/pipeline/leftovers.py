"""What a conversion makes where only a connection reaches, noted before it is made.

An engine that is killed cannot remove it; whoever tidies up reads the notes in the work folder and
removes it then.  Files of this host need no note: their names are in the report `targets`.  The
notes hold no secrets: who tidies up says again how to sign in, where that takes some.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Any

from conversions.pipeline.commit import keep_if_begun
from conversions.pipeline.errors import ConversionError, HostError, TargetError
from conversions.pipeline.host_files import fsync_path
from conversions.pipeline.job import Target
from conversions.pipeline.kept import keep_converted
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.work import MIN_FREE_BYTES, remove_folder
from inventory.sources.errors import SourceError

NOTES = "made-elsewhere.jsonl"
# By the kind of output: what connects to its target and gives what removes one thing there.
_REMOVERS = {
    "glance": "glance_images:remover",
    "libvirt": "libvirt_targets:remover",
    "openstack": "openstack_lending:remover",
    "ovirt-upload": "ovirt_leftovers:remover",
}

Note = Mapping[str, Any]
# Returns what was removed, None when nothing of this run is there.  Raises TargetError.
Remove = Callable[[Note], str | None]
Remover = Callable[[Target, Sequence[Note], Reporter], AbstractContextManager[Remove]]


class Notes:
    """The notes of one run; `place` is where its target is, as its connection tells it.

    A note with a `thing` and its `name` is of something that is removed after a kill.
    """

    def __init__(self, work: Path, target: Target, place: str) -> None:
        self._work = work
        self._common = {"target": target.public(), "place": place}

    def add(self, **values: str) -> None:
        """Note what is about to be made; it is on stable storage when this returns."""
        path = self._work / NOTES
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({**self._common, **values}) + "\n")
        fsync_path(path)

    def forget(self) -> None:
        """Remove the notes: what they name is a result."""
        _forget_notes(self._work)


def notes_of(work: Path) -> list[Note]:
    """Return the notes, oldest first; one that was cut off while it was written counts as none."""
    path = work / NOTES
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    # What was to be made after a note that has no end of line was not made.
    return [json.loads(line) for line in lines[:-1]]


def names_in(noted: Sequence[Note]) -> list[str]:
    """Return what may have been made, in words, with the mark that tells it from others."""
    return [
        f"{note['thing']} {note['name']}" + (f" (run {note['mark']})" if "mark" in note else "")
        for note in noted
        if "thing" in note
    ]


def refuse_other_place(noted: Sequence[Note], place: str) -> None:
    """Refuse to look for leftovers where they are not.  Raises TargetError."""
    if (there := noted[0]["place"]) != place:
        raise TargetError(f"This is {place}; the run that was killed worked at {there}.")


def clean_up(work: Path, report: Reporter, complete: Callable[[Target], Target]) -> None:
    """Remove what a killed run with this work folder left: what it noted, then the folder.

    Finishes a commit that was begun, and keeps converted overlays where the job wanted that.
    `complete` adds to the target that was noted what signing in takes.  Reports what was removed.
    Raises HostError, JobError, TargetError; the folder stays then.
    """
    if not work.is_dir():
        raise HostError(f"There is no work folder {work}.")
    keep_if_begun(work, report)
    removed: list[str] = []
    try:
        if noted := notes_of(work):
            target = complete(Target.from_dict(noted[0]["target"]))
            _remove_noted(target, noted, removed, report)
        _forget_notes(work)
        if not keep_converted(work, MIN_FREE_BYTES, report):
            remove_folder(work, report)
            removed.append(str(work))
    finally:
        report.report("files", {"created": [], "removed": removed})


def _forget_notes(work: Path) -> None:
    (work / NOTES).unlink(missing_ok=True)


def _remove_noted(
    target: Target, noted: Sequence[Note], removed: list[str], report: Reporter
) -> None:
    """Remove every thing that was noted, also after a failure, and add it to `removed`.

    Raises TargetError naming what is left.
    """
    module, _, name = _REMOVERS[target.kind].partition(":")
    remover: Remover = getattr(import_module(f"conversions.pipeline.outputs.{module}"), name)
    left = [note for note in noted if "thing" in note]
    try:
        with remover(target, noted, report) as remove:
            failures = []
            for note in tuple(left):
                try:
                    gone = remove(note)
                except TargetError as error:
                    failures.append(error)
                    continue
                left.remove(note)
                if gone:
                    removed.append(gone)
                    report.log(Level.INFO, f"Removed: {note['thing']} {gone}")
            if failures:
                raise failures[0]
    except (ConversionError, SourceError) as error:
        raise TargetError(
            error.message,
            remedy=f"Still at {noted[0]['place']}, as far as they were made: "
            f"{', '.join(names_in(left))}. Clean up again, with what signing in takes "
            f"(-oc, -op, -oo), or remove them by hand. {error.remedy}".rstrip(),
            code=error.code,
        ) from error
