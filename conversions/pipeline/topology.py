"""How the target's vCPUs are grouped."""

from __future__ import annotations

from dataclasses import replace

from conversions.pipeline.report import Level, Reporter
from inventory.sources.types import Source


def with_fitting_topology(source: Source, report: Reporter) -> Source:
    """Return the source, without its topology where that does not make the number of vCPUs.

    libvirt, QEMU and KubeVirt refuse or reinterpret a machine whose product is another number.
    Source: qemu(1), -smp; libvirt's formatdomain, topology.
    """
    topology = source.cpu_topology
    if topology is None:
        return source
    product = topology.sockets * topology.cores * topology.threads
    if product == source.vcpus:
        return source
    report.log(
        Level.WARNING,
        f"{topology.sockets} sockets of {topology.cores} cores with {topology.threads} threads "
        f"make {product} vCPUs, but the machine has {source.vcpus}; the target has these "
        "ungrouped.",
    )
    return replace(source, cpu_topology=None)
