"""Files of the guest as they were before the conversion, packed into an archive: --collect.

What a guest holds is a stranger's: nothing of it is unpacked on this host.  Members of the tar that
the appliance makes are written into the archive one by one, under the names that belong there.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from conversions.pipeline.errors import JobError, TargetError
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.sizes import human
from conversions.pipeline.stop import check_stop

if TYPE_CHECKING:
    from conversions.pipeline.appliance import GuestFS

# Only its owner: the archive may hold what only root could read in the guest.
_MODE = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A file or folder of the guest, and where it goes in the archive; "" means the same path."""

    path: str
    folder: str = ""

    def place(self, name: str = "") -> str:
        """Return the name in the archive of a file itself, or of something inside a folder."""
        if not name:
            name = PurePosixPath(self.path).name if self.folder else ""
        return str(PurePosixPath(self.folder or self.path.lstrip("/"), name))


def parse_wanted(value: str) -> Wanted:
    """Read GUESTPATH[:DIR].  Raises JobError."""
    path, _, folder = value.partition(":")
    if not path.startswith("/") or path == "/" or ".." in path.split("/"):
        raise JobError(
            f"--collect {value!r}: {path!r} is no path of a file or folder in the guest.",
            remedy="Write --collect /etc/fstab, or --collect /var/log:logs for a folder in the "
            "archive.",
        )
    if folder.startswith("/") or ".." in folder.split("/"):
        raise JobError(
            f"--collect {value!r}: {folder!r} must be a folder inside the archive.",
            remedy="Write it without a slash in front.",
        )
    return Wanted(path=path, folder=folder)


def check_collection(values: Sequence[str], output: str) -> None:
    """Refuse a collection that cannot be.  Raises JobError."""
    for value in values:
        parse_wanted(value)
    if values and not output:
        raise JobError("--collect needs a file to pack into.", remedy="Add --collect-output FILE.")
    if output and not values:
        raise JobError("--collect-output needs something to pack.", remedy="Add --collect PATH.")
    if output and not Path(output).absolute().parent.is_dir():
        raise JobError(f"The folder of {output} (--collect-output) does not exist.")


def collect_files(
    g: GuestFS, values: Sequence[str], output: Path, work: Path, report: Reporter
) -> None:
    """Pack files and folders of the mounted guest; what is not there is left out, with a line.

    The archive is a .tar.xz that appears when it is complete.  Raises TargetError, Stopped.
    """
    part = output.with_name(output.name + ".part")
    try:
        part.touch(mode=_MODE, exist_ok=False)
        with tarfile.open(part, "w:xz") as archive:
            for wanted in map(parse_wanted, values):
                for _member in _add(g, wanted, archive, work / "collected", report):
                    check_stop()
        part.rename(output)
    except OSError as error:
        raise TargetError(
            f"The files of the guest could not be packed into {output}: {error}.",
            remedy="Check that its folder may be written and has room.",
        ) from error
    finally:
        part.unlink(missing_ok=True)
    size = output.stat().st_size
    report.log(Level.INFO, f"Packed before the conversion: {output}, {human(size)}.")
    report.report("collected", {"path": str(output), "bytes": size})


def _add(
    g: GuestFS, wanted: Wanted, archive: tarfile.TarFile, fetched: Path, report: Reporter
) -> Iterator[str]:
    """Add what is wanted, and yield each name that was added."""
    try:
        if g.is_file(wanted.path, followsymlinks=True):
            g.download(wanted.path, str(fetched))
            archive.add(fetched, wanted.place(), filter=_nobodys)
            yield wanted.place()
        elif g.is_dir(wanted.path):
            g.tar_out(wanted.path, str(fetched))
            yield from _copy_members(wanted, archive, fetched)
        else:
            report.log(Level.INFO, f"Not in the guest, so not packed: {wanted.path}")
    finally:
        fetched.unlink(missing_ok=True)


def _copy_members(wanted: Wanted, archive: tarfile.TarFile, fetched: Path) -> Iterator[str]:
    with tarfile.open(fetched, "r:") as source:
        for member in source:
            name = str(PurePosixPath(member.name))
            if name == "." or ".." in name.split("/"):
                continue
            if member.islnk():  # names its other half, which moves along
                member.linkname = wanted.place(str(PurePosixPath(member.linkname)))
            member.name, member.pax_headers = wanted.place(name), {}
            archive.addfile(member, source.extractfile(member) if member.isreg() else None)
            yield member.name


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out who owns the copy on this host."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
