"""The steps from the target buses on: of a conversion, and of one that is continued later."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from conversions.pipeline.convert import likely_guestcaps
from conversions.pipeline.converted import Converted
from conversions.pipeline.firmware import is_uefi_target
from conversions.pipeline.job import Job, Mode
from conversions.pipeline.kept import forget
from conversions.pipeline.networks import map_nics
from conversions.pipeline.outputs.base import Output, Targets
from conversions.pipeline.report import RecordingReporter, Reporter
from conversions.pipeline.source import refuse_changed, report_unchanged
from conversions.pipeline.space import measured_bytes
from conversions.pipeline.steps import Step
from conversions.pipeline.target_buses import assign_target_buses
from conversions.pipeline.topology import with_fitting_topology
from conversions.pipeline.types import Inspection, TargetDisk, TargetMeta
from inventory.sources.nbdkit import Servers
from inventory.sources.types import Source


def check_target(
    job: Job, source: Source, guest: Inspection, output: Output, disks: Sequence[TargetDisk]
) -> None:
    """Refuse a machine that the target cannot have before the work is done.  Raises TargetError.

    Taken is what the guest can do when nothing is in the way; once it is known, `write_target`
    checks that, and warns.
    """
    likely = Converted(
        source=source, before={}, overlays=(), estimates={}, guest=guest,
        guestcaps=likely_guestcaps(guest), boot_disk=None,
    )  # fmt: skip
    output.check(_target_meta(job, likely, output, disks, RecordingReporter()))


def _target_meta(
    job: Job,
    converted: Converted,
    output: Output,
    disks: Sequence[TargetDisk],
    report: Reporter,
) -> TargetMeta:
    source, guestcaps = converted.source, converted.guestcaps
    return TargetMeta(
        source=with_fitting_topology(source, report),
        name=output.name_for(source),
        guestcaps=guestcaps,
        buses=assign_target_buses(disks, source.removables, guestcaps, report),
        nics=map_nics(source.nics, job.network_map),
        uefi=is_uefi_target(source, converted.guest, report),
        boot_disk=converted.boot_disk,
        guest=converted.guest,
        keep_display=bool(job.target and job.target.keep_display),
    )


def write_target(
    job: Job,
    converted: Converted,
    output: Output,
    targets: Targets | None,
    servers: Servers,
    work: Path,
    report: Reporter,
) -> None:
    """Copy what was converted to its target and describe it there; without targets only preview.

    Raises CommandError, TargetError, Stopped.
    """
    source, location = converted.source, job.source.location
    overlays = converted.overlays
    with report.step(Step.TARGET_BUSES):
        disks = output.target_disks(source, overlays, converted.estimates)
        meta = _target_meta(job, converted, output, disks, report)
        if targets is not None:
            output.check(meta)
    if targets is not None:
        with report.step(Step.COPY):
            if job.mode is Mode.IN_PLACE and not job.direct:
                refuse_changed(source, location, converted.before)
            servers.stop_keeping()
            if job.mode is Mode.COPY and not any(overlay.early for overlay in overlays):
                measured = measured_bytes(source, overlays, report)
                output.check_space({**converted.estimates, **measured}, overlays)
            output.copy(targets, disks, job.copy)
        with report.step(Step.METADATA):
            output.write_metadata(targets, meta)
    else:
        output.preview(meta)
        for step in (Step.COPY, Step.METADATA):
            report.skip(step, f"{job.mode} mode: nothing is written")
    with report.step(Step.FINISH):
        if job.mode is not Mode.IN_PLACE:
            report_unchanged(source, location, converted.before, report)
        if targets is not None:
            targets.commit()
            forget(work)
