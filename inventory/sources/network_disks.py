"""Disks of libvirt domains that lie behind a network protocol.

What a domain names as host or path is never put together into a word of command: qemu gets JSON,
nbdkit one parameter with a URL whose parts are quoted.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from lxml import etree

from inventory.sources.errors import DescriptorError, SourceError
from inventory.sources.https_disk import https_server
from inventory.sources.nbdkit import Servers, quoted
from inventory.sources.ssh import SshHost, ssh_path
from inventory.sources.types import Source, SourceDisk
from inventory.sources.uris import HOST, USER

_REMOTE_FORMATS = ("raw", "qcow2")
_MAX_NAME = 1024
# RFC 3720, 3.2.6: iqn., eui. and naa. names hold nothing else.
_ISCSI_NAME = re.compile(r"(?:iqn|eui|naa)\.[A-Za-z0-9.:-]{1,220}")
# What neither qemu nor librbd takes for the end of a name, or for the start of a snapshot's.
_RBD_NAME = re.compile(r"(?!-)[A-Za-z0-9_. +-]{1,200}")
# Of one command; a busy array takes its time.
_COMMAND_SECONDS = 120
_OWN_NAMES = ("localhost", "ip6-localhost", "ip6-loopback")
_EXTRA = "and that its qemu has the driver (package qemu-block-extra)"
_REMEDIES = {
    "nbd": "See that the server runs, has the export, and can be reached from here.",
    "iscsi": "See that this server reaches the portal and may log in there without a password, "
    f"{_EXTRA}.",
    "rbd": "See that this server reaches the monitors, that its /etc/ceph holds a key of the user, "
    f"{_EXTRA}.",
}


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
    """Return where a disk of type network lies.

    Servers of NBD, iSCSI and Ceph's RBD get a node that qemu opens; files of https and ssh servers
    have none: a server of ours has to serve them (serve_network_disks).  Raises
    NotReadFromHereError for what is not read, DescriptorError (E-LV-PORT) for a port that is none.
    """
    source = element.find("source")
    protocol = source.get("protocol", "") if source is not None else ""
    if source is None or protocol not in _READERS:
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
    return _READERS[protocol](element, source, name, fmt)


def _only_host(source: etree._Element) -> etree._Element:
    host = source.find("host")
    if host is None:
        raise NotReadFromHereError("it names no host")
    return host


def _nbd(_disk: etree._Element, source: etree._Element, name: str, fmt: str) -> Place:
    host = _only_host(source)
    if source.get("tls") == "yes":
        raise NotReadFromHereError("NBD servers that ask for TLS are not read from here")
    if host.get("transport", "tcp") != "tcp":
        raise NotReadFromHereError("NBD servers are read over TCP only")
    server, port = _server(host), _port(host, 10809)
    address = {"type": "inet", "host": server, "port": str(port)}
    node = {"driver": "nbd", "server": address, "export": name}
    place = f"nbd://{_bracketed(server)}:{port}/{name}"
    return Place(path=place, format=fmt, remote=True, node=node)


def _iscsi(disk: etree._Element, source: etree._Element, name: str, fmt: str) -> Place:
    if source.find("auth") is not None or disk.find("auth") is not None:
        raise NotReadFromHereError("its iSCSI target asks for a password, which is not known here")
    host = _only_host(source)
    # RFC 3721: the LUN is 0 where none is stated.
    target, _, lun = name.partition("/")
    if not _ISCSI_NAME.fullmatch(target) or not re.fullmatch(r"\d{0,5}", lun, re.ASCII):
        raise NotReadFromHereError(f"{name[:100]!r} is no iSCSI target with the number of a LUN")
    portal = f"{_bracketed(_server(host))}:{_port(host, 3260)}"
    node: dict[str, Any] = {
        "driver": "iscsi", "transport": "tcp", "portal": portal, "target": target,
        "lun": int(lun or "0"), "timeout": _COMMAND_SECONDS,
    }  # fmt: skip
    initiator = source.find("initiator/iqn")
    if initiator is not None:
        initiator_name = initiator.get("name", "")
        if not _ISCSI_NAME.fullmatch(initiator_name):
            raise NotReadFromHereError("the name of its iSCSI initiator is none")
        node["initiator-name"] = initiator_name
    place = f"iscsi://{portal}/{target}/{node['lun']}"
    return Place(path=place, format=fmt, remote=True, node=node)


def _rbd(disk: etree._Element, source: etree._Element, name: str, fmt: str) -> Place:
    if source.find("config") is not None:
        raise NotReadFromHereError("it names a configuration file of Ceph on its own host")
    auth = next((a for a in (source.find("auth"), disk.find("auth")) if a is not None), None)
    snapshot = source.find("snapshot")
    return _rbd_place(
        name,
        source.findall("host"),
        user=auth.get("username") if auth is not None else None,
        snapshot=snapshot.get("name") if snapshot is not None else None,
        fmt=fmt,
    )


def rbd_volume(pool: etree._Element, volume: str) -> Place:
    """Return where a volume of a pool of type rbd lies.

    Raises NotReadFromHereError, DescriptorError (E-LV-PORT).
    """
    auth = pool.find("source/auth")
    return _rbd_place(
        f"{pool.findtext('source/name', '')}/{volume}",
        pool.findall("source/host"),
        user=auth.get("username") if auth is not None else None,
    )


def _rbd_place(
    name: str,
    monitors: list[etree._Element],
    *,
    user: str | None,
    snapshot: str | None = None,
    fmt: str = "raw",
) -> Place:
    """Return where an image of Ceph lies: pool/image or pool/namespace/image.

    Without a user or monitors the configuration of this server (/etc/ceph) says which; it has the
    key in any case.  Raises NotReadFromHereError, DescriptorError (E-LV-PORT).
    """
    parts = name.split("/")
    named = [*parts, *(value for value in (snapshot, user) if value is not None)]
    if not 2 <= len(parts) <= 3 or not all(_RBD_NAME.fullmatch(part) for part in named):
        raise NotReadFromHereError(f"{name[:100]!r} is no image of a pool of Ceph")
    node: dict[str, Any] = {"driver": "rbd", "pool": parts[0], "image": parts[-1]}
    if len(parts) == 3:
        node["namespace"] = parts[1]
    if snapshot is not None:
        node["snapshot"] = snapshot
    if user is not None:
        node["user"] = user
    servers = [(_server(monitor), _port(monitor, 6789)) for monitor in monitors]
    if servers:
        node["server"] = [{"host": host, "port": str(port)} for host, port in servers]
    first = f"{_bracketed(servers[0][0])}:{servers[0][1]}" if servers else ""
    place = f"rbd://{first}/{name}{f'@{snapshot}' if snapshot else ''}"
    return Place(path=place, format=fmt, remote=True, node=node)


def _https(_disk: etree._Element, source: etree._Element, name: str, fmt: str) -> Place:
    host = _only_host(source)
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


def _ssh(_disk: etree._Element, source: etree._Element, name: str, fmt: str) -> Place:
    host = _only_host(source)
    identity = source.find("identity")
    # The file of a key that the machine names lies on its own host; those of this user count.
    user = identity.get("username") if identity is not None else None
    if user is not None and not USER.fullmatch(user):
        raise NotReadFromHereError("the name of its ssh user is none")
    if not name.startswith("/") or ".." in name.split("/"):
        raise NotReadFromHereError(f"{name[:100]!r} is no path that leads straight to a file")
    place = _bracketed(_server(host))
    if (port := _port(host, 22)) != 22:
        place += f":{port}"
    at = f"{quote(user, safe='')}@" if user is not None else ""
    return Place(path=f"ssh://{at}{place}{quoted(name)}", format=fmt, remote=True)


_Reader = Callable[[etree._Element, etree._Element, str, str], Place]
_READERS: dict[str, _Reader] = {
    "nbd": _nbd, "iscsi": _iscsi, "rbd": _rbd, "https": _https, "ssh": _ssh,
}  # fmt: skip


def refuse_places(source: Source, uri: str) -> None:
    """Refuse network disks that this server cannot or may not open for a machine of a host.

    Servers on localhost, and what the host's own configuration of Ceph says, are other things
    here.  The keys of this server are for hosts and for users of Ceph that somebody chose, not for
    what a machine names.  Raises SourceError (E-LV-DISK).
    """
    if not urlsplit(uri).netloc:
        return
    for disk in source.disks:
        why = _why_not(disk, uri) if disk.remote else ""
        if why:
            raise SourceError(
                "E-LV-DISK",
                f"Disk {disk.path} of {source.name} is not opened: {why}.",
                remedy="Copy it into a file where libvirt runs (qemu-img convert) and let the "
                "machine use that, or write the definition into a file (virsh dumpxml) and convert "
                "that here (-i libvirtxml).",
            )


def _why_not(disk: SourceDisk, uri: str) -> str:
    """Return why a network disk of a machine on another host is not opened; empty if it is."""
    scheme = urlsplit(disk.path).scheme
    if any(_is_relative(host) for host in _hosts_of(disk)):
        return "its address means another place on this server than on its host"
    if scheme == "rbd" and disk.node is not None and "user" not in disk.node:
        return "it names no user of Ceph, and the administrator's key is lent to nobody"
    if scheme == "ssh" and _login(disk.path) != _login(uri):
        return f"it is on another host, or read as another user, than {uri}"
    return ""


def _hosts_of(disk: SourceDisk) -> list[str]:
    node = disk.node or {}
    match node.get("driver"):
        case "nbd":
            return [node["server"]["host"]]
        case "rbd":
            return [server["host"] for server in node.get("server", [])] or ["localhost"]
    return [urlsplit(disk.path).hostname or "localhost"]


def _is_relative(host: str) -> bool:
    """Tell whether a name or an address is that of whatever machine uses it."""
    plain = host.lower().rstrip(".")
    if plain in _OWN_NAMES or plain.endswith((".localhost", ".localdomain")):
        return True
    try:
        address = ipaddress.ip_address(plain)
    except ValueError:
        # What inet_aton(3) takes for an address as well: 2130706433, 0x7f.1.
        return re.fullmatch(r"(?:0x[0-9a-f]*|\d+)(?:\.(?:0x[0-9a-f]*|\d+)){0,3}", plain) is not None
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified or mapped.is_link_local


def _login(uri: str) -> tuple[str, str | None, int]:
    parts = urlsplit(uri)
    user = unquote(parts.username) if parts.username is not None else None
    return (parts.hostname or "").lower(), user, parts.port or 22


def serve_network_disks(source: Source, servers: Servers) -> Source:
    """Return a source whose network disks can be opened, after a look at each.

    Raises SourceError.
    """
    disks = (serve_network_disk(d, servers) if d.remote else d for d in source.disks)
    return replace(source, disks=tuple(disks))


def serve_network_disk(disk: SourceDisk, servers: Servers) -> SourceDisk:
    """Return a network disk so that it can be opened, after a look at it.  Raises SourceError."""
    scheme = urlsplit(disk.path).scheme
    if scheme == "https" and disk.node is None:
        return servers.serve(disk, https_server(disk.path))
    if scheme == "ssh" and disk.node is None:
        host = SshHost.from_parts(disk.path, password=None, options={})
        return servers.serve(disk, host.server(ssh_path(disk.path)))
    if scheme not in _REMEDIES or disk.node is None:
        raise SourceError(
            "E-LV-DISK",
            f"The disk {disk.path} is on another host, and nothing here says how to read it.",
            remedy="A machine of VMware is read from its host: -i libvirt -ic esx://root@host/.",
        )
    return servers.checked(disk, remedy=_REMEDIES[scheme])


def _server(host: etree._Element) -> str:
    name = host.get("name", "")
    try:
        if ":" in name:
            ipaddress.ip_address(name)
    except ValueError:
        name = ""
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
