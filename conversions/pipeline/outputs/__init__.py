"""Where a converted VM can go, one module each."""

from __future__ import annotations

from collections.abc import Callable

from conversions.pipeline.job import Job, Target
from conversions.pipeline.output_kinds import kind_of
from conversions.pipeline.outputs.base import Output
from conversions.pipeline.outputs.local import LocalOutput
from conversions.pipeline.outputs.null import NullOutput
from conversions.pipeline.outputs.qemu import QemuOutput
from conversions.pipeline.report import Reporter

_OUTPUTS: dict[str, Callable[[Target, str | None, Reporter], Output]] = {
    "local": LocalOutput,
    "null": NullOutput,
    "qemu": QemuOutput,
}


def output_for(job: Job, report: Reporter) -> Output:
    """Return the output a job asks for; a job without a target gets a local one for previews.

    Raises JobError for an unknown kind.
    """
    target = job.target or Target(directory="/")
    return _OUTPUTS[kind_of(target.kind).name](target, job.name, report)
