"""Output `vdsm`: files where VDSM, oVirt's agent, has made room for them and calls the engine."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

from conversions.pipeline.errors import JobError, TargetError
from conversions.pipeline.job import Target
from conversions.pipeline.outputs.ovirt_files import Layout, VolumeOutput
from conversions.pipeline.outputs.ovirt_xml import Flavour
from conversions.pipeline.report import Reporter

_IMAGES, _VOLUMES, _VM = "vdsm-image-uuid", "vdsm-vol-uuid", "vdsm-vm-uuid"
# They become names of files; whether they are UUIDs is for VDSM to know.
_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")


class VdsmOutput(VolumeOutput):
    """Writes volumes, their .meta and the OVF by the names given; the folders exist already.

    -os is DATA_CENTRE/DOMAIN below VDSM's folder of storage domains.
    """

    title = "VDSM's storage domain"

    def __init__(self, target: Target, name: str | None, report: Reporter) -> None:
        super().__init__(target, name, report)
        for key in (_IMAGES, _VOLUMES, _VM):
            for value in target.options.get(key, ()):
                if not _NAME.fullmatch(value):
                    raise JobError(f"-oo {key}={value[:80]!r} is no UUID.")
        self._domain = Path(target.directory).absolute()

    @property
    def flavour(self) -> Flavour:
        """The flavour of the OVF."""
        return Flavour(self.target.option("vdsm-ovf-flavour", Flavour.EXPORT))

    def assumed_layout(self, count: int) -> Layout:
        """Return the layout that the options say.  Raises TargetError."""
        images, volumes = (self.target.options.get(k, ()) for k in (_IMAGES, _VOLUMES))
        for key, values in ((_IMAGES, images), (_VOLUMES, volumes)):
            if len(values) != count:
                raise TargetError(
                    f"The machine has {count} disks, but {key} was given {len(values)} times.",
                    remedy=f"Give -oo {key}= once for each disk, in order.",
                )
        vm = self.target.option(_VM)
        folder = Path(self.target.option("vdsm-ovf-output", ".")).absolute()
        return Layout(
            domain=self._domain,
            ovf=folder / f"{vm}.ovf",
            vm=vm,
            volumes=tuple(zip(images, volumes, strict=True)),
        )

    def enter(self, stack: ExitStack, count: int) -> Layout:
        """Check that every folder is there.  Raises TargetError."""
        layout = self.assumed_layout(count)
        paths = [layout.path(number) for number in range(count)]
        if len(set(paths)) != count:
            raise TargetError("Two disks have the same image and volume (-oo).")
        for folder in [*(path.parent for path in paths), layout.ovf.parent]:
            if not folder.is_dir():
                raise TargetError(
                    f"The folder {folder} does not exist.",
                    remedy="VDSM makes the folders of images; that of the OVF is yours to make.",
                )
        return layout
