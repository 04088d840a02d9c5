"""How much a package may unpack to: what its descriptor declares, and something to spare."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from inventory.sources.errors import PackageError
from inventory.sources.ovf import Ovf, parse_ovf
from inventory.sources.ovf_xml import MAX_BYTES as MAX_OVF_BYTES
from inventory.sources.package import refuse_kind
from inventory.sources.references import has_suffix
from inventory.sources.tar import BLOCK, Member, TarWalker, is_tar, printable

# Above what any disk has, so that a bomb ends some day even where zeros cost no space.
MAX_BYTES = 16 << 40
SPARE_BYTES = 256 << 20
# Disk images of an OVA are compressed already; a tar of them hardly shrinks, a bomb 1000 times.
_RATIO = 100

Budget = Callable[[int], int]
"""Takes the bytes written so far and returns how many there may be."""


def disk_budget(capacity_bytes: int | None) -> int:
    """Return how large the image of a disk of that capacity may be; None is an unknown one."""
    if capacity_bytes is None:
        return MAX_BYTES
    return min(capacity_bytes * 11 // 10 + SPARE_BYTES, MAX_BYTES)


def package_budget(ovf: Ovf) -> int:
    """Return how large all files of a package may be together."""
    capacities = [disk.capacity_bytes for disk in ovf.disks]
    if None in capacities:
        return MAX_BYTES
    return disk_budget(sum(capacity or 0 for capacity in capacities))


def refuse_bomb(label: str, limit: int) -> PackageError:
    """Return the error for what unpacks to more than it may."""
    return PackageError(
        "E-OVA-BOMB",
        f"{label} unpacks to more than {limit >> 20} MiB, far more than its descriptor declares.",
        remedy="Unpack it yourself if you trust it, and give its folder.",
    )


class TarBudget:
    """The budget of a tar that is being unpacked into a file.

    It reads the tar as it grows: its descriptor, mostly the first member, tells how large it may
    be.  Until that has come, the budget grows with `packed_bytes`, what was read of the original.
    """

    def __init__(self, path: Path, label: str, packed_bytes: Callable[[], int]) -> None:
        self._path = path
        self._label = label
        self._packed_bytes = packed_bytes
        self._walker: TarWalker | None = None
        self._descriptor: Member | None = None
        self._limit: int | None = None

    def __call__(self, written: int) -> int:
        """Return how many bytes there may be.  Raises SourceError for what is no good tar."""
        if self._limit is None:
            with self._path.open("rb") as stream:
                self._look(stream.fileno(), written)
        if self._limit is not None:
            return self._limit
        return SPARE_BYTES // 4 + _RATIO * self._packed_bytes()

    def _look(self, descriptor: int, written: int) -> None:
        def read(offset: int, length: int) -> bytes:
            return os.pread(descriptor, length, offset)

        if self._walker is None:
            if written < BLOCK:
                return
            if not is_tar(read(0, BLOCK)):
                raise refuse_kind(printable(self._label))
            self._walker = TarWalker(read, MAX_BYTES)
        self._walker.read_from(read)
        while self._descriptor is None and (member := self._walker.next_member(written)):
            if member.is_regular and has_suffix(member.name, ".ovf"):
                self._descriptor = member
        found = self._descriptor
        if found is not None and found.offset + min(found.size, MAX_OVF_BYTES) <= written:
            data = read(found.offset, min(found.size, MAX_OVF_BYTES + 1))
            self._limit = package_budget(parse_ovf(data, lambda _text: None))
        elif self._walker.is_complete:
            self._limit = written + SPARE_BYTES
