"""Which reader takes a source on another host."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable
from urllib.parse import urlsplit

from inventory.sources.base import SourceReader, Warn
from inventory.sources.domain_ssh import SshDomainReader
from inventory.sources.errors import SourceError
from inventory.sources.host_access import OVER_SSH
from inventory.sources.input_options import HTTPS_OPTIONS, SSH_OPTIONS, TRANSPORTS
from inventory.sources.libvirt_host import domain_xml, volume_of_host, with_screen_password
from inventory.sources.nbdkit import Servers
from inventory.sources.programs import forget_proxies
from inventory.sources.ssh import SshHost
from inventory.sources.types import Source
from inventory.sources.uris import checked_uri
from inventory.sources.vddk import VddkReader
from inventory.sources.vmware import VmwareHttpsReader
from inventory.sources.vmx_ssh import VmxSshReader

_VMWARE = ("esx", "gsx", "vpx")


@runtime_checkable
class RemoteReader(Protocol):
    """A reader whose disks may lie on other hosts."""

    def serve(self, source: Source, servers: Servers) -> Source:
        """Start servers for those of the disks that need one, and return the source with them.

        Raises SourceError.
        """
        ...


def remote_reader(
    kind: str,
    location: str,
    *,
    work_dir: Path,
    warn: Warn,
    connection: str | None = None,
    transport: str | None = None,
    password: str | None = None,
    options: Mapping[str, tuple[str, ...]],
    disks_anywhere: bool = False,
    allow_running: bool = False,
    keep_display: bool = False,
) -> SourceReader | None:
    """Return the reader for a source on another host; None for one that is read from here.

    Raises SourceError for a transport or an option that does not fit the source.
    """
    if transport is not None and transport not in TRANSPORTS:
        raise _unfit(f"The transport {transport[:40]!r} is not known; ssh and vddk are.")
    running = warn if allow_running else None
    if kind == "vmx" and transport == "ssh":
        _refuse_others(options, SSH_OPTIONS)
        host = SshHost.from_parts(location, password=password, options=options)
        return VmxSshReader(
            location, host, work_dir=work_dir, warn=warn, anywhere=disks_anywhere, running=running
        )
    scheme = ""
    if kind == "libvirt" and connection:
        parts = urlsplit(checked_uri(connection))
        scheme = parts.scheme if parts.netloc else ""
    if connection and scheme in _VMWARE:

        def vmware_xml() -> bytes:
            # libvirt's driver would go through them.
            forget_proxies()
            keys = ("https-thumbprint", "vddk-thumbprint")
            thumbprint = next((options[key][0] for key in keys if options.get(key)), "")
            return domain_xml(
                connection, location, password, running=running, thumbprint=thumbprint
            )

        if transport == "ssh":
            raise _unfit(
                f"{connection} is not read over ssh.",
                "Over ssh a VMX file is read: -i vmx -it ssh ssh://root@host/vmfs/volumes/...",
            )
        if transport is None:
            _refuse_others(options, HTTPS_OPTIONS)
        reader = VddkReader if transport == "vddk" else VmwareHttpsReader
        return reader(
            connection,
            location,
            password=password,
            fetch_xml=vmware_xml,
            warn=warn,
            options=options,
        )
    over_ssh = scheme == "xen+ssh" or (transport == "ssh" and scheme in OVER_SSH)
    if transport is not None and not over_ssh:
        raise _unfit(f"A source of kind {kind} is not read over {transport}.")
    if connection and over_ssh:
        _refuse_others(options, SSH_OPTIONS)

        def xml_over_ssh() -> bytes:
            xml = domain_xml(connection, location, password, running=running)
            if not keep_display:
                return xml
            return with_screen_password(xml.decode(), connection, location, password, warn).encode()

        return SshDomainReader(
            connection,
            location,
            SshHost.from_parts(connection, password=password, options=options),
            fetch_xml=xml_over_ssh,
            find_volume=lambda pool, volume: volume_of_host(connection, password, pool, volume),
            warn=warn,
        )
    _refuse_others(options, ())
    if scheme:
        more = "; with -it ssh they are read from there" if scheme in OVER_SSH else ""
        warn(
            f"{connection} is another host; its disks can be read only where they are here too"
            f"{more}."
        )
    return None


def _unfit(message: str, remedy: str = "") -> SourceError:
    return SourceError("E-INPUT-TRANSPORT", message, remedy=remedy)


def _refuse_others(options: Mapping[str, tuple[str, ...]], known: tuple[str, ...]) -> None:
    for key in sorted(options):
        if key not in known:
            raise SourceError(
                "E-INPUT-OPTION",
                f"-io {key[:100]} is not known for this source.",
                remedy=f"Known are {', '.join(known)}." if known else "It takes none.",
            )
