"""Disk images as a source: one machine of one or several images on this host."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from inventory.sources.base import Warn
from inventory.sources.display import Display, DisplayType
from inventory.sources.errors import ImageError
from inventory.sources.local_image import local_disk
from inventory.sources.nbdkit import NbdServer, Servers, pick_filters
from inventory.sources.ova import name_from_file
from inventory.sources.types import Nic, Source, SourceDisk, VnetType

_MEMORY_BYTES = 2 << 30
# What any machine for KVM has; images say nothing of it.
_FEATURES = ("acpi", "apic", "pae")
_NBD = re.compile(r"nbds?(\+(unix|vsock))?://")


def is_nbd(name: str) -> bool:
    """Tell whether an image is named by the address of an NBD server, as libnbd writes it."""
    return _NBD.match(name) is not None


def nbd_server(uri: str) -> NbdServer:
    """Return the server of ours that stands between an NBD server and the conversion.

    What the guest writes meanwhile stays on this side of it.
    """
    return NbdServer(plugin="nbd", parameters=[("uri", uri)], filters=pick_filters("cow"))


class DiskReader:
    """Reads what there is to know of disk images: their sizes; the rest are defaults.

    An image is a file or a device of this host, of the stated format if one is stated, or the
    address of an NBD server, whose disk is raw.  Files that a VMDK names lie in its own folder
    unless they may lie `anywhere`.
    """

    def __init__(
        self,
        images: Sequence[str | Path],
        *,
        format: str | None,
        warn: Warn,
        anywhere: bool = False,
    ) -> None:
        self._images = [i if is_nbd(i) else Path(i).absolute() for i in map(str, images)]
        self._format = format
        self._warn = warn
        self._anywhere = anywhere

    def describe(self) -> str:
        """Return one line for messages."""
        return "disk " + ", ".join(str(image) for image in self._images)

    def read(self) -> Source:
        """Return a machine with these disks.  Raises SourceError, ImageError."""
        if not self._images:
            raise ImageError(
                "E-DISK-NONE", "No disk image was given.", remedy="Name one: -i disk web01.qcow2"
            )
        first = next((image for image in self._images if isinstance(image, Path)), None)
        name = name_from_file(first.name) if first else "unknown"
        return Source(
            name=name,
            original_name=name,
            hypervisor="unknownhv",
            memory_bytes=_MEMORY_BYTES,
            vcpus=1,
            features=_FEATURES,
            display=Display(type=DisplayType.WINDOW),
            disks=tuple(self._disk(number, image) for number, image in enumerate(self._images)),
            nics=(Nic(vnet="default", vnet_type=VnetType.NETWORK),),
        )

    def _disk(self, number: int, image: str | Path) -> SourceDisk:
        if isinstance(image, str):
            return SourceDisk(id=number, controller=None, path=image, format="raw", remote=True)
        return local_disk(
            number,
            image,
            format=self._format,
            warn=self._warn,
            folder=None if self._anywhere else image.parent,
        )

    def serve(self, source: Source, servers: Servers) -> Source:
        """Serve the disks of NBD servers.  Raises SourceError."""
        disks = [
            servers.serve(disk, nbd_server(disk.path)) if disk.remote else disk
            for disk in source.disks
        ]
        return replace(source, disks=tuple(disks))

    def verify(self, progress: Callable[[int, int], None]) -> list[dict[str, str]]:
        """Return nothing: images carry no digests."""
        del progress
        return []
