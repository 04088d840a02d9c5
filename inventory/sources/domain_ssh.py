"""Domains of a host whose disk files are read over ssh; libvirt describes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lxml import etree

from inventory.sources.base import Warn
from inventory.sources.domain_xml import FindVolume, parse_domain
from inventory.sources.errors import SourceError
from inventory.sources.layers import serve_layers
from inventory.sources.nbdkit import Servers
from inventory.sources.network_disks import refuse_places, serve_network_disk
from inventory.sources.ssh import SshHost
from inventory.sources.types import Source, SourceDisk
from inventory.sources.vmware import FetchXml


class SshDomainReader:
    """Reads one domain; `fetch_xml` and `find_volume` ask libvirt."""

    def __init__(
        self,
        uri: str,
        domain: str,
        host: SshHost,
        *,
        fetch_xml: FetchXml,
        find_volume: FindVolume,
        warn: Warn,
    ) -> None:
        self._uri = uri
        self._domain = domain
        self._host = host
        self._fetch_xml = fetch_xml
        self._find_volume = find_volume
        self._warn = warn

    def describe(self) -> str:
        """Return one line for messages."""
        return f"domain {self._domain} of {self._uri}"

    def read(self) -> Source:
        """Return the domain; block devices are refused.  Raises SourceError."""
        source = parse_domain(
            self._fetch_xml(), self._warn, self._find_volume, on_disk=self._refuse_device
        )
        refuse_places(source, self._uri)
        disks = tuple(replace(disk, remote=True) for disk in source.disks)
        return replace(source, disks=disks)

    def _refuse_device(self, disk: SourceDisk, element: etree._Element) -> None:
        if disk.remote or not (element.get("type") == "block" or disk.path.startswith("/dev/")):
            return
        raise SourceError(
            "E-XEN-BLOCK" if self._uri.startswith("xen") else "E-SSH-BLOCK",
            f"The disk {disk.path} of {self._domain} is a block device; over ssh only files can be "
            "read, whose size is known.",
            remedy="Copy the device into a file on the host (qemu-img convert), and let the domain "
            "name that.",
        )

    def verify(self, progress: Callable[[int, int], None]) -> list[dict[str, str]]:
        """Return nothing: a domain carries no digests."""
        del progress
        return []

    def serve(self, source: Source, servers: Servers) -> Source:
        """Serve every disk.  Raises SourceError."""
        return replace(source, disks=tuple(self._served(disk, servers) for disk in source.disks))

    def _served(self, disk: SourceDisk, servers: Servers) -> SourceDisk:
        if not disk.path.startswith("/"):
            return serve_network_disk(disk, servers)
        if disk.format == "qcow2":
            return serve_layers(disk, self._host.server, servers, self._warn)
        return servers.serve(disk, self._host.server(disk.path))
