"""The columns and rows that lists and searches need of a machine, taken from its record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inventory.models import SourceDisk, SourceNic, SourceVM
from inventory.sources import types
from inventory.sources.types import Source

BATCH = 500
# What the columns hold; a source may say more.
_MAX_BIGINT = 2**63 - 1
_MAX_INT = 2**31 - 1


def columns_of(source: Source) -> dict[str, Any]:
    """Return the columns of a SourceVM that say what its record says, cut to what they hold."""
    capacity = sum(_capacity_of(disk) or 0 for disk in source.disks)
    return {
        "name": source.name[:255],
        "hypervisor": source.hypervisor[:40],
        "os_hint": (source.os_hint or "")[:200],
        "firmware": source.firmware,
        "memory_bytes": min(source.memory_bytes, _MAX_BIGINT),
        "vcpus": min(source.vcpus, _MAX_INT),
        "disk_bytes": min(capacity, _MAX_BIGINT),
        "record": source.to_dict(),
    }


def _capacity_of(disk: types.SourceDisk) -> int | None:
    """Return how large the guest sees a disk, cut to what the column holds; None if not known."""
    stated = disk.virtual_size_bytes or disk.declared_capacity_bytes
    return None if stated is None else min(stated, _MAX_BIGINT)


def store_parts(vms: Sequence[SourceVM]) -> None:
    """Write the rows of the machines' disks and network cards anew, in a few queries for all."""
    SourceDisk.objects.filter(vm__in=vms).delete()
    SourceNic.objects.filter(vm__in=vms).delete()
    pairs = [(vm, vm.source) for vm in vms]
    SourceDisk.objects.bulk_create(
        [
            SourceDisk(
                vm=vm,
                index=disk.id,
                controller=disk.controller or "",
                format=disk.format,
                file=(disk.member or Path(disk.path).name)[:1024],
                capacity_bytes=_capacity_of(disk),
            )
            for vm, source in pairs
            for disk in source.disks
        ],
        batch_size=BATCH,
    )
    SourceNic.objects.bulk_create(
        [
            SourceNic(
                vm=vm,
                index=index,
                vnet=nic.vnet[:255],
                vnet_type=nic.vnet_type,
                mac=(nic.mac or "")[:20],
                model=(nic.model or "")[:40],
            )
            for vm, source in pairs
            for index, nic in enumerate(source.nics)
        ],
        batch_size=BATCH,
    )
