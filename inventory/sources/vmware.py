"""Machines of ESXi hosts and vCenters; their disks are read over https, without VDDK.

libvirt describes the machine; the server's web folder has its disks as flat files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import parse_qs, unquote, urlsplit

from inventory.sources.base import Warn
from inventory.sources.certificates import SessionError
from inventory.sources.domain_xml import parse_domain
from inventory.sources.errors import SourceError
from inventory.sources.https_disk import https_server
from inventory.sources.https_session import HttpsSession, Login
from inventory.sources.nbdkit import Servers, quoted
from inventory.sources.ovf_xml import parse_xml
from inventory.sources.pinned import pinned_socket
from inventory.sources.types import Source
from inventory.sources.uris import checked_uri

_NAMESPACE = "{http://libvirt.org/schemas/domain/vmware/1.0}"
_DATASTORE_PATH = re.compile(r"\[(?P<datastore>[^\]]{1,255})\] (?P<path>.{1,1024})\.vmdk")
_SNAPSHOT = re.compile(r"-\d{6}(?=\.vmdk$)")

FetchXml = Callable[[], bytes]
"""Returns the domain XML as libvirt gives it.  Raises SourceError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VmwareServer:
    """What a libvirt address says of the server."""

    host: str
    port: int
    user: str | None
    verify: bool

    @classmethod
    def from_uri(cls, uri: str) -> VmwareServer:
        """Read a checked address.  Raises SourceError."""
        parts = urlsplit(checked_uri(uri))
        if not parts.hostname:
            raise SourceError("E-LV-URI", f"The address {uri} names no server.")
        return cls(
            host=parts.hostname,
            port=parts.port or 443,
            user=unquote(parts.username) if parts.username else None,
            verify=parse_qs(parts.query).get("no_verify") != ["1"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VmwareDomain:
    """A machine with what only VMware's servers know: its datacenter and its id there."""

    source: Source
    datacenter: str
    moref: str


def parse_vmware_domain(xml: bytes, warn: Warn) -> VmwareDomain:
    """Return what libvirt's driver for VMware says of a machine.  Raises DescriptorError."""
    source = parse_domain(xml, warn, lambda _pool, _volume: None)
    root = parse_xml(xml)
    return VmwareDomain(
        source=source,
        datacenter=(root.findtext(f"{_NAMESPACE}datacenterpath") or "").strip(),
        moref=(root.findtext(f"{_NAMESPACE}moref") or "").strip(),
    )


def url_path(datacenter: str, path: str) -> str:
    """Return where the flat file of a disk is in the server's web folder.

    `path` has the form [datastore] folder/name.vmdk.  The datacenter and the datastore are quoted
    twice, as the server wants them.  Raises SourceError.
    """
    match = _DATASTORE_PATH.fullmatch(path)
    if not match or ".." in match["path"].split("/") or not path.isprintable():
        raise SourceError(
            "E-VC-PATH",
            f"The disk {path[:200]!r} does not lie at a place like [datastore] folder/name.vmdk.",
        )
    query = f"dcPath={quoted(quoted(datacenter))}&dsName={quoted(quoted(match['datastore']))}"
    return f"/folder/{quoted(match['path'])}-flat.vmdk?{query}"


def disk_url(server: VmwareServer, place: str) -> str:
    """Return the whole address of a place on the server."""
    host = f"[{server.host}]" if ":" in server.host else server.host
    return f"https://{host}{'' if server.port == 443 else f':{server.port}'}{place}"


class VmwareHttpsReader:
    """Reads one machine over https.

    `fetch_xml` asks libvirt; `password` None means that none was given.
    """

    def __init__(
        self,
        uri: str,
        domain: str,
        *,
        password: str | None,
        fetch_xml: FetchXml,
        warn: Warn,
        options: Mapping[str, tuple[str, ...]],
    ) -> None:
        if password is None:
            raise SessionError(
                "E-VC-PASSWORD",
                f"{uri} is read with a password, and none was given.",
                remedy="Give a file that holds it, with -ip.",
            )
        self._server = VmwareServer.from_uri(uri)
        if self._server.user is None:
            warn("The address names no user; the server is asked without credentials.")
        self._describe = f"machine {domain} of {uri}"
        self._fetch_xml = fetch_xml
        self._warn = warn
        self._datacenter = ""
        self._login = Login(
            host=self._server.host,
            port=self._server.port,
            user=self._server.user,
            password=password,
            verify=self._server.verify,
            thumbprint=options.get("https-thumbprint", ("",))[0],
        )

    def describe(self) -> str:
        """Return one line for messages."""
        return self._describe

    def read(self) -> Source:
        """Return the machine; its disks are not looked for yet.  Raises SourceError."""
        found = parse_vmware_domain(self._fetch_xml(), self._warn)
        if not found.datacenter:
            raise SourceError(
                "E-VC-DATACENTER",
                f"libvirt does not say in which datacenter {found.source.name} is.",
                remedy="libvirt 1.2.20 or newer does.",
            )
        self._datacenter = found.datacenter
        for disk in found.source.disks:
            url_path(self._datacenter, disk.path)
        return found.source

    def verify(self, progress: Callable[[int, int], None]) -> list[dict[str, str]]:
        """Return nothing: a machine carries no digests."""
        del progress
        return []

    def serve(self, source: Source, servers: Servers) -> Source:
        """Log in and serve every disk.  Raises SourceError."""
        login = self._login
        session = HttpsSession(login, servers.folder, servers.log)
        places = [self._find(session, disk.path) for disk in source.disks]
        servers.enter(session)
        pinned = None
        if login.thumbprint:
            pinned = servers.socket_folder / "pinned"
            servers.enter(pinned_socket(pinned, login.host, login.port, login.thumbprint))
        return replace(
            source,
            disks=tuple(
                servers.serve(
                    disk,
                    https_server(
                        disk_url(self._server, place),
                        cookie_file=session.cookie_file,
                        pinned=pinned,
                        verify=login.verify,
                    ),
                    on_line=session.look,
                )
                for disk, place in zip(source.disks, places, strict=True)
            ),
        )

    def _find(self, session: HttpsSession, path: str) -> str:
        """Return the place of a disk that is there; a snapshot's disk may be its base."""
        place = url_path(self._datacenter, path)
        status = session.log_in(place)
        base = _SNAPSHOT.sub("", path)
        if status == 404 and base != path:
            place = url_path(self._datacenter, base)
            status = session.log_in(place)
        if status == 200:
            return place
        if status == 401:
            raise SessionError(
                "E-VC-AUTH",
                f"{self._server.host} refuses the user {self._server.user or '(none)'} or the "
                "password.",
                remedy="Check the password."
                if self._server.user
                else "Put the user into the address: esx://root@host/.",
            )
        raise SessionError(
            "E-VC-NODISK" if status == 404 else "E-VC-HTTP",
            f"{self._server.host} answers {status} for the disk {path}.",
            remedy="Check that the user may browse its datastore.",
        )
