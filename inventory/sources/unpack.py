"""Unpacking what cannot be read in place: compressed archives, compressed disks, disks in pieces.

Everything goes into the private folder of whoever reads, under names of our own, under limits on
count and size; runs of zeros become holes, so that an almost empty disk takes almost no space.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, Protocol

import zstandard

from inventory.sources.base import Warn
from inventory.sources.budget import MAX_BYTES, SPARE_BYTES, Budget, package_budget, refuse_bomb
from inventory.sources.errors import PackageError
from inventory.sources.ovf import parse_ovf
from inventory.sources.ovf_xml import MAX_BYTES as MAX_OVF_BYTES
from inventory.sources.package import PackageFile, duplicate, irregular
from inventory.sources.references import has_suffix
from inventory.sources.tar import MAX_MEMBERS, normal_name, printable

Look = Callable[[], None]
"""Called while unpacking goes on; raises to end it."""

STREAMS = ("gzip", "xz", "zstd", "bzip2")
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
}
_CHUNK = 1 << 20
_MAX_NAME_BYTES = 1024
_HOLE = bytes(64 << 10)
_RESERVE_BYTES = 256 << 20
# zstd and xz may ask for so much memory before they give the first byte.
_WINDOW_BYTES = 128 << 20
_BROKEN = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zstandard.ZstdError,
           zipfile.BadZipFile, tarfile.TarError, NotImplementedError, RuntimeError)  # fmt: skip


def packing_of(head: bytes) -> str | None:
    """Return how a file is packed by its first bytes: one of STREAMS, "zip", or None."""
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def unpack_stream(
    source: IO[bytes], kind: str, target: Path, label: str, look: Look, budget: Budget
) -> Path:
    """Write the decompressed bytes of a stream into a file.  Raises PackageError."""
    with _packed(label, kind), target.open("xb") as out:
        _write(_chunks(_opened(source, kind)), out, label, look, budget)
    return target


def join(files: Iterable[PackageFile], target: Path, label: str, look: Look) -> Path:
    """Write files one behind the other into one.  Raises PackageError."""
    with target.open("xb") as out:
        chunks = (chunk for file in files for chunk in file.chunks())
        _write(chunks, out, label, look, lambda _written: MAX_BYTES)
    return target


def unpack_zip(path: Path, folder: Path, warn: Warn, look: Look) -> dict[str, PackageFile]:
    """Unpack the regular files of a zip archive, numbered; what stands twice has a flaw.

    Raises PackageError.
    """
    found: dict[str, PackageFile] = {}
    with _packed(path.name, "zip"), zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if not info.filename.endswith("/")]
        _refuse_members(members, path.name)
        left = _zip_budget(archive, members)
        for number, info in enumerate(members):
            name = normal_name(info.filename)
            target = folder / f"file-{number}"
            flaw = None
            if name in found:
                warn(f"The archive holds two files named {printable(name)}.")
                flaw = duplicate(name)
            elif stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                warn(f"{printable(name)} in the archive is not a regular file; it is ignored.")
                flaw = irregular(name)
            else:
                with archive.open(info) as stream, target.open("xb") as out:
                    _write(_chunks(stream), out, printable(name), look, lambda _n: left)  # noqa: B023  used at once
            size = target.stat().st_size if flaw is None else 0
            left -= size
            found[name] = PackageFile(
                name=name, path=target, offset=0, size=size, in_tar=False, flaw=flaw
            )
    return found


def unpack_sparse(
    path: Path, names: Collection[str], folder: Path, look: Look, limit: int
) -> dict[str, PackageFile]:
    """Unpack members of a tar that are stored without their holes; the list was checked before.

    Raises PackageError.
    """
    found: dict[str, PackageFile] = {}
    left = limit
    with (
        _packed(path.name, "tar"),
        tarfile.open(path, "r:", encoding="utf-8", errors="surrogateescape") as archive,
    ):
        for info in archive:
            name = normal_name(info.name)
            if name not in names or not info.issparse():
                continue
            stream = archive.extractfile(info)
            target = folder / f"sparse-{len(found)}"
            if stream is None or info.size > left:
                raise refuse_bomb(printable(name), limit)
            with stream, target.open("xb") as out:
                _write(_chunks(stream), out, printable(name), look, lambda _n: limit)
            size = target.stat().st_size
            left -= size
            found[name] = PackageFile(name=name, path=target, offset=0, size=size, in_tar=False)
    return found


def _refuse_members(members: Sequence[zipfile.ZipInfo], label: str) -> None:
    if len(members) > MAX_MEMBERS:
        raise PackageError(
            "E-OVA-MEMBERS",
            f"{label} holds {len(members)} files; at most {MAX_MEMBERS} are accepted.",
        )
    for info in members:
        if not info.filename:
            raise PackageError(
                "E-OVA-NAME",
                f"{label} holds a file without a name.",
                remedy="The archive is damaged or an attack; export the machine again.",
            )
        if len(info.filename.encode(errors="surrogateescape")) > _MAX_NAME_BYTES:
            raise PackageError("E-OVA-NAME", f"A name in {label} is too long.")
        if info.flag_bits & 1:
            raise PackageError(
                "E-OVA-ENCRYPTED",
                f"{printable(info.filename)} in {label} is encrypted.",
                remedy="Pack the files without a password.",
            )
    ordered = sorted(members, key=lambda info: info.header_offset)
    for first, second in pairwise(ordered):
        # 30 bytes are the fixed part of a file's own header.
        if first.header_offset + 30 + first.compress_size > second.header_offset:
            raise PackageError(
                "E-OVA-BOMB",
                f"{printable(first.filename)} and {printable(second.filename)} in {label} are made "
                "of the same bytes.",
                remedy="Export the machine again; this archive may be an attack.",
            )


def _zip_budget(archive: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo]) -> int:
    """Return how many bytes the archive may unpack to, as its descriptor tells."""
    descriptors = [info for info in members if has_suffix(info.filename, ".ovf")]
    if len(descriptors) != 1:
        return SPARE_BYTES  # it is refused later, with the names
    with archive.open(descriptors[0]) as stream:
        return package_budget(parse_ovf(stream.read(MAX_OVF_BYTES + 1), lambda _text: None))


class Readable(Protocol):
    """What can be read to its end."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most so many bytes, b"" at the end."""
        ...


