"""Running one engine process: store what it says, stop it when asked, tell how it ended.

Whatever happens, no process, work folder or unfinished target file of the conversion is left
before its row says that it has ended, but for converted disks that are kept on purpose.

A database that is away for a while ends no run of hours: nothing is read from the engine meanwhile,
which waits as soon as its pipe is full.
"""

from __future__ import annotations

import json
import logging
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import IO, Any, TypeVar, cast

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone

from conversions import actions
from conversions.leftovers import clean_up_after, work_dir
from conversions.models import Conversion, LogLine
from conversions.pipeline.report import MAX_LINE
from conversions.pipeline.steps import Step
from conversions.processes import environment_for, kill_processes_of

logger = logging.getLogger(__name__)

# A viewer sees an event within 300 ms, with many of them watching.
STORE_SECONDS = 0.1
STORE_EVENTS = 200
PROGRESS_SECONDS = 0.5
LOOK_SECONDS = 0.5
DRAIN_SECONDS = 60
RETRY_SECONDS = 1.0
# Of a worker that ends: script/server kills it after a minute.
LAST_RETRIES_SECONDS = 10
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")

Status = Conversion.Status
Event = dict[str, Any]
T = TypeVar("T")

shutting_down = threading.Event()
"""Set when the worker ends: every engine is stopped then."""


