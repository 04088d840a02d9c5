"""The table of contents of a conversion: fifteen steps, one named call each."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from conversions.pipeline.appliance import Appliance
from conversions.pipeline.collect import collect_files
from conversions.pipeline.concerns import collect_concerns
from conversions.pipeline.context import Context
from conversions.pipeline.convert import pick_converter
from conversions.pipeline.converted import Converted
from conversions.pipeline.decrypt import unlock
from conversions.pipeline.direct import changing_disks
from conversions.pipeline.early_copy import can_copy_early, copying_early
from conversions.pipeline.firmware import detect_boot_disk
from conversions.pipeline.fsck import check_filesystems, has_old_counters
from conversions.pipeline.inspection import (
    inspect_guest,
    list_filesystems,
    mount_guest,
    report_filesystems,
)
from conversions.pipeline.job import Job, Mode
from conversions.pipeline.kept import remembered
from conversions.pipeline.last_steps import check_target, write_target
from conversions.pipeline.networks import warn_of_unused
from conversions.pipeline.outputs import output_for
from conversions.pipeline.outputs.base import Targets
from conversions.pipeline.overlay import create_overlays
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.resume import resume
from conversions.pipeline.source import fingerprint, open_source
from conversions.pipeline.space import (
    check_guest_space,
    estimate_targets,
    measured_bytes,
    mountpoint_stats,
)
from conversions.pipeline.steps import Step
from conversions.pipeline.trim import trim_filesystems
from conversions.pipeline.work import work_folder
from inventory.sources.nbdkit import Servers


def convert(job: Job, report: Reporter) -> None:
    """Run one job to its end, from its beginning or from the copy.

    Copies, rehearses, inspects or changes in place as `job.mode` says.  Except in place the source
    is only ever read.  Raises ConversionError or SourceError; whatever was made is removed then,
    but for the converted overlays where the job keeps them.
    """
    if job.resume:
        resume(job, Path(job.resume).absolute(), report)
        return
    copying = job.mode in (Mode.COPY, Mode.IN_PLACE)
    changing = job.mode is not Mode.INSPECT
    trimming = changing and job.trim and job.mode is not Mode.IN_PLACE
    with ExitStack() as stack:
        with report.step(Step.REQUEST):
            work = stack.enter_context(work_folder(job, report))
            output = output_for(job, work, report)
            report.report("request", {"mode": job.mode, "output": output.describe()})
        with report.step(Step.SOURCE):
            servers = stack.enter_context(Servers(work, lambda line: report.log(Level.DEBUG, line)))
            source = open_source(job, work, report, servers)
        with report.step(Step.OVERLAYS):
            overlays = create_overlays(source, work, report, direct=job.direct)
            # Now, as nothing has them open yet.
            in_place = job.mode is Mode.IN_PLACE
            measured = {} if in_place else measured_bytes(source, overlays, report)
        targets: Targets | None = None
        if copying:
            with report.step(Step.TARGETS):
                targets = stack.enter_context(output.prepare(source, overlays))
        else:
            report.skip(Step.TARGETS, f"{job.mode} mode: nothing is written")
        with report.step(Step.HANDLE):
            # Only now: preparing the target may have finished a commit into the source's disks.
            before = fingerprint(source, job.source.location)
            appliance = Appliance(job, overlays, report, read_only=not changing)
            stack.callback(appliance.kill)
        if job.direct:  # the appliance itself writes: to RAID arrays, journals, at every mount
            stack.enter_context(changing_disks(overlays, report))
        with report.step(Step.LAUNCH):
            g = appliance.launch()
        with report.step(Step.INSPECTION):
            closed = unlock(g, job.keys, read_only=not changing, report=report)
            filesystems = list_filesystems(g)  # takes seconds, and stays as it is
            if changing and job.fsck:
                check_filesystems(g, filesystems, when="before", strict=True, report=report)
            guest = inspect_guest(
                g, filesystems, root=job.root, read_only=not changing, report=report
            )
            report_filesystems(g, filesystems, report)
        with report.step(Step.SPACE):
            stats = mountpoint_stats(g, report)
            estimates = estimate_targets(stats, overlays, measured, report, trimming=job.trim)
            if changing:
                check_guest_space(stats, report, uefi=guest.is_uefi)
            if targets is not None:
                output.check_space(estimates, overlays)
                disks = output.target_disks(source, overlays, estimates)
                check_target(job, source, guest, output, disks)
                if can_copy_early(job, guest, estimates, disks):
                    if trimming:
                        trim_filesystems(g, filesystems, report)
                    appliance.shutdown()
                    overlays = stack.enter_context(
                        copying_early(output, targets, disks, job, work, report)
                    )
                    g = appliance.launch(overlays)
                    unlock(g, job.keys, read_only=False, report=report)
                    mount_guest(g, guest.mountpoints, read_only=False, report=report)
        with report.step(Step.CONVERSION):
            context = Context(
                g=g, guest=guest, source=source, job=job, report=report, work=work, change=changing,
                closed=closed,
            )  # fmt: skip
            if job.collect:
                collect_files(g, job.collect, Path(job.collect_output), work, report)
            collect_concerns(context, stats)
            warn_of_unused(job, source.nics, guest, report)
            guestcaps = pick_converter(guest).convert(context)
            boot_disk = detect_boot_disk(g, guest, overlays)
            report.report("boot_disk", boot_disk)
        if trimming:
            with report.step(Step.TRIM):
                trim_filesystems(g, filesystems, report)
        else:
            report.skip(
                Step.TRIM, "turned off" if changing and job.trim is False else f"{job.mode} mode"
            )
        with report.step(Step.CLOSE):
            if changing and job.fsck and not has_old_counters(guest):
                g.umount_all()
                # What is damaged never gets into the source's own disks.
                strict = job.mode is Mode.IN_PLACE and not job.direct
                check_filesystems(g, filesystems, when="after", strict=strict, report=report)
            appliance.shutdown()
            converted = Converted(
                source=source, before=before, overlays=overlays, estimates=estimates, guest=guest,
                guestcaps=guestcaps, boot_disk=boot_disk,
            )  # fmt: skip
            stack.enter_context(remembered(work, job, converted))
        write_target(job, converted, output, targets, servers, work, report)
