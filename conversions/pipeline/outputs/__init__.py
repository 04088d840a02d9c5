"""Where a converted VM can go, one module each."""

from __future__ import annotations

from pathlib import Path

from conversions.pipeline.errors import JobError
from conversions.pipeline.job import Job, Mode, Target
from conversions.pipeline.outputs.base import Output
from conversions.pipeline.outputs.in_place import InPlaceOutput
from conversions.pipeline.outputs.local import LocalOutput
from conversions.pipeline.report import Reporter


def output_for(job: Job, work: Path, report: Reporter) -> Output:
    """Return the output a job asks for; a job without a target gets a local one for previews.

    Raises JobError for an unknown kind.
    """
    if job.mode is Mode.IN_PLACE:
        return InPlaceOutput(job, work, report)
    target = job.target or Target(directory="/")
    if target.kind != "local":
        raise JobError(f"Output {target.kind!r} is not known; local is.")
    return LocalOutput(target, job.name, report)
