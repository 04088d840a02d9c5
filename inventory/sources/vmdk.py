"""VMDK images that consist of several files: descriptors with extents, snapshots over others.

Which files qemu would open is found out here first, so that an image cannot lead it to a file
that is none of its own.
Source: VMDK specification 5.0; which words count is what qemu's block/vmdk.c looks for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from os import fsdecode
from pathlib import Path

from inventory.sources.errors import ImageError
from inventory.sources.images import HEAD_BYTES, image_info
from inventory.sources.tar import printable

TEXT_HEAD = b"# Disk DescriptorFile"
_SPARSE = b"KDMV"
# qemu reads this much of a descriptor, and an embedded one always at this place.
_TEXT_BYTES = 20 * 512
_EMBEDDED_AT = 512
_MAX_TEXT_BYTES = 1 << 20
_MAX_LAYERS = 32
_EXTENT = re.compile(
    rb'(?P<access>RW|RDONLY|NOACCESS) (?P<sectors>\d{1,18}) (?P<type>[A-Z0-9]{1,12})'
    rb'(?: "(?P<name>[^"\r\n]{1,500})"(?: (?P<offset>\d{1,18}))?(?: [^"]*)?)?'
)  # fmt: skip
_OTHER_LINE = re.compile(rb"#.*|[A-Za-z][A-Za-z0-9_.:]*[ \t]*=.*")
_PARENT = re.compile(rb"parentFileNameHint")
_PARENT_NAME = re.compile(rb'parentFileNameHint[ \t]*=[ \t]*"([^"\r\n]*)"')
_CID = re.compile(rb"(?:^|\n)CID=([0-9a-fA-F]{1,8})")
_PARENT_CID = re.compile(rb"parentCID=([0-9a-fA-F]{1,8})")
_NO_PARENT = 0xFFFFFFFF
# The kinds of extents that qemu reads, and how a file of each has to begin.
_FLAT = (b"FLAT", b"VMFS")
_HEADS = {b"SPARSE": _SPARSE, b"VMFSSPARSE": b"COWD", b"SESPARSE": b"\xbe\xba\xfe\xca"}
_MERGE = (
    "Merge the snapshots on the source (delete all of them there), then copy the machine again."
)
_TOGETHER = (
    "Copy all files of the machine into one folder.  On the command line, --disks-anywhere takes "
    "them where they are."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vmdk:
    """A VMDK that has been looked at.

    `other_files` are the files besides its own that hold its data: extents, and the layers below
    a snapshot with theirs.  `layers` counts the images, 1 for one that is no snapshot.
    """

    virtual_size_bytes: int
    other_files: tuple[str, ...]
    layers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    """One image of a chain."""

    path: Path
    extents: tuple[Path, ...]
    is_split: bool
    parent: Path | None
    cid: int | None
    parent_cid: int | None


def is_descriptor(head: bytes) -> bool:
    """Tell whether a file is a VMDK's text descriptor, by how it begins."""
    return head.startswith(TEXT_HEAD)


def look_at_vmdk(path: Path, *, folder: Path | None) -> Vmdk:
    """Return what a VMDK consists of; `path` is absolute.

    Every file it names must lie in `folder`, links followed; None means that they may lie anywhere.
    Raises ImageError: E-IMG-EXTENT, E-IMG-BACKING, E-IMG-READ, E-IMG-FORMAT.
    """
    inside = folder.resolve() if folder is not None else None
    chain: list[_Image] = []
    following: Path | None = path
    while following is not None:
        if len(chain) == _MAX_LAYERS or any(following.samefile(i.path) for i in chain):
            raise ImageError(
                "E-IMG-BACKING",
                f"{path} is a snapshot over more than {_MAX_LAYERS} layers, or over itself.",
                remedy=_MERGE,
            )
        image = _read(following, inside)
        if chain:
            _check_parent(chain[-1], image)
        chain.append(image)
        following = image.parent
    sizes = [_size(image) for image in chain]
    others = [str(f) for image in chain for f in (image.path, *image.extents) if f != path]
    return Vmdk(
        virtual_size_bytes=sizes[0],
        other_files=tuple(dict.fromkeys(others)),
        layers=len(chain),
    )


