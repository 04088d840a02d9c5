"""Read and change text files of a guest, and keep account of every change."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.guest_errors import naming
from conversions.pipeline.report import Level, Reporter

MAX_BYTES = 2 << 20
"""A configuration file larger than this is not one; it is left alone."""
MAX_NAMES = 1000


def with_line(text: str, line: str) -> str:
    """Return a text that holds the line: where it is, or as a new last one."""
    if line in text.split("\n"):
        return text
    return text + ("\n" if text and not text.endswith("\n") else "") + f"{line}\n"


class GuestFiles:
    """The guest's files; with `change` false it only tells what would be changed.

    Raises GuestError for a file that cannot be read or changed.
    """

    def __init__(self, g: GuestFS, report: Reporter, *, change: bool) -> None:
        self._g = g
        self._report = report
        self.change = change
        self.changes: list[dict[str, str]] = []

    def is_file(self, path: str) -> bool:
        """Tell whether it is a regular file, after following links."""
        return bool(self._g.is_file(path, followsymlinks=True))

    def is_folder(self, path: str) -> bool:
        """Tell whether it is a folder, after following links."""
        return bool(self._g.is_dir(path, followsymlinks=True))

    def first_file(self, *paths: str) -> str | None:
        """Return the first of the paths that is a file, None without one."""
        return next((path for path in paths if self.is_file(path)), None)

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted; [] without it, never more than 1000."""
        return sorted(self._g.ls(folder))[:MAX_NAMES] if self.is_folder(folder) else []

    def paths(self, folder: str, *suffixes: str) -> list[str]:
        """Return the paths of the files in a folder whose names end in a suffix."""
        names = (n for n in self.names(folder) if n.endswith(suffixes or ""))
        return [path for name in names if self.is_file(path := f"{folder}/{name}")]

    def folders(self, folder: str) -> list[str]:
        """Return the paths of the folders in a folder."""
        return [p for name in self.names(folder) if self.is_folder(p := f"{folder}/{name}")]

    def realpath(self, path: str) -> str:
        """Return a path with all links resolved, or as it is when that leads nowhere."""
        try:
            return str(self._g.realpath(path))
        except RuntimeError:
            return path

    def distinct(self, paths: Iterable[str]) -> list[str]:
        """Return the paths in their order; of those that lead to one file only the first."""
        firsts: dict[str, str] = {}
        for path in paths:
            firsts.setdefault(self.realpath(path), path)
        return list(firsts.values())

    def read(self, path: str) -> str | None:
        """Return a text file's content, bytes that are not UTF-8 kept; None without it."""
        if not self.is_file(path):
            return None
        with naming(path, "read"):
            if self._g.filesize(path) > MAX_BYTES:
                self._report.log(Level.WARNING, f"{path} is too large to be read (ignored).")
                return None
            return bytes(self._g.read_file(path)).decode("utf-8", "surrogateescape")

    def edit(
        self, path: str, change: Callable[[str], str], what: str, *, create: bool = False
    ) -> bool:
        """Pass a file's text through `change` and write it back when it differs.

        Mode, owner and links stay.  A missing file is left missing unless `create`.  Returns
        whether the text differs.
        """
        old = self.read(path)
        if old is None and not create:
            return False
        new = change(old or "")
        if new == (old or ""):
            return False
        pairs = zip((old or "").split("\n"), new.split("\n"), strict=False)
        for before, after in pairs:
            if before != after:
                self._report.log(Level.INFO, f"{path}: {before.strip()} -> {after.strip()}")
        self.write(path, new, what)
        return True

    def edit_secret(self, path: str, change: Callable[[str], str], what: str) -> bool:
        """Edit a file whose lines belong in no log.  Returns whether the text differs."""
        old = self.read(path)
        if old is None or (new := change(old)) == old:
            return False
        self.write(path, new, what)
        return True

    def write(self, path: str, text: str, what: str, *, mode: int | None = None) -> None:
        """Write a file, with a mode if given, and record it; the folder has to be there."""
        if self.change:
            with naming(path, "written"):
                self._g.write(path, text.encode("utf-8", "surrogateescape"))
                if mode is not None:
                    self._g.chmod(mode, path)
        self.record(what, path)

    def make_folder(self, path: str) -> None:
        """Make a folder and those above it."""
        if self.change:
            with naming(path, "made"):
                self._g.mkdir_p(path)

    def link(self, target: str, path: str, what: str) -> None:
        """Make a symbolic link, in place of what is there."""
        if self.change:
            with naming(path, "linked"):
                self._g.ln_sf(target, path)
        self.record(what, path)

    def copy(self, source: str, target: str, what: str) -> None:
        """Copy a file."""
        if self.change:
            with naming(target, "written"):
                self._g.cp(source, target)
        self.record(what, target)

    def remove(self, path: str, what: str) -> None:
        """Delete a file or a link if it is there."""
        if self._g.exists(path) or self._g.is_symlink(path):
            if self.change:
                with naming(path, "deleted"):
                    self._g.rm_f(path)
            self.record(what, path)

    def record(self, what: str, path: str) -> None:
        """Note a change that was made."""
        self.changes.append({"what": what, "path": path})
