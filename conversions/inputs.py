"""What tells the engine where a machine is."""

from __future__ import annotations

from conversions.pipeline.job import Input
from inventory.models import SourceVM


def input_of(vm: SourceVM) -> Input:
    """Return the job's source for a machine."""
    connection = vm.host.uri if vm.host else None
    return Input(kind=vm.kind, location=vm.location, connection=connection)
