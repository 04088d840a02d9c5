"""Folders and small files of a host that is reached over ssh.

Keys, agent and ~/.ssh/config of this user count; nobody is asked anything, and no key of a host
that is not known is trusted.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import asyncssh
from asyncssh.packet import PacketDecodeError

from inventory.sources.errors import SourceError
from inventory.sources.ssh import SshHost
from inventory.sources.ssh_errors import NO_ANSWER, NOT_LET_IN, UNKNOWN_KEY, SshError, ssh_error

_KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")
_CONNECT_SECONDS = 60
_SECONDS = 300  # for everything that is asked through one connection
_MAX_ENTRIES = 100_000
_MAX_NAME_BYTES = 255

T = TypeVar("T")


class SftpError(SourceError):
    """The host does not give a folder or a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of a folder; links are neither followed nor folders."""

    name: str
    size_bytes: int
    is_folder: bool


class Sftp:
    """A connection to a host; a context manager.  Its methods raise SshError, and SftpError
    for the folder or the file."""

    def __init__(self, host: SshHost) -> None:
        self._host = host
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._client: asyncssh.SFTPClient

    def __enter__(self) -> Self:
        try:
            self._run(self._connect())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        with self._runner:
            self._runner.run(self._stack.aclose())

    def entries(self, folder: str) -> list[Entry]:
        """Return what a folder holds, but for names that are no text."""
        return self._run(self._entries(folder), folder)

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """Return a small file."""
        return self._run(self._read(path, max_bytes), path)

    async def _connect(self) -> None:
        host = self._host
        connection = await self._stack.enter_async_context(
            asyncssh.connect(
                host.host,
                port=host.port or (),
                username=host.user or (),
                password=host.password,
                client_keys=[host.identity] if host.identity else (),
                ignore_encrypted=True,  # the agent may have them
                known_hosts=_known_hosts(host),
                # After the kinds that are known any other: who has none of them is to show its key.
                server_host_key_algs="+*",
                gss_host=None,  # with Kerberos a host would show no key
                # Whatever ~/.ssh/config says: this user's agent and screen are not for the host.
                agent_forwarding=False,
                x11_forwarding=False,
                command=None,
                connect_timeout=_CONNECT_SECONDS,
            )
        )
        # Not by cancelling what waits, which would wait for the answer to a last "close" then.
        asyncio.get_running_loop().call_later(_SECONDS, connection.abort)
        self._client = await connection.start_sftp_client()

    async def _entries(self, folder: str) -> list[Entry]:
        found: list[Entry | None] = []
        async for name in self._client.scandir(os.fsencode(folder)):
            if len(found) == _MAX_ENTRIES:
                raise SftpError(
                    "E-SSH-MANY",
                    f"{folder} of {self._host.host} has more than {_MAX_ENTRIES} entries.",
                    remedy="Name a folder further down.",
                )
            found.append(_entry(name))
        return [entry for entry in found if entry is not None]

    async def _read(self, path: str, max_bytes: int) -> bytes:
        async with self._client.open(os.fsencode(path), "rb") as file:
            data: bytes = await file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise SftpError(
                "E-SSH-SIZE",
                f"{path} of {self._host.host} has more than the {max_bytes} bytes that are "
                "accepted.",
            )
        return data

    def _run(self, work: Coroutine[Any, Any, T], path: str = "") -> T:
        try:
            return self._runner.run(work)
        except (asyncssh.Error, OSError, ValueError) as error:
            raise _explained(error, self._host.host, path) from error


def sizes_of(entries: Sequence[Entry]) -> dict[str, int]:
    """Return the bytes of what a folder holds, by name."""
    return {entry.name: entry.size_bytes for entry in entries}


def _known_hosts(host: SshHost) -> Callable[[str, str, int | None], Any]:
    """Return what gives the keys of a host."""
    names = (host.known_hosts,) if host.known_hosts else _KNOWN_HOSTS
    files = [Path(name).expanduser() for name in names]
    known = asyncssh.read_known_hosts([str(file) for file in files if file.is_file()])
    # By the name alone, as OpenSSH does it: to whatever address that leads, a key that is known
    # for the address is not one of the name.
    return lambda name, _address, port: known.match(name, "", port)


def _entry(name: asyncssh.SFTPName) -> Entry | None:
    """Return an entry; None for the folder itself, its parent and what could be none."""
    data = os.fsencode(name.filename)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    if text in (".", "..") or "/" in text or not text.isprintable() or len(data) > _MAX_NAME_BYTES:
        return None
    return Entry(
        name=text,
        size_bytes=name.attrs.size or 0,
        is_folder=name.attrs.type == asyncssh.FILEXFER_TYPE_DIRECTORY,
    )


def _explained(error: Exception, host: str, path: str) -> SourceError:
    """Return in our words what asyncssh raised; `path` is what was asked for, or ""."""
    # asyncio does not say why a call failed, but for the number; a timeout says nothing.
    said = re.sub(r"\[Errno (\d+)\] Connect call failed", _strerror, str(error))
    said = "".join(c for c in said if c.isprintable())[:200].rstrip(".")
    match error:
        case asyncssh.HostKeyNotVerifiable():
            return ssh_error(UNKNOWN_KEY, host, said)
        case asyncssh.PermissionDenied():
            return ssh_error(NOT_LET_IN, host, said)
        case asyncssh.SFTPBadMessage() | PacketDecodeError():
            return SshError(
                "E-SSH-PROTOCOL",
                "What the host says is not the protocol of sftp.",
                remedy="Check that sftp leads there; a login script must print nothing.",
            )
        case asyncssh.ChannelOpenError():
            return ssh_error(NO_ANSWER, host, f"it does not start sftp, {said}")
        case asyncssh.SFTPConnectionLost() | asyncssh.SFTPNoConnection():
            return ssh_error(NO_ANSWER, host, f"it ended, or took longer than {_SECONDS} s")
        case asyncssh.SFTPError():
            return SftpError(
                "E-SSH-NOFILE" if isinstance(error, asyncssh.SFTPNoSuchFile) else "E-SSH-READ",
                f"{path} of {host} cannot be read: {said or f'error {error.code}'}.",
                remedy="Check the path, and that the user may read it.",
            )
        case _:
            return ssh_error(NO_ANSWER, host, said or "it does not answer")


def _strerror(failed: re.Match[str]) -> str:
    return os.strerror(int(failed[1]))
