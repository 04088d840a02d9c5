"""A disk for the tests of servers, and what qemu reads of a served one."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from inventory.sources.base import disk_uri
from inventory.sources.types import SourceDisk

SIZE = 3 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Return a raw disk of SIZE bytes, none like another."""
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(7).randbytes(SIZE))
    return path


def read_through(disk: SourceDisk, folder: Path) -> bytes:
    """Return the bytes that a guest sees of a disk."""
    out = folder / "out.img"
    subprocess.run(["qemu-img", "convert", "-O", "raw", disk_uri(disk), str(out)], check=True)
    return out.read_bytes()
