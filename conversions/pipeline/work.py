"""The private folder of one conversion, for overlays and the appliance's sockets."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conversions.pipeline.commit import keep_if_begun
from conversions.pipeline.errors import HostError
from conversions.pipeline.job import Job
from conversions.pipeline.kept import keep_converted
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.sizes import human

MIN_FREE_BYTES = 1 << 30
_VARIABLES = ("VIRT_V2V_TMPDIR", "LIBGUESTFS_CACHEDIR", "TMPDIR")


def large_temp_folder() -> Path:
    """Return where large temporary files go when the job does not say."""
    for name in _VARIABLES:
        if value := os.environ.get(name):
            return Path(value)
    return Path("/var/tmp")  # noqa: S108  mkdtemp makes a private folder in it


@contextmanager
def work_folder(job: Job, report: Reporter) -> Iterator[Path]:
    """Make the folder, mode 0700, and remove it with all that is in it at the end.

    After an error the overlays stay if the guest was converted already and the job wants it so;
    see kept.py.  Raises HostError when less than 1 GiB is free where it would be.
    """
    parent = (Path(job.work_dir).parent if job.work_dir else large_temp_folder()).absolute()
    try:
        free = shutil.disk_usage(parent).free
    except OSError as error:
        raise HostError(f"The work folder {parent} cannot be used: {error.strerror}.") from error
    if free < MIN_FREE_BYTES:
        raise HostError(
            f"Not enough free space for work files in {parent}: {human(free)} free, "
            f"{human(MIN_FREE_BYTES)} needed.",
            remedy="Free some space there, or set VIRT_V2V_TMPDIR to a larger folder.",
        )
    if job.work_dir:
        folder = Path(job.work_dir).absolute()
        folder.mkdir(mode=0o700, exist_ok=True)
    else:
        folder = Path(tempfile.mkdtemp(prefix="v2v.", dir=parent))
    succeeded = False
    try:
        yield folder
        succeeded = True
    finally:
        keep_if_begun(folder, report)
        if succeeded or not keep_converted(folder, MIN_FREE_BYTES, report):
            remove_folder(folder, report)


def remove_folder(folder: Path, report: Reporter) -> None:
    """Remove a work folder with all that is in it; a failure is a warning."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        report.log(Level.WARNING, f"The work folder {folder} could not be removed (ignored).")
