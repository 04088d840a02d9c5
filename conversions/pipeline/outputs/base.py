"""What every output provides, and the targets it hands to the copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from conversions.pipeline.job import Target
from conversions.pipeline.report import Reporter
from conversions.pipeline.types import Overlay, TargetDisk, TargetMeta
from inventory.sources.types import Source


class Targets(Protocol):
    """The files being written; leaving the context without `commit` removes them."""

    disks: Sequence[TargetDisk]
    metadata_part: Path
    metadata_final: Path

    def commit(self) -> None:
        """Give every finished file its final name, after it is safely on disk."""
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

    def copy(self, disks: Sequence[TargetDisk], report: Reporter) -> None:
        """Write every disk.  Raises CommandError, TargetError, Stopped."""
        ...

    def preview(self, meta: TargetMeta) -> None:
        """Report the metadata that would be written."""
        ...

    def write_metadata(self, targets: Targets, meta: TargetMeta) -> None:
        """Write what describes the VM to the target's hypervisor."""
        ...
