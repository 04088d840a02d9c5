"""Read and change text files of a guest, and keep account of every change."""

from __future__ import annotations

from collections.abc import Callable

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.report import Level, Reporter

MAX_BYTES = 2 << 20
"""A configuration file larger than this is not one; it is left alone."""


class GuestFiles:
    """The guest's files; with `change` false it only tells what would be changed."""

    def __init__(self, g: GuestFS, report: Reporter, *, change: bool) -> None:
        self._g = g
        self._report = report
        self.change = change
        self.changes: list[dict[str, str]] = []

    def is_file(self, path: str) -> bool:
        """Tell whether it is a regular file, after following links."""
        return bool(self._g.is_file(path, followsymlinks=True))

    def read(self, path: str) -> str | None:
        """Return a text file's content, bytes that are not UTF-8 kept; None without it."""
        if not self.is_file(path):
            return None
        if self._g.filesize(path) > MAX_BYTES:
            self._report.log(Level.WARNING, f"{path} is too large to be changed (ignored).")
            return None
        return bytes(self._g.read_file(path)).decode("utf-8", "surrogateescape")

    def edit(self, path: str, change: Callable[[str], str], what: str) -> bool:
        """Pass a file's text through `change` and write it back when it differs.

        Mode, owner and links stay.  Returns whether it differs.
        """
        old = self.read(path)
        if old is None:
            return False
        new = change(old)
        if new == old:
            return False
        pairs = zip(old.split("\n"), new.split("\n"), strict=False)
        for before, after in pairs:
            if before != after:
                self._report.log(Level.INFO, f"{path}: {before.strip()} -> {after.strip()}")
        self.write(path, new, what)
        return True

    def write(self, path: str, text: str, what: str) -> None:
        """Write a file and record it."""
        if self.change:
            self._g.write(path, text.encode("utf-8", "surrogateescape"))
        self.record(what, path)

    def remove(self, path: str, what: str) -> None:
        """Delete a file if it is there."""
        if self._g.exists(path):
            if self.change:
                self._g.rm_f(path)
            self.record(what, path)

    def record(self, what: str, path: str) -> None:
        """Note a change that was made."""
        self.changes.append({"what": what, "path": path})
