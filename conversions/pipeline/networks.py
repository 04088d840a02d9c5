"""Where source networks and bridges lead on the target."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from conversions.pipeline.errors import JobError
from conversions.pipeline.job import Job, NetworkMap
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import Inspection
from inventory.sources.types import Nic, VnetType

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def map_nics(nics: Sequence[Nic], mapping: NetworkMap) -> tuple[Nic, ...]:
    """Return the target's NICs in source order.

    A MAC entry replaces kind and name; otherwise the NIC's own table, then its default, else
    nothing changes.  MAC, order and number of NICs never change.
    """
    return tuple(_map(nic, mapping) for nic in nics)


def _map(nic: Nic, mapping: NetworkMap) -> Nic:
    if nic.mac and (entry := mapping.macs.get(nic.mac.lower())):
        kind = VnetType.NETWORK if entry[0] == "network" else VnetType.BRIDGE
        return replace(nic, vnet_type=kind, vnet=entry[1])
    if nic.vnet_type is VnetType.NETWORK:
        table, default = mapping.networks, mapping.default_network
    else:
        table, default = mapping.bridges, mapping.default_bridge
    return replace(nic, vnet=table.get(nic.vnet) or default or nic.vnet)


def warn_of_unused(job: Job, nics: Sequence[Nic], guest: Inspection, report: Reporter) -> None:
    """Warn of wishes for network cards that change nothing: of cards that are not there, and
    fixed addresses where nothing sets them."""
    macs = {nic.mac.lower() for nic in nics if nic.mac}
    fixed = {entry.mac for entry in job.windows.static_ips}
    if absent := sorted((fixed | set(job.network_map.macs)) - macs):
        report.log(
            Level.WARNING,
            f"The source has no network card {', '.join(absent)}; what was wished for it (--mac) "
            "is ignored.",
        )
    if fixed and guest.type != "windows":
        report.log(
            Level.WARNING,
            "Fixed addresses are set in Windows guests only; this one keeps its own configuration "
            "(ignored).",
        )


def parse_map(networks: Sequence[str], bridges: Sequence[str], macs: Sequence[str]) -> NetworkMap:
    """Read the values of -n, -b and --mac.  Raises JobError for bad or doubled ones."""
    network_table, default_network = _table("--network", networks)
    bridge_table, default_bridge = _table("--bridge", bridges)
    mac_table: dict[str, tuple[str, str]] = {}
    for value in macs:
        mac, kind, name = value[:17].lower().replace("-", ":"), *_kind(value)
        if not _MAC.fullmatch(mac) or kind not in ("network", "bridge") or not name:
            raise JobError(
                f"--mac {value!r} is not understood.",
                remedy="Write --mac 00:11:22:33:44:55:network:NAME or ...:bridge:NAME.",
            )
        if mac in mac_table:
            raise JobError(f"--mac names {mac} twice.")
        mac_table[mac] = (kind, name)
    return NetworkMap(
        networks=network_table,
        default_network=default_network,
        bridges=bridge_table,
        default_bridge=default_bridge,
        macs=mac_table,
    )


def _kind(value: str) -> tuple[str, str]:
    kind, _, name = value[18:].partition(":")
    return (kind, name) if value[17:18] == ":" else ("", "")


def _table(option: str, values: Sequence[str]) -> tuple[dict[str, str], str | None]:
    table: dict[str, str] = {}
    default: str | None = None
    for value in values:
        left, _, right = value.partition(":")
        if left and right:
            if left in table:
                raise JobError(f"{option} maps {left!r} twice.")
            table[left] = right
        elif left or right:
            if default is not None:
                raise JobError(f"{option} gives two defaults, {default!r} and {left or right!r}.")
            default = left or right
        else:
            raise JobError(f"{option} {value!r} names nothing.", remedy=f"Write {option} IN:OUT.")
    return table, default
