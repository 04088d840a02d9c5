"""What a job would write to describe the machine, before it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from conversions.pipeline.errors import JobError, TargetError
from conversions.pipeline.guestcaps import expected_guestcaps, guestcaps_from_dict
from conversions.pipeline.job import Job, NetworkMap, Target
from conversions.pipeline.networks import map_nics
from conversions.pipeline.outputs import output_for
from conversions.pipeline.outputs.domain_host import assumed_host
from conversions.pipeline.outputs.folder import FolderOutput
from conversions.pipeline.outputs.libvirt_xml import domain_xml
from conversions.pipeline.report import Level, RecordingReporter
from conversions.pipeline.target_buses import assign_target_buses
from conversions.pipeline.topology import with_fitting_topology
from conversions.pipeline.types import (
    Guestcaps,
    Inspection,
    Overlay,
    TargetBuses,
    TargetDisk,
    TargetMeta,
)
from inventory.sources.types import Firmware, Source, disk_letters

# Of outputs that need to ask nobody for what they would write.
_TITLES = {"openstack": "properties of the volume to start from", "ovirt-upload": "OVF for oVirt"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The text, what it is, and what the target will not have; `problems` may come with no text."""

    title: str
    text: str
    problems: tuple[str, ...] = ()


def preview(source: Source, reports: Mapping[str, Any], job: Job) -> Preview:
    """Return what a job would write, from the reports of an earlier inspection.

    Without one, the capabilities of a current guest are expected.  Paths and names are the job's.
    """
    target = job.target or Target(directory="/")
    report = RecordingReporter()
    meta = preview_meta(with_fitting_topology(source, report), reports, job)
    title = _TITLES.get(target.kind, "libvirt domain XML")
    try:
        output = output_for(replace(job, target=target), Path("/"), report)
        if isinstance(output, FolderOutput):
            title = output.title
            output.metadata(meta)
            text = next(iter(output.reported(meta).values()))
        elif target.kind in _TITLES:
            output.preview(meta)
            text = description_text(report.of("report")[-1]["data"])
        else:
            text = _libvirt_xml(meta, target)
    except (JobError, TargetError) as error:
        problem = f"{error.message} {error.remedy}".strip()
        return Preview(title=title, text="", problems=(problem,))
    heard = [e["text"] for e in report.of("log") if e["level"] == Level.WARNING]
    return Preview(title=title, text=text, problems=tuple(heard))


def description_text(data: Mapping[str, str]) -> str:
    """Return the text in a report that describes a machine; properties as one on each line."""
    whole = data.get("text") or data.get("xml")
    return whole or "\n".join(f"{key}={value}" for key, value in data.items())


def preview_meta(source: Source, reports: Mapping[str, Any], job: Job) -> TargetMeta:
    """Return what an output would be told of the machine."""
    caps = guestcaps_from_dict(reports["guestcaps"]) if "guestcaps" in reports else None
    caps = caps or expected_guestcaps()
    target = job.target or Target()
    name = job.name or source.name
    inspection = reports.get("inspection", {})
    uefi = source.firmware is Firmware.UEFI or (
        source.firmware is Firmware.UNKNOWN and bool(inspection.get("uefi_esps"))
    )
    return TargetMeta(
        source=source,
        name=name,
        guestcaps=caps,
        buses=_buses(source, _disks(source, target, name), caps),
        nics=map_nics(source.nics, job.network_map or NetworkMap()),
        uefi=uefi,
        boot_disk=reports.get("boot_disk"),
        guest=_guest(inspection),
        keep_display=target.keep_display,
    )


def _libvirt_xml(meta: TargetMeta, target: Target) -> str:
    """Return the domain as a current host would be given it."""
    host = assumed_host(meta.guestcaps.arch)
    if target.kind == "libvirt":
        paths = [o.final_path for o in _target_disks(meta.buses)]
        host = replace(host, volumes={p: (target.storage, Path(p).name) for p in paths})
    return domain_xml(meta, host)


def _target_disks(buses: TargetBuses) -> list[TargetDisk]:
    slots = (*buses.virtio_blk, *buses.ide, *buses.scsi)
    return [slot for slot in slots if isinstance(slot, TargetDisk)]


def _guest(inspection: Mapping[str, Any]) -> Inspection | None:
    """Return the guest as it was seen, without its applications; None if that is not known."""
    known = {f.name for f in fields(Inspection)}
    values = {key: value for key, value in inspection.items() if key in known}
    try:
        return Inspection(**values | {"applications": ()})
    except TypeError:  # no inspection yet, or one of an older engine
        return None


def _disks(source: Source, target: Target, name: str) -> list[TargetDisk]:
    stem = f"{target.directory.rstrip('/')}/{name.replace('/', '_')}"
    return [
        TargetDisk(
            overlay=Overlay(
                sd="sd" + disk_letters(disk.id),
                path="",
                virtual_size_bytes=disk.virtual_size_bytes or 0,
                source_uri="",
                source_format=disk.format,
                source_controller=disk.controller,
                source_label=disk.path,
            ),
            final_path=f"{stem}-sd{disk_letters(disk.id)}",
            part_path="",
            format=target.format,
        )
        for disk in source.disks
    ]


def _buses(source: Source, disks: Sequence[TargetDisk], caps: Guestcaps) -> TargetBuses:
    return assign_target_buses(disks, source.removables, caps, RecordingReporter())
