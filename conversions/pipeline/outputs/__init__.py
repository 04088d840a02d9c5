"""Where a converted VM can go, one module each."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from conversions.pipeline.job import Job, Target
from conversions.pipeline.output_kinds import kind_of
from conversions.pipeline.outputs.base import Output
from conversions.pipeline.report import Reporter

# Loaded when wanted: some need a client library that takes a second to load.
_CLASSES = {
    "libvirt": "libvirt:LibvirtOutput",
    "local": "local:LocalOutput",
    "null": "null:NullOutput",
    "qemu": "qemu:QemuOutput",
}


def output_for(job: Job, report: Reporter) -> Output:
    """Return the output a job asks for; a job without a target gets a local one for previews.

    Raises JobError for an unknown kind.
    """
    target = job.target or Target(directory="/")
    module, _, name = _CLASSES[kind_of(target.kind).name].partition(":")
    output: Callable[[Target, str | None, Reporter], Output] = getattr(
        import_module(f"{__name__}.{module}"), name
    )
    return output(target, job.name, report)
