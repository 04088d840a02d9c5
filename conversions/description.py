"""What a run wrote, or would have written, to describe the machine; kept among its reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from conversions.models import Conversion
from conversions.pipeline.outputs.preview import description_text

# By the name of the report: the ending of its file, what it is.
_KINDS: dict[str, tuple[str, Any]] = {
    "libvirt_xml": ("xml", lambda: _("libvirt XML of the machine")),
    "qemu_script": ("sh", lambda: _("Script that starts the machine")),
    "kubevirt_yaml": ("yaml", lambda: _("Manifest of the machine for KubeVirt")),
    "ovf": ("ovf", lambda: _("OVF of the machine for oVirt")),
    "image_properties": ("txt", lambda: _("Properties that OpenStack starts the machine by")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The text, in words what it is, and the name of its file when it is downloaded."""

    title: str
    text: str
    file_name: str


def description_of(conversion: Conversion) -> Description | None:
    """Return a run's description of the machine; None before it has made one."""
    for name, (ending, title) in _KINDS.items():
        if data := conversion.reports.get(name):
            file_name = f"v2vweb-{conversion.pk}.{ending}"
            return Description(title=title(), text=description_text(data), file_name=file_name)
    return None