def _read(path: Path, inside: Path | None) -> _Image:
    """Read one image of the chain."""
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
            if is_descriptor(head):
                stream.seek(0)
                data = stream.read(_MAX_TEXT_BYTES + 1)
                return _from_text(path, data, inside)
            stream.seek(_EMBEDDED_AT)
            embedded = stream.read(_TEXT_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from error
    if not head.startswith(_SPARSE):
        raise ImageError(
            "E-IMG-READ",
            f"{path} is no VMDK: it begins neither as a sparse one nor as a descriptor.",
            remedy="Name the descriptor of the disk; a -flat.vmdk beside it is only its data.",
        )
    _check_sparse(path, head)
    return _image(path, embedded.split(b"\0")[0], (), inside, is_split=False)


def _from_text(path: Path, data: bytes, inside: Path | None) -> _Image:
    text = data.split(b"\0")[0]
    if len(text) > _TEXT_BYTES:
        raise ImageError(
            "E-IMG-EXTENT",
            f"The descriptor {path} has {len(text)} bytes; {_TEXT_BYTES} can be read.",
            remedy="Copy the disk with vmkfstools -i into one file on the source.",
        )
    found: list[re.Match[bytes]] = []
    for number, line in enumerate(text.split(b"\n"), 1):
        plain = line.strip(b" \t\r")
        # qemu's parser skips blanks of any kind, so an extent's line must stand as it should.
        match = _EXTENT.fullmatch(line.rstrip(b" \t\r"))
        if match:
            found.append(match)
        elif plain and not _OTHER_LINE.fullmatch(plain):
            raise ImageError(
                "E-IMG-EXTENT",
                f"Line {number} of the descriptor {path} is not understood: "
                f"{printable(fsdecode(plain))}.",
                remedy="The file is damaged or not a descriptor; copy the disk again.",
            )
    if not found:
        raise ImageError("E-IMG-EXTENT", f"The descriptor {path} names no extents.")
    extents = tuple(_extent(path, match, inside) for match in found)
    return _image(path, text, extents, inside, is_split=True)


def _extent(path: Path, line: re.Match[bytes], inside: Path | None) -> Path:
    """Return the file of an extent.  Raises ImageError."""
    access, kind, name = line["access"], line["type"], line["name"]
    # qemu leaves out what is not for reading and writing, and everything behind it would move.
    if access != b"RW" or (kind not in _FLAT and kind not in _HEADS) or not name:
        raise ImageError(
            "E-IMG-EXTENT",
            f"{path} has an extent {access.decode()} {kind.decode()}, which cannot be read; RW of "
            "the types FLAT, VMFS, SPARSE, VMFSSPARSE and SESPARSE can.",
            remedy="Copy the disk with vmkfstools -i into one file on the source.",
        )
    extent = _named(path, name, inside, "E-IMG-EXTENT")
    try:
        with extent.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
            size = stream.seek(0, 2)
    except OSError as error:
        raise _unreadable(extent, error) from error
    if kind in _FLAT:
        needed = (int(line["sectors"]) + int(line["offset"] or 0)) * 512
        if size < needed:
            raise ImageError(
                "E-IMG-READ",
                f"{extent} has {size} bytes; {path} says that it has {needed}.",
                remedy="It was not copied completely; copy it again.",
            )
    else:
        if not head.startswith(_HEADS[kind]):
            raise ImageError(
                "E-IMG-READ", f"{extent}, an extent of {path}, is not of type {kind.decode()}."
            )
        if kind == b"SPARSE":
            _check_sparse(extent, head)
    return extent


def _check_sparse(path: Path, head: bytes) -> None:
    """Refuse a sparse file whose own text, at a place it chooses, would say what is read."""
    if not any(head[12:20]):
        raise ImageError("E-IMG-EXTENT", f"{path} is a VMDK that holds no data of its own.")


def _image(
    path: Path, text: bytes, extents: tuple[Path, ...], inside: Path | None, *, is_split: bool
) -> _Image:
    parent = None
    if _PARENT.search(text):
        match = _PARENT_NAME.search(text)
        if match is None or len(_PARENT.findall(text)) > 1:
            raise ImageError("E-IMG-BACKING", f"{path} does not say clearly what it lies over.")
        parent = _named(path, match[1], inside, "E-IMG-BACKING")
    cid, parent_cid = _CID.search(text), _PARENT_CID.search(text)
    return _Image(
        path=path,
        extents=extents,
        is_split=is_split,
        parent=parent,
        cid=int(cid[1], 16) if cid else None,
        parent_cid=int(parent_cid[1], 16) if parent_cid else None,
    )


def _named(path: Path, name: bytes, inside: Path | None, code: str) -> Path:
    """Return the file that the image `path` names.  Raises ImageError."""
    plain = fsdecode(name)
    if not plain or any(ord(c) < 32 for c in plain) or ":" in plain.split("/")[0]:
        # Up to its first colon such a name would be a protocol to qemu.
        raise ImageError(code, f"{path} names {printable(plain)}, which is no file name.")
    found = path.parent / plain
    if inside is not None and not found.resolve().is_relative_to(inside):
        raise ImageError(
            code,
            f"{path} names {printable(plain)}, outside of the folder {inside}.",
            remedy=_TOGETHER,
        )
    if not found.is_file() and not (inside is None and found.is_block_device()):
        raise ImageError(
            "E-IMG-READ",
            f"{path} names {printable(plain)} as a part of it, which is missing or no file.",
            remedy="Copy all files of the disk into the same folder.",
        )
    return found


def _check_parent(child: _Image, parent: _Image) -> None:
    """Refuse a layer that has changed since the snapshot over it was made."""
    if child.parent_cid in (None, _NO_PARENT) or child.parent_cid != parent.cid:
        raise ImageError(
            "E-IMG-BACKING",
            f"{child.path} is a snapshot over another state of {parent.path}: it wants the content "
            f"{_hex(child.parent_cid)}, and {_hex(parent.cid)} is there.",
            remedy=_MERGE,
        )


def _hex(cid: int | None) -> str:
    return "nothing" if cid is None else f"{cid:08x}"


def _size(image: _Image) -> int:
    """Return the size the guest sees, after comparing what qemu opens with what was found."""
    info = image_info(str(image.path), "vmdk", str(image.path))
    data = info.get("format-specific", {}).get("data", {})
    opened = [extent.get("filename") for extent in data.get("extents", [])]
    expected = [str(extent) for extent in image.extents] if image.is_split else [str(image.path)]
    if opened != expected:
        raise ImageError(
            "E-IMG-EXTENT",
            f"{image.path} is read as other files than it names; the descriptor is ambiguous.",
        )
    return int(info["virtual-size"])


def _unreadable(path: Path, error: OSError) -> ImageError:
    return ImageError(
        "E-IMG-READ",
        f"{path} cannot be read: {error.strerror}.",
        remedy="Check the path and who may read it.",
    )
