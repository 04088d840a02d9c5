"""The files of an OVA, wherever they are: members of a tar in place, or files of a folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from inventory.sources.base import Warn
from inventory.sources.errors import MAY_READ, PackageError
from inventory.sources.tar import (
    BLOCK,
    MAX_MEMBERS,
    Member,
    TarWalker,
    is_tar,
    normal_name,
    printable,
)

_CHUNK = 4 << 20
MAX_DEPTH = 8
SPARSE = "E-OVA-SPARSE"
ESCAPE = "E-OVA-ESCAPE"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageFile:
    """One file of a package: a byte range of a file on this host.

    `flaw` is set for a file nothing may rely on, such as a link; it is raised by who reads it, as
    is E-OVA-READ where the host refuses.
    """

    name: str
    path: Path
    offset: int
    size: int
    in_tar: bool
    flaw: PackageError | None = None

    def read(self, limit: int) -> bytes:
        """Return at most `limit` bytes from its beginning.  Raises PackageError."""
        with self._opened() as stream:
            return stream.read(min(limit, self.size))

    def chunks(self) -> Iterator[bytes]:
        """Yield its bytes.  Raises PackageError, also when the file ends early."""
        left = self.size
        with self._opened() as stream:
            while left:
                chunk = stream.read(min(_CHUNK, left))
                if not chunk:
                    raise PackageError(
                        "E-OVA-UNPACK", f"{printable(self.name)} ends {left} bytes early."
                    )
                left -= len(chunk)
                yield chunk

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        if self.flaw is not None:
            raise self.flaw
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.offset)
                yield stream
        except OSError as error:
            raise unreadable(self.name, error) from error


def unreadable(name: str, error: OSError) -> PackageError:
    """Return the error for a file that the host does not let us read."""
    return PackageError(
        "E-OVA-READ", f"{printable(name)} cannot be read: {error.strerror}.", remedy=MAY_READ
    )


def refuse_kind(label: str) -> PackageError:
    """Return the error for a file that is no archive."""
    return PackageError(
        "E-OVA-FORMAT",
        f"{label} is not an OVA: it is neither a tar archive nor an OVF descriptor.",
        remedy="Export the machine as an OVA and try that file.",
    )


def duplicate(name: str) -> PackageError:
    """Return the error for a name that stands twice in an archive."""
    return PackageError(
        "E-OVA-DUP",
        f"The archive holds two files named {printable(name)}; it is not clear which one is meant.",
        remedy="Export the machine again; this archive may be an attack.",
    )


def irregular(name: str) -> PackageError:
    """Return the error for a needed file that is a link, a device or the like."""
    return PackageError(
        "E-OVA-LINK",
        f"{printable(name)} in the archive is a link or a device, not a file.",
        remedy="Pack the OVA again with the files themselves (tar --hard-dereference -h).",
    )


def tar_files(path: Path, warn: Warn, *, label: str) -> dict[str, PackageFile]:
    """List a tar archive; what is no regular file, or stands twice, is listed with its flaw.

    `label` is what messages call it.  Raises PackageError for an archive that is damaged, hostile
    or of another kind.
    """
    size = path.stat().st_size
    found: dict[str, PackageFile] = {}
    with path.open("rb") as stream:

        def read(offset: int, length: int) -> bytes:
            return os.pread(stream.fileno(), length, offset)

        head = read(0, BLOCK)
        if not is_tar(head):
            raise refuse_kind(label)
        walker = TarWalker(read, size)
        while member := walker.next_member(size):
            if not member.is_folder:
                found[member.name] = PackageFile(
                    name=member.name,
                    path=path,
                    offset=member.offset,
                    size=member.size,
                    in_tar=True,
                    flaw=member_flaw(member, found, warn),
                )
    if not walker.has_end_mark:
        warn(f"{label} has no end mark; it may have been cut off (ignored).")
    return found


def member_flaw(member: Member, earlier: Mapping[str, object], warn: Warn) -> PackageError | None:
    """Return why nothing may rely on a member; each flaw is a warning until something does."""
    if member.name in earlier:
        warn(f"The archive holds two files named {printable(member.name)}.")
        return duplicate(member.name)
    if member.is_sparse:
        return PackageError(
            SPARSE,
            f"The file {printable(member.name)} is stored as a sparse tar member, which cannot be "
            "read in place.",
            remedy="Pack the OVA again without tar's --sparse option.",
        )
    if not member.is_regular:
        warn(f"{printable(member.name)} in the archive is not a regular file; it is ignored.")
        return irregular(member.name)
    return None


def folder_files(top: Path, warn: Warn) -> dict[str, PackageFile]:
    """List a folder, without following links to folders; links out of it are listed with a flaw.

    Raises PackageError; OSError for a folder that cannot be listed.
    """
    real_top = top.resolve()
    os.scandir(top).close()  # walk passes over folders that it may not list
    found: dict[str, PackageFile] = {}
    for folder, subfolders, names in os.walk(top, followlinks=False):
        here = Path(folder)
        if len(here.relative_to(top).parts) >= MAX_DEPTH:
            subfolders.clear()
        for name in names:
            file = _folder_file(here / name, top, real_top)
            if file is None:
                continue
            if file.flaw is not None and name.lower().endswith(".mf"):
                warn(f"{printable(file.name)} is a link out of the folder; it is ignored.")
                continue
            found[file.name] = file
            if len(found) > MAX_MEMBERS:
                raise PackageError(
                    "E-OVA-MEMBERS",
                    f"The folder {top.name} holds more than {MAX_MEMBERS} files; an OVA has a few.",
                )
    return found


def _folder_file(path: Path, top: Path, real_top: Path) -> PackageFile | None:
    """Return a file of a folder, or None for what is none, such as a dangling link."""
    try:
        real = path.resolve(strict=True)
        state = real.stat()
    except (OSError, RuntimeError):  # RuntimeError: a link to itself
        return None
    if not stat.S_ISREG(state.st_mode):
        return None
    name = normal_name(str(path.relative_to(top)))
    flaw = None if real.is_relative_to(real_top) else leads_outside(name)
    return PackageFile(name=name, path=real, offset=0, size=state.st_size, in_tar=False, flaw=flaw)


def leads_outside(name: str) -> PackageError:
    """Return the error for a name that means a file outside of its package."""
    return PackageError(
        ESCAPE,
        f"The package leads to a file outside of itself: {printable(name)}.",
        remedy="Export the machine again; this package may be an attack.",
    )
