"""What a run wrote, or would have written, to describe the machine; kept among its reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from conversions.models import Conversion

# By the name of the report: the key of the text in it, the ending of its file, what it is.
_KINDS: dict[str, tuple[str, str, Any]] = {
    "libvirt_xml": ("xml", "xml", lambda: _("libvirt XML of the machine")),
    "qemu_script": ("text", "sh", lambda: _("Script that starts the machine")),
    "kubevirt_yaml": ("text", "yaml", lambda: _("Manifest of the machine for KubeVirt")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The text, in words what it is, and the name of its file when it is downloaded."""

    title: str
    text: str
    file_name: str


def description_of(conversion: Conversion) -> Description | None:
    """Return a run's description of the machine; None before it has made one."""
    for name, (key, ending, title) in _KINDS.items():
        if text := conversion.reports.get(name, {}).get(key):
            file_name = f"v2vweb-{conversion.pk}.{ending}"
            return Description(title=title(), text=text, file_name=file_name)
    return None
