"""Which addresses of libvirt hosts may be used.

An address can make libvirt run a program (ext, ?command=), read a file (?pkipath=, ?keyfile=) or
hide an option of ssh in a user's name, so only what is known to be harmless passes.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlsplit

from inventory.sources.errors import SourceError

_LOCAL = {"qemu": ("/system", "/session"), "test": ("/default",), "xen": ("/", "/system")}
_REMOTE_PATHS = {"qemu": ("/system", "/session"), "xen": ("/", "/system"), "esx": ("/", "")}
_TRANSPORTS = ("ssh", "tls", "libssh", "libssh2")
# Flags and numbers: their values name no file and no program.
_PARAMETERS = {"no_verify": ("0", "1"), "no_tty": ("0", "1"), "transport": ("http", "https"),
               "auto_answer": ("0", "1")}  # fmt: skip
# No option of a program, no separator of anything: a name, an IPv4 or an IPv6 address.
HOST = re.compile(r"(?!-)[A-Za-z0-9.-]{1,253}(?<!-)|[0-9A-Fa-f:.]{2,45}")
USER = re.compile(r"(?![-.])[A-Za-z0-9._-]{1,64}(?:@[A-Za-z0-9.-]{1,64}|\\[A-Za-z0-9._-]{1,64})?")
_SEGMENT = re.compile(r"(?![-.])[A-Za-z0-9 ._()-]{1,80}")
MAX_CHARACTERS = 500


def _refused(uri: str, why: str) -> SourceError:
    shown = "".join(c if c.isprintable() else "?" for c in uri[:100])
    return SourceError(
        "E-LV-URI",
        f"The address {shown!r} is refused: {why}.",
        remedy="Write it like qemu:///system, qemu+ssh://user@host/system, "
        "vpx://user@vcenter/Datacenter/host or esx://root@host/.",
    )


def is_plain(uri: str) -> bool:
    """Tell whether an address is not too long and holds only what addresses hold."""
    return len(uri) <= MAX_CHARACTERS and uri.isascii() and uri.isprintable() and " " not in uri


def checked_uri(uri: str) -> str:
    """Return the address as it is when it may be used.  Raises SourceError (E-LV-URI)."""
    if not is_plain(uri):
        raise _refused(uri, "it is too long or holds characters that no address has")
    try:
        parts = urlsplit(uri)
        host, user, _port = parts.hostname, unquote(parts.username or ""), parts.port
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise _refused(uri, "it is not an address") from error
    if uri.split(":", 1)[0] != parts.scheme or "://" not in uri:
        raise _refused(uri, "it names no driver")
    if parts.fragment or "#" in uri:
        raise _refused(uri, "it holds a fragment")
    if parts.password is not None:
        raise _refused(uri, "it holds a password, which belongs in the field for it")
    if parts.username is not None and not USER.fullmatch(user):
        raise _refused(uri, "its user name is not one")
    if host is not None and not HOST.fullmatch(host):
        raise _refused(uri, "its host name is not one")
    for name, value in query:
        if value not in _PARAMETERS.get(name, ()):
            raise _refused(uri, f"the parameter {name} with that value may not be used")
    _check_driver(uri, parts.scheme, host, parts.netloc, unquote(parts.path))
    return uri


def _check_driver(uri: str, scheme: str, host: str | None, netloc: str, path: str) -> None:
    driver, _, transport = scheme.partition("+")
    if not netloc:
        if transport or path not in _LOCAL.get(driver, ()):
            raise _refused(uri, f"{scheme}://{path} is no local host that is known")
        return
    if host is None:
        raise _refused(uri, "it names no host")
    if driver == "vpx" and not transport:
        segments = path[1:].removesuffix("/").split("/")
        if not path.startswith("/") or not all(_SEGMENT.fullmatch(s) for s in segments):
            raise _refused(uri, "its path is not that of a datacenter and a host")
        return
    known = driver in _REMOTE_PATHS and path in _REMOTE_PATHS[driver]
    if driver == "esx":
        known = known and not transport
    elif transport not in _TRANSPORTS:
        known = False
    if not known:
        raise _refused(uri, f"{scheme} with the path {path!r} may not be used")
