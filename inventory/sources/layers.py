"""A qcow2 image on another host with the layers below it, each served by a server of ours.

qemu follows no name by itself: what a header names is a file of the other host, and here it would
be another one.  Every layer is a node of a qemu-storage-daemon, which serves what the guest sees;
only there can layers be put together whose headers name each other by names without a folder.
"""

from __future__ import annotations

import json
import posixpath
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from inventory.sources.base import Warn
from inventory.sources.errors import ImageError
from inventory.sources.nbdkit import NbdServer, ServerError, Servers, nbd_node
from inventory.sources.programs import WITH_US, clean_environment
from inventory.sources.qcow2 import FIRST_CLUSTER_BYTES, Header, read_header
from inventory.sources.types import SourceDisk

_FORMATS = ("raw", "qcow2")
_MAX_LAYERS = 64
_READY_SECONDS = 60
_NOT_FOUND = 127  # what setpriv ends with
_MISSING = "Install qemu-storage-daemon (package qemu-system-common)."
_MERGE = "Merge the layers on the host, with qemu-img convert into a new image."


def serve_layers(
    disk: SourceDisk, server_of: Callable[[str], NbdServer], servers: Servers, warn: Warn
) -> SourceDisk:
    """Serve a qcow2 image and all layers below it, and return the disk as the guest sees it.

    `server_of` gives the server for a path on the other host.  Raises ServerError; ImageError:
    E-IMG-BACKING for layers that cannot be read, E-IMG-EXTENT, E-IMG-READ.
    """
    sockets: list[tuple[Path, str]] = []
    path, fmt = disk.path, "qcow2"
    paths = [path]
    while True:
        socket = servers.start(server_of(path))
        servers.size_of(socket, path)
        sockets.append((socket, fmt))
        if fmt == "raw":
            break
        header = read_header(servers.head_of(nbd_node(socket), path, FIRST_CLUSTER_BYTES), path)
        if header.is_encrypted:
            raise ImageError(
                "E-IMG-READ",
                f"{path} is encrypted by qcow2 itself, and nobody here has the key.",
                remedy="Decrypt it on the host, with qemu-img convert into a new image.",
            )
        if header.external_data:
            raise ImageError(
                "E-IMG-EXTENT", f"{path} keeps its data in another file.", remedy=_MERGE
            )
        if not header.backing:
            break
        path, fmt = path_below(path, header)
        if path in paths or len(paths) == _MAX_LAYERS:
            raise ImageError(
                "E-IMG-BACKING",
                f"{disk.path} has more than {_MAX_LAYERS} layers, or one below itself: {path}.",
                remedy=_MERGE,
            )
        paths.append(path)
    if len(paths) == 1:
        return servers.opened(disk, sockets[0][0])
    warn(
        f"{disk.path} is the top of {len(paths)} layers; what the machine shows now is read. "
        f"Below it: {', '.join(paths[1:])}."
    )
    joined = servers.socket_folder / f"disk{disk.id}"
    servers.enter(_Joined(sockets, joined, servers.log))
    return servers.opened(replace(disk, format="raw"), joined)


def path_below(path: str, header: Header) -> tuple[str, str]:
    """Return path and format of the layer below an image.  Raises ImageError (E-IMG-BACKING)."""
    name, fmt = header.backing, header.backing_format
    shown = f"{path} is a layer over {name[:200]!r}"
    if ":" in name.partition("/")[0] or not name.isprintable():
        raise ImageError("E-IMG-BACKING", f"{shown}, which is no file.", remedy=_MERGE)
    if fmt not in _FORMATS:
        stated = f"as {fmt[:20]!r}" if fmt else "without its format"
        raise ImageError(
            "E-IMG-BACKING",
            f"{shown}, which it names {stated}; raw and qcow2 are read.",
            remedy="State the format on the host: qemu-img rebase -u -F FORMAT -b LOWER UPPER.",
        )
    # As it is: .. behind a symbolic link leads elsewhere than its text says.
    return posixpath.join(posixpath.dirname(path), name), fmt


class _Joined(AbstractContextManager[None]):
    """A qemu-storage-daemon that serves layers as one disk; the first is the top."""

    def __init__(
        self, layers: Sequence[tuple[Path, str]], socket: Path, log: Callable[[str], None]
    ) -> None:
        self._socket = socket
        self._pid_file = socket.with_suffix(".pid")
        self._log = log
        self._words = ""
        self._command = ["qemu-storage-daemon"]
        for number, (served, fmt) in reversed(list(enumerate(layers))):
            self._node(f"file{number}", nbd_node(served))
            # A qcow2 image without a layer below is told so, as its header does.
            below = f"layer{number + 1}" if number + 1 < len(layers) else None
            more = {"backing": below} if fmt == "qcow2" else {}
            self._node(f"layer{number}", {"driver": fmt, "file": f"file{number}", **more})
        address = f"addr.type=unix,addr.path={str(socket).replace(',', ',,')}"
        self._command += ["--nbd-server", f"{address},max-connections=0"]
        self._command += ["--export", "type=nbd,id=disk,node-name=layer0,name=,writable=off"]
        self._command += ["--pidfile", str(self._pid_file)]

    def _node(self, name: str, node: dict[str, Any]) -> None:
        text = json.dumps({"node-name": name, "read-only": True, **node}, separators=(",", ":"))
        self._command += ["--blockdev", text]

    def _drain(self) -> None:
        assert self._process.stderr  # noqa: S101  it is a pipe
        for raw in self._process.stderr:
            self._words = raw.decode(errors="replace").strip()
            self._log(self._words)

    def __enter__(self) -> None:
        """Start it.  Raises ServerError."""
        self._log(" ".join(self._command))
        self._process = subprocess.Popen(
            [*WITH_US, *self._command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=clean_environment(),
        )
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()
        end = time.monotonic() + _READY_SECONDS
        while not self._pid_file.exists():
            ended = self._process.poll()
            if ended is not None or time.monotonic() > end:
                self._stop()
                words = self._words or f"nothing was heard within {_READY_SECONDS} s"
                raise ServerError(
                    "E-IMG-BACKING",
                    f"The layers cannot be put together: {words[-300:].rstrip('.')}.",
                    remedy=_MISSING if ended == _NOT_FOUND else _MERGE,
                )
            time.sleep(0.02)

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(5)
        if self._process.stderr:
            self._process.stderr.close()

    def __exit__(self, *_error: object) -> None:
        """End it."""
        self._stop()
        self._socket.unlink(missing_ok=True)
        self._pid_file.unlink(missing_ok=True)
