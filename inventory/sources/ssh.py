"""Files of a host that is reached over ssh, served by nbdkit's ssh plugin.

The host must be known: its key has to be in a file of known hosts.
"""

from __future__ import annotations

import posixpath
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from inventory.sources.errors import SourceError
from inventory.sources.https_disk import RETRY
from inventory.sources.input_options import SSH_OPTIONS
from inventory.sources.nbdkit import (
    NbdServer,
    ServerError,
    Servers,
    pick_filters,
    quoted,
)
from inventory.sources.programs import clean_environment
from inventory.sources.uris import HOST, USER, is_plain

_CONNECT_SECONDS = 60
_COPY_SECONDS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class SshHost:
    """A host and how to log in.

    `port` and `user` None mean what ssh takes by itself, `identity` and `known_hosts` "" its own
    files.  Without a password, keys and the agent of this user count.
    """

    host: str
    port: int | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    identity: str = ""
    known_hosts: str = ""

    @classmethod
    def from_parts(
        cls,
        uri: str,
        *,
        password: str | None,
        options: Mapping[str, tuple[str, ...]],
    ) -> SshHost:
        """Read the host of an address; its path is left alone.  Raises SourceError."""
        try:
            parts = urlsplit(uri)
            host, port = parts.hostname or "", parts.port
            user = unquote(parts.username) if parts.username else None
        except ValueError as error:
            raise _refused(uri, "it is not an address") from error
        if not HOST.fullmatch(host):
            raise _refused(uri, "it names no host")
        if user is not None and not USER.fullmatch(user):
            raise _refused(uri, "its user name is not one")
        if parts.password is not None:
            raise _refused(uri, "it holds a password, which belongs in a file for it")
        files = {key: options.get(key, ("",))[0] for key in SSH_OPTIONS}
        for key, name in files.items():
            if name and not Path(name).is_absolute():
                raise SourceError(
                    "E-SSH-FILE", f"The file {name[:200]!r} of {key} must be an absolute path."
                )
        return cls(
            host=host,
            port=port or None,
            user=user,
            password=password,
            identity=files["ssh-identity"],
            known_hosts=files["ssh-known-hosts"],
        )

    def server(self, path: str, *, patient: bool = True) -> NbdServer:
        """Return the server for a file; a patient one outlasts interruptions of the network."""
        filters = pick_filters("cow", "retry") if patient else ()
        parameters = [("host", self.host), ("path", path), ("timeout", str(_CONNECT_SECONDS))]
        if self.port:
            parameters.append(("port", str(self.port)))
        if self.user is not None:
            parameters.append(("user", self.user))
        # libssh takes %d and the like in names of files for something else.
        if self.identity:
            parameters.append(("identity", self.identity.replace("%", "%%")))
        if self.known_hosts:
            parameters.append(("known-hosts", self.known_hosts.replace("%", "%%")))
        if "retry" in filters:
            parameters += RETRY
        return NbdServer(
            plugin="ssh",
            parameters=parameters,
            filters=filters,
            secrets=[("password", self.password)] if self.password is not None else [],
        )


def _refused(uri: str, why: str) -> SourceError:
    shown = "".join(c if c.isprintable() else "?" for c in uri[:100])
    return SourceError(
        "E-SSH-URI",
        f"The address {shown!r} is refused: {why}.",
        remedy="Write it like ssh://root@host/vmfs/volumes/datastore/web01/web01.vmx.",
    )


def ssh_path(uri: str) -> str:
    """Return the path of an ssh address, percent-decoded.  Raises SourceError."""
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise _refused(uri, "it is not an address") from error
    path = unquote(parts.path, errors="surrogateescape")
    if parts.scheme not in ("ssh", ""):
        raise _refused(uri, f"its scheme is {parts.scheme}, not ssh")
    if parts.query or parts.fragment:
        raise _refused(uri, "it has a query or a fragment; write ? and # as %3f and %23")
    if not path.startswith("/") or path.endswith("/"):
        raise _refused(uri, "it names no file")
    if any(ord(c) < 32 or c == "\x7f" for c in path):
        raise _refused(uri, "its path holds control characters")
    return path


def ssh_uri(uri: str, path: str) -> str:
    """Return the address of another path on the host of an address."""
    return urlunsplit(("ssh", urlsplit(uri).netloc, quote(path), "", ""))


def checked_ssh_uri(uri: str) -> str:
    """Return the address of a folder or a VMX file as it is when it may be used.

    Raises SourceError (E-SSH-URI).
    """
    if not is_plain(uri):
        raise _refused(uri, "it is too long or holds characters that no address has")
    SshHost.from_parts(uri, password=None, options={})
    path = ssh_path(uri.removesuffix("/"))
    if posixpath.normpath(path) != path or path.startswith("//") or not path.isprintable():
        raise _refused(uri, "its path is none that leads straight to a folder or a file")
    return uri


def read_file(host: SshHost, path: str, folder: Path, *, max_bytes: int) -> bytes:
    """Return a small file of the host.  Raises SourceError."""
    with Servers(folder) as servers:
        socket = servers.start(host.server(path, patient=False))
        size = servers.size_of(socket, f"{path} of {host.host}")
        if size > max_bytes:
            raise SourceError(
                "E-SSH-SIZE", f"{path} of {host.host} has {size} bytes; {max_bytes} are accepted."
            )
        copy = folder / "fetched"
        copy.touch(mode=0o600)
        try:
            subprocess.run(
                ["nbdcopy", f"nbd+unix:///?socket={quoted(str(socket))}", str(copy)],
                check=True, capture_output=True, timeout=_COPY_SECONDS, env=clean_environment(),
            )  # fmt: skip
            return copy.read_bytes()[:size]
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            words = (error.stderr or b"").decode(errors="replace").strip()[-300:]
            raise ServerError(
                "E-NBD-OPEN", f"{path} of {host.host} could not be copied: {words or error}."
            ) from error
        finally:
            copy.unlink(missing_ok=True)
