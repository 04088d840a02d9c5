"""A file of domain XML as a source: a machine whose disks this host can open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lxml import etree

from inventory.sources.base import Warn
from inventory.sources.content_digests import ContentDigest, check_content, content_digest
from inventory.sources.domain_xml import parse_domain
from inventory.sources.errors import DescriptorError
from inventory.sources.libvirt_host import volume_of_host
from inventory.sources.local_image import local_disk
from inventory.sources.nbdkit import Servers
from inventory.sources.network_disks import Place, serve_network_disks
from inventory.sources.ovf_xml import MAX_BYTES
from inventory.sources.types import Source, SourceDisk


class LibvirtXmlReader:
    """Reads a file of domain XML.

    Whether the domain runs cannot be known.  Names of volumes are looked up on the host `uri`,
    which is asked only for those.  Layers below a disk are refused unless they may lie `anywhere`.
    """

    def __init__(self, path: Path, *, uri: str, warn: Warn, anywhere: bool = False) -> None:
        self._path = path.absolute()
        self._uri = uri
        self._warn = warn
        self._anywhere = anywhere
        self._disks: tuple[SourceDisk, ...] = ()
        self._digests: dict[int, ContentDigest] = {}

    def describe(self) -> str:
        """Return one line for messages."""
        return f"domain XML {self._path}"

    def read(self) -> Source:
        """Return the machine.  Raises SourceError."""
        try:
            with self._path.open("rb") as stream:
                data = stream.read(MAX_BYTES + 1)
        except OSError as error:
            raise DescriptorError(
                "E-XML-READ",
                f"{self._path} cannot be read: {error.strerror}.",
                remedy="Check the path and who may read it.",
            ) from error
        self._digests = {}
        source = parse_domain(
            data,
            self._warn,
            self._volume,
            folder=Path.cwd(),
            default_format=None,
            on_disk=self._note_digest,
        )
        source = replace(source, disks=tuple(self._checked(disk) for disk in source.disks))
        self._disks = source.disks
        return source

    def _note_digest(self, disk: SourceDisk, element: etree._Element) -> None:
        digest = content_digest(element, self._warn)
        if digest is not None and disk.remote:
            self._warn(f"The checksum of {disk.path} is not looked at: it is on another host.")
        elif digest is not None:
            self._digests[disk.id] = digest

    def _volume(self, pool: str, volume: str) -> Place | None:
        return volume_of_host(self._uri, None, pool, volume)

    def _checked(self, disk: SourceDisk) -> SourceDisk:
        """Return a disk with its format and size, after a look at it.  Raises ImageError."""
        if disk.remote:
            return disk
        path = Path(disk.path)
        return local_disk(
            disk.id,
            path,
            format=disk.format or None,
            warn=self._warn,
            controller=disk.controller,
            folder=None if self._anywhere else path.parent,
        )

    def serve(self, source: Source, servers: Servers) -> Source:
        """Serve the disks that other servers have.  Raises SourceError."""
        return serve_network_disks(source, servers)

    def verify(self, progress: Callable[[int, int], None]) -> list[dict[str, str]]:
        """Check the digests of the disks' content; call after `read`.  Raises ManifestError."""
        wanted = [
            (disk, self._digests[disk.id]) for disk in self._disks if disk.id in self._digests
        ]
        total = sum(disk.virtual_size_bytes or 0 for disk, _digest in wanted)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress(done, total)

        return [check_content(disk, digest, advance, self._warn) for disk, digest in wanted]
