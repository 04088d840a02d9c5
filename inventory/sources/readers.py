"""The choice among the readers of sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from inventory.sources.base import SourceReader, Warn
from inventory.sources.disk import DiskReader
from inventory.sources.errors import SourceError
from inventory.sources.libvirt_file import LibvirtXmlReader
from inventory.sources.libvirt_host import LibvirtReader
from inventory.sources.ova import OvaReader
from inventory.sources.remote import remote_reader
from inventory.sources.vmx import VmxReader


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
    keep_display: bool = False,
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
    pairs of -io.  `allow_running` takes machines that are not off, with a warning; `keep_display`
    asks a libvirt host for the password of the screen too.  `look` is called while something is
    unpacked, and may raise to end it.
    """
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
        keep_display=keep_display,
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
        return LibvirtReader(
            host,
            location,
            warn=warn,
            password=password,
            running=running,
            keep_display=keep_display,
        )
    if kind == "libvirtxml":
        uri = connection or "qemu:///system"
        return LibvirtXmlReader(Path(location), uri=uri, warn=warn, anywhere=disks_anywhere)
    raise SourceError(
        "E-INPUT-KIND",
        f"Input kind {kind!r} is not known; ova, vmx, disk, libvirt and libvirtxml are.",
    )
