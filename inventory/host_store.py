"""What was read from a host as rows: machines, disks and cards, all of a host in a few queries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from inventory.changes import compare, compare_power, remember
from inventory.machine_rows import BATCH, columns_of, store_parts
from inventory.models import LibvirtHost, SourceVM
from inventory.sources.host_listing import ListedDomain
from inventory.sources.types import Source

# What a reading may change in a row.
_FIELDS = [
    "name", "status", "power", "has_saved_memory", "snapshots", "pools", "problem", "warnings",
    "changes", "hypervisor", "os_hint", "firmware", "memory_bytes", "vcpus", "disk_bytes", "record",
]  # fmt: skip


def store_domains(
    host: LibvirtHost, domains: Sequence[ListedDomain], *, since: datetime, now: datetime
) -> None:
    """Make the host's machines those that were listed; what is no longer there becomes gone.

    What was told of a machine after the listing began (`since`) is newer, and stays.  Call inside a
    transaction that holds the host's row.  The number of queries does not grow with the domains
    except by batches, and rows that have not changed are not written.
    """
    known = {vm.location: vm for vm in SourceVM.objects.filter(host=host)}
    newer = {uuid for uuid, vm in known.items() if vm.seen_at and vm.seen_at > since}
    listed = {domain.uuid: domain for domain in domains if domain.uuid not in newer}
    gone = []
    for uuid, vm in known.items():
        if uuid not in listed and uuid not in newer and vm.status != SourceVM.Status.GONE:
            vm.status = SourceVM.Status.GONE
            gone.append(vm)
    _store(host, known, listed.values(), gone, now)
    SourceVM.objects.filter(host=host).exclude(status=SourceVM.Status.GONE).update(seen_at=now)


def store_change(host: LibvirtHost, domain: ListedDomain, *, now: datetime) -> None:
    """Store what a host has told of one domain.  Call as store_domains."""
    rows = SourceVM.objects.filter(host=host, location=domain.uuid)
    _store(host, {vm.location: vm for vm in rows}, [domain], [], now)
    rows.update(seen_at=now)


def store_end(host: LibvirtHost, uuid: str, *, now: datetime) -> None:
    """Store that a host does not have a domain any more.  Call as store_domains."""
    rows = SourceVM.objects.filter(host=host, location=uuid)
    there = rows.exclude(status=SourceVM.Status.GONE)
    if there.update(status=SourceVM.Status.GONE, seen_at=now):
        LibvirtHost.objects.filter(pk=host.pk).update(changed_at=now)


def _store(
    host: LibvirtHost,
    known: Mapping[str, SourceVM],
    domains: Iterable[ListedDomain],
    changed: list[SourceVM],
    now: datetime,
) -> None:
    """Write the machines of these domains, new or changed, and those that have changed already."""
    kind = SourceVM.VMX_OVER_SSH if host.is_folder else SourceVM.DOMAIN
    added: list[SourceVM] = []
    rewired: list[SourceVM] = []
    for domain in domains:
        values = _values(domain)
        vm = known.get(domain.uuid)
        if vm is None:
            added.append(
                SourceVM(
                    kind=kind, host=host, location=domain.uuid,
                    created_by_id=host.created_by_id, **values,
                )
            )  # fmt: skip
            continue
        values["changes"] = _changes(vm, domain, values["record"], now)
        is_rewired = vm.record != values["record"]
        if any(getattr(vm, name) != value for name, value in values.items()):
            for name, value in values.items():
                setattr(vm, name, value)
            changed.append(vm)
        if is_rewired:
            rewired.append(vm)
    SourceVM.objects.bulk_create(added, batch_size=BATCH)
    SourceVM.objects.bulk_update(changed, _FIELDS, batch_size=BATCH)
    store_parts([*added, *rewired])
    if added or changed:
        LibvirtHost.objects.filter(pk=host.pk).update(changed_at=now)


def _changes(
    vm: SourceVM, domain: ListedDomain, record: dict[str, Any], now: datetime
) -> list[dict[str, str]]:
    """Return the machine's changes with those of this reading; a bare record is not compared."""
    found = compare_power(vm.power, domain.power)
    if domain.source is not None and not vm.problem and vm.record != record:
        found += compare(vm.source, domain.source)
    return remember(vm.changes, found, now.isoformat()) if found else vm.changes


def _values(domain: ListedDomain) -> dict[str, Any]:
    """Return a machine's columns."""
    source = domain.source or Source(
        name=domain.name,
        original_name=domain.name,
        hypervisor="unknown",
        memory_bytes=domain.memory_bytes,
        vcpus=domain.vcpus,
        disks=(),
    )
    return columns_of(source) | {
        "name": domain.name[:255],
        "firmware": source.firmware.value,
        "status": SourceVM.Status.READY.value,
        "power": domain.power.value,
        "has_saved_memory": domain.has_saved_memory,
        "snapshots": list(domain.snapshots),
        "pools": list(domain.pools),
        "problem": domain.problem,
        "warnings": list(domain.warnings),
        "record": _plain(source.to_dict()),
    }


def _plain(value: Any) -> Any:
    """Return a record as it comes back from the database: lists for tuples, plain strings."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, str) else value
