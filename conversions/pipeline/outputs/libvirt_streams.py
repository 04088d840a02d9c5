"""The bytes of a volume through libvirt's streams: sent from a file, and compared with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import libvirt

from conversions.pipeline.errors import TargetError
from conversions.pipeline.stop import check_stop

_CHUNK = 1 << 20


def upload(volume: libvirt.virStorageVol, path: Path, *, sparse: bool) -> None:
    """Send a file into a volume; holes as holes when `sparse`.  Raises libvirtError, Stopped."""

    def data(_stream: libvirt.virStream, size: int, fd: int) -> bytes:
        check_stop()
        return os.read(fd, size)

    with _streaming(volume) as stream, path.open("rb") as file:
        flags = libvirt.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM if sparse else 0
        volume.upload(stream, 0, path.stat().st_size, flags)
        if sparse:
            stream.sparseSendAll(data, _stretch, _skip, file.fileno())
        else:
            stream.sendAll(data, file.fileno())


def compare(volume: libvirt.virStorageVol, path: Path, *, sparse: bool) -> None:
    """Read back what was sent and compare every byte.

    Raises TargetError where they differ, libvirtError, Stopped.
    """
    size = path.stat().st_size

    def differs(offset: int) -> TargetError:
        return TargetError(
            f"Volume {volume.name()} is not what was sent: it differs from byte {offset} on, "
            f"of {size}.",
            remedy="Look at the storage of the target for faults, then copy again.",
            code="E-VERIFY",
        )

    def data(_stream: libvirt.virStream, there: bytes, fd: int) -> int:
        check_stop()
        here = os.lseek(fd, 0, os.SEEK_CUR)
        if os.read(fd, len(there)) != there:
            raise differs(here)
        return len(there)

    def hole(_stream: libvirt.virStream, length: int, fd: int) -> None:
        here = os.lseek(fd, 0, os.SEEK_CUR)
        end = here + length
        while here < end:
            check_stop()
            is_data, stretch = _stretch(_stream, fd)
            step = min(stretch, end - here, _CHUNK) if is_data else min(stretch, end - here)
            if not step or (is_data and os.read(fd, step).count(0) != step):
                raise differs(here)
            here = os.lseek(fd, here + step, os.SEEK_SET)

    with _streaming(volume) as stream, path.open("rb") as file:
        flags = libvirt.VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM if sparse else 0
        volume.download(stream, 0, size, flags)
        if sparse:
            stream.sparseRecvAll(data, hole, file.fileno())
        else:
            stream.recvAll(data, file.fileno())
        if (end := os.lseek(file.fileno(), 0, os.SEEK_CUR)) != size:
            raise differs(end)


@contextmanager
def _streaming(volume: libvirt.virStorageVol) -> Iterator[libvirt.virStream]:
    """Make a stream for a volume, which ends in good order or, after an error, at once."""
    stream = volume.connect().newStream()
    try:
        yield stream
    except BaseException:
        with suppress(libvirt.libvirtError):  # it may have ended already
            stream.abort()
        raise
    stream.finish()


def _stretch(_stream: libvirt.virStream, fd: int) -> tuple[bool, int]:
    """Return (in data, bytes to the end of this stretch) at the file's position."""
    here = os.lseek(fd, 0, os.SEEK_CUR)
    end = os.fstat(fd).st_size
    if here >= end:
        return False, 0
    try:
        data = os.lseek(fd, here, os.SEEK_DATA)
    except OSError:  # only a hole is left
        data = end
    if data > here:
        os.lseek(fd, here, os.SEEK_SET)
        return False, data - here
    hole = os.lseek(fd, here, os.SEEK_HOLE)
    os.lseek(fd, here, os.SEEK_SET)
    return True, hole - here


def _skip(_stream: libvirt.virStream, length: int, fd: int) -> int:
    """Step over a hole."""
    return os.lseek(fd, length, os.SEEK_CUR)
