"""Describe a place for results as one line of JSON; runs as a program of its own.

A connection, or a folder on a network file system, can hang; a program can be given up and killed.

    python -m conversions.pipeline.outputs.describe folder PATH
    python -m conversions.pipeline.outputs.describe libvirt URI

Of a folder: {"free_bytes", "problem"}.  Of a host: {"is_local", "pools": [{"name", "path",
"free_bytes", "problem"}], "networks", "bridges"}.  Ends with 1 and {"message", "remedy"} when it
cannot tell.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import libvirt
from lxml import etree

from conversions.pipeline.errors import JobError, TargetError
from conversions.pipeline.outputs.libvirt_host import LibvirtHost, libvirt_errors


def describe_folder(path: Path) -> dict[str, Any]:
    """Return how much is free there, and what stops this user from writing into it."""
    problem = ""
    if not path.is_dir():
        return {"free_bytes": None, "problem": f"{path} is no folder on this server."}
    if not os.access(path, os.W_OK | os.X_OK):
        problem = f"The user that runs v2vweb may not write into {path}."
    return {"free_bytes": shutil.disk_usage(path).free, "problem": problem}


def describe_host(uri: str) -> dict[str, Any]:
    """Return what a host has for a machine.  Raises JobError, TargetError."""
    host = LibvirtHost(uri)
    try:
        with libvirt_errors("The pools could not be listed"):
            names = sorted(pool.name() for pool in host.connection.listAllStoragePools())
        return {
            "is_local": host.is_local,
            "pools": [_pool(host, name) for name in names],
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


def main(argv: list[str]) -> int:
    """Print the line."""
    kind, place = argv
    try:
        found = describe_folder(Path(place)) if kind == "folder" else describe_host(place)
    except (JobError, TargetError) as error:
        return _say({"message": error.message, "remedy": error.remedy}, 1)
    except OSError as error:
        return _say({"message": f"{place} cannot be read: {error}.", "remedy": ""}, 1)
    return _say(found, 0)


def _say(answer: dict[str, Any], code: int) -> int:
    sys.stdout.write(json.dumps(answer) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
