"""Step 2: open the source, check what its manifest says, and later that it is unchanged."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from conversions.pipeline.errors import TargetError
from conversions.pipeline.job import Input, Job, Mode
from conversions.pipeline.marks import refuse_half_written
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.sizes import human
from conversions.pipeline.stop import check_stop
from inventory.sources.base import SourceReader, Warn
from inventory.sources.errors import MAY_READ, SourceError
from inventory.sources.https_session import first_line
from inventory.sources.nbdkit import Servers
from inventory.sources.readers import reader_for
from inventory.sources.remote import RemoteReader
from inventory.sources.text import legacy
from inventory.sources.types import Source

_SAMPLES = 64
_SAMPLE_BYTES = 65536

Fingerprint = Mapping[str, tuple[int, int, str]]
"""Per file: size, mtime in nanoseconds, digest over sampled blocks."""


def reader_of(source: Input, work: Path, warn: Warn, *, keep_display: bool = False) -> SourceReader:
    """Return the reader for what a job names as its source.  Raises SourceError."""
    password = source.password or None
    if source.password_file:
        password = first_line(Path(source.password_file))
    return reader_for(
        source.kind,
        source.location,
        work_dir=work,
        warn=warn,
        more=source.more,
        format=source.format,
        connection=source.connection,
        disks_anywhere=source.disks_anywhere,
        allow_running=source.allow_running,
        keep_display=keep_display,
        transport=source.transport,
        password=password,
        options=source.options,
        look=check_stop,
    )


def open_source(job: Job, work: Path, report: Reporter, servers: Servers) -> Source:
    """Read the VM's metadata, verify its digests, and serve the disks that lie on other hosts.

    Raises SourceError, TargetError.
    """
    keep_display = bool(job.target and job.target.keep_display)
    reader = reader_of(
        job.source,
        work,
        lambda text: report.log(Level.WARNING, text),
        keep_display=keep_display,
    )
    report.log(Level.INFO, f"Source: {reader.describe()}")
    source = reader.read()
    local = [disk for disk in source.disks if not disk.remote]
    refuse_half_written(Path(name) for disk in local for name in disk.other_files)
    if job.mode is Mode.IN_PLACE:
        _refuse_split(source)
    else:  # in place what was begun is finished first
        refuse_half_written(Path(disk.path) for disk in local)
    if job.verify_digests:
        digests = reader.verify(_announced(report))
        for digest in (d for d in digests if d["status"] == "computed"):
            text = f"The {digest['algorithm']} of the content of {digest['file']} is "
            report.log(Level.INFO, text + digest["digest"])
        report.report("digests", digests)
    elif not job.resume:  # that was up to the run that is continued
        report.log(Level.INFO, "The digests of the manifest are not checked, as asked.")
    tell_source(source, report)
    if job.mode is Mode.IN_PLACE and any(disk.remote for disk in source.disks):
        raise TargetError(
            f"{source.name} has disks on another host; those cannot be changed in place.",
            remedy="Convert it into a copy.",
            code="E-IN-PLACE-REMOTE",
        )
    if isinstance(reader, RemoteReader):
        source = reader.serve(source, servers)
    return source


def tell_source(source: Source, report: Reporter) -> None:
    """Log and report what the source is."""
    text = legacy(source)
    report.log(Level.INFO, text)
    report.report("source", source.to_dict() | {"text": text})


def _refuse_split(source: Source) -> None:
    """Refuse disks of several files, of which only the one that is named would be locked.

    Of a qcow2 that is the only one that changes: the layers below it are read.
    """
    split = [disk.path for disk in source.disks if disk.other_files and disk.format != "qcow2"]
    if split:
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
    what describes the machine.  The extents and lower layers of disks are among the files; disks on
    other hosts have none.  Raises SourceError.
    """
    result: dict[str, tuple[int, int, str]] = {}
    package = {location} if Path(location).is_file() else set()
    local = [disk for disk in source.disks if not disk.remote]
    files = {name for disk in local for name in (disk.path, *disk.other_files)}
    for name in sorted(files | package):
        try:
            result[name] = _fingerprint(Path(name))
        except OSError as error:
            raise SourceError(
                "E-IMG-READ", f"{name} cannot be read: {error.strerror}.", remedy=MAY_READ
            ) from error
    return result


def _fingerprint(path: Path) -> tuple[int, int, str]:
    state = path.stat()
    digest = hashlib.sha256()
    stride = max(_SAMPLE_BYTES, state.st_size // _SAMPLES)
    with path.open("rb") as stream:
        for offset in range(0, state.st_size, stride):
            stream.seek(offset)
            digest.update(stream.read(_SAMPLE_BYTES))
    return state.st_size, state.st_mtime_ns, digest.hexdigest()


def changed_files(source: Source, location: str, before: Fingerprint) -> list[str]:
    """Return the files of the source that are not what they were, sorted.  Raises SourceError."""
    after = fingerprint(source, location)
    return sorted(name for name in before if after.get(name) != before[name])


def refuse_changed(source: Source, location: str, before: Fingerprint) -> None:
    """Raise TargetError when the source is not what it was at the start; SourceError if gone."""
    if changed := changed_files(source, location, before):
        raise TargetError(
            f"{', '.join(changed)} changed while the guest was being converted; nothing was "
            "written into it.",
            remedy="See that nothing uses the machine's disks, and convert it again.",
            code="E-SOURCE-CHANGED",
        )


def report_unchanged(source: Source, location: str, before: Fingerprint, report: Reporter) -> None:
    """Compare the source with what it was at the start and say so."""
    changed = changed_files(source, location, before)
    remote = [disk.path for disk in source.disks if disk.remote]
    # Of disks on other hosts nobody here can tell whether something else wrote to them.
    unchanged = None if remote and not changed else not changed
    report.report("source_check", {"unchanged": unchanged, "changed": changed})
    if changed:
        report.log(
            Level.WARNING,
            f"The source changed during the conversion: {', '.join(changed)}. "
            "Something else wrote to it; the result may be inconsistent.",
        )
    elif before:
        report.log(Level.INFO, "Source unchanged: size, time and sampled blocks are as before.")
    if remote:
        report.log(
            Level.INFO,
            f"On another host, and only read here: {', '.join(remote)}.",
        )
