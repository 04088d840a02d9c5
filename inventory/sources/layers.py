"""A qcow2 image on another host with the layers below it, each served by a server of ours.

qemu follows no name by itself: what a header names is a file of the other host, and here it would
be another one.  Every layer is a node of a qemu-storage-daemon, which serves what the guest sees;
only there can layers be put together whose headers name each other by names without a folder.
"""

from __future__ import annotations

import json
import posixpath
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from inventory.sources.base import Warn
from inventory.sources.errors import ImageError
from inventory.sources.nbdkit import NbdServer, ServerError, Servers, nbd_node
from inventory.sources.programs import Daemon, pid_file_of
from inventory.sources.qcow2 import FIRST_CLUSTER_BYTES, Header, read_header
from inventory.sources.types import SourceDisk

_FORMATS = ("raw", "qcow2")
_MAX_LAYERS = 64
_READY_SECONDS = 60
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
    _join(sockets, joined, servers)
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


def _join(layers: Sequence[tuple[Path, str]], socket: Path, servers: Servers) -> None:
    """Serve layers as one disk at a socket; the first is the top.  Raises ServerError."""
    command = ["qemu-storage-daemon"]
    for number, (served, fmt) in reversed(list(enumerate(layers))):
        # A qcow2 image without a layer below is told so, as its header does.
        below = f"layer{number + 1}" if number + 1 < len(layers) else None
        more = {"backing": below} if fmt == "qcow2" else {}
        nodes: tuple[dict[str, Any], ...] = (
            {"node-name": f"file{number}", **nbd_node(served)},
            {"node-name": f"layer{number}", "driver": fmt, "file": f"file{number}", **more},
        )
        for node in nodes:
            command += ["--blockdev", json.dumps({"read-only": True, **node})]
    address = f"addr.type=unix,addr.path={str(socket).replace(',', ',,')}"
    command += ["--nbd-server", f"{address},max-connections=0"]
    command += ["--export", "type=nbd,id=disk,node-name=layer0,name=,writable=off"]
    command += ["--pidfile", str(pid_file_of(socket))]
    if shutil.which(command[0]) is None:
        raise ServerError(
            "E-HOST",
            "The program qemu-storage-daemon, which puts layers together, is not installed.",
            remedy="Install the package qemu-system-common.",
        )
    servers.log(" ".join(command))
    daemon = Daemon(command, socket, servers.log)
    servers.keep(daemon)
    if why := daemon.why_not_ready(_READY_SECONDS):
        raise ServerError(
            "E-IMG-BACKING", f"The layers cannot be put together: {why[-300:]}.", remedy=_MERGE
        )
