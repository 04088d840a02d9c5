"""How many disks this host copies at once, over all conversions on it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.stop import check_stop
from conversions.pipeline.work import large_temp_folder

_DEFAULT = 2
_VARIABLE = "V2VWEB_HOST_COPIES"
_POLL_SECONDS = 0.2


def host_limit() -> int:
    """Return the limit: two, or V2VWEB_HOST_COPIES; never more than there are processors."""
    text = os.environ.get(_VARIABLE, "")
    wanted = int(text) if text.isdecimal() else _DEFAULT
    return max(1, min(wanted, os.cpu_count() or 1))


@contextmanager
def copy_slot(report: Reporter, folder: Path | None = None) -> Iterator[None]:
    """Wait for a free slot and hold it; the kernel gives it back when this process dies.

    Raises Stopped while waiting.
    """
    folder = folder or large_temp_folder() / f".v2vweb-copies-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = _wait(folder, report)
    try:
        yield
    finally:
        os.close(descriptor)


def _wait(folder: Path, report: Reporter) -> int:
    said = False
    while (descriptor := _take(folder)) is None:
        check_stop()
        if not said:
            report.log(Level.INFO, f"{host_limit()} disks are being copied on this host; waiting.")
            said = True
        time.sleep(_POLL_SECONDS)
    return descriptor


def _take(folder: Path) -> int | None:
    """Return the descriptor of a slot that was free, None when none was."""
    for number in range(host_limit()):
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(folder / f"slot{number}", flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            return descriptor
    return None
