"""Disk images as a source: one machine of one or several images on this host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from inventory.sources.base import Warn
from inventory.sources.errors import ImageError
from inventory.sources.images import HEAD_BYTES, image_format, virtual_size
from inventory.sources.ova import name_from_file
from inventory.sources.types import Nic, Source, SourceDisk, VnetType

_MEMORY_BYTES = 2 << 30


class DiskReader:
    """Reads what there is to know of disk images: their sizes; the rest are defaults."""

    def __init__(self, paths: Sequence[Path], *, format: str | None, warn: Warn) -> None:
        self._paths = [path.absolute() for path in paths]
        self._format = format
        self._warn = warn

    def describe(self) -> str:
        """Return one line for messages."""
        return "disk " + ", ".join(str(path) for path in self._paths)

    def read(self) -> Source:
        """Return a machine with these disks.  Raises SourceError, ImageError."""
        name = name_from_file(self._paths[0].name)
        return Source(
            name=name,
            original_name=name,
            hypervisor="disk",
            memory_bytes=_MEMORY_BYTES,
            vcpus=1,
            disks=tuple(self._disk(number, path) for number, path in enumerate(self._paths)),
            nics=(Nic(vnet="default", vnet_type=VnetType.NETWORK),),
        )

    def _disk(self, number: int, path: Path) -> SourceDisk:
        try:
            with path.open("rb") as stream:
                head = stream.read(HEAD_BYTES)
        except OSError as error:
            raise ImageError(
                "E-IMG-READ",
                f"{path} cannot be read: {error.strerror}.",
                remedy="Check the path and who may read it.",
            ) from error
        if not head:
            raise ImageError("E-IMG-READ", f"{path} is empty (0 bytes).")
        found = image_format(head, str(path))
        if self._format is None and found != "raw" and path.suffix in (".img", ".raw"):
            # A guest can write such a header into its own raw disk.
            self._warn(f"{path} is taken as {found}, as its header says; state raw if it is raw.")
        fmt = self._format or found
        return SourceDisk(
            id=number,
            controller=None,
            path=str(path),
            format=fmt,
            virtual_size_bytes=virtual_size(str(path), fmt, str(path)),
        )

    def verify(self, progress: Callable[[int, int], None]) -> list[dict[str, str]]:
        """Return nothing: images carry no digests."""
        del progress
        return []
