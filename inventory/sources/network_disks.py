"""Disks of libvirt domains that lie behind a network protocol.

What a domain names as host or path is never put together into a word of command: qemu gets JSON,
nbdkit one parameter with a URL whose parts are quoted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lxml import etree

from inventory.sources.errors import DescriptorError
from inventory.sources.nbdkit import quoted
from inventory.sources.uris import HOST

_REMOTE_FORMATS = ("raw", "qcow2")
_MAX_NAME = 1024


class NotReadFromHereError(Exception):
    """A disk that cannot be read; the text is the reason, the end of a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a disk lies and its container format; the fields are those of SourceDisk."""

    path: str
    format: str
    remote: bool = False
    node: Mapping[str, Any] | None = None


def network_disk(element: etree._Element, fmt: str) -> Place:
    """Return where a disk of type network lies: an NBD server, or a file of an https server.

    The latter has no node: a server of ours has to serve it.  Raises NotReadFromHereError for
    protocols that are not read, DescriptorError (E-LV-PORT) for a port that is none.
    """
    source = element.find("source")
    protocol = source.get("protocol", "") if source is not None else ""
    if source is None or protocol not in ("nbd", "https"):
        raise NotReadFromHereError(
            f"disks of the protocol {protocol[:40]!r} are not read from here"
        )
    if fmt not in _REMOTE_FORMATS:
        raise NotReadFromHereError(
            f"a disk of an {protocol} server must be raw or qcow2, not {fmt}"
        )
    name = source.get("name", "")
    if len(name) > _MAX_NAME or not all(c.isprintable() for c in name):
        raise NotReadFromHereError("its name holds characters that no name has, or is too long")
    host = source.find("host")
    if host is None:
        raise NotReadFromHereError("it names no host")
    return (_nbd if protocol == "nbd" else _https)(source, host, name, fmt)


def _nbd(source: etree._Element, host: etree._Element, name: str, fmt: str) -> Place:
    if source.get("tls") == "yes":
        raise NotReadFromHereError("NBD servers that ask for TLS are not read from here")
    if host.get("transport", "tcp") != "tcp":
        raise NotReadFromHereError("NBD servers are read over TCP only")
    server, port = _server(host), _port(host, 10809)
    address = {"type": "inet", "host": server, "port": str(port)}
    node = {"driver": "nbd", "server": address, "export": name}
    place = f"nbd://{_bracketed(server)}:{port}/{name}"
    return Place(path=place, format=fmt, remote=True, node=node)


def is_of_this_machine(node: Mapping[str, Any]) -> bool:
    """Tell whether a node means whatever machine it is opened on."""
    host: str = node["server"]["host"]
    return host in ("localhost", "::1") or host.startswith("127.")


def _https(source: etree._Element, host: etree._Element, name: str, fmt: str) -> Place:
    server = _server(host)
    if source.get("query"):
        raise NotReadFromHereError("its address has a query")
    if ".." in name.split("/"):
        raise NotReadFromHereError("its name leads out of its folder (..)")
    port = _port(host, 443)
    place = _bracketed(server)
    if port != 443:
        place += f":{port}"
    return Place(path=f"https://{place}/{quoted(name.lstrip('/'))}", format=fmt, remote=True)


def _server(host: etree._Element) -> str:
    name = host.get("name", "")
    if not HOST.fullmatch(name):
        raise NotReadFromHereError("the name of its host is none")
    return name


def _bracketed(server: str) -> str:
    return f"[{server}]" if ":" in server else server


def _port(host: etree._Element, default: int) -> int:
    text = host.get("port")
    if text is None:
        return default
    port = int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0
    if not 0 < port < 65536:
        raise DescriptorError("E-LV-PORT", f"The port {text[:20]!r} of a network disk is none.")
    return port
