"""Domains of a Xen host: libvirt describes them, their disk files are read over ssh."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from inventory.sources.base import Warn
from inventory.sources.domain_xml import Volume, parse_domain
from inventory.sources.errors import SourceError
from inventory.sources.nbdkit import Servers
from inventory.sources.ovf_xml import parse_xml
from inventory.sources.ssh import SshHost
from inventory.sources.types import Source
from inventory.sources.vmware import FetchXml


class XenSshReader:
    """Reads one domain; `fetch_xml` asks libvirt for its XML."""

    def __init__(
        self, uri: str, domain: str, host: SshHost, *, fetch_xml: FetchXml, warn: Warn
    ) -> None:
        self._describe = f"domain {domain} of {uri}"
        self._host = host
        self._fetch_xml = fetch_xml
        self._warn = warn

    def describe(self) -> str:
        """Return one line for messages."""
        return self._describe

    def read(self) -> Source:
        """Return the domain; its disks must be files.  Raises SourceError."""

        def no_volume(_pool: str, _volume: str) -> Volume | None:
            return None

        xml = self._fetch_xml()
        source = parse_domain(xml, self._warn, no_volume)
        for element in parse_xml(xml).findall("devices/disk[@type='block']"):
            if element.get("device", "disk") == "disk":
                device = element.find("source")
                name = device.get("dev", "") if device is not None else ""
                raise SourceError(
                    "E-XEN-BLOCK",
                    f"The disk {name} of {source.name} is a block device; over ssh only files can "
                    "be read, whose size is known.",
                    remedy="Copy the device into a file on the host, and let the domain name that.",
                )
        disks = tuple(replace(disk, remote=True) for disk in source.disks)
        return replace(source, disks=disks)

    def verify(self, progress: Callable[[int, int], None]) -> list[dict[str, str]]:
        """Return nothing: a domain carries no digests."""
        del progress
        return []

    def serve(self, source: Source, servers: Servers) -> Source:
        """Serve every disk.  Raises SourceError."""
        disks = (servers.serve(disk, self._host.server(disk.path)) for disk in source.disks)
        return replace(source, disks=tuple(disks))
