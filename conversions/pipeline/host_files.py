"""Files of this host: what they occupy, and that they are really written."""

from __future__ import annotations

import os
from pathlib import Path


def fsync_path(path: Path) -> None:
    """Wait until a file or a folder is on stable storage."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def allocated(path: Path) -> int:
    """Return the bytes a file really occupies."""
    return path.stat().st_blocks * 512
