"""The interface every source reader provides, and the choice among them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from inventory.sources.errors import SourceError
from inventory.sources.types import Source, SourceDisk

if TYPE_CHECKING:
    from inventory.sources.nbdkit import Servers

Warn = Callable[[str], None]
"""Takes one sentence about something odd that does not stop the reading."""


class SourceReader(Protocol):
    """Reads one foreign description; the disks themselves are never opened for writing."""

    def describe(self) -> str:
        """Return one line for messages, such as: OVA web01.ova."""
        ...

    def read(self) -> Source:
        """Return the VM's metadata.  Raises SourceError."""
        ...

    def verify(self, progress: Callable[[int, int], None]) -> list[dict[str, str]]:
        """Check the digests the source carries; progress gets (done_bytes, total_bytes).

        Call after `read`.  Returns one {"file", "algorithm", "status"} per record, status "matches"
        or "missing", of domain XML also "differs", or "computed" with its "digest"; an empty list
        when the source carries no digests.  Raises ManifestError.
        """
        ...


@runtime_checkable
class RemoteReader(Protocol):
    """A reader whose disks may lie on other hosts."""

    def serve(self, source: Source, servers: Servers) -> Source:
        """Start servers for those of the disks that need one, and return the source with them.

        Raises SourceError.
        """
        ...


def disk_uri(disk: SourceDisk) -> str:
    """Return what qemu opens, read-only, for a disk: a path, or a json: node.

    A node stands for a disk inside a tar and for one on another host; it states the container
    format itself.  A path does not: there the format is stated separately (backing_fmt, -f).
    Raises SourceError for a disk on another host that nothing serves.
    Source: qemu block driver `raw` with offset and size.
    """
    if disk.offset_bytes is None and not disk.remote:
        return disk.path
    node: Mapping[str, Any] | None = disk.node
    if disk.offset_bytes is not None:
        node = {
            "driver": "raw",
            "offset": disk.offset_bytes,
            "size": disk.length_bytes,
            "file": {"driver": "file", "filename": disk.path},
        }
    if node is None:
        raise SourceError("E-NBD-SERVER", f"The disk {disk.path} is served by no server of ours.")
    return "json:" + json.dumps({"driver": disk.format, "file": node}, separators=(",", ":"))


def reader_for(
    kind: str,
    location: str,
    *,
    work_dir: Path,
    warn: Warn,
    more: Sequence[str] = (),
    format: str | None = None,
    connection: str | None = None,
    disks_anywhere: bool = False,
    allow_running: bool = False,
    transport: str | None = None,
    password: str | None = None,
    options: Mapping[str, tuple[str, ...]] | None = None,
    look: Callable[[], None] = lambda: None,
) -> SourceReader:
    """Return the reader for an input kind.  Raises SourceError for an unknown kind.

    "ova": `location` is a file or folder.  "disk": it is an image or the address of an NBD server,
    `more` are the other disks and `format` is that of all files.  "vmx": it is a VMX file.
    "libvirtxml": it is a file of domain XML.  "libvirt": it is a domain of the host `connection`.
    With `disks_anywhere` the names of files in a VMX and in images are trusted.  `transport`,
    `password` and `options` are for sources on other hosts: ssh or vddk, the password there, the
    pairs of -io.  `allow_running` takes machines that are not off, with a warning.  `look` is
    called while something is unpacked, and may raise to end it.
    """
    from inventory.sources.disk import DiskReader
    from inventory.sources.libvirt_file import LibvirtXmlReader
    from inventory.sources.libvirt_host import LibvirtReader
    from inventory.sources.ova import OvaReader
    from inventory.sources.remote import remote_reader
    from inventory.sources.vmx import VmxReader

    elsewhere = remote_reader(
        kind,
        location,
        work_dir=work_dir,
        warn=warn,
        connection=connection,
        transport=transport,
        password=password,
        options=options or {},
        disks_anywhere=disks_anywhere,
        allow_running=allow_running,
    )
    if elsewhere is not None:
        return elsewhere
    if kind == "ova":
        return OvaReader(Path(location), work_dir=work_dir, warn=warn, look=look)
    if kind == "disk":
        images = (location, *more)
        return DiskReader(images, format=format, warn=warn, anywhere=disks_anywhere)
    if kind == "vmx":
        return VmxReader(Path(location), warn=warn, anywhere=disks_anywhere)
    if kind == "libvirt":
        host = connection or "qemu:///system"
        running = warn if allow_running else None
        return LibvirtReader(host, location, warn=warn, password=password, running=running)
    if kind == "libvirtxml":
        uri = connection or "qemu:///system"
        return LibvirtXmlReader(Path(location), uri=uri, warn=warn, anywhere=disks_anywhere)
    raise SourceError(
        "E-INPUT-KIND",
        f"Input kind {kind!r} is not known; ova, vmx, disk, libvirt and libvirtxml are.",
    )
