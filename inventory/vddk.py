"""VMware's VDDK as it was unpacked on this server; no other folder's library is ever loaded."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings


def vddk_names() -> list[str]:
    """Return the folders of the VDDK folder that hold the library; "." is the folder itself."""
    patterns = ("lib64/libvixDiskLib.so*", "*/lib64/libvixDiskLib.so*")
    libraries = [found for pattern in patterns for found in settings.VDDK_DIR.glob(pattern)]
    return sorted({str(found.parents[1].relative_to(settings.VDDK_DIR)) for found in libraries})


def vddk_libdir(name: str) -> Path:
    """Return where a folder lies that `vddk_names` gave."""
    path: Path = settings.VDDK_DIR / name
    return path
