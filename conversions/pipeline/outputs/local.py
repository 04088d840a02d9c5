"""Output `local`: disk files and a libvirt XML file in a folder."""

from __future__ import annotations

from collections.abc import Mapping

from conversions.pipeline.outputs.folder import FolderOutput
from conversions.pipeline.outputs.libvirt_xml import domain_xml, public_xml
from conversions.pipeline.types import TargetMeta


class LocalOutput(FolderOutput):
    """Writes NAME-sda, NAME-sdb, ... and NAME.xml into a folder that exists."""

    suffix = ".xml"
    title = "libvirt domain XML"
    report_name = "libvirt_xml"

    def metadata(self, meta: TargetMeta, *, quiet: bool = False) -> str:
        """Return the domain XML."""
        return domain_xml(meta, warn=self.warner(quiet=quiet))

    def reported(self, meta: TargetMeta) -> Mapping[str, str]:
        """Return the domain XML without a display's password: reports are kept and shown."""
        return {"xml": public_xml(meta)}
