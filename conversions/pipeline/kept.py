"""Converted overlays that outlive a copy which failed or was stopped, to go on from there.

Before the copy begins the record of what was converted is written into the work folder.  Whoever
removes that folder after a failure, this process or who supervises it, finds the record and keeps
the overlays it names; so even a kill -9 loses nothing but the copy.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from conversions.pipeline.converted import Converted, layer_names, layers_of
from conversions.pipeline.errors import ConversionError, JobError
from conversions.pipeline.host_files import allocated, fsync_path
from conversions.pipeline.job import Input, Job, Mode
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.sizes import human

RECORD = "converted.json"
_VERSION = 1
# A session of VMware's server that lets anybody in.
_SECRET_OPTIONS = ("vddk-cookie",)


class KeptError(ConversionError):
    """Nothing can be continued from this folder."""

    code = "E-KEPT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A folder with converted overlays; `layers` are their paths by overlay, bottom first.

    `unpacked` are the names of what the source's package was unpacked into, beside them.
    """

    folder: Path
    input: Input
    converted: Converted
    layers: Mapping[str, tuple[Path, ...]]
    unpacked: tuple[str, ...] = ()

    def refuse_other(self, job: Job) -> None:
        """Refuse a job for another source than the one that was converted.  Raises KeptError."""
        if _identity(job.source) != _identity(self.input):
            raise KeptError(
                f"{self.folder} holds the converted disks of {self.input.location}, not of "
                f"{job.source.location}.",
                remedy="Continue that conversion, or convert this machine anew.",
            )


def _identity(source: Input) -> tuple[object, ...]:
    return (
        source.kind, _absolute(source), source.connection, source.transport, source.format,
        tuple(source.more),
    )  # fmt: skip


def _absolute(source: Input) -> str:
    """Return where a source is; a file's name as it is from any current folder."""
    path = Path(source.location)
    return str(path.absolute()) if path.exists() else source.location


@contextmanager
def remembered(work: Path, job: Job, converted: Converted) -> Iterator[None]:
    """Write the record of what was converted, and hold it while its own conversion goes on.

    Only of a copy whose job wants it.  The layers and the record are on stable storage when it
    begins.
    """
    if job.mode is not Mode.COPY or not job.copy.keep_converted:
        yield
        return
    for overlay in converted.overlays:
        for layer in layers_of(overlay):
            fsync_path(Path(layer.path))
    files = (
        Path(name) for disk in converted.source.disks for name in (disk.path, *disk.other_files)
    )
    unpacked = {path.relative_to(work).parts[0] for path in files if path.is_relative_to(work)}
    record = converted.to_dict() | {
        "version": _VERSION,
        "input": _public(job.source),
        "unpacked": sorted(unpacked),
    }
    part = work / f"{RECORD}.part"
    part.write_text(json.dumps(record))
    fsync_path(part)
    part.rename(work / RECORD)
    fsync_path(work)
    with _locked(work):
        yield


def _public(source: Input) -> dict[str, Any]:
    options = {k: v for k, v in source.options.items() if k not in _SECRET_OPTIONS}
    values = asdict(replace(source, location=_absolute(source), options=options))
    del values["password"]
    return values


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a record against others who would continue or remove it.  Raises KeptError."""
    try:
        descriptor = os.open(folder / RECORD, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KeptError(
            f"{folder} holds no converted disks: {error.strerror}.",
            remedy="They may have been discarded. Convert the machine anew.",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise KeptError(
            f"The converted disks in {folder} are in use by another conversion.",
            remedy="Wait until that has ended.",
        ) from error
    finally:
        os.close(descriptor)


@contextmanager
def opened(folder: Path, report: Reporter) -> Iterator[Kept]:
    """Read a kept folder and hold it against others; it stays after an error.  Raises KeptError."""
    with _locked(folder):
        kept = read_kept(folder)
        try:
            yield kept
        except BaseException:
            _tell(folder, report)
            raise


def read_kept(folder: Path) -> Kept:
    """Read the record of a kept folder.  Raises KeptError."""
    try:
        data = json.loads((folder / RECORD).read_text())
        if data["version"] != _VERSION:
            raise ValueError(f"its version is {data['version']}, not {_VERSION}")
        kept = Kept(
            folder=folder,
            input=Job.from_dict({"mode": "inspect", "source": data["input"]}).source,
            converted=Converted.from_dict(data, folder),
            layers={
                str(entry["sd"]): tuple(folder / name for name in layer_names(entry))
                for entry in data["overlays"]
            },
            unpacked=tuple(map(str, data["unpacked"])),
        )
    except (OSError, KeyError, TypeError, ValueError, AttributeError, JobError) as error:
        raise KeptError(
            f"The record of the converted disks in {folder} cannot be read: {error}.",
            remedy="Convert the machine anew.",
        ) from error
    missing = [path for layers in kept.layers.values() for path in layers if not path.is_file()]
    if missing:
        raise KeptError(
            f"Of the converted disks in {folder} {missing[0].name} is missing.",
            remedy="Convert the machine anew.",
        )
    return kept


def keep_converted(folder: Path, reserve_bytes: int, report: Reporter) -> bool:
    """Keep what a later run can continue with and remove the rest; tell if anything is kept.

    Nothing is kept of a conversion that had not come so far, and nothing when fewer than
    `reserve_bytes` would stay free: then no conversion could begin.  Doing it twice is the same.
    """
    if not (folder / RECORD).exists():
        return False
    try:
        kept = read_kept(folder)
    except KeptError as error:
        report.log(Level.WARNING, f"{error.message} Nothing is kept (ignored).")
        return False
    names = {RECORD, *kept.unpacked}
    names |= {path.name for layers in kept.layers.values() for path in layers}
    for path in folder.iterdir():
        if path.name not in names:
            _remove(path)
    if (free := shutil.disk_usage(folder).free) < reserve_bytes:
        report.log(
            Level.WARNING,
            f"The converted disks are not kept: {human(free)} is free in {folder.parent}, and "
            f"{human(reserve_bytes)} must stay free for the next conversion.",
        )
        return False
    _tell(folder, report)
    return True


def _tell(folder: Path, report: Reporter) -> None:
    size = size_of(folder)
    report.report("kept", {"folder": str(folder), "bytes": size})
    report.log(
        Level.INFO,
        f"Kept: the converted disks in {folder} ({human(size)}); a run with --resume {folder} "
        "goes on from the copy.",
    )


def size_of(folder: Path) -> int:
    """Return the bytes that the files of a kept folder occupy."""
    return sum(allocated(path) for path in folder.rglob("*") if path.is_file())


def forget(folder: Path) -> None:
    """Remove the record: what was converted is no longer of use."""
    (folder / RECORD).unlink(missing_ok=True)


def discard(folder: Path) -> bool:
    """Delete a kept folder, unless it is in use; tell if it is gone."""
    try:
        with _locked(folder):
            shutil.rmtree(folder, ignore_errors=True)
    except KeptError:
        if (folder / RECORD).exists():
            return False
        shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
