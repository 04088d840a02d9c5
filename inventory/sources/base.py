"""The interface every source reader provides, and how qemu opens what it has read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from inventory.sources.errors import SourceError
from inventory.sources.types import Source, SourceDisk

Warn = Callable[[str], None]
"""Takes one sentence about something odd that does not stop the reading."""


class SourceReader(Protocol):
    """Reads one foreign description; the disks themselves are never opened for writing."""

    def describe(self) -> str:
        """Return one line for messages, such as: OVA web01.ova."""
        ...

    def read(self) -> Source:
        """Return the VM's metadata.  Raises SourceError."""
        ...

    def verify(self, progress: Callable[[int, int], None]) -> list[dict[str, str]]:
        """Check the digests the source carries; progress gets (done_bytes, total_bytes).

        Call after `read`.  Returns one {"file", "algorithm", "status"} per record, status "matches"
        or "missing", of domain XML also "differs", or "computed" with its "digest"; an empty list
        when the source carries no digests.  Raises ManifestError.
        """
        ...


def disk_uri(disk: SourceDisk) -> str:
    """Return what qemu opens, read-only, for a disk: a path, or a json: node.

    A node stands for a disk inside a tar and for one on another host; it states the container
    format itself.  A path does not: there the format is stated separately (backing_fmt, -f).
    Raises SourceError for a disk on another host that nothing serves.
    Source: qemu block driver `raw` with offset and size.
    """
    if disk.offset_bytes is None and not disk.remote:
        return disk.path
    node: Mapping[str, Any] | None = disk.node
    if disk.offset_bytes is not None:
        node = {
            "driver": "raw",
            "offset": disk.offset_bytes,
            "size": disk.length_bytes,
            "file": {"driver": "file", "filename": disk.path},
        }
    if node is None:
        raise SourceError("E-NBD-SERVER", f"The disk {disk.path} is served by no server of ours.")
    top: dict[str, Any] = {"driver": disk.format, "file": node}
    if disk.remote and disk.format == "qcow2":
        # Whatever its header says by now: it was looked at, and named nothing.
        top["backing"] = None
    return "json:" + json.dumps(top, separators=(",", ":"))
