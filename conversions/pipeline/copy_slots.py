"""How many disks this host copies at once, over all conversions on it.

A slot is a Unix socket with an abstract name, see unix(7): one process at a time can have the name,
the kernel takes it back however that process ends, and no file is left anywhere.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.stop import check_stop

_DEFAULT = 2
_VARIABLE = "V2VWEB_HOST_COPIES"
_POLL_SECONDS = 0.2


def host_limit() -> int:
    """Return the limit: two, or V2VWEB_HOST_COPIES; never more than there are processors."""
    text = os.environ.get(_VARIABLE, "")
    wanted = int(text) if text.isdecimal() else _DEFAULT
    return max(1, min(wanted, os.cpu_count() or 1))


@contextmanager
def copy_slot(report: Reporter, name: str = "v2vweb-copies") -> Iterator[None]:
    """Wait for a free slot of that name and hold it.  Raises Stopped while waiting."""
    with _wait(f"\0{name}-{os.getuid()}", report):
        yield


def _wait(name: str, report: Reporter) -> socket.socket:
    said = False
    while (slot := _take(name)) is None:
        check_stop()
        if not said:
            report.log(
                Level.INFO, f"Waiting: the limit of copies at once on this host is {host_limit()}."
            )
            said = True
        time.sleep(_POLL_SECONDS)
    return slot


def _take(name: str) -> socket.socket | None:
    """Return a slot that was free, None when none was."""
    for number in range(host_limit()):
        slot = socket.socket(socket.AF_UNIX)
        try:
            slot.bind(f"{name}-{number}")
        except OSError as error:
            slot.close()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return slot
    return None
