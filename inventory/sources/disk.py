"""Disk images as a source: one machine of one or several images on this host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from inventory.sources.base import Warn
from inventory.sources.display import Display, DisplayType
from inventory.sources.errors import ImageError
from inventory.sources.local_image import local_disk
from inventory.sources.ova import name_from_file
from inventory.sources.types import Nic, Source, VnetType

_MEMORY_BYTES = 2 << 30
# What any machine for KVM has; images say nothing of it.
_FEATURES = ("acpi", "apic", "pae")


class DiskReader:
    """Reads what there is to know of disk images: their sizes; the rest are defaults.

    Files that a VMDK names lie in its own folder unless they may lie `anywhere`.
    """

    def __init__(
        self, paths: Sequence[Path], *, format: str | None, warn: Warn, anywhere: bool = False
    ) -> None:
        self._paths = [path.absolute() for path in paths]
        self._format = format
        self._warn = warn
        self._anywhere = anywhere

    def describe(self) -> str:
        """Return one line for messages."""
        return "disk " + ", ".join(str(path) for path in self._paths)

    def read(self) -> Source:
        """Return a machine with these disks.  Raises SourceError, ImageError."""
        if not self._paths:
            raise ImageError(
                "E-DISK-NONE", "No disk image was given.", remedy="Name one: -i disk web01.qcow2"
            )
        name = name_from_file(self._paths[0].name)
        return Source(
            name=name,
            original_name=name,
            hypervisor="unknownhv",
            memory_bytes=_MEMORY_BYTES,
            vcpus=1,
            features=_FEATURES,
            display=Display(type=DisplayType.WINDOW),
            disks=tuple(
                local_disk(
                    number,
                    path,
                    format=self._format,
                    warn=self._warn,
                    folder=None if self._anywhere else path.parent,
                )
                for number, path in enumerate(self._paths)
            ),
            nics=(Nic(vnet="default", vnet_type=VnetType.NETWORK),),
        )

    def verify(self, progress: Callable[[int, int], None]) -> list[dict[str, str]]:
        """Return nothing: images carry no digests."""
        del progress
        return []
