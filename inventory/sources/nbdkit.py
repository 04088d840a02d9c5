"""Servers of ours for disks on other hosts: nbdkit on a Unix socket, one for each disk.

qemu and libguestfs open the socket; the program ends with this process, also after a kill -9.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from inventory.sources.base import disk_uri
from inventory.sources.errors import ImageError, SourceError
from inventory.sources.images import HEAD_BYTES, image_format, virtual_size
from inventory.sources.programs import WITH_US, Daemon, clean_environment, pid_file_of
from inventory.sources.types import SourceDisk

_READY_SECONDS = 30
_OPEN_SECONDS = 150  # above the minute that the retry filter takes before it gives up
_NAMING_FORMATS = ("qcow2", "vmdk")
_MAX_SOCKET_BYTES = 100  # unix(7) allows 107
# The vddk plugin takes it as text alone, on its command line.
_COOKIE = re.compile(r"^(cookie=).+", re.DOTALL)
_MAY_READ = (
    "See that it is there, and that the user who logs in there may read it. The images of libvirt "
    "often belong to root alone."
)
_EMPTY = (
    "It is empty, or a block device, of which only its own host knows the size. Copy a device into "
    "a file there (qemu-img convert) and let the machine use that."
)
_MISSING = "Install the packages nbdkit and libnbd-bin."


class ServerError(SourceError):
    """A server of ours cannot start, or cannot open the disk it is to serve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NbdServer:
    """What one nbdkit serves: a plugin with its parameters in order, and filters.

    The first filter is nearest to the client.  The values of `secrets`, which are parameters as
    well, reach nbdkit through a pipe: they are in no command line and in no file.  `variables` are
    added to its environment.
    """

    plugin: str
    parameters: Sequence[tuple[str, str]] = ()
    filters: Sequence[str] = ()
    secrets: Sequence[tuple[str, str]] = field(default=(), repr=False)
    debug: Sequence[str] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    def command(self, socket: Path, pid_file: Path, pipes: Sequence[int]) -> list[str]:
        """Return nbdkit's argument list; `pipes` are the descriptors the secrets come from."""
        words = ["nbdkit", "--exit-with-parent", "--foreground", "--readonly"]
        words += ["--pidfile", str(pid_file), "--unix", str(socket), "--threads", "16"]
        words += [word for flag in self.debug for word in ("-D", flag)]
        words += [f"--filter={name}" for name in self.filters]
        words += [self.plugin]
        words += [f"{key}={value}" for key, value in self.parameters]
        pairs = zip(self.secrets, pipes, strict=True)
        return words + [f"{key}=-{pipe}" for (key, _value), pipe in pairs]


@cache
def installed_filters() -> frozenset[str]:
    """Return the names of the filters that this host's nbdkit has.  Raises ServerError."""
    folder = dict(
        line.split("=", 1) for line in _asked("--dump-config").splitlines() if "=" in line
    ).get("filterdir", "")
    names = (path.name for path in Path(folder).glob("nbdkit-*-filter.so"))
    return frozenset(n.removeprefix("nbdkit-").removesuffix("-filter.so") for n in names)


def pick_filters(*wanted: str, needed: str = "cow") -> tuple[str, ...]:
    """Return those of the filters that are installed, in order.  Raises ServerError."""
    have = installed_filters()
    if needed not in have:
        raise ServerError(
            "E-NBDKIT", f"This host's nbdkit has no filter {needed}.", remedy="Install nbdkit."
        )
    return tuple(name for name in wanted if name in have)


def _asked(*words: str) -> str:
    try:
        done = subprocess.run(
            ["nbdkit", *words],
            capture_output=True, text=True, timeout=_READY_SECONDS, env=clean_environment(),
        )  # fmt: skip
    except FileNotFoundError as error:
        raise ServerError(
            "E-NBDKIT", "The program nbdkit is not installed on this host.", remedy=_MISSING
        ) from error
    return done.stdout


