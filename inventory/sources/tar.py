"""Walk the headers of a tar archive strictly; nothing is ever extracted by name.

Reads ustar, GNU and pax archives.  The walk is incremental: it works on an archive that is still
growing, and gives true data offsets for long names too.  Source: POSIX.1-2001 pax, GNU tar manual.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass

from inventory.sources.errors import PackageError

BLOCK = 512
MAX_MEMBERS = 10_000
MAX_METADATA_BYTES = 1 << 20
_MAX_MAP_BLOCKS = 10_000
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL, _GNU_SPARSE = b"L", b"K", b"x", b"g", b"S"
_REGULAR = (b"0", b"\0", b"7")
# Hard and symbolic links, devices, folders and FIFOs have no data, whatever their size field says.
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")
_LINKS = (b"1", b"2")
_FOLDER = b"5"

Read = Callable[[int, int], bytes]
"""Takes an offset and a length and returns that many bytes, fewer at the end of what there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One entry of the archive; `name` is normalised: no leading ./, no doubled /.

    What is neither regular nor a folder is a link, a device, a FIFO or of an unknown type; or it is
    sparse: stored without its holes, so that its bytes cannot be read in place.
    """

    name: str
    offset: int
    size: int
    is_regular: bool
    is_folder: bool
    is_sparse: bool = False

    @property
    def end(self) -> int:
        """Offset of the first block behind the data."""
        return self.offset + (self.size + BLOCK - 1) // BLOCK * BLOCK


def is_tar(head: bytes) -> bool:
    """Tell whether the first 512 bytes are a tar header, by magic or by a v7 header's checksum."""
    if len(head) < BLOCK:
        return False
    return head[257:262] == b"ustar" or (head[0] != 0 and _checksum_fits(head))


def _checksum_fits(header: bytes) -> bool:
    try:
        stored = int(header[148:156].strip(b"\0 ") or b"-1", 8)
    except ValueError:
        return False
    blanked = header[:148] + b" " * 8 + header[156:BLOCK]
    return stored == sum(blanked)


def storable(name: str) -> str:
    """Return a name with bytes that are no UTF-8 spelled out, so that any encoder takes it."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def printable(name: str) -> str:
    """Return a stranger's name for a message: quoted, escaped, at most 200 characters."""
    return repr(storable(name[:200]))


def normal_name(name: str) -> str:
    """Return a member's name without ./ and doubled slashes.  Raises PackageError E-OVA-BADNAME.

    Absolute names, `..` and control characters are refused.
    """
    if any(ord(c) < 32 or ord(c) == 127 for c in name):
        raise PackageError(
            "E-OVA-BADNAME",
            f"The package has a file whose name holds control characters: {printable(name)}.",
        )
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        raise PackageError(
            "E-OVA-BADNAME",
            f"The package has a file that points outside of it: {printable(name)}.",
            remedy="Export the machine again; this archive may be an attack.",
        )
    return "/".join(parts)