def _opened(source: IO[bytes], kind: str) -> Readable:
    match kind:
        case "gzip":
            return gzip.GzipFile(fileobj=source, mode="rb")
        case "bzip2":
            return bz2.BZ2File(source)
        case "xz":
            return _XzStream(source)
        case _:
            return _ZstdStream(source)


class _ZstdStream:
    """A zstd stream that is not content with a beginning, as the library's own reader is."""

    # So little may become 256 MiB of zeros at once.
    _PACKED_BYTES = 8 << 10

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._new = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES).decompressobj
        self._decoder = self._new()

    def read(self, _size: int = -1, /) -> bytes:
        """Return some bytes, b"" at the end."""
        while True:
            rest = self._decoder.unused_data if self._decoder.eof else b""
            packed = rest or self._source.read(self._PACKED_BYTES)
            if not packed and self._decoder.eof:
                return b""
            if not packed:
                raise EOFError("it ends early")
            if self._decoder.eof:  # frames can stand one behind the other
                self._decoder = self._new()
            if data := self._decoder.decompress(packed):
                return data


class _XzStream:
    """An xz stream read within a limit on memory, which lzma.open does not take."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._decoder = lzma.LZMADecompressor(memlimit=2 * _WINDOW_BYTES)

    def read(self, size: int = -1, /) -> bytes:
        """Return some bytes, b"" at the end."""
        while not self._decoder.eof:
            packed = self._source.read(64 << 10) if self._decoder.needs_input else b""
            if self._decoder.needs_input and not packed:
                raise EOFError("it ends early")
            if data := self._decoder.decompress(packed, size):
                return data
        return b""


def _chunks(stream: Readable) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk


def _write(chunks: Iterable[bytes], out: IO[bytes], label: str, look: Look, budget: Budget) -> None:
    """Write chunks, zeros as holes, within the budget and the space there is."""
    written = stored = 0
    room = _room(out)
    for chunk in chunks:
        look()
        for start in range(0, len(chunk), len(_HOLE)):
            piece = chunk[start : start + len(_HOLE)]
            if piece == _HOLE[: len(piece)]:
                out.seek(len(piece), os.SEEK_CUR)
            else:
                stored += len(piece)
                out.write(piece)
        written += len(chunk)
        out.flush()  # the budget may look into it
        if written > (limit := budget(written)):
            raise refuse_bomb(label, limit)
        if stored > room:
            raise PackageError(
                "E-OVA-ROOM",
                f"{label} does not fit: more than {min(stored, room) >> 20} MiB when unpacked, and "
                f"{room >> 20} MiB are free for it.",
                remedy="Free space in the work folder, or unpack the OVA and give its folder.",
            )
    out.truncate(written)


def _room(out: IO[bytes]) -> int:
    return max(0, shutil.disk_usage(Path(out.name).parent).free - _RESERVE_BYTES)


class _packed:  # noqa: N801  used like a function
    """Turn what decompressors raise into one error that names the file."""

    def __init__(self, label: str, kind: str) -> None:
        self._label = label
        self._kind = kind

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Translate."""
        if isinstance(error, _BROKEN) and not isinstance(error, PackageError):
            raise PackageError(
                "E-OVA-UNPACK",
                f"{self._label} cannot be unpacked as {self._kind}: "
                f"{str(error) or type(error).__name__}.",
                remedy="The file is damaged or was cut off; export or copy it again.",
            ) from error
