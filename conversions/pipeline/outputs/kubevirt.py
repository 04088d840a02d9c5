"""Output `kubevirt`: disk files and the manifest of a VirtualMachine."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from conversions.pipeline.commands import run
from conversions.pipeline.errors import JobError, TargetError
from conversions.pipeline.job import Target
from conversions.pipeline.outputs.folder import FolderOutput, check_folder_space
from conversions.pipeline.outputs.kubevirt_manifest import manifest
from conversions.pipeline.outputs.kubevirt_names import is_machine_name
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.sizes import human
from conversions.pipeline.types import Overlay, Place, TargetDisk, TargetMeta
from inventory.sources.types import Source


class KubevirtOutput(FolderOutput):
    """Writes NAME-sda, NAME-sdb, ... and NAME.yaml into a folder that exists.

    With the option disk= the disks have other paths; with create=false they exist, keep being the
    files that they are, and get new content only.
    """

    suffix = ".yaml"
    title = "KubeVirt manifest"
    report_name = "kubevirt_yaml"

    def __init__(self, target: Target, name: str | None, report: Reporter) -> None:
        super().__init__(target, name, report)
        self._paths = [Path(path) for path in target.options.get("disk", ())]
        self._creates = target.flag("create", default=True)
        for path in self._paths:
            plain = str(path)
            if not path.is_absolute() or ".." in path.parts or not plain.isprintable():
                raise JobError(
                    f"-oo disk={plain!r} is not the path of a file.",
                    remedy="Write the whole path, from / and without '..'.",
                )
        if not self._creates and (target.compressed or target.allocation == "preallocated"):
            raise JobError(
                "Disks that exist (-oo create=false) are neither compressed nor preallocated.",
                remedy="Leave out that option, or let the disks be created.",
            )

    def metadata(self, meta: TargetMeta, *, quiet: bool = False) -> str:
        """Return the manifest."""
        return manifest(meta, self.warner(quiet=quiet))

    def name_for(self, source: Source) -> str:
        """Return the name asked for, else the source's.  Raises TargetError, in its own words."""
        name = super().name_for(source)
        if not is_machine_name(name):
            raise TargetError(
                f"{name!r} cannot be the name of a machine in KubeVirt.",
                remedy="Give another one (-on): lower-case letters, digits, - and . between them.",
            )
        return name

    def target_disks(
        self, source: Source, overlays: Sequence[Overlay], estimates: Mapping[str, int]
    ) -> tuple[TargetDisk, ...]:
        """Return what will be written, one per overlay.  Raises TargetError for too few paths."""
        if self._paths and len(self._paths) != len(overlays):
            raise TargetError(
                f"The machine has {len(overlays)} disks, and {len(self._paths)} paths were given "
                "(-oo disk=).",
                remedy="Give one path for each disk, in their order, or none.",
            )
        return super().target_disks(source, overlays, estimates)

    def final_path(self, stem: str, number: int, overlay: Overlay) -> Path:
        """Return the path that was given for a disk, else the usual one."""
        return self._paths[number] if self._paths else super().final_path(stem, number, overlay)

    def exists(self, final: Path) -> bool:
        """Tell whether a disk is written where it is."""
        return not self._creates or super().exists(final)

    def check_existing(self, disk: TargetDisk) -> None:
        """Refuse a disk that should exist and does not, or is too small.  Raises TargetError."""
        if self._creates:
            super().check_existing(disk)
            return
        path = Path(disk.final_path)
        if not (path.is_file() or path.is_block_device()) or not os.access(path, os.W_OK):
            raise TargetError(
                f"{path} does not exist or may not be written, and was not to be created.",
                remedy="Create it, or leave out -oo create=false.",
            )
        words = ["qemu-img", "info", "--output=json", "-f", disk.format, str(path)]
        size = json.loads(run(words, self._report, level=Level.DEBUG))["virtual-size"]
        if size < disk.overlay.virtual_size_bytes:
            raise TargetError(
                f"{path} has {human(size)}; the disk needs "
                f"{human(disk.overlay.virtual_size_bytes)}.",
                remedy="Make it larger.",
            )

    def check_space(self, estimates: Mapping[str, int], overlays: Sequence[Overlay]) -> None:
        """Compare what is free with what the disks need, on each file system they are made on."""
        folders: dict[int, tuple[Path, list[Overlay]]] = {}
        for number, overlay in enumerate(overlays):
            if overlay.sd in self._existing:
                continue
            folder = self.final_path("", number, overlay).parent
            folders.setdefault(folder.stat().st_dev, (folder, []))[1].append(overlay)
        for folder, there in folders.values():
            check_folder_space(folder, estimates, there, self.target, self._report)

    def folders(self, disks: Sequence[TargetDisk]) -> set[Path]:
        """Return the folders that are written to."""
        created = {Path(d.final_path).parent for d in disks if d.place is Place.FILE}
        return super().folders(disks) | created
