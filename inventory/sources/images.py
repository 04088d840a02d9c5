"""A look at a stranger's disk image, under limits, before anything else opens it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inventory.sources import qcow2
from inventory.sources.errors import ImageError

HEAD_BYTES = 4096
# What may be stated; qemu has more words for a format, some of which are programs or networks.
FORMATS = ("raw", "qcow2", "vmdk", "vdi", "vpc", "vhdx", "qed", "luks")
_SECONDS = 30
_MEMORY_BYTES = 1 << 30
_MAGIC = {b"KDMV": "vmdk", b"COWD": "vmdk", qcow2.MAGIC: "qcow2", b"vhdxfile": "vhdx",
          b"conectix": "vpc"}  # fmt: skip
_VDI_MAGIC = b"\x7f\x10\xda\xbe"
_VMDK_SELF_CONTAINED = ("streamOptimized", "monolithicSparse")
_MERGE = "Merge the snapshots on the source and export the machine again."
_EXPORT = "Export the machine as an OVA, which holds the data itself."


def image_format(head: bytes, label: str, *, trusted: bool = False) -> str:
    """Return the format that a disk's first HEAD_BYTES show; anything unknown is raw.

    Unless it is `trusted`, what names other files is refused here already, from its own header,
    since qemu-img may open those files while it looks.  Raises ImageError: E-IMG-BACKING,
    E-IMG-EXTENT, E-IMG-FORMAT, E-OVF-COMPRESSION.
    Source: VMDK specification 5.0 (SparseExtentHeader), qemu's docs/interop/qcow2.txt.
    """
    if head.lstrip().startswith(b"# Disk DescriptorFile"):
        raise ImageError(
            "E-IMG-EXTENT",
            f"{label} is a VMDK descriptor that names other files as its data.",
            remedy=_EXPORT,
        )
    if head.startswith(b"\x1f\x8b"):
        raise ImageError(
            "E-OVF-COMPRESSION",
            f"{label} is compressed with gzip, and that more than once or outside of an OVA.",
            remedy="Decompress the disk (gunzip) and try again.",
        )
    if head[64:68] == _VDI_MAGIC:
        raise ImageError(
            "E-IMG-FORMAT",
            f"{label} is a VDI image; VMDK, qcow2, VHD, VHDX and raw images can be read.",
            remedy="Export the machine as an OVA, whose disks are VMDK images.",
        )
    fmt = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "raw")
    if fmt == "qcow2" and not trusted:
        _check_qcow2(head, label)
    if head.startswith(b"KDMV") and not any(head[12:20]):
        # A capacity of 0: the text descriptor inside decides, and may name files of this host.
        raise ImageError(
            "E-IMG-EXTENT", f"{label} is a VMDK that holds no data of its own.", remedy=_EXPORT
        )
    return fmt


def _check_qcow2(head: bytes, label: str) -> None:
    if qcow2.has_backing(head):
        raise ImageError(
            "E-IMG-BACKING", f"{label} is only a layer over another file.", remedy=_MERGE
        )
    if qcow2.has_external_data(head):
        raise ImageError("E-IMG-EXTENT", f"{label} keeps its data in another file.", remedy=_EXPORT)


def virtual_size(uri: str, fmt: str, label: str, *, remedy: str = "") -> int:
    """Return the bytes the guest sees of an image, after refusing one that names other files.

    `uri` is what qemu opens, `fmt` its stated format, `remedy` what to do when it does not open,
    instead of what is said of files.  qemu-img runs with limits on CPU, memory and time.  Raises
    ImageError: E-IMG-BACKING, E-IMG-EXTENT, E-IMG-READ, E-HOST.
    """
    info = image_info(uri, fmt, label, remedy=remedy)
    if info.get("backing-filename") or info.get("full-backing-filename"):
        raise ImageError(
            "E-IMG-BACKING",
            f"{label} is only a layer over another file ({info.get('backing-filename')!r}).",
            remedy=_MERGE,
        )
    data = info.get("format-specific", {}).get("data", {})
    if data.get("data-file") or data.get("data-file-raw"):
        raise ImageError("E-IMG-EXTENT", f"{label} keeps its data in another file.", remedy=_EXPORT)
    if fmt == "vmdk":
        kind = data.get("create-type")
        if kind not in _VMDK_SELF_CONTAINED or len(data.get("extents", [])) != 1:
            raise ImageError(
                "E-IMG-EXTENT",
                f"{label} is a VMDK of type {kind!r}, which may name other files as its data.",
                remedy=_EXPORT,
            )
    return int(info["virtual-size"])


def backing_chain(path: str, fmt: str) -> tuple[int, tuple[str, ...]]:
    """Return the size the guest sees of a trusted image, and the other files that hold its data.

    Raises ImageError: E-IMG-READ, E-HOST.
    """
    chain = _looked_at(["--backing-chain", "-f", fmt, path], fmt, path)
    files = [str(layer["filename"]) for layer in chain[1:]]
    for layer in chain:
        data = layer.get("format-specific", {}).get("data", {})
        if data_file := data.get("data-file"):
            files.append(str(Path(layer["filename"]).parent / data_file))
    return int(chain[0]["virtual-size"]), tuple(dict.fromkeys(files))


def image_info(uri: str, fmt: str, label: str, *, remedy: str = "") -> dict[str, Any]:
    """Return what qemu-img tells of an image of the stated format, under limits.

    `remedy` as for virtual_size.  Raises ImageError: E-IMG-READ, E-HOST.
    """
    # A json: node states its format itself.
    words = [uri] if uri.startswith("json:") else ["-f", fmt, uri]
    info: dict[str, Any] = _looked_at(words, fmt, label, remedy)
    return info


def _looked_at(words: Sequence[str], fmt: str, label: str, remedy: str = "") -> Any:
    """Return what qemu-img info says, given its further words."""
    if shutil.which("qemu-img") is None:
        raise ImageError(
            "E-HOST",
            "The program qemu-img is not installed on this host.",
            remedy="Install the package qemu-utils.",
        )
    # prlimit rather than a function between fork and exec: the caller may have threads.
    command = ["prlimit", f"--cpu={_SECONDS}", f"--as={_MEMORY_BYTES}", "--core=0"]
    command += ["qemu-img", "info", "--output=json", *words]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=True)
        return json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise ImageError(
            "E-IMG-READ",
            f"{label} could not be looked at within {_SECONDS} s.",
            remedy=remedy or "The image is damaged, or this host is very busy; try again.",
        ) from error
    except (subprocess.CalledProcessError, ValueError) as error:
        said = getattr(error, "stderr", b"") or b""
        last = (said.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        raise ImageError(
            "E-IMG-READ",
            f"{label} is not a readable {fmt} image: {last[-300:].rstrip('.')}.",
            remedy=remedy or "The file is damaged or of another kind; export the machine again.",
        ) from error
