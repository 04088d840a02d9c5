"""A stop that works at any moment, also while a call into libguestfs blocks.

The pipeline runs in a thread; the main thread waits for it and for the stop.  A stop kills every
direct child (the appliance, qemu-img), so that whatever the pipeline waits for comes back with an
error, and the pipeline leaves by its ordinary clean-up.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path
from typing import IO

from conversions.pipeline.errors import Stopped

_asked = threading.Event()
_too_late = threading.Event()
_reason = ""


def is_stopping() -> bool:
    """Tell whether a stop has been asked for, in time."""
    return _asked.is_set() and not _too_late.is_set()


def no_return() -> None:
    """Take no stop any more: what follows can be finished but not undone.

    Raises Stopped when one has been asked for before.
    """
    check_stop()
    _too_late.set()


def check_stop() -> None:
    """Raise Stopped once a stop has been asked for; called between pieces of work."""
    if is_stopping():
        raise Stopped(f"Stopped: {_reason}. The source is unchanged.")


def ask_stop(reason: str) -> None:
    """Ask the pipeline to stop; the first reason counts."""
    global _reason
    if not _asked.is_set():
        _reason = reason
        _asked.set()


def on_signals() -> None:
    """Make TERM and INT ask for a stop.  Call in the main thread."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(
            number, lambda n, _frame: ask_stop(f"signal {signal.Signals(n).name} was received")
        )


def on_end_of(stream: IO[str]) -> None:
    """Ask for a stop when `stream` ends: whoever started this process is gone then."""

    def wait() -> None:
        while stream.read(4096):
            pass
        ask_stop("the process that supervises this conversion ended")

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def join_or_stop(worker: threading.Thread) -> None:
    """Wait for the pipeline's thread; after a stop kill children until it has left."""
    while worker.is_alive():
        worker.join(0.2)
        if is_stopping() and worker.is_alive():
            kill_children()


def kill_children() -> None:
    """Send KILL to every direct child process of this one."""
    for pid in children_of(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def children_of(parent: int) -> list[int]:
    """Return the process ids of the direct children of a process, from /proc."""
    found: list[int] = []
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in task.read_text().split()]
    return found
