"""What the header of a qcow2 image says about other files.

Source: qemu's docs/interop/qcow2.txt.
"""

from __future__ import annotations

from dataclasses import dataclass

from inventory.sources.errors import ImageError

MAGIC = b"QFI\xfb"
# A backing file's name lies in the first cluster, right behind the extensions of the header.
FIRST_CLUSTER_BYTES = 65536
_EXTERNAL_DATA = 1 << 2
_BACKING_FORMAT = 0xE2792ACA
_MAX_NAME = 1023
_VERSION_2_BYTES = 72


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The backing file's name and format, "" for none; whether the data is in another file."""

    backing: str
    backing_format: str
    external_data: bool
    is_encrypted: bool


def has_backing(head: bytes) -> bool:
    """Tell whether an image is only a layer; its first 16 bytes are enough."""
    return any(head[8:16])


def has_external_data(head: bytes) -> bool:
    """Tell whether an image keeps its data in another file; its first 80 bytes are enough."""
    return _number(head, 4, 4) >= 3 and bool(_number(head, 72, 8) & _EXTERNAL_DATA)


def read_header(head: bytes, label: str) -> Header:
    """Read a header from the first FIRST_CLUSTER_BYTES of an image.

    Raises ImageError (E-IMG-READ) for a header that is none.
    """
    if not head.startswith(MAGIC) or _number(head, 4, 4) not in (2, 3):
        raise _damaged(label, "it does not begin as a qcow2 image does")
    at, size = _number(head, 8, 8), _number(head, 16, 4)
    if not at:
        size = 0
    if size > _MAX_NAME or at + size > len(head):
        raise _damaged(label, f"the name of its lower layer, of {size} bytes, lies at {at}")
    return Header(
        backing=head[at : at + size].decode(errors="surrogateescape"),
        backing_format=_extension(head, _BACKING_FORMAT).decode(errors="replace"),
        external_data=has_external_data(head),
        is_encrypted=_number(head, 32, 4) != 0,
    )


def _extension(head: bytes, wanted: int) -> bytes:
    """Return the data of a header extension, empty when it is not there."""
    at = _number(head, 100, 4) if _number(head, 4, 4) >= 3 else _VERSION_2_BYTES
    while at + 8 <= len(head):
        kind, size = _number(head, at, 4), _number(head, at + 4, 4)
        if kind == 0:
            break
        if kind == wanted:
            return head[at + 8 : at + 8 + size]
        at += 8 + (size + 7) // 8 * 8
    return b""


def _number(head: bytes, at: int, size: int) -> int:
    return int.from_bytes(head[at : at + size], "big")


def _damaged(label: str, why: str) -> ImageError:
    return ImageError(
        "E-IMG-READ",
        f"{label} is not a readable qcow2 image: {why}.",
        remedy="It is damaged, or its format is stated wrongly.",
    )
