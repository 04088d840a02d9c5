"""How far the copy of a disk is, how fast it goes, and whether it goes at all.

qemu-img prints a percentage of the allocated bytes, at most once a percent: of a large disk that is
nothing for minutes, and it runs ahead of what is written.  So between its lines the kernel is asked
how much the program has written.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.sizes import human
from conversions.pipeline.types import TargetDisk

STALLED_SECONDS = 120
_PERCENT = re.compile(rb"\((\d+\.\d+)/100%\)")
# qemu-img's percentage runs ahead of what is on disk: 100 only after exit 0 and fsync.
_CAP = 0.999
_MIN_SECONDS = 0.25
_LOOK_SECONDS = 5.0
_WINDOW_SECONDS = 30.0


class ProgressParser:
    """Turns qemu-img's `-p` output, in chunks of any size, into bytes that never fall."""

    def __init__(self, total_bytes: int) -> None:
        self.total = max(1, total_bytes)
        self.done = 0
        self._rest = b""

    def feed(self, chunk: bytes) -> int:
        """Take output and return the bytes done so far."""
        self._rest += chunk
        for match in _PERCENT.finditer(self._rest):
            self.reach(int(float(match[1]) / 100 * self.total))
        self._rest = self._rest[-32:]
        return self.done

    def reach(self, done_bytes: int) -> None:
        """Take that so much is done; less than before, or all of it, is not believed."""
        self.done = max(self.done, min(done_bytes, int(_CAP * self.total)))


class CopyProgress:
    """Reports how much of one disk is done and at what rate; safe to call from two threads."""

    def __init__(
        self,
        sd: str,
        total_bytes: int,
        report: Reporter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parser = ProgressParser(total_bytes)
        self._sd = sd
        self._report = report
        self._clock = clock
        self._lock = threading.Lock()
        self._begun = self._told = self._moved = clock()
        self._window = deque([(self._begun, 0)])
        self._stalled = False
        report.progress(sd, 0, self._parser.total)

    def feed(self, chunk: bytes) -> None:
        """Take output of qemu-img; report four times a second at most."""
        self._take(lambda: self._parser.feed(chunk))

    def reach(self, done_bytes: int) -> None:
        """Take the bytes done so far; report four times a second at most."""
        self._take(lambda: self._parser.reach(done_bytes))

    def look(self, written_bytes: int) -> None:
        """Take how much the program has written, and report even when nothing has changed."""
        with self._lock:
            self._advance(lambda: self._parser.reach(written_bytes))
            self._tell()
            silent = self._clock() - self._moved
            if silent >= STALLED_SECONDS and not self._stalled:
                self._stalled = True
                self._report.log(
                    Level.WARNING,
                    f"Disk {self._sd}: nothing was written for {silent / 60:.0f} min, "
                    f"{human(self._parser.done)} of {human(self._parser.total)} are done. The copy "
                    "still runs: it passes over empty space, or source or target do not answer.",
                )

    def _take(self, step: Callable[[], object]) -> None:
        with self._lock:
            self._advance(step)
            if self._clock() - self._told >= _MIN_SECONDS:
                self._tell()

    def _advance(self, step: Callable[[], object]) -> None:
        before = self._parser.done
        step()
        if self._parser.done > before:
            self._moved, self._stalled = self._clock(), False

    def _tell(self) -> None:
        now = self._told = self._clock()
        done = self._parser.done
        self._window.append((now, done))
        while len(self._window) > 2 and now - self._window[1][0] >= _WINDOW_SECONDS:
            self._window.popleft()
        since, before = self._window[0]
        rate = (done - before) / (now - since) if now > since else None
        self._report.progress(self._sd, done, self._parser.total, rate=rate)

    def result(self, disk: TargetDisk, total_bytes: int, size: int) -> dict[str, Any]:
        """Say that all is written, `size` bytes of it allocated; return the report's record."""
        seconds = self._clock() - self._begun
        rate = total_bytes / seconds if seconds else 0.0
        self._report.progress(self._sd, self._parser.total, self._parser.total, rate=rate)
        self._report.log(
            Level.INFO,
            f"Disk {self._sd}: {human(total_bytes)} of data written in {seconds:.1f} s "
            f"({human(rate)}/s)" + (f", {human(size)} allocated." if size else "."),
        )
        return {
            "disk": self._sd,
            "path": disk.final_path,
            "format": disk.format,
            "virtual_bytes": disk.overlay.virtual_size_bytes,
            "data_bytes": total_bytes,
            "allocated_bytes": size,
            "seconds": round(seconds, 1),
            "rate": round(rate),
        }


@contextmanager
def looking_at(progress: CopyProgress) -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
    """Give what takes the program once it runs; it is looked at every few seconds till the end."""
    over = threading.Event()
    threads: list[threading.Thread] = []

    def look(process: subprocess.Popen[bytes]) -> None:
        while not over.wait(_LOOK_SECONDS):
            progress.look(written_bytes(process.pid))

    def started(process: subprocess.Popen[bytes]) -> None:
        threads.append(threading.Thread(target=look, args=[process], daemon=True))
        threads[-1].start()

    try:
        yield started
    finally:
        over.set()
        for thread in threads:
            thread.join()


def written_bytes(pid: int) -> int:
    """Return how much a program has written so far, 0 when the kernel does not tell."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("wchar:")), 0)
