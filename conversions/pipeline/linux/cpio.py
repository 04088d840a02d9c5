"""What an initramfs holds: cpio archives, one after the other, each plain or compressed.

Read on the host, from a copy, so that it works the same for every distribution and needs no
program of the guest.  The format is the kernel's, Documentation/driver-api/early-userspace.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
from collections.abc import Iterator
from typing import IO, cast

import lz4.block  # type: ignore[import-untyped]
import zstandard

MAX_UNPACKED_BYTES = 4 << 30
MAX_NAMES = 500_000
_MAX_NAME_BYTES = 4096
_HEADER_BYTES = 110
_TRAILER = "TRAILER!!!"
_S_IFMT, _S_IFREG = 0o170000, 0o100000
_LZ4_LEGACY_BLOCK = 8 << 20


class InitramfsError(Exception):
    """The file is no initramfs, or a damaged one."""


def list_initramfs(stream: IO[bytes]) -> list[str]:
    """Return the names of the regular files and links in an initramfs, without a leading slash.

    `stream` is seekable.  Raises InitramfsError.
    """
    names: list[str] = []
    try:
        for name in _names(stream):
            names.append(name)
            if len(names) > MAX_NAMES:
                raise InitramfsError(f"it has more than {MAX_NAMES} names")
    except (OSError, EOFError, ValueError, lzma.LZMAError, zstandard.ZstdError,
            lz4.block.LZ4BlockError, struct.error) as error:  # fmt: skip
        raise InitramfsError(str(error) or type(error).__name__) from error
    return names


def _names(stream: IO[bytes]) -> Iterator[str]:
    """Walk through the archives of a plain or partly compressed file."""
    reader = _Reader(stream)
    while head := reader.peek_nonzero(6):
        if head in (b"070701", b"070702"):
            yield from _archive(reader)
        else:
            # The kernel unpacks what follows a compressed archive too; nobody writes that.
            unpacked = _Reader(_decompressor(head, reader.rest()))
            while part := unpacked.peek_nonzero(6):
                if part not in (b"070701", b"070702"):
                    raise InitramfsError(f"it has no cpio archive but bytes {part.hex()}")
                yield from _archive(unpacked)
            return


def _archive(reader: _Reader) -> Iterator[str]:
    """Yield the names of one newc archive; the reader stands after it then."""
    while True:
        header = reader.read(_HEADER_BYTES)
        if header[:6] not in (b"070701", b"070702"):
            raise InitramfsError(f"a cpio header begins with bytes {header[:6].hex()}")
        values = [int(header[at : at + 8], 16) for at in range(6, _HEADER_BYTES, 8)]
        mode, size, name_size = values[1], values[6], values[11]
        if not 0 < name_size <= _MAX_NAME_BYTES:
            raise InitramfsError(f"a name of {name_size} bytes")
        name = reader.read(name_size)[:-1].decode("utf-8", "replace")
        reader.skip(-(_HEADER_BYTES + name_size) % 4)
        if name == _TRAILER:
            return
        reader.skip(size + -size % 4)
        if (mode & _S_IFMT) != 0o040000:
            yield name.removeprefix("./").lstrip("/")


class _Reader:
    """Reads forward only, with a look at what comes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._ahead = b""
        self._read = 0

    def _more(self, count: int) -> bytes:
        data = self._stream.read(count)
        self._read += len(data)
        if self._read > MAX_UNPACKED_BYTES:
            raise InitramfsError(f"it unpacks to more than {MAX_UNPACKED_BYTES >> 30} GiB")
        return data

    def peek_nonzero(self, count: int) -> bytes:
        """Return the next bytes after any zero padding, b"" at the end."""
        while True:
            self._ahead = self._ahead.lstrip(b"\0")
            if len(self._ahead) >= count:
                return self._ahead[:count]
            more = self._more(4096)
            if not more:
                return self._ahead[:count]
            self._ahead += more

    def read(self, count: int) -> bytes:
        """Return exactly that many bytes.  Raises InitramfsError at the end."""
        while len(self._ahead) < count:
            more = self._more(max(65536, count - len(self._ahead)))
            if not more:
                raise InitramfsError("it ends in the middle of an archive")
            self._ahead += more
        data, self._ahead = self._ahead[:count], self._ahead[count:]
        return data

    def skip(self, count: int) -> None:
        """Pass over bytes without keeping them.  Raises InitramfsError at the end."""
        while count > len(self._ahead):
            count -= len(self._ahead)
            self._ahead = self._more(65536)
            if not self._ahead:
                raise InitramfsError("it ends in the middle of a file")
        self._ahead = self._ahead[count:]

    def rest(self) -> IO[bytes]:
        """Return all that follows as a stream of its own."""
        self._stream.seek(-len(self._ahead), io.SEEK_CUR)
        self._ahead = b""
        return self._stream


def _decompressor(head: bytes, stream: IO[bytes]) -> IO[bytes]:
    if head.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=stream))
    if head.startswith((b"\xfd7zXZ", b"\x5d\x00\x00")):
        return cast(IO[bytes], lzma.LZMAFile(stream))
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        options = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        return cast(IO[bytes], options.stream_reader(stream, read_across_frames=True))
    if head.startswith(b"BZh"):
        return cast(IO[bytes], bz2.BZ2File(stream))
    if head.startswith(b"\x02\x21\x4c\x18"):
        return cast(IO[bytes], io.BufferedReader(_Lz4Legacy(stream)))
    raise InitramfsError(f"its compression is not known; it begins with bytes {head.hex()}")


class _Lz4Legacy(io.RawIOBase):
    """The lz4 format of the kernel: a magic number, then blocks with their packed sizes."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__()
        self._stream = stream
        self._block = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if not self._block:
            self._block = self._next_block()
        count = min(len(buffer), len(self._block))
        buffer[:count] = self._block[:count]
        self._block = self._block[count:]
        return count

    def _next_block(self) -> bytes:
        size = self._stream.read(4)
        while size == b"\x02\x21\x4c\x18":  # several such files in a row are one
            size = self._stream.read(4)
        if len(size) < 4 or size == b"\0\0\0\0":
            return b""
        (packed,) = struct.unpack("<I", size)
        if packed > 2 * _LZ4_LEGACY_BLOCK:
            raise InitramfsError(f"an lz4 block of {packed} bytes")
        data = self._stream.read(packed)
        return bytes(lz4.block.decompress(data, uncompressed_size=_LZ4_LEGACY_BLOCK))
