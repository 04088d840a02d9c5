"""What an engine must have before anything is made there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from conversions.pipeline.errors import TargetError
from conversions.pipeline.job import Target
from conversions.pipeline.outputs.ovirt_api import Engine, NotThereError
from conversions.pipeline.outputs.ovirt_xml import random_uuid

_STORAGE = re.compile(r"[A-Za-z0-9_-]+")
# What the engine itself lets names be; nothing in it means something in a search.
_NAME = re.compile(r"[\w.+-]{1,255}")
_DISKS = "ovirt-disk-uuid"
DEFAULT_CLUSTER = "Default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the machine goes; `free_bytes` None when the engine does not say."""

    storage: str
    storage_id: str
    cluster: str
    cluster_id: str
    arch: str
    free_bytes: int | None


def check_storage_name(storage: str) -> None:
    """Refuse names that no storage domain can have.  Raises TargetError."""
    if not _STORAGE.fullmatch(storage):
        raise TargetError(
            f"{storage!r} cannot be the name of a storage domain.",
            remedy="It has letters, digits, - and _ only (-os).",
        )


def check_vm_name(name: str) -> None:
    """Refuse names that oVirt's machines cannot have.  Raises TargetError."""
    if not _NAME.fullmatch(name):
        raise TargetError(
            f"{name!r} cannot be the name of a machine in oVirt.",
            remedy="Give another name (-on): letters, digits, and the characters . _ + -",
        )


def disk_uuids(target: Target, count: int) -> Sequence[str]:
    """Return the identities that the disks are to have, fresh ones when none are given.

    They are ours to choose, so that a disk can be noted before it is made.  Raises TargetError.
    """
    given = target.options.get(_DISKS, ())
    if not given:
        return [random_uuid() for _ in range(count)]
    if len(given) != count:
        raise TargetError(
            f"The machine has {count} disks, but {_DISKS} was given {len(given)} times.",
            remedy=f"Give -oo {_DISKS}= once for each disk, or not at all.",
        )
    for text in given:
        try:
            value = UUID(text)
        except ValueError:
            value = UUID(int=0)
        if value.int == 0 or str(value) != text.lower():
            raise TargetError(f"-oo {_DISKS}={text[:80]!r} is no UUID that a disk can have.")
    if len({text.lower() for text in given}) != count:
        raise TargetError(f"Two disks have the same UUID (-oo {_DISKS}).")
    return [text.lower() for text in given]


def find_place(engine: Engine, storage: str, cluster: str) -> Place:
    """Return where the machine goes.  Raises EngineError, TargetError."""
    search = f"storage.name={storage}"
    centers = engine.all_of("datacenters", "data_center", search=search, case_sensitive="true")
    if not centers:
        raise TargetError(
            f"The engine has no data centre with a storage domain {storage}.",
            remedy="Choose another one (-os), or attach it to a data centre.",
        )
    center = centers[0]
    attached = engine.all_of(f"datacenters/{center['id']}/storagedomains", "storage_domain")
    domain = next((d for d in attached if d.get("name") == storage), None)
    if domain is None:
        raise TargetError(f"The storage domain {storage} is not attached to {center.get('name')}.")
    clusters = engine.all_of(f"datacenters/{center['id']}/clusters", "cluster")
    found = next((c for c in clusters if c.get("name") == cluster), None)
    if found is None:
        names = ", ".join(sorted(str(c.get("name")) for c in clusters)) or "none"
        raise TargetError(
            f"The data centre {center.get('name')} of {storage} has no cluster {cluster}.",
            remedy=f"Give another one with -oo ovirt-cluster=. It has: {names}.",
        )
    arch = str(found.get("cpu", {}).get("architecture", "undefined"))
    if arch == "undefined":
        raise TargetError(
            f"The cluster {cluster} has no processor architecture yet.",
            remedy="Set its type of processor in oVirt.",
        )
    free = str(domain.get("available", ""))
    return Place(
        storage=storage,
        storage_id=str(domain["id"]),
        cluster=cluster,
        cluster_id=str(found["id"]),
        arch=arch,
        free_bytes=int(free) if free.isdecimal() else None,
    )


def refuse_taken(engine: Engine, name: str, uuids: Sequence[str]) -> None:
    """Refuse a name and identities that are taken.  Raises EngineError, TargetError."""
    same = engine.all_of("vms", "vm", search=f"name={name}", case_sensitive="true")
    if any(vm.get("name") == name for vm in same):
        raise TargetError(
            f"The engine has a machine {name} already.",
            remedy="Give the machine another name (-on).",
        )
    for uuid in uuids:
        try:
            engine.get(f"disks/{uuid}")
        except NotThereError:
            continue
        raise TargetError(f"The engine has a disk {uuid} already.")
