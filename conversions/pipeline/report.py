"""How the pipeline tells its story: one Reporter, an event line for everything that happens.

An event is a dict with `seq` (from 1, no gaps), `at` (ISO 8601 UTC), `type` and:

    step      name, title, state started | finished | skipped | failed, seconds, reason
    log       level error | warning | info | debug | trace, step, text (one line)
    progress  disk ("sda"), done_bytes, total_bytes, rate (bytes a second, of the last 30 s)
    report    name, data (JSON)
    result    status ok | error | stopped; code, message, remedy, step

No string in it has a control byte or half of a surrogate pair: they are \\ufffd.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import IO, Any, Protocol

from conversions.pipeline.steps import TITLES, Step

MAX_LINE = 4096
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Level(StrEnum):
    """Severity of a log line: error needs a person, warning a glance, trace is libguestfs."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    DEBUG = "debug"
    TRACE = "trace"


class Reporter(Protocol):
    """Where the pipeline tells its story, in order; safe to call from several threads."""

    def step(self, step: Step) -> Any:
        """Announce a step; use as a context manager around its work."""
        ...

    def skip(self, step: Step, reason: str) -> None:
        """Say that a step is not needed, and why."""
        ...

    def log(self, level: Level, text: str) -> None:
        """Write one or more lines under the current step."""
        ...

    def progress(
        self, disk: str, done_bytes: int, total_bytes: int, *, rate: float | None = None
    ) -> None:
        """Tell how much of a disk has been copied, and at how many bytes a second lately."""
        ...

    def report(self, name: str, data: Any) -> None:
        """Hand over a step's record: "inspection", "guestcaps", ..."""
        ...


def clean(data: Any) -> Any:
    """Return data with \\ufffd for what no database, terminal or JSON takes, however deep it is.

    Much of it was written by the guest or whoever made it.
    """
    if isinstance(data, str):
        return _CONTROL.sub("\ufffd", data)
    if isinstance(data, Mapping):
        return {clean(key): clean(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        cleaned = map(clean, data)
        return list(cleaned) if isinstance(data, list) else tuple(cleaned)
    return data


class EventReporter:
    """Turns calls into events and hands each to `emit`."""

    def __init__(self, emit: Callable[[dict[str, Any]], None]) -> None:
        self._emit = emit
        self._lock = threading.RLock()
        self._seq = 0
        self.current: Step | None = None
        self.warnings = 0

    def event(self, type_: str, **values: Any) -> None:
        """Emit one event with the next sequence number."""
        with self._lock:
            self._seq += 1
            at = datetime.now(UTC).isoformat()
            self._emit({"seq": self._seq, "at": at, "type": type_, **clean(values)})

    @contextmanager
    def step(self, step: Step) -> Iterator[None]:
        """Announce the step, then its end with the seconds it took, or its failure."""
        begun = time.monotonic()
        outer, self.current = self.current, step
        self.event("step", name=step, title=TITLES[step], state="started")
        try:
            yield
        except BaseException:
            seconds = round(time.monotonic() - begun, 3)
            self.event("step", name=step, title=TITLES[step], state="failed", seconds=seconds)
            raise
        seconds = round(time.monotonic() - begun, 3)
        self.event("step", name=step, title=TITLES[step], state="finished", seconds=seconds)
        self.current = outer

    def skip(self, step: Step, reason: str) -> None:
        """Emit a skipped step with its reason."""
        self.event("step", name=step, title=TITLES[step], state="skipped", reason=reason)

    def log(self, level: Level, text: str) -> None:
        """Emit a log event per line; long lines are cut."""
        if level is Level.WARNING:
            self.warnings += 1
        for line in text.rstrip("\n").split("\n"):
            shown = line.rstrip("\r")
            if len(shown) > MAX_LINE:
                shown = shown[:MAX_LINE] + f" (cut at {MAX_LINE})"
            self.event("log", level=level, step=self.current or Step.REQUEST, text=shown)

    def progress(
        self, disk: str, done_bytes: int, total_bytes: int, *, rate: float | None = None
    ) -> None:
        """Emit a progress event; without a rate for the first one."""
        values = {} if rate is None else {"rate": round(rate)}
        self.event("progress", disk=disk, done_bytes=done_bytes, total_bytes=total_bytes, **values)

    def report(self, name: str, data: Any) -> None:
        """Emit a report event."""
        self.event("report", name=name, data=data)


def json_lines(stream: IO[str]) -> Callable[[Mapping[str, Any]], None]:
    """Return an emitter that writes each event as one JSON line and flushes."""

    def emit(event: Mapping[str, Any]) -> None:
        stream.write(json.dumps(event, ensure_ascii=True, default=lambda o: clean(str(o))) + "\n")
        stream.flush()

    return emit


class RecordingReporter(EventReporter):
    """Keeps the events in a list, for tests and for use from a Python prompt."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        super().__init__(self.events.append)

    def of(self, type_: str) -> list[dict[str, Any]]:
        """Return the events of one type, in order."""
        return [e for e in self.events if e["type"] == type_]

    def data(self, name: str) -> Any:
        """Return the data of the last report of that name.  Raises IndexError when none came."""
        return [e["data"] for e in self.of("report") if e["name"] == name][-1]