@contextmanager
def _pipes_with(values: Sequence[str]) -> Iterator[list[int]]:
    """Give descriptors from which each value can be read once."""
    with ExitStack() as stack:
        pipes = []
        for value in values:
            inner, outer = os.pipe()
            stack.callback(os.close, inner)
            with os.fdopen(outer, "w") as stream:
                stream.write(f"{value}\n")
            pipes.append(inner)
        yield pipes


class Servers:
    """All servers of one conversion; leaving the block ends them.

    `folder` is private to the conversion.  `log` gets each command line and each line they write.
    """

    def __init__(self, folder: Path, log: Callable[[str], None] = lambda _line: None) -> None:
        self._folder = folder
        self.log = log
        self._stack = ExitStack()
        self._running: list[Daemon] = []
        # While it exists, what is read once is kept here for the second reading, the copy.
        self._keep_reads = folder / "keep-reads"

    def __enter__(self) -> Servers:
        """Begin with no server."""
        return self

    def __exit__(self, *_error: object) -> None:
        """End all servers and whatever else was to end with them."""
        self._stack.close()
        self.stop_keeping()

    def enter(self, helper: AbstractContextManager[object]) -> None:
        """Begin something that is to end once the servers started after it have ended."""
        self._stack.enter_context(helper)

    def keep(self, daemon: Daemon) -> None:
        """End another program once the servers started after it have ended."""
        self._stack.callback(daemon.stop)

    @property
    def folder(self) -> Path:
        """The private folder of the conversion."""
        return self._folder

    @cached_property
    def socket_folder(self) -> Path:
        """A folder as private as that one, in which paths are short enough for sockets."""
        if len(os.fsencode(self._folder)) + 10 <= _MAX_SOCKET_BYTES:
            return self._folder
        short = tempfile.mkdtemp(prefix="v2vnbd.", dir="/tmp")
        self._stack.callback(shutil.rmtree, short, ignore_errors=True)
        return Path(short)

    def stop_keeping(self) -> None:
        """Keep no blocks that are read from now on: the copy reads each once."""
        self._keep_reads.unlink(missing_ok=True)

    def start(
        self, server: NbdServer, *, on_line: Callable[[str], None] = lambda _line: None
    ) -> Path:
        """Start a server and return its socket; `on_line` gets the lines it writes.

        Raises ServerError.
        """
        if "cow" in server.filters:
            self._keep_reads.touch(mode=0o600)
            kept = ("cow-on-read", str(self._keep_reads))
            server = replace(server, parameters=(*server.parameters, kept))
        if shutil.which("nbdkit") is None or shutil.which("nbdinfo") is None:
            raise ServerError(
                "E-NBDKIT",
                "Disks on other hosts are read with nbdkit and libnbd, which are not installed.",
                remedy=_MISSING,
            )

        def told(line: str) -> None:
            plain = line.removeprefix("nbdkit: ")
            self.log(f"nbdkit: {plain}")
            on_line(plain)

        socket = self.socket_folder / f"in{len(self._running)}"
        with _pipes_with([value for _key, value in server.secrets]) as pipes:
            argv = server.command(socket, pid_file_of(socket), pipes)
            # The cow filter keeps what it has read in a file there.
            variables = {"TMPDIR": str(self._folder), **server.variables}
            running = Daemon(argv, socket, told, descriptors=pipes, variables=variables)
        self._stack.callback(running.stop)
        self._running.append(running)
        self.log(" ".join(_COOKIE.sub(r"\1***", word) for word in argv))
        if why := running.why_not_ready(_READY_SECONDS):
            raise ServerError("E-NBDKIT", f"nbdkit did not start: {why}.")
        return socket

    def serve(
        self,
        disk: SourceDisk,
        server: NbdServer,
        *,
        on_line: Callable[[str], None] = lambda _line: None,
    ) -> SourceDisk:
        """Start a server for a disk and return the disk with the node that qemu opens.

        Raises ServerError when the disk cannot be opened.
        """
        return self.opened(disk, self.start(server, on_line=on_line))

    def opened(self, disk: SourceDisk, socket: Path, export: str = "") -> SourceDisk:
        """Return the disk with the node for a socket and an export.  Raises ServerError."""
        self.size_of(socket, disk.path, export)
        served = replace(disk, remote=True, node=nbd_node(socket, export))
        return served if served.format == "raw" else self.checked(served)

    def checked(self, disk: SourceDisk, *, remedy: str = "") -> SourceDisk:
        """Return a disk that has a node with its size, after a look at what its image names.

        `remedy` is what to do when it does not open.  Raises ImageError, ServerError.
        """
        assert disk.node is not None  # noqa: S101  the caller gave it one
        if disk.format in _NAMING_FORMATS:
            # qemu would open here what its header names, at the first look.
            head = self.head_of(disk.node, disk.path, HEAD_BYTES, remedy=remedy)
            found = image_format(head, disk.path)
            # The driver for VMDK would take anything else for a list of other files.
            if found != disk.format:
                raise ImageError(
                    "E-IMG-READ",
                    f"{disk.path} is stated as {disk.format}, but begins as {found} does.",
                    remedy=remedy or "State its format right where the machine is defined.",
                )
        size = virtual_size(disk_uri(disk), disk.format, disk.path, remedy=remedy)
        return replace(disk, virtual_size_bytes=size)

    def size_of(self, socket: Path, label: str, export: str = "") -> int:
        """Return the bytes that a server serves.

        Raises ServerError with the server's reason, and for none: of a block device ssh tells no
        size, and what is missing would read as zeros.
        """
        uri = f"nbd+unix:///{quoted(export)}?socket={quoted(str(socket))}"
        try:
            done = subprocess.run(
                [*WITH_US, "nbdinfo", "--size", uri],
                capture_output=True, text=True, timeout=_OPEN_SECONDS, env=clean_environment(),
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise ServerError(
                "E-NBD-OPEN", f"The disk {label} could not be opened within {_OPEN_SECONDS} s."
            ) from error
        if done.returncode:
            running = next((r for r in self._running if r.socket == socket), None)
            words = running.last_words() if running else done.stderr.strip()
            raise ServerError(
                "E-NBD-OPEN", f"The disk {label} cannot be opened: {words}.", remedy=_MAY_READ
            )
        if not int(done.stdout):
            raise ServerError("E-NBD-EMPTY", f"The disk {label} has 0 bytes.", remedy=_EMPTY)
        return int(done.stdout)

    def head_of(
        self, node: Mapping[str, Any], label: str, count: int, *, remedy: str = ""
    ) -> bytes:
        """Return the first `count` bytes behind a block node.  Raises ServerError."""
        uri = "json:" + json.dumps({"driver": "raw", "file": node})
        copy = self._folder / "head"
        command = ["qemu-img", "dd", "-O", "raw", f"bs={count}", "count=1"]
        try:
            subprocess.run(
                [*WITH_US, *command, f"if={uri}", f"of={copy}"],
                capture_output=True, check=True, timeout=_OPEN_SECONDS, env=clean_environment(),
            )  # fmt: skip
            return copy.read_bytes()[:count]
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            words = (error.stderr or b"").decode(errors="replace").strip()[-300:]
            raise ServerError(
                "E-NBD-OPEN", f"The disk {label} cannot be read: {words or error}.", remedy=remedy
            ) from error
        finally:
            copy.unlink(missing_ok=True)


def nbd_node(socket: Path, export: str = "") -> dict[str, Any]:
    """Return the block node of what is served at a socket."""
    return {"driver": "nbd", "server": {"type": "unix", "path": str(socket)}, "export": export}


def quoted(text: str) -> str:
    """Return a text with every byte but A-Z a-z 0-9 / . - as %xx, in lower case."""
    plain = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/.-"
    data = text.encode(errors="surrogateescape")
    return "".join(chr(b) if b in plain else f"%{b:02x}" for b in data)
