"""Where drivers and first-start tools come from: files that an administrator supplies."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from conversions.pipeline.errors import HostError
from conversions.pipeline.windows.iso9660 import MAX_FILES, IsoImage

DATA_DIR = Path("/usr/share")
MAX_FILE_BYTES = 256 << 20
SERVICE_PROGRAMS = ("rhsrvany.exe", "pvvxsvc.exe")
"""What runs the scripts of the first start as a service; the first one there is taken."""
TOOLS = (*SERVICE_PROGRAMS, "pnp_wait.exe", "vmdp.exe")
_REMEDY = "Give the virtio-win ISO, or the folder it was unpacked to."


class DriverCollectionError(HostError):
    """The driver collection that was named cannot be used."""

    code = "E-VIRTIO-WIN"


class Collection(Protocol):
    """Drivers and agents for many versions of Windows."""

    def describe(self) -> str:
        """Return where it is, for messages."""
        ...

    def label(self) -> str:
        """Return the name it bears itself, "" when it has none."""
        ...

    def paths(self) -> Sequence[str]:
        """Return every file, sorted, relative to the top."""
        ...

    def size_bytes(self, path: str) -> int:
        """Return the size of a file."""
        ...

    def read(self, path: str) -> bytes:
        """Return the content of a file.  Raises DriverCollectionError."""
        ...


class FolderCollection:
    """A folder, links followed."""

    def __init__(self, folder: Path) -> None:
        """List it.  Raises DriverCollectionError."""
        self._folder = folder
        self._sizes = dict(_list(folder))

    def describe(self) -> str:
        """Return the folder."""
        return f"folder {self._folder}"

    def label(self) -> str:
        """Return nothing: a folder is called what somebody called it."""
        return ""

    def paths(self) -> Sequence[str]:
        """Return every file, sorted."""
        return sorted(self._sizes)

    def size_bytes(self, path: str) -> int:
        """Return the size of a file when it was listed."""
        return self._sizes[path]

    def read(self, path: str) -> bytes:
        """Return the content of a file.  Raises DriverCollectionError."""
        return read_file(self._folder / path)


class IsoCollection:
    """An ISO image or a block device that holds one."""

    def __init__(self, path: Path) -> None:
        """List it.  Raises IsoError."""
        self._image = IsoImage(path)

    def describe(self) -> str:
        """Return the path."""
        return f"ISO {self._image.path}"

    def label(self) -> str:
        """Return the volume's name, which is "virtio-win-0.1.285" or the like."""
        return self._image.label

    def paths(self) -> Sequence[str]:
        """Return every file, sorted."""
        return self._image.paths()

    def size_bytes(self, path: str) -> int:
        """Return the size of a file."""
        return self._image.size_bytes(path)

    def read(self, path: str) -> bytes:
        """Return the content of a file.  Raises IsoError, DriverCollectionError."""
        _check_size(f"{path} of the {self.describe()}", self.size_bytes(path))
        return self._image.read(path)


def locate(
    explicit: str, environ: Mapping[str, str], *, data_dir: Path = DATA_DIR
) -> tuple[Path, bool]:
    """Return where drivers are expected, and whether somebody named that place.

    The option wins over VIRTIO_WIN, that over the older VIRTIO_WIN_DIR; else the packaged ISO, or
    the packaged folder, whether it is there or not.
    """
    named = explicit or environ.get("VIRTIO_WIN") or environ.get("VIRTIO_WIN_DIR")
    if named:
        return Path(named), True
    iso = data_dir / "virtio-win/virtio-win.iso"
    return (iso if iso.exists() else data_dir / "virtio-win"), False


def open_collection(place: Path, *, named: bool) -> Collection | None:
    """Open a folder or an ISO; None when nothing is at a place that nobody named.

    Raises DriverCollectionError or IsoError.
    """
    if place.is_dir():
        return FolderCollection(place)
    if place.is_file() or place.is_block_device():
        return IsoCollection(place)
    if not named:
        return None
    raise DriverCollectionError(
        f"The Windows drivers {place} are not there, or are neither a folder nor a file.",
        remedy=_REMEDY,
    )


def find_tools(
    explicit: str, environ: Mapping[str, str], place: Path, *, data_dir: Path = DATA_DIR
) -> dict[str, Path]:
    """Return the tools of the first start as {name: path}.

    The first of these folders that holds a service program counts: the one that was named, by
    option or by VIRT_TOOLS_DATA_DIR; that of the drivers or a folder virt-tools in it; the packaged
    one.  A dangling link is no file.  Raises DriverCollectionError for a named folder that is none.
    """
    named = explicit or environ.get("VIRT_TOOLS_DATA_DIR")
    if named:
        if not Path(named).is_dir():
            raise DriverCollectionError(
                f"The folder {named} with the tools of the first start is not there.",
                remedy=f"Give the folder that holds {SERVICE_PROGRAMS[0]}.",
            )
        return _tools(Path(named))
    beside = place if place.is_dir() else place.parent
    for folder in (beside, beside / "virt-tools", data_dir / "virt-tools"):
        tools = _tools(folder)
        if any(name in tools for name in SERVICE_PROGRAMS):
            return tools
    return {}


def service_program(tools: Mapping[str, Path]) -> str | None:
    """Return the program that runs scripts as a service, None without one."""
    return next((name for name in SERVICE_PROGRAMS if name in tools), None)


def read_file(path: Path) -> bytes:
    """Return a file of the administrator's.  Raises DriverCollectionError."""
    try:
        _check_size(str(path), path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise DriverCollectionError(
            f"{path} cannot be read: {error.strerror or error}.",
            remedy="Let the user that runs conversions read it.",
        ) from error


def _tools(folder: Path) -> dict[str, Path]:
    return {name: folder / name for name in TOOLS if (folder / name).is_file()}


def _check_size(what: str, size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise DriverCollectionError(
            f"{what} has {size >> 20} MiB; a driver or agent has at most {MAX_FILE_BYTES >> 20}.",
            remedy=_REMEDY,
        )


def _list(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield every regular file below a folder with its size; a folder met twice counts once."""
    seen: set[str] = set()
    count = 0

    def unreadable(error: OSError) -> None:
        raise DriverCollectionError(
            f"The driver folder {error.filename} cannot be read: {error.strerror}.",
            remedy="Let the user that runs conversions read it.",
        )

    for top, folders, files in os.walk(folder, followlinks=True, onerror=unreadable):
        folders[:] = [f for f in sorted(folders) if _is_new(os.path.realpath(f"{top}/{f}"), seen)]
        for name in files:
            path = Path(top) / name
            if not path.is_file():
                continue
            count += 1
            if count > MAX_FILES:
                raise DriverCollectionError(
                    f"The driver folder {folder} holds more than {MAX_FILES} files.",
                    remedy=_REMEDY,
                )
            yield str(path.relative_to(folder)), path.stat().st_size


def _is_new(path: str, seen: set[str]) -> bool:
    if path in seen:
        return False
    seen.add(path)
    return True
