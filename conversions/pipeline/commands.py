"""Run a program: argument list logged first, output lines as they arrive, no orphan ever."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from conversions.pipeline.errors import CommandError, HostError
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.stop import check_stop
from inventory.sources.programs import WITH_US

_TAIL_LINES = 20


class Killable(Protocol):
    """A process, as far as its end is concerned."""

    def kill(self) -> None:
        """End it at once."""
        ...


class Siblings:
    """Processes that run side by side: when one fails the others are of no use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[Killable] = []
        self._ended = False

    def started(self, process: Killable) -> None:
        """Remember a process; end it at once when the others were ended."""
        with self._lock:
            self._running.append(process)
            if self._ended:
                process.kill()

    def end(self) -> None:
        """Kill all of them, and all that start later."""
        with self._lock:
            self._ended = True
            for process in self._running:
                process.kill()


def run(
    argv: Sequence[str],
    report: Reporter,
    *,
    on_output: Callable[[bytes], None] | None = None,
    on_start: Callable[[subprocess.Popen[bytes]], None] | None = None,
    level: Level = Level.INFO,
) -> str:
    """Run a program to its end and return what it wrote to standard output.

    With `on_output` each chunk of standard output goes there instead and "" is returned;
    `on_start` gets the process once it runs.  Raises
    CommandError with the exit status or signal and the last lines of standard error; Stopped.
    """
    check_stop()
    report.log(level, shlex.join(argv))
    try:
        process = subprocess.Popen(
            [*WITH_US, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise HostError(f"The program {WITH_US[0]} is not installed.") from error
    if on_start:
        on_start(process)
    assert process.stdout and process.stderr  # noqa: S101  both are pipes
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    stderr = process.stderr

    def drain() -> None:
        for line in stderr:
            tail.append(line.decode(errors="replace").rstrip())

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    kept: list[bytes] = []
    while chunk := os.read(process.stdout.fileno(), 65536):
        (on_output or kept.append)(chunk)
    status = process.wait()
    reader.join()
    process.stdout.close()
    stderr.close()
    check_stop()
    for line in tail:
        report.log(Level.WARNING if status == 0 else Level.ERROR, f"{argv[0]}: {line}")
    if status:
        how = (
            f"was ended by signal {signal.Signals(-status).name}"
            if status < 0
            else f"ended with exit status {status}"
        )
        last = tail[-1] if tail else "it gave no reason"
        raise CommandError(f"{argv[0]} {how}: {last}")
    return b"".join(kept).decode(errors="replace")
