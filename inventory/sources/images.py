"""A look at a stranger's disk image, under limits, before anything else opens it."""

from __future__ import annotations

import json
import resource
import subprocess
from typing import Any

from inventory.sources.errors import ImageError

_SECONDS = 30
_MEMORY_BYTES = 1 << 30
_MAGIC = {b"KDMV": "vmdk", b"COWD": "vmdk", b"QFI\xfb": "qcow2", b"vhdxfile": "vhdx",
          b"conectix": "vpc"}  # fmt: skip
_VMDK_SELF_CONTAINED = ("streamOptimized", "monolithicSparse")


def image_format(head: bytes, label: str) -> str:
    """Return the format a disk file's first bytes show; anything unknown is raw.

    Raises ImageError for a text VMDK descriptor, which names other files, and for gzip data.
    """
    if head.lstrip().startswith(b"# Disk DescriptorFile"):
        raise ImageError(
            "E-IMG-EXTENT",
            f"{label} is a VMDK descriptor that names other files as its data.",
            remedy="Export the machine as an OVA, which holds the data itself.",
        )
    if head.startswith(b"\x1f\x8b"):
        raise ImageError(
            "E-OVF-COMPRESSION",
            f"{label} is compressed with gzip; compressed disks cannot be read yet.",
            remedy="Unpack the OVA, gunzip the disk, and adapt its name in the descriptor.",
        )
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "raw")


def virtual_size(uri: str, fmt: str, label: str) -> int:
    """Return the bytes the guest sees of an image, after refusing one that names other files.

    `uri` is what qemu opens, `fmt` its stated format.  qemu-img runs with limits on CPU, memory
    and time.  Raises ImageError: E-IMG-BACKING, E-IMG-EXTENT, E-IMG-READ.
    """
    info = _info(uri, fmt, label)
    if info.get("backing-filename") or info.get("full-backing-filename"):
        raise ImageError(
            "E-IMG-BACKING",
            f"{label} is only a layer over another file ({info.get('backing-filename')}).",
            remedy="Merge the snapshots on the source and export the machine again.",
        )
    data = info.get("format-specific", {}).get("data", {})
    if data.get("data-file") or data.get("data-file-raw"):
        raise ImageError("E-IMG-EXTENT", f"{label} keeps its data in another file.")
    if fmt == "vmdk":
        kind = data.get("create-type")
        if kind not in _VMDK_SELF_CONTAINED or len(data.get("extents", [])) != 1:
            raise ImageError(
                "E-IMG-EXTENT",
                f"{label} is a VMDK of type {kind}, which may name other files as its data.",
                remedy="Export the machine as an OVA (streamOptimized disks).",
            )
    return int(info["virtual-size"])


def _info(uri: str, fmt: str, label: str) -> dict[str, Any]:
    command = ["qemu-img", "info", "--output=json"]
    # A json: node states its format itself.
    command += [uri] if uri.startswith("json:") else ["-f", fmt, uri]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))

    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=_SECONDS,
            check=True,
            preexec_fn=limit,  # setrlimit alone is safe between fork and exec
        )
        info: dict[str, Any] = json.loads(done.stdout)
    except FileNotFoundError as error:
        raise ImageError("E-HOST", "The program qemu-img is not installed.") from error
    except subprocess.TimeoutExpired as error:
        raise ImageError(
            "E-IMG-READ", f"{label} could not be looked at within {_SECONDS} s."
        ) from error
    except (subprocess.CalledProcessError, ValueError) as error:
        words = getattr(error, "stderr", b"") or b""
        last = (words.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        raise ImageError(
            "E-IMG-READ",
            f"{label} is not a readable {fmt} image: {last[:300]}.",
            remedy="The file is damaged or of another kind; export the machine again.",
        ) from error
    return info
