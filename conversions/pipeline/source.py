"""Step 2: open the source, check what its manifest says, and later that it is unchanged."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from conversions.pipeline.errors import TargetError
from conversions.pipeline.job import Job, Mode
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.sizes import human
from conversions.pipeline.stop import check_stop
from inventory.sources.base import reader_for
from inventory.sources.text import legacy
from inventory.sources.types import Source

_SAMPLES = 64
_SAMPLE_BYTES = 65536

Fingerprint = Mapping[str, tuple[int, int, str]]
"""Per file: size, mtime in nanoseconds, digest over sampled blocks."""


def open_source(job: Job, work: Path, report: Reporter) -> Source:
    """Read the VM's metadata and verify its digests.  Raises SourceError, TargetError."""
    reader = reader_for(
        job.source.kind,
        job.source.location,
        work_dir=work,
        warn=lambda text: report.log(Level.WARNING, text),
        more=job.source.more,
        format=job.source.format,
        connection=job.source.connection,
        disks_anywhere=job.source.disks_anywhere,
        look=check_stop,
    )
    report.log(Level.INFO, f"Source: {reader.describe()}")
    source = reader.read()
    if job.mode is Mode.IN_PLACE:
        _refuse_split(source)
    if job.verify_digests:
        report.report("digests", reader.verify(_announced(report)))
    else:
        report.log(Level.INFO, "The digests of the manifest are not checked, as asked.")
    text = legacy(source)
    report.log(Level.INFO, text)
    report.report("source", source.to_dict() | {"text": text})
    return source


def _refuse_split(source: Source) -> None:
    """Refuse disks of several files, of which only the one that is named would be locked."""
    if split := [disk.path for disk in source.disks if disk.other_files]:
        raise TargetError(
            f"{', '.join(split)} cannot be converted in place: it consists of several files.",
            remedy="Convert the machine into a new one instead, which copies its disks.",
        )


def _announced(report: Reporter) -> Callable[[int, int], None]:
    """Return a progress callback that logs a line every ten seconds."""
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        check_stop()
        if time.monotonic() - last >= 10:
            last = time.monotonic()
            report.log(Level.INFO, f"Checking digests: {human(done)} of {human(total)}")

    return progress


def fingerprint(source: Source, location: str) -> Fingerprint:
    """Return size, mtime and a digest over up to 64 sampled blocks of every source file.

    `location` is the file that was given: a package, from which disks may have been unpacked, or
    what describes the machine.  The extents and lower layers of disks are among the files.
    """
    result: dict[str, tuple[int, int, str]] = {}
    package = {location} if Path(location).is_file() else set()
    files = {name for disk in source.disks for name in (disk.path, *disk.other_files)}
    for name in sorted(files | package):
        path = Path(name)
        state = path.stat()
        digest = hashlib.sha256()
        stride = max(_SAMPLE_BYTES, state.st_size // _SAMPLES)
        with path.open("rb") as stream:
            for offset in range(0, state.st_size, stride):
                stream.seek(offset)
                digest.update(stream.read(_SAMPLE_BYTES))
        result[name] = (state.st_size, state.st_mtime_ns, digest.hexdigest())
    return result


def refuse_changed(source: Source, location: str, before: Fingerprint) -> None:
    """Raise TargetError when the source is not what it was at the start."""
    after = fingerprint(source, location)
    if changed := sorted(name for name in before if after.get(name) != before[name]):
        raise TargetError(
            f"{', '.join(changed)} changed while the guest was being converted; nothing was "
            "written into it.",
            remedy="See that nothing uses the machine's disks, and convert it again.",
            code="E-SOURCE-CHANGED",
        )


def report_unchanged(source: Source, location: str, before: Fingerprint, report: Reporter) -> None:
    """Compare the source with what it was at the start and say so."""
    after = fingerprint(source, location)
    changed = sorted(name for name in before if after.get(name) != before[name])
    report.report("source_check", {"unchanged": not changed, "changed": changed})
    if changed:
        report.log(
            Level.WARNING,
            f"The source changed during the conversion: {', '.join(changed)}. "
            "Something else wrote to it; the result may be inconsistent.",
        )
    else:
        report.log(Level.INFO, "Source unchanged: size, time and sampled blocks are as before.")
