"""Domains of a host whose disk files are read over ssh; libvirt describes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from inventory.sources.base import Warn
from inventory.sources.domain_xml import FindVolume, parse_domain
from inventory.sources.errors import SourceError
from inventory.sources.layers import serve_layers
from inventory.sources.nbdkit import Servers
from inventory.sources.network_disks import refuse_places, serve_network_disk
from inventory.sources.ssh import SshHost, ssh_path
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
        source = parse_domain(self._fetch_xml(), self._warn, self._find_volume)
        refuse_unreadable(source, self._uri)
        disks = tuple(replace(disk, remote=True) for disk in source.disks)
        return replace(source, disks=disks)

    def verify(self, progress: Callable[[int, int], None]) -> list[dict[str, str]]:
        """Return nothing: a domain carries no digests."""
        del progress
        return []

    def serve(self, source: Source, servers: Servers) -> Source:
        """Serve every disk.  Raises SourceError."""
        return replace(source, disks=tuple(self._served(disk, servers) for disk in source.disks))

    def _served(self, disk: SourceDisk, servers: Servers) -> SourceDisk:
        if disk.path.startswith("ssh:"):
            # The same host and user, as was proved: reached with the same key.
            return servers.serve(disk, self._host.server(ssh_path(disk.path)))
        if not disk.path.startswith("/"):
            return serve_network_disk(disk, servers)
        if disk.format == "qcow2":
            return serve_layers(disk, self._host.server, servers, self._warn)
        return servers.serve(disk, self._host.server(disk.path))


def refuse_unreadable(source: Source, uri: str) -> None:
    """Refuse a machine with a disk that cannot be read over ssh, as far as its definition shows.

    Raises SourceError: E-SSH-BLOCK, of Xen hosts E-XEN-BLOCK, and E-LV-DISK.
    """
    refuse_places(source, uri)
    for disk in source.disks:
        if not disk.remote and disk.path.startswith("/dev/"):
            raise SourceError(
                "E-XEN-BLOCK" if uri.startswith("xen") else "E-SSH-BLOCK",
                f"The disk {disk.path} of {source.name} is a block device; over ssh only files can "
                "be read, whose size is known.",
                remedy="Copy the device into a file on the host (qemu-img convert), and let the "
                "domain name that.",
            )