class Supervisor:
    """Watches over the engine of one claimed conversion; `run` returns when all is over."""

    def __init__(self, conversion: Conversion) -> None:
        self.conversion = conversion
        # Bounded, so that an engine that talks faster than rows are stored has to wait.
        self.events: queue.Queue[Event] = queue.Queue(2000)
        self.pending: list[Event] = []
        self.progress: dict[str, Event] = {}
        self.progress_stored: dict[str, float] = {}
        self.last_store = 0.0
        self.term_sent: float | None = None
        self.killed = False
        # Seconds, all in all, for the database.
        self.waited = 0.0

    def run(self) -> None:
        """Run the engine to its end, then tidy up and store how it ended."""
        conversion = self.conversion
        code: int | None = None
        try:
            code = self._watch()
            status, result = self._verdict(code)
        except Exception as error:
            logger.exception("%s cannot be supervised any longer.", conversion)
            status = Status.FAILED
            result = _result("E-INTERNAL", f"The console failed: {type(error).__name__}: {error}")
        left = kill_processes_of(conversion.uuid)
        if left:
            logger.error("%s: %d processes cannot be ended.", conversion, left)
        # What was removed is told only once, so not before it can be.
        self.patiently(lambda: actions.beat(conversion))
        self.patiently(lambda: clean_up_after(conversion))
        self.patiently(lambda: actions.finish_conversion(conversion, status, result))

    def _watch(self) -> int:
        """Start the engine, store its events until it is gone; return its exit code."""
        process = self._start()
        readers = [
            threading.Thread(target=self._read_events, args=[process.stdout], daemon=True),
            threading.Thread(target=self._read_errors, args=[process.stderr], daemon=True),
        ]
        for reader in readers:
            reader.start()
        next_look = next_beat = 0.0
        try:
            while process.poll() is None:
                self.take()
                now = time.monotonic()
                if now >= next_look:
                    self._look(process)
                    next_look = now + LOOK_SECONDS
                if now >= next_beat:
                    self.patiently(lambda: actions.beat(self.conversion))
                    next_beat = now + settings.HEARTBEAT_SECONDS
            # A left-over child may hold the pipes open; without it they end.
            kill_processes_of(self.conversion.uuid)
            deadline = time.monotonic() + DRAIN_SECONDS - self.waited
            while self.has_more(readers) and time.monotonic() - self.waited < deadline:
                self.take()
            self.store(everything=True)
        finally:
            process.kill()
            process.wait()
            if process.stdin:
                with suppress(OSError):
                    process.stdin.close()
        return process.returncode

    def patiently(self, action: Callable[[], T]) -> T:
        """Do something with the database; while it is away, again and again for some minutes."""
        began = time.monotonic()
        before = self.waited
        while True:
            try:
                return action()
            except (OperationalError, InterfaceError) as error:
                connection.close()  # one that has broken stays so
                logger.warning("%s waits for the database: %s", self.conversion, error)
                ends = shutting_down.is_set()
                patience = LAST_RETRIES_SECONDS if ends else settings.DATABASE_AWAY_SECONDS
                if time.monotonic() - began >= patience:
                    raise
            time.sleep(RETRY_SECONDS)
            self.waited = before + time.monotonic() - began

    def has_more(self, readers: list[threading.Thread]) -> bool:
        """Tell whether events can still come, or wait to be taken."""
        return any(reader.is_alive() for reader in readers) or not self.events.empty()

    def _start(self) -> subprocess.Popen[bytes]:
        """Start the engine with its job; its open standard input tells it that we are alive."""
        conversion = self.conversion
        folder = work_dir(conversion)
        folder.parent.mkdir(parents=True, exist_ok=True)
        job = replace(actions.job_of(conversion), work_dir=str(folder))
        process = subprocess.Popen(
            settings.ENGINE_COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=settings.BASE_DIR,
            env=environment_for(conversion.uuid),
            start_new_session=True,
        )
        row = Conversion.objects.filter(pk=conversion.pk)
        self.patiently(lambda: row.update(pid=process.pid))
        stdin = cast(IO[bytes], process.stdin)
        with suppress(BrokenPipeError):  # it died at once; its exit code tells
            stdin.write(job.to_json().encode() + b"\n")
            stdin.flush()
        return process

    def _read_events(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                try:
                    event = json.loads(line)
                    event["type"]
                except (ValueError, TypeError, KeyError):
                    event = self._own_line(line)
                self.events.put(event)

    def _read_errors(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                self.events.put(self._own_line(line))

    def _own_line(self, line: bytes) -> Event:
        """Return a log event for a line that is none, such as a library's last words."""
        text = _CONTROL.sub("\ufffd", line.decode(errors="replace").rstrip())[:MAX_LINE]
        return {
            "type": "log",
            "level": LogLine.Level.DEBUG,
            "step": self.conversion.step or Step.REQUEST,
            "text": text,
            "at": timezone.now().isoformat(),
        }

    def take(self) -> None:
        """Wait a moment for events; store at once after a pause, else when it is time."""
        due = self.last_store + STORE_SECONDS
        wait = min(max(due - time.monotonic(), 0.0), STORE_SECONDS) if self.pending else 0.1
        with suppress(queue.Empty):
            self._add(self.events.get(timeout=max(wait, 0.001)))
            while len(self.pending) < STORE_EVENTS:
                self._add(self.events.get_nowait())
        if len(self.pending) >= STORE_EVENTS or time.monotonic() >= due:
            self.store()

    def _add(self, event: Event) -> None:
        if event["type"] == "progress":
            self.progress[event["disk"]] = event
        else:
            self.pending.append(event)

    def store(self, *, everything: bool = False) -> None:
        """Store what is pending, and the progress of disks whose turn it is."""
        now = time.monotonic()
        for disk in list(self.progress):
            if everything or now - self.progress_stored.get(disk, 0.0) >= PROGRESS_SECONDS:
                self.pending.append(self.progress.pop(disk))
                self.progress_stored[disk] = now
        if self.pending:
            batch, self.pending = self.pending, []
            self.patiently(lambda: actions.record_events(self.conversion, batch))
            self.last_store = time.monotonic()

    def _look(self, process: subprocess.Popen[bytes]) -> None:
        """See whether someone wants it to stop; TERM first, KILL after the grace or by force."""
        rows = Conversion.objects.only("status", "force_stop")
        row = self.patiently(lambda: rows.get(pk=self.conversion.pk))
        if row.status not in (Status.RUNNING, Status.STOPPING):
            self._kill(process)  # given up as lost while this process slept
        elif row.status == Status.STOPPING or shutting_down.is_set():
            now = time.monotonic()
            if self.term_sent is None:
                self.term_sent = now
                process.send_signal(signal.SIGTERM)
            if row.force_stop or now - self.term_sent > settings.STOP_GRACE_SECONDS:
                self._kill(process)

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        self.killed = True
        process.kill()
        kill_processes_of(self.conversion.uuid)

    def _verdict(self, code: int) -> tuple[str, dict[str, str]]:
        """Return the status and the result for how the engine ended."""
        result = self.conversion.result
        said = result.get("status")
        if said == "ok" and code == 0:
            return (Status.WARNED if self.conversion.warnings else Status.DONE), {}
        if said == "error":
            return Status.FAILED, result
        if self.term_sent is not None and (said == "stopped" or self.killed or code < 0):
            message = "The worker of this conversion host was shut down."
            return Status.STOPPED, _result("", message if shutting_down.is_set() else "")
        if code < 0:
            name = signal.Signals(-code).name
            message = f"The engine was ended by signal {-code} ({name}) from outside."
            remedy = "The host may have run out of memory. See its system log, then retry."
        else:
            message = f"The engine ended with exit code {code} without telling a result."
            remedy = "The last lines of the log may tell why."
        return Status.FAILED, _result("E-ENGINE", message, remedy, self.conversion.step)


def _result(code: str, message: str, remedy: str = "", step: str = "") -> dict[str, str]:
    return {"code": code, "message": message, "remedy": remedy, "step": step}
