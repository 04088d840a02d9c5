"""What a project of OpenStack has for a machine: volume types, and what is left of its quota."""

from __future__ import annotations

from typing import Any

from openstack.connection import Connection

from conversions.pipeline.job import Target
from conversions.pipeline.outputs.openstack import OpenStackOutput
from conversions.pipeline.outputs.openstack_cloud import cloud_errors, sign_in
from conversions.pipeline.report import RecordingReporter

_GIB = 1 << 30


def describe(target: Target) -> dict[str, Any]:
    """Sign in and return what a project has.  Raises JobError, TargetError."""
    report = RecordingReporter()
    OpenStackOutput(target, None, report)  # refuses what it cannot be
    server = target.option("server-id")
    with sign_in(target, report) as cloud:
        with cloud_errors(f"Server {server} was not found in the project"):
            cloud.compute.get_server(server)
        with cloud_errors("The volume types could not be listed"):
            names = sorted(kind.name for kind in cloud.block_storage.types())
        problem, free = _quota(cloud)
    storages = [{"name": n, "path": "", "free_bytes": free, "problem": problem} for n in names]
    return {"problem": problem, "free_bytes": free, "storages": storages}


def _quota(cloud: Connection) -> tuple[str, int | None]:
    """Return why the project takes no volume, "" when it does; and the bytes that are left.

    None is no limit.
    """
    with cloud_errors("The quota of the project could not be read"):
        limits = cloud.block_storage.get_limits().absolute
    volumes, gib = limits.max_total_volumes, limits.max_total_volume_gigabytes
    problem = ""
    # A negative limit is none.
    if volumes is not None and 0 <= volumes <= (limits.total_volumes_used or 0):
        problem = f"The project's quota of {volumes} volumes in Cinder is used up."
    if gib is None or gib < 0:
        return problem, None
    return problem, max(0, gib - (limits.total_gigabytes_used or 0)) * _GIB
