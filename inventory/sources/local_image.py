"""A disk image on this host as a disk of a source, after a look at what it would lead qemu to."""

from __future__ import annotations

from pathlib import Path

from inventory.sources.base import Warn
from inventory.sources.errors import ImageError
from inventory.sources.images import FORMATS, HEAD_BYTES, backing_chain, image_format, virtual_size
from inventory.sources.types import Controller, SourceDisk
from inventory.sources.vmdk import is_descriptor, look_at_vmdk

SECTOR = 512


def local_disk(
    number: int,
    path: Path,
    *,
    format: str | None,
    warn: Warn,
    controller: Controller | None = None,
    folder: Path | None,
) -> SourceDisk:
    """Return the disk that an image is; `path` is absolute, `format` stated or None.

    Files that a VMDK names must lie in `folder`, and other images may name none; None means that
    what it names is trusted.  Raises ImageError.
    """
    if format is not None and format not in FORMATS:
        raise ImageError(
            "E-IMG-FORMAT",
            f"The format {format!r} is not known; {', '.join(FORMATS)} are.",
        )
    head = _head(path)
    if format is not None:
        fmt = format
    elif is_descriptor(head):
        fmt = "vmdk"
    else:
        fmt = image_format(head, str(path), trusted=folder is None)
        if fmt != "raw" and path.suffix in (".img", ".raw"):
            # A guest can write such a header into its own raw disk.
            warn(f"{path} is taken as {fmt}, as its header says; state raw if it is raw.")
    others: tuple[str, ...] = ()
    if fmt == "vmdk":
        vmdk = look_at_vmdk(path, folder=folder)
        size, others = vmdk.virtual_size_bytes, vmdk.other_files
        if vmdk.layers > 1:
            warn(
                f"{path} is a snapshot, the top of {vmdk.layers} layers; what the machine shows "
                "now is read, its older states are not."
            )
    elif folder is None and format != "raw":
        size, others = backing_chain(str(path), fmt)
    else:
        if fmt == "qcow2":
            # Its header may name other files, which qemu would open at the first look.
            image_format(head, str(path))
        size = virtual_size(str(path), fmt, str(path))
    if fmt == "raw" and path.is_file() and (over := path.stat().st_size % SECTOR):
        warn(f"{path} ends {over} bytes into its last sector of {SECTOR}; the rest reads as zeros.")
    return SourceDisk(
        id=number,
        controller=controller,
        path=str(path),
        format=fmt,
        virtual_size_bytes=size,
        other_files=others,
    )


def _head(path: Path) -> bytes:
    """Return the first bytes of an image.  Raises ImageError for one that has none."""
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError as error:
        raise ImageError(
            "E-IMG-READ",
            f"{path} cannot be read: {error.strerror}.",
            remedy="Check the path and who may read it.",
        ) from error
    if not head:
        raise ImageError("E-IMG-READ", f"{path} is empty (0 bytes).")
    return head
