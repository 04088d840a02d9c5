"""Finding and ending every process of a conversion on this host, whoever its parent is now.

The engine gets its conversion's UUID in its environment, and whatever it starts inherits it: the
appliance, qemu-img, helpers in sessions of their own.  So what a killed engine or worker left is
found without a stored process id, which may be another process by then.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from uuid import UUID

MARK = "V2VWEB_CONVERSION"
# What the console knows and the engine need not.
_SECRETS = ("SECRET_KEY", "DATABASE_URL", "REDIS_URL")


def engine_environment() -> dict[str, str]:
    """Return what parts of the engine inherit."""
    return {name: value for name, value in os.environ.items() if name not in _SECRETS}


def environment_for(uuid: UUID) -> dict[str, str]:
    """Return the environment of a conversion's engine."""
    return {**engine_environment(), MARK: str(uuid)}


def processes_of(uuid: UUID) -> list[int]:
    """Return the ids of the processes of a conversion, from /proc."""
    mark = f"{MARK}={uuid}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found


def kill_processes_of(uuid: UUID, *, seconds: float = 10) -> int:
    """Kill every process of a conversion and wait until none is left; return how many stay."""
    deadline = time.monotonic() + seconds
    empty_looks = 0
    # One look is not enough: a process that is just being executed shows no environment.
    while empty_looks < 2 and time.monotonic() < deadline:
        left = processes_of(uuid)
        empty_looks = 0 if left else empty_looks + 1
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    return len(processes_of(uuid))
