"""What a conversion needs and what there is, place by place, before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from conversions.health import measure_folder
from conversions.pipeline.job import Job
from conversions.pipeline.outputs.folder import RESERVE_BYTES
from conversions.pipeline.work import MIN_FREE_BYTES
from inventory.models import SourceVM

_GIB = 1 << 30
# What is filled there, by the kind of target.
_REMOTE = {"libvirt": "pool", "openstack": "quota", "ovirt-upload": "domain"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One place: what is needed there at most, what is free, and how the need was found.

    `basis` is "work", "upload" (the same, and the largest disk until it is sent), "estimate" (an
    inspection measured the guest), "capacity" (no inspection yet, so the disks' full size), "full"
    (preallocated: the full size by choice) or "volumes" (whole GiB of each disk's full size).
    """

    place: str
    path: str
    need_bytes: int
    have_bytes: int | None
    basis: str

    @property
    def is_enough(self) -> bool:
        """Tell whether it fits; unknown free space does not stop anyone."""
        return self.have_bytes is None or self.have_bytes >= self.need_bytes

    @property
    def missing_bytes(self) -> int:
        """Return how much is missing, 0 when it fits."""
        return max(0, self.need_bytes - (self.have_bytes or 0)) if not self.is_enough else 0


def needs(
    vm: SourceVM,
    job: Job,
    reports: Mapping[str, Any],
    work_dir: Path,
    *,
    remote_free_bytes: int | None = None,
) -> list[Need]:
    """Return the table of needs for a job; the target row is only there when one is written.

    Of a place on a server the caller says how much is free.
    """
    waiting = _waiting_bytes(vm, job, reports)
    work_bytes = MIN_FREE_BYTES + waiting
    rows = [_need("work", work_dir, work_bytes, "upload" if waiting else "work")]
    if job.target is None:
        return rows
    need_bytes, basis = _target_need(vm, job, reports)
    if job.target.kind in _REMOTE:
        remote = Need(
            place=_REMOTE[job.target.kind],
            path=job.target.place,
            need_bytes=need_bytes,
            have_bytes=remote_free_bytes,
            basis=basis,
        )
        return [*rows, remote]
    target = Path(job.target.directory)
    if _same_file_system(work_dir, target):
        need_bytes += MIN_FREE_BYTES
    rows.append(_need("target", target, need_bytes, basis))
    return rows


def _waiting_bytes(vm: SourceVM, job: Job, reports: Mapping[str, Any]) -> int:
    """Return what lies in the work folder until it is sent to libvirt on another host."""
    target = job.target
    if target is None or target.kind != "libvirt" or not urlsplit(target.uri).netloc:
        return 0
    estimates = reports.get("estimate", {}).get("disks")
    is_estimate = estimates and target.allocation == "sparse"
    return max(estimates.values() if is_estimate else _sizes(vm), default=0) * 105 // 100


def _sizes(vm: SourceVM) -> list[int]:
    return [d.virtual_size_bytes or d.declared_capacity_bytes or 0 for d in vm.source.disks]


def _target_need(vm: SourceVM, job: Job, reports: Mapping[str, Any]) -> tuple[int, str]:
    sizes = _sizes(vm)
    capacity = sum(sizes)
    if job.target is not None and job.target.kind == "openstack":
        return sum(-(-size // _GIB) * _GIB for size in sizes), "volumes"
    if job.target is not None and job.target.allocation == "preallocated":
        return capacity + RESERVE_BYTES, "full"
    estimates = reports.get("estimate", {}).get("disks")
    if estimates:
        # The same 5 % as the engine's own check, for the image format's tables.
        return sum(estimates.values()) * 105 // 100 + RESERVE_BYTES, "estimate"
    return capacity + RESERVE_BYTES, "capacity"


def _need(place: str, path: Path, need_bytes: int, basis: str) -> Need:
    have_bytes = measure_folder(place, path)["free_bytes"]
    return Need(
        place=place, path=str(path), need_bytes=need_bytes, have_bytes=have_bytes, basis=basis
    )


def _same_file_system(one: Path, other: Path) -> bool:
    try:
        return one.stat().st_dev == other.stat().st_dev
    except OSError:
        return False
