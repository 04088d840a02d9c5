"""Going on from the copy with the overlays that an earlier run has converted and kept."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from conversions.pipeline.commands import run
from conversions.pipeline.errors import TargetError
from conversions.pipeline.job import Job
from conversions.pipeline.kept import Kept, opened
from conversions.pipeline.last_steps import write_target
from conversions.pipeline.outputs import output_for
from conversions.pipeline.overlay import create_layer, report_overlays
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.source import changed_files, open_source, tell_source
from conversions.pipeline.space import measured_bytes
from conversions.pipeline.steps import Step
from conversions.pipeline.types import Overlay
from conversions.pipeline.work import work_folder
from inventory.sources.base import disk_uri
from inventory.sources.errors import SourceError
from inventory.sources.nbdkit import Servers
from inventory.sources.types import Source

_REASON = "continued from the copy: an earlier run has done it"
_REMEDY = "The converted disks are of use only with the source as it was. Convert it anew."


def resume(job: Job, folder: Path, report: Reporter) -> None:
    """Copy what lies converted in a folder that was kept; remove the folder after success.

    Target, names and networks are those of this job; what was done inside the guest stays.  After
    a failure the folder is as it was.  Raises ConversionError or SourceError.
    """
    with ExitStack() as stack:
        with report.step(Step.REQUEST):
            kept = stack.enter_context(opened(folder, report))
            kept.refuse_other(job)
            work = stack.enter_context(work_folder(job, report))
            output = output_for(job, work, report)
            report.report(
                "request",
                {"mode": job.mode, "output": output.describe(), "resume": str(folder)},
            )
        with report.step(Step.SOURCE):
            servers = stack.enter_context(Servers(work, lambda line: report.log(Level.DEBUG, line)))
            source = reopened(job, kept, work, report, servers)
        with report.step(Step.OVERLAYS):
            overlays = layers_over(kept, source, work, report)
            converted = replace(kept.converted, source=source, overlays=overlays)
        with report.step(Step.TARGETS):
            targets = stack.enter_context(output.prepare(source, overlays))
        for step in (Step.HANDLE, Step.LAUNCH, Step.INSPECTION):
            report.skip(step, _REASON)
        with report.step(Step.SPACE):
            measured = measured_bytes(source, overlays, report)
            output.check_space({**converted.estimates, **measured}, overlays)
        for step in (Step.CONVERSION, Step.TRIM, Step.CLOSE):
            report.skip(step, _REASON)
        write_target(job, converted, output, targets, servers, work, report)
        shutil.rmtree(folder, ignore_errors=True)
        report.log(Level.INFO, f"Removed: {folder}, which is of no more use.")


def reopened(job: Job, kept: Kept, work: Path, report: Reporter, servers: Servers) -> Source:
    """Open the source once more and prove that it is the one that was converted.

    What a package was unpacked into is still there and read as it is.  Raises SourceError,
    TargetError.
    """
    before = kept.converted.source
    source = before
    if kept.unpacked:
        tell_source(before, report)
    else:
        source = open_source(replace(job, verify_digests=False), work, report, servers)
    if _comparable(source) != _comparable(before):
        raise TargetError(
            f"{before.name} is described otherwise than when it was converted.",
            remedy=_REMEDY,
            code="E-SOURCE-CHANGED",
        )
    try:
        changed = changed_files(source, job.source.location, kept.converted.before)
    except SourceError as error:
        raise TargetError(
            f"The source of {before.name} cannot be read any more: {error.message}", remedy=_REMEDY
        ) from error
    if changed:
        raise TargetError(
            f"{', '.join(changed)} changed since {before.name} was converted.",
            remedy=_REMEDY,
            code="E-SOURCE-CHANGED",
        )
    if remote := [disk.path for disk in source.disks if disk.remote]:
        report.log(
            Level.WARNING,
            f"Nobody here can tell whether the machine was started since: {', '.join(remote)}. "
            "If it was, convert it anew: its converted disks would be damaged.",
        )
    return source


def _comparable(source: Source) -> object:
    """Return what must be the same; the addresses of our own servers may differ."""
    values = source.to_dict()
    for disk in values["disks"]:
        del disk["node"]
    return values


def layers_over(kept: Kept, source: Source, work: Path, report: Reporter) -> tuple[Overlay, ...]:
    """Lead the kept overlays to where the source is now; return new layers above them.

    What was kept is not written to: each try has a layer of its own.  Raises CommandError.
    """
    overlays = []
    for overlay, disk in zip(kept.converted.overlays, source.disks, strict=True):
        below, fmt = disk_uri(disk), disk.format
        for layer in kept.layers[overlay.sd]:
            # A copy that was cut off may have left it leading to a target, a server is new.
            rebase = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", below, "-F", fmt]
            run([*rebase, str(layer)], report)
            below, fmt = str(layer), "qcow2"
        top = create_layer(overlay, work, report)
        overlays.append(replace(top, source_uri=disk_uri(disk)))
    report_overlays(overlays, report)
    return tuple(overlays)
