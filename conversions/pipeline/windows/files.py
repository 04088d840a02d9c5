"""Files of a Windows guest: spelled as they are on its disk, every change recorded."""

from __future__ import annotations

import tempfile
from pathlib import Path

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.guest_errors import naming
from conversions.pipeline.windows.registry import Changes

# Longer contents do not fit in one message to the appliance.
_MAX_MESSAGE = 1 << 20


class WindowsFiles:
    """The guest's files; with `change` false it only tells what would be changed.

    NTFS is mounted with case mattering, which it does not to Windows: a second folder differing in
    case only could not be reached there.  So every part of a path is looked up before it is made.
    Raises GuestError for a file that cannot be changed.
    """

    def __init__(self, g: GuestFS, changes: Changes, *, work: Path, change: bool) -> None:
        self._g = g
        self._changes = changes
        self._work = work
        self.change = change

    def resolve(self, path: str) -> str:
        """Return the path as its existing parts are spelled on disk; the others stay."""
        real, missing = "", False
        for part in path.strip("/").split("/"):
            real = f"{real}/{part}"
            if not missing:
                with naming(path, "looked up"):
                    real = self._g.case_sensitive_path(real)
                    missing = not self._g.exists(real)
        return real

    def is_file(self, path: str) -> bool:
        """Tell whether it is a regular file, after following links."""
        return bool(self._g.is_file(self.resolve(path), followsymlinks=True))

    def exists(self, path: str) -> bool:
        """Tell whether anything is there."""
        return bool(self._g.exists(self.resolve(path)))

    def names(self, path: str) -> list[str]:
        """Return what is in a folder, sorted; nothing when there is no such folder."""
        real = self.resolve(path)
        return sorted(self._g.ls(real)) if self._g.is_dir(real) else []

    def make_folder(self, path: str) -> str:
        """Make a folder with all above it; return its path as spelled on disk."""
        real = self.resolve(path)
        if self.change:
            with naming(real, "made"):
                self._g.mkdir_p(real)
        return real

    def write(self, path: str, data: bytes, what: str) -> None:
        """Write a file whose folder exists, and record it."""
        real = self.resolve(path)
        if self.change and len(data) <= _MAX_MESSAGE:
            with naming(real, "written"):
                self._g.write(real, data)
        elif self.change:
            with tempfile.NamedTemporaryFile(dir=self._work) as stream:
                stream.write(data)
                stream.flush()
                with naming(real, "written"):
                    self._g.upload(stream.name, real)
        self._changes.record(what, real)

    def remove(self, path: str, what: str) -> None:
        """Delete a file if it is there, and record it."""
        real = self.resolve(path)
        if self._g.exists(real):
            if self.change:
                with naming(real, "deleted"):
                    self._g.rm_f(real)
            self._changes.record(what, real)