class TarWalker:
    """Yields members in order as far as the archive has arrived.

    `total_bytes` is the size the archive will have.  Call `next_member` until it gives None: then
    either more bytes have to arrive, or `is_complete`.  `has_end_mark` tells whether the archive
    says itself that it ends there; without it the last members may have been cut off.
    """

    def __init__(self, read: Read, total_bytes: int) -> None:
        self._read = read
        self._total = total_bytes
        self._position = 0
        self._long_name: str | None = None
        self._pax: dict[str, str] = {}
        self._links: set[str] = set()
        self._count = 0
        self.is_complete = False
        self.has_end_mark = False

    def read_from(self, read: Read) -> None:
        """Read from now on through another function: the file was opened again."""
        self._read = read

    def next_member(self, available: int) -> Member | None:
        """Return the next member whose header lies within the first `available` bytes, or None.

        Raises PackageError: E-OVA-UNPACK damaged or truncated, E-OVA-BADNAME.
        """
        while not self.is_complete:
            if self._position >= self._total:
                self.is_complete = True
                return None
            if available < min(self._position + BLOCK, self._total):
                return None
            header = self._read(self._position, BLOCK)
            if len(header) < BLOCK:
                raise self._damaged("it ends inside a file header")
            if not any(header):
                self.is_complete = self.has_end_mark = True
                return None
            if not _checksum_fits(header):
                raise self._damaged(f"the file header at byte {self._position} is wrong")
            try:
                info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                raise self._damaged(str(error)) from error
            kind, size, data = info.type, info.size, self._position + BLOCK
            if size < 0:
                raise self._damaged(f"a file has the size {size}")
            end = data + (size + BLOCK - 1) // BLOCK * BLOCK
            if kind in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL):
                if size > MAX_METADATA_BYTES:
                    raise self._damaged(f"a name record has {size} bytes")
                if data + size > self._total:
                    raise self._beyond(info.name, data + size)
                if available < data + size:
                    return None
                self._remember(kind, self._read(data, size))
                self._position = end
                continue
            if kind == _GNU_SPARSE:
                behind = self._behind_map(header, data, available)
                if behind is None:
                    return None
                data = behind
            member = self._member(info, kind, data)
            self._position = member.end
            self._long_name, self._pax = None, {}
            self._count += 1
            if self._count > MAX_MEMBERS:
                raise PackageError(
                    "E-OVA-MEMBERS",
                    f"The archive holds more than {MAX_MEMBERS} files; an OVA has a few.",
                )
            return member
        return None

    def _remember(self, kind: bytes, payload: bytes) -> None:
        if kind == _LONG_NAME:
            self._long_name = payload.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        elif kind == _PAX:
            self._pax = parse_pax(payload)
        elif kind == _PAX_GLOBAL and {"path", "size"} & parse_pax(payload).keys():
            raise self._damaged("a header gives all files the same name or size")

    def _member(self, info: tarfile.TarInfo, kind: bytes, data: int) -> Member:
        name = self._pax.get("path") or self._long_name or info.name
        size = info.size
        if "size" in self._pax:
            if not re.fullmatch("[0-9]{1,19}", self._pax["size"]):
                raise self._damaged("a file has a size that is no number")
            size = int(self._pax["size"])
        sparse = kind == _GNU_SPARSE or any(key.startswith("GNU.sparse") for key in self._pax)
        name = self._pax.get("GNU.sparse.name") or name
        if kind in _WITHOUT_DATA:
            size = 0
        if data + size > self._total:
            raise self._beyond(name, data + size)
        folder = kind == _FOLDER or (kind in _REGULAR and name.endswith("/"))
        normal = normal_name(name)
        self._refuse_below_link(normal)
        if kind in _LINKS:
            self._links.add(normal)
        return Member(
            name=normal,
            offset=data,
            size=size,
            is_regular=kind in _REGULAR and not folder and not sparse and normal != "",
            is_folder=folder,
            is_sparse=sparse,
        )

    def _behind_map(self, header: bytes, position: int, available: int) -> int | None:
        """Return where the data of an old GNU sparse member begins; None until that is there.

        Source: GNU tar manual, "Old GNU Format": blocks of 21 entries follow the header's four.
        """
        goes_on = header[482]
        for _ in range(_MAX_MAP_BLOCKS):
            if not goes_on:
                return position
            if available < min(position + BLOCK, self._total):
                return None
            block = self._read(position, BLOCK)
            if len(block) < BLOCK:
                raise self._damaged("it ends inside the list of a file's holes")
            goes_on = block[504]
            position += BLOCK
        raise self._damaged("the list of a file's holes is too long")

    def _refuse_below_link(self, name: str) -> None:
        """Refuse a file in a "folder" that is a link: the classic way out of an archive."""
        parts = name.split("/")
        if self._links and any("/".join(parts[:n]) in self._links for n in range(1, len(parts))):
            raise PackageError(
                "E-OVA-BADNAME",
                f"The archive has a file below a link: {printable(name)}.",
                remedy="Export the machine again; this archive may be an attack.",
            )

    def _beyond(self, name: str, end: int) -> PackageError:
        return PackageError(
            "E-OVA-UNPACK",
            f"The archive is truncated: {printable(name)} should end at byte {end}, but the "
            f"archive has {self._total} bytes.",
            remedy="The copy or the download was cut off; fetch the OVA again.",
        )

    def _damaged(self, how: str) -> PackageError:
        return PackageError(
            "E-OVA-UNPACK",
            f"The archive is damaged: {how}.",
            remedy="Fetch or export the OVA again.",
        )


def parse_pax(payload: bytes) -> dict[str, str]:
    """Return the keyword=value records of a pax header.  Raises PackageError."""
    records: dict[str, str] = {}
    while payload:
        length, space, _ = payload.partition(b" ")
        fits = space and re.fullmatch(b"[0-9]{1,8}", length) and 5 <= int(length) <= len(payload)
        record = payload[len(length) + 1 : int(length)] if fits else b""
        key, equals, value = record.removesuffix(b"\n").partition(b"=")
        if not fits or not key or not equals or not record.endswith(b"\n"):
            raise PackageError("E-OVA-UNPACK", "The archive is damaged: a pax record is wrong.")
        payload = payload[int(length) :]
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
    return records
