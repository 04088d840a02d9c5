"""Read the files of an ISO image: names by Joliet, else Rock Ridge, else plain ISO 9660.

The image may come from anybody: every size and place is checked against the image, and the number
and depth of folders are bounded.  Source: ECMA-119; Joliet specification; IEEE P1282 (NM).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from conversions.pipeline.errors import HostError

SECTOR = 2048
# So much of an image tells whether it is one: the system area and the first descriptor.
HEAD_BYTES = 17 * SECTOR
MAX_FILES = 100_000
MAX_DEPTH = 16
MAX_FOLDER_BYTES = 4 << 20
_MAX_DESCRIPTORS = 64
_JOLIET = (b"%/@", b"%/C", b"%/E")
_FOLDER, _MULTI_EXTENT = 0x02, 0x80


class IsoError(HostError):
    """The file is no ISO image, or one that contradicts itself."""

    code = "E-ISO"


@dataclass(frozen=True, slots=True)
class _Record:
    name: str
    start: int
    size: int
    flags: int


def starts_like_iso(path: Path) -> bool:
    """Tell whether the first HEAD_BYTES of a file can be those of an image.  Raises OSError."""
    with path.open("rb") as stream:
        stream.seek(16 * SECTOR + 1)
        return stream.read(5) == b"CD001"


class IsoImage:
    """The files of an image, in a list made when it is opened; `label` is the volume's name."""

    def __init__(self, path: Path) -> None:
        """Read all names.  Raises IsoError."""
        self.path = path
        self.label = ""
        try:
            with path.open("rb") as stream:
                self._bytes = stream.seek(0, 2)
                self._joliet, root = self._root(stream)
                self._seen: set[int] = set()
                self._files = dict(self._walk(stream, root, "", 0))
        except OSError as error:
            raise IsoError(
                f"The ISO {path} cannot be read: {error.strerror or error}.",
                remedy="Check that the file is there and may be read by this process.",
            ) from error

    def paths(self) -> list[str]:
        """Return the files, sorted, without a leading slash."""
        return sorted(self._files)

    def size_bytes(self, path: str) -> int:
        """Return the size of a file.  Raises KeyError."""
        return self._files[path].size

    def read(self, path: str) -> bytes:
        """Return the content of a file.  Raises KeyError, IsoError."""
        record = self._files[path]
        with self.path.open("rb") as stream:
            return self._extent(stream, record)

    def _damaged(self, what: str) -> IsoError:
        return IsoError(
            f"The ISO {self.path} is damaged: {what}. It has {self._bytes} bytes; the file may be "
            "cut off.",
            remedy="Download it again and compare its checksum with the publisher's.",
        )

    def _root(self, stream: BinaryIO) -> tuple[bool, _Record]:
        """Return whether Joliet names are used, and the record of the top folder."""
        primary: _Record | None = None
        for number in range(16, 16 + _MAX_DESCRIPTORS):
            stream.seek(number * SECTOR)
            sector = stream.read(SECTOR)
            if len(sector) < SECTOR or sector[1:6] != b"CD001" or sector[0] == 255:
                break
            if sector[0] == 1 and primary is None:
                self.label = sector[40:72].decode("ascii", "replace").strip(" \0")
                primary = self._record(sector[156:190], joliet=False)
            elif sector[0] == 2 and sector[88:91] in _JOLIET:
                return True, self._record(sector[156:190], joliet=True)
        if primary is None:
            raise IsoError(
                f"{self.path} is not an ISO image: it has no volume descriptor at byte 32768.",
                remedy="Give the virtio-win ISO itself, or the folder it was unpacked to.",
            )
        return False, primary

    def _record(self, data: bytes, *, joliet: bool) -> _Record:
        length = data[32]
        raw = data[33 : 33 + length]
        if len(raw) < length:
            raise self._damaged("a folder entry is cut off")
        start, size = struct.unpack_from("<I4xI", data, 2)
        if start * SECTOR + size > self._bytes:
            raise self._damaged(f"an entry of {size} bytes at {start * SECTOR} lies behind the end")
        if joliet and raw not in (b"\0", b"\1"):
            name = raw.decode("utf-16-be", "replace").partition(";")[0]
        else:
            name = rock_ridge_name(data) or raw.decode("latin-1").partition(";")[0].rstrip(".")
        return _Record(name, start, size, data[25])

    def _extent(self, stream: BinaryIO, record: _Record) -> bytes:
        stream.seek(record.start * SECTOR)
        data = stream.read(record.size)
        if len(data) < record.size:
            raise self._damaged(f"{record.name} ends after {len(data)} of {record.size} bytes")
        return data

    def _walk(
        self, stream: BinaryIO, folder: _Record, prefix: str, depth: int
    ) -> Iterator[tuple[str, _Record]]:
        if depth > MAX_DEPTH or folder.size > MAX_FOLDER_BYTES:
            raise self._damaged(f"folder {prefix or '/'} is too deep or too large")
        if folder.start in self._seen:
            raise self._damaged(f"folder {prefix or '/'} appears twice")
        self._seen.add(folder.start)
        count = 0
        for record in self._entries(self._extent(stream, folder)):
            if record.name in ("", ".", "..", "\0", "\1") or "/" in record.name:
                continue
            path = f"{prefix}{record.name}"
            if record.flags & _FOLDER:
                inside = self._walk(stream, record, f"{path}/", depth + 1)
            elif record.flags & _MULTI_EXTENT:
                continue  # 4 GiB and more: never a driver
            else:
                inside = iter([(path, record)])
            for item in inside:
                count += 1
                if count > MAX_FILES:
                    raise self._damaged(f"it lists more than {MAX_FILES} files")
                yield item

    def _entries(self, data: bytes) -> Iterator[_Record]:
        """Yield the records of a folder; none spans a sector, the rest of which is zero."""
        for begin in range(0, len(data), SECTOR):
            sector, at = data[begin : begin + SECTOR], 0
            while at < len(sector) and (length := sector[at]):
                if length < 34 or at + length > len(sector):
                    raise self._damaged("a folder entry has an impossible length")
                yield self._record(sector[at : at + length], joliet=self._joliet)
                at += length


def rock_ridge_name(record: bytes) -> str:
    """Return the NM name in a folder entry's system use area, "" without one."""
    at = 33 + record[32]
    at += at % 2
    name = b""
    while at + 4 <= len(record):
        length = record[at + 2]
        if length < 4 or at + length > len(record):
            break
        if record[at : at + 2] == b"NM" and length >= 5:
            name += record[at + 5 : at + length]
        at += length
    return name.decode("utf-8", "replace")
