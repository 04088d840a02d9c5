"""What every output provides, and the targets it hands to the copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from conversions.pipeline.job import CopyOptions, Target
from conversions.pipeline.types import Overlay, TargetDisk, TargetMeta
from inventory.sources.types import Source


class Targets(Protocol):
    """The places being written; leaving the context without `commit` removes what was made.

    `open` and `close` are called from the threads that copy, one pair for each disk.
    """

    disks: Sequence[TargetDisk]

    def open(self, disk: TargetDisk) -> TargetDisk:
        """Make ready what the copy of one disk writes to, and return it.  Raises TargetError."""
        ...

    def close(self, disk: TargetDisk) -> None:
        """Take over a disk whose copy is complete and checked.  Raises TargetError."""
        ...

    def commit(self) -> None:
        """Make the result final: after this nothing is removed.  Raises TargetError."""
        ...


class Output(Protocol):
    """Writes one kind of target.  Checks that can refuse come before anything lasting."""

    target: Target

    def describe(self) -> str:
        """Return one line for messages."""
        ...

    def name_for(self, source: Source) -> str:
        """Return the VM's name on the target.  Raises TargetError for a name that cannot be."""
        ...

    def prepare(
        self, source: Source, overlays: Sequence[Overlay]
    ) -> AbstractContextManager[Targets]:
        """Check the target and plan its files.  Raises TargetError."""
        ...

    def target_disks(
        self, source: Source, overlays: Sequence[Overlay], estimates: Mapping[str, int]
    ) -> tuple[TargetDisk, ...]:
        """Return what will be written, one per overlay."""
        ...

    def check_space(self, estimates: Mapping[str, int], overlays: Sequence[Overlay]) -> None:
        """Refuse a target without room.  Raises TargetError with both numbers."""
        ...

    def check(self, meta: TargetMeta) -> None:
        """Refuse, before the copy, a machine that the target cannot have.  Raises TargetError."""
        ...

    def copy(self, targets: Targets, disks: Sequence[TargetDisk], options: CopyOptions) -> None:
        """Write every disk.  Raises CommandError, TargetError, Stopped."""
        ...

    def preview(self, meta: TargetMeta) -> None:
        """Report the metadata that would be written."""
        ...

    def write_metadata(self, targets: Targets, meta: TargetMeta) -> None:
        """Write what describes the VM to the target's hypervisor."""
        ...
