"""What a libvirt host has for a machine: pools, networks, bridges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import libvirt
from lxml import etree

from conversions.pipeline.errors import TargetError
from conversions.pipeline.job import Target
from conversions.pipeline.outputs.libvirt_host import LibvirtHost, libvirt_errors


def describe(target: Target) -> dict[str, Any]:
    """Return what a host has for a machine.  Raises JobError, TargetError."""
    host = LibvirtHost(target.uri)
    try:
        with libvirt_errors("The pools could not be listed"):
            names = sorted(pool.name() for pool in host.connection.listAllStoragePools())
        return {
            "problem": "",
            "free_bytes": None,
            "is_local": host.is_local,
            "storages": [_pool(host, name) for name in names],
            "networks": sorted(host.networks()),
            "bridges": _bridges(host),
        }
    finally:
        host.close()


def _pool(host: LibvirtHost, name: str) -> dict[str, Any]:
    """Return a pool; the problem says why it cannot take disks."""
    try:
        pool = host.find_pool(name)
    except TargetError as error:
        problem = f"{error.message} {error.remedy}".strip()
        return {"name": name, "path": "", "free_bytes": None, "problem": problem}
    return {"name": name, "path": str(pool.path), "free_bytes": pool.free_bytes, "problem": ""}


def _bridges(host: LibvirtHost) -> list[str]:
    """Return the bridges the host tells of; many hosts tell of none."""
    found: set[str] = set()
    if host.is_local:
        found |= {path.parent.name for path in Path("/sys/class/net").glob("*/bridge")}
    try:
        roots = [etree.fromstring(i.XMLDesc()) for i in host.connection.listAllInterfaces()]
        found |= {str(root.get("name")) for root in roots if root.get("type") == "bridge"}
    except libvirt.libvirtError:
        pass  # a driver without interfaces
    with libvirt_errors("The networks could not be listed"):
        roots = [etree.fromstring(n.XMLDesc()) for n in host.connection.listAllNetworks()]
    for root in roots:
        bridge = root.find("bridge")
        if bridge is not None and bridge.get("name"):
            found.add(str(bridge.get("name")))
    return sorted(found)
