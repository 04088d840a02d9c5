"""What tells the engine where a machine is."""

from __future__ import annotations

from conversions.pipeline.errors import JobError
from conversions.pipeline.job import Input
from inventory.models import SourceVM


def input_of(vm: SourceVM) -> Input:
    """Return the job's source for a machine.  Raises JobError for a domain without a host."""
    if vm.is_domain and vm.host is None:
        # Without an address the engine would look for it on this machine.
        raise JobError(
            f"The host of {vm.name} is no longer in the inventory.",
            remedy="Add the host again; its machines come with it.",
        )
    connection = vm.host.uri if vm.host else None
    return Input(kind=vm.kind, location=vm.location, connection=connection)
