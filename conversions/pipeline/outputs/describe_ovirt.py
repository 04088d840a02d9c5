"""What an engine of oVirt has for a machine: storage domains, and the networks of a cluster."""

from __future__ import annotations

from typing import Any

from conversions.pipeline.job import Target
from conversions.pipeline.outputs.ovirt_api import connected, trust_of
from conversions.pipeline.outputs.ovirt_prechecks import DEFAULT_CLUSTER, find_place
from conversions.pipeline.report import RecordingReporter


def describe(target: Target) -> dict[str, Any]:
    """Sign in and return what an engine has; networks only with a storage domain that it has.

    Raises JobError, TargetError.
    """
    with connected(target, trust_of(target), RecordingReporter()) as engine:
        domains = engine.all_of("storagedomains", "storage_domain")
        names = sorted(str(d.get("name")) for d in domains if d.get("type") == "data")
        free: dict[str, int | None] = dict.fromkeys(names)
        networks: list[str] = []
        if target.storage in free:
            cluster = target.option("ovirt-cluster", DEFAULT_CLUSTER)
            place = find_place(engine, target.storage, cluster)
            free[target.storage] = place.free_bytes
            found = engine.all_of(f"clusters/{place.cluster_id}/networks", "network")
            networks = sorted(str(network.get("name")) for network in found)
    return {
        "problem": "",
        "free_bytes": None,
        "storages": [
            {"name": name, "path": "", "free_bytes": size, "problem": ""}
            for name, size in free.items()
        ],
        "networks": networks,
    }
