"""Folders and small files of a host that is reached over ssh.

OpenSSH's client connects, so that keys, agent and known hosts count as with any ssh; what is said
through it is version 3 of the protocol, which OpenSSH and ESXi speak.
Source: draft-ietf-secsh-filexfer-02.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Self, cast

from inventory.sources.errors import SourceError
from inventory.sources.nbdkit import clean_environment
from inventory.sources.ssh import SshHost
from inventory.sources.ssh_errors import SshError, ssh_error

_INIT, _OPEN, _CLOSE, _READ, _OPENDIR, _READDIR = 1, 3, 4, 5, 11, 12
_VERSION, _STATUS, _HANDLE, _DATA, _NAME = 2, 101, 102, 103, 104
_ANSWERS = {_OPEN: _HANDLE, _OPENDIR: _HANDLE, _READ: _DATA, _READDIR: _NAME}
_OK, _EOF, _NO_SUCH_FILE = 0, 1, 2
_HAS_SIZE, _HAS_OWNER, _HAS_MODE, _HAS_TIMES, _HAS_MORE = 1, 2, 4, 8, 1 << 31
_FOR_READING = 1
_CHUNK_BYTES = 32768  # what every server gives at once
_MAX_PACKET_BYTES = 1 << 20
_MAX_ENTRIES = 100_000


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
        self._number = 0
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        try:
            self._process = subprocess.Popen(
                self._host.command("sftp", options=("-s",)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=clean_environment(),
            )
        except FileNotFoundError as error:
            raise SshError(
                "E-SSH-MISSING",
                "The program ssh is not installed on this host.",
                remedy="Install the package openssh-client.",
            ) from error
        try:
            self._send(_INIT, _number(3))
            if self._receive().kind != _VERSION:
                raise _nonsense()
        except SshError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        # Closes the pipes and does not read them: what ssh started may hold their other ends.
        with suppress(BrokenPipeError), self._process:
            pass

    def entries(self, folder: str) -> list[Entry]:
        """Return what a folder holds, but for names that are no text."""
        found: list[Entry] = []
        with self._opened(_OPENDIR, folder) as handle:
            while len(found) <= _MAX_ENTRIES and (answer := self._ask(_READDIR, handle, folder)):
                for _ in range(answer.number()):
                    name, _long = answer.text(), answer.text()
                    entry = _entry(name, *answer.attributes())
                    if entry is not None:
                        found.append(entry)
        if len(found) > _MAX_ENTRIES:
            raise SftpError(
                "E-SSH-MANY",
                f"{folder} of {self._host.host} has more than {_MAX_ENTRIES} entries.",
                remedy="Name a folder further down.",
            )
        return found

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """Return a small file."""
        data = b""
        with self._opened(_OPEN, path, _number(_FOR_READING) + _number(0)) as handle:
            size = _number(_CHUNK_BYTES)
            while len(data) <= max_bytes and (
                answer := self._ask(_READ, handle + _number(len(data), 8) + size, path)
            ):
                data += answer.text()
        if len(data) > max_bytes:
            raise SftpError(
                "E-SSH-SIZE",
                f"{path} of {self._host.host} has more than the {max_bytes} bytes that are "
                "accepted.",
            )
        return data

    @contextmanager
    def _opened(self, kind: int, path: str, more: bytes = b"") -> Iterator[bytes]:
        """Give the handle of a file or folder, as it stands in requests."""
        answer = self._ask(kind, _text(os.fsencode(path)) + more, path)
        if answer is None:
            raise _nonsense()
        handle = _text(answer.text())
        yield handle
        self._ask(_CLOSE, handle, path)

    def _ask(self, kind: int, body: bytes, path: str) -> _Packet | None:
        """Return the answer to a request; None when there is nothing more, or nothing to say."""
        self._number += 1
        self._send(kind, _number(self._number) + body)
        answer = self._receive()
        if answer.number() != self._number:
            raise _nonsense()
        if answer.kind == _ANSWERS.get(kind):
            return answer
        if answer.kind != _STATUS:
            raise _nonsense()
        code, words = answer.number(), answer.text().decode(errors="replace")
        if code in (_OK, _EOF):
            return None
        shown = "".join(c for c in words if c.isprintable())[:200].rstrip(".")
        raise SftpError(
            "E-SSH-NOFILE" if code == _NO_SUCH_FILE else "E-SSH-READ",
            f"{path} of {self._host.host} cannot be read: {shown or f'error {code}'}.",
            remedy="Check the path, and that the user may read it.",
        )

    def _send(self, kind: int, body: bytes) -> None:
        stdin = cast(IO[bytes], self._process.stdin)
        # Whoever does not listen any more has said why, or what he is.
        with suppress(BrokenPipeError):
            stdin.write(_number(1 + len(body)) + bytes([kind]) + body)
            stdin.flush()

    def _receive(self) -> _Packet:
        length = int.from_bytes(self._exactly(4))
        if not 1 <= length <= _MAX_PACKET_BYTES:
            raise _nonsense()
        data = self._exactly(length)
        return _Packet(data[0], data[1:])

    def _exactly(self, count: int) -> bytes:
        data = cast(IO[bytes], self._process.stdout).read(count)
        if len(data) < count:
            raise self._ended()
        return data

    def _ended(self) -> SshError:
        """Return the error of a connection that is no more, with what ssh said about it."""
        _out, said = self._process.communicate()
        lines = said.decode(errors="replace").strip().splitlines()
        return ssh_error(self._host.host, " ".join(lines[-3:])[-500:] or "it said nothing")


class _Packet:
    """An answer, whose parts are taken out in order.  Raises SftpError where there is no more."""

    def __init__(self, kind: int, data: bytes) -> None:
        self.kind = kind
        self._data = data
        self._at = 0

    def _take(self, count: int) -> bytes:
        part = self._data[self._at : self._at + count]
        if len(part) < count:
            raise _nonsense()
        self._at += count
        return part

    def number(self, size: int = 4) -> int:
        return int.from_bytes(self._take(size))

    def text(self) -> bytes:
        return self._take(self.number())

    def attributes(self) -> tuple[int, int]:
        """Return the size in bytes and the mode of a file, 0 when they are not said."""
        flags = self.number()
        size = self.number(8) if flags & _HAS_SIZE else 0
        self._take(8 if flags & _HAS_OWNER else 0)
        mode = self.number() if flags & _HAS_MODE else 0
        self._take(8 if flags & _HAS_TIMES else 0)
        for _ in range(2 * self.number() if flags & _HAS_MORE else 0):
            self.text()
        return size, mode


def sizes_of(entries: Sequence[Entry]) -> dict[str, int]:
    """Return the bytes of what a folder holds, by name."""
    return {entry.name: entry.size_bytes for entry in entries}


def _entry(name: bytes, size_bytes: int, mode: int) -> Entry | None:
    """Return an entry; None for the folder itself, its parent and what could be none."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return None
    if text in (".", "..") or "/" in text or not text.isprintable():
        return None
    return Entry(name=text, size_bytes=size_bytes, is_folder=stat.S_ISDIR(mode))


def _number(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size)


def _text(data: bytes) -> bytes:
    return _number(len(data)) + data


def _nonsense() -> SshError:
    return SshError(
        "E-SSH-PROTOCOL",
        "What the host says is not the protocol of sftp.",
        remedy="Check that sftp leads there; a login script must print nothing.",
    )
