"""Where a converted VM can go, one module each."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from conversions.pipeline.job import Job, Mode, Target
from conversions.pipeline.output_kinds import kind_of
from conversions.pipeline.outputs.base import Output
from conversions.pipeline.report import Reporter

# Loaded when wanted: some need a client library that takes a second to load.
_CLASSES = {
    "glance": "glance:GlanceOutput",
    "in_place": "in_place:InPlaceOutput",
    "kubevirt": "kubevirt:KubevirtOutput",
    "libvirt": "libvirt:LibvirtOutput",
    "local": "local:LocalOutput",
    "null": "null:NullOutput",
    "openstack": "openstack:OpenStackOutput",
    "ovirt": "ovirt:OvirtOutput",
    "ovirt-upload": "ovirt_upload:OvirtUploadOutput",
    "qemu": "qemu:QemuOutput",
    "vdsm": "vdsm:VdsmOutput",
}


def output_for(job: Job, work: Path, report: Reporter) -> Output:
    """Return the output a job asks for; a job without a target gets a local one for previews.

    Raises JobError for an unknown kind.
    """
    output: Output
    if job.mode is Mode.IN_PLACE:
        output = _class("in_place")(job, work, report)
    else:
        target = job.target or Target(directory="/")
        output = _class(kind_of(target.kind).name)(target, job.name, report)
    return output


def _class(kind: str) -> Any:
    module, _, name = _CLASSES[kind].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), name)
