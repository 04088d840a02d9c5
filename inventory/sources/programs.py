"""How helper programs are started: in what environment, and so that none outlives us."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_TAIL_LINES = 20
# setpriv makes the kernel kill the child with us, even after a kill -9 of this process.
WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
_PROXIES = ("https_proxy", "http_proxy", "all_proxy", "no_proxy")


def clean_environment() -> dict[str, str]:
    """Return this process's environment without proxies, in the C locale, for helpers."""
    kept = {k: v for k, v in os.environ.items() if k.lower() not in _PROXIES}
    return kept | {"LANG": "C", "LC_ALL": "C"}


def forget_proxies() -> None:
    """Take the proxies out of this process's environment, for libraries that would use them."""
    for name in list(os.environ):
        if name.lower() in _PROXIES:
            del os.environ[name]


class Daemon:
    """A helper program that serves at a socket and writes a pid file once it does.

    `on_line` gets each line of its errors; the last ones are kept in `tail`.
    """

    def __init__(
        self,
        argv: Sequence[str],
        socket: Path,
        on_line: Callable[[str], None],
        *,
        descriptors: Sequence[int] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.socket = socket
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._on_line = on_line
        self._process = subprocess.Popen(
            [*WITH_US, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=descriptors,
            env=clean_environment() | dict(variables or {}),
        )
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()

    def _drain(self) -> None:
        assert self._process.stderr  # noqa: S101  it is a pipe
        for raw in self._process.stderr:
            line = raw.decode(errors="replace").strip()
            self.tail.append(line)
            self._on_line(line)

    def last_words(self) -> str:
        """Return the reason it gave last, without a full stop."""
        self._reader.join(0.2)
        errors = [line for line in self.tail if "error" in line] or list(self.tail)
        if not errors:
            return "it gave no reason"
        return (errors[-1].partition("error: ")[2] or errors[-1]).rstrip(".")

    def why_not_ready(self, seconds: float) -> str:
        """Wait until it serves; return why it does not, in the end of a sentence, or ""."""
        end = time.monotonic() + seconds
        while not pid_file_of(self.socket).exists():
            if self._process.poll() is not None:
                return f"it ended: {self.last_words()}"
            if time.monotonic() > end:
                return f"it was not ready within {seconds:g} s"
            time.sleep(0.02)
        return ""

    def stop(self) -> None:
        """End it: politely, then at once."""
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(5)
        if self._process.stderr:
            self._process.stderr.close()
        self.socket.unlink(missing_ok=True)
        pid_file_of(self.socket).unlink(missing_ok=True)


def pid_file_of(socket: Path) -> Path:
    """Return the file by which the server at a socket tells that it is ready."""
    return socket.with_suffix(".pid")
