"""Output of in-place mode: the source's own disks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from conversions.pipeline import stop
from conversions.pipeline.commands import run
from conversions.pipeline.commit import finish_commit, locked, write_journal
from conversions.pipeline.copy_progress import CopyProgress
from conversions.pipeline.disk_copy import data_bytes
from conversions.pipeline.errors import CommandError, TargetError
from conversions.pipeline.host_files import allocated
from conversions.pipeline.job import CopyOptions, Job, Target
from conversions.pipeline.outputs.base import Targets
from conversions.pipeline.outputs.domain_host import DomainHost
from conversions.pipeline.outputs.files import safe_name
from conversions.pipeline.outputs.libvirt_host import LibvirtHost
from conversions.pipeline.outputs.libvirt_xml import domain_xml, public_xml
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.sizes import human
from conversions.pipeline.types import Overlay, TargetDisk, TargetMeta
from inventory.sources.libvirt_host import define_domain
from inventory.sources.types import Source

_RESERVE_BYTES = 256 << 20


class InPlaceTargets:
    """Stands for the disks themselves, which `commit` leaves as they are by then."""

    def __init__(self, disks: Sequence[TargetDisk], report: Reporter) -> None:
        self.disks = disks
        self._report = report

    def open(self, disk: TargetDisk) -> TargetDisk:
        """Return the disk as it is."""
        return disk

    def close(self, disk: TargetDisk) -> None:
        """Leave the disk as it is."""

    def commit(self) -> None:
        """Report the disks."""
        paths = [Path(disk.final_path) for disk in self.disks]
        created = [{"path": str(path), "bytes": allocated(path)} for path in paths]
        self._report.report("files", {"created": created, "removed": []})


class InPlaceOutput:
    """The source's own disks as the target."""

    def __init__(self, job: Job, work: Path, report: Reporter) -> None:
        self.target = Target(kind="in_place")
        self._job = job
        self._work = work
        self._report = report
        self._definition = ""

    def describe(self) -> str:
        """Return one line for messages."""
        return "the source's own disks"

    def name_for(self, source: Source) -> str:
        """Return the name asked for, else the source's."""
        return safe_name(self._job.name or source.name)

    def target_disks(
        self, source: Source, overlays: Sequence[Overlay], estimates: Mapping[str, int]
    ) -> tuple[TargetDisk, ...]:
        """Return the source's disks."""
        del source
        return tuple(
            TargetDisk(
                overlay=overlay,
                final_path=overlay.source_uri,
                part_path=overlay.source_uri,
                format=overlay.source_format,
                estimated_bytes=estimates.get(overlay.sd),
            )
            for overlay in overlays
        )

    @contextmanager
    def prepare(self, source: Source, overlays: Sequence[Overlay]) -> Iterator[Targets]:
        """Lock the disks.  Raises TargetError."""
        disks = self.target_disks(source, overlays, {})
        with locked([Path(disk.final_path) for disk in disks], self._report):
            for disk in disks:
                refuse_open(disk, self._report)
            yield InPlaceTargets(disks, self._report)

    def check_space(self, estimates: Mapping[str, int], overlays: Sequence[Overlay]) -> None:
        """Nothing yet: how much the disks grow is known once everything is changed."""

    def check(self, meta: TargetMeta) -> None:
        """Report the definition before the disks are written: a crash in that takes it not along.

        Raises TargetError where it is wanted and its host cannot be asked.
        """
        facts = None
        if self._job.define:
            facts = host_facts(self._uri, meta)
            warn = partial(self._report.log, Level.WARNING)
            self._definition = domain_xml(meta, facts, warn)
        self._report.report("libvirt_xml", {"xml": public_xml(meta, facts)})

    def copy(self, targets: Targets, disks: Sequence[TargetDisk], options: CopyOptions) -> None:
        """Commit the overlays into the disks.  Raises TargetError before anything is written."""
        del targets, options
        report = self._report
        if self._job.direct:
            report.log(Level.INFO, "Nothing to copy: the disks were changed directly.")
            return
        check_room(disks)
        totals = {d.overlay.path: data_bytes(d.overlay.path, report, max_depth=0) for d in disks}
        meters = {d.overlay.path: CopyProgress(d.overlay.sd, totals[d.overlay.path], report)
                  for d in disks}  # fmt: skip
        stop.no_return()
        report.log(Level.INFO, "Writing the changes into the disks; from here on nothing stops it.")
        write_journal(self._work, disks)
        report.report("commit", {"state": "begun"})
        finish_commit(
            self._work, report, progress=lambda overlay, chunk: meters[overlay].feed(chunk)
        )
        report.report("commit", {"state": "finished"})
        results = []
        for disk in disks:
            meter, total = meters[disk.overlay.path], totals[disk.overlay.path]
            results.append(meter.result(disk, total, allocated(Path(disk.part_path))))
        report.report("copy", results)

    def preview(self, meta: TargetMeta) -> None:
        """Report the definition that suits the converted guest."""
        self._report.report("libvirt_xml", {"xml": public_xml(meta)})

    def write_metadata(self, targets: Targets, meta: TargetMeta) -> None:
        """Give the definition to the host if that is wanted."""
        del targets
        if not self._job.define:
            self._report.log(
                Level.INFO,
                "The definition of the machine is unchanged; the one that suits the converted "
                "guest is in the report.",
            )
            return
        define_domain(self._uri, self._definition, replacing=self._job.source.location)
        self._report.log(Level.INFO, f"{meta.name} is defined anew on {self._uri}.")
        self._report.report("metadata", [{"path": self._uri, "kind": "libvirt domain"}])

    @property
    def _uri(self) -> str:
        return self._job.source.connection or "qemu:///system"


def host_facts(uri: str, meta: TargetMeta) -> DomainHost:
    """Ask the domain's own host what it can run.  Raises TargetError."""
    host = LibvirtHost(uri)
    try:
        arch = meta.guestcaps.arch
        return host.facts(arch, meta.guestcaps.machine, host.domain_type(arch) or "kvm", {})
    finally:
        host.close()


def refuse_open(disk: TargetDisk, report: Reporter) -> None:
    """Raise TargetError when a machine has the disk open: qemu locks what it uses."""
    command = ["qemu-img", "info", "-f", disk.format, disk.final_path]
    try:
        run(command, report, level=Level.DEBUG)
    except CommandError as error:
        raise TargetError(
            f"{disk.final_path} is in use: {error}.",
            remedy="Shut the machine down, and see that nothing else has the disk open.",
            code="E-IN-USE",
        ) from error


def check_room(disks: Sequence[TargetDisk]) -> None:
    """Raise TargetError when disks could not grow by all that their overlays hold together.

    They share the room of their file system; a block device does not grow.
    """
    shared: dict[int, list[TargetDisk]] = {}
    for disk in disks:
        if not (path := Path(disk.final_path)).is_block_device():
            shared.setdefault(path.stat().st_dev, []).append(disk)
    for group in shared.values():
        growth = sum(allocated(Path(disk.overlay.path)) for disk in group)
        folder = Path(group[0].final_path).resolve().parent
        stats = os.statvfs(folder)
        free = stats.f_bavail * stats.f_frsize
        if free < growth + _RESERVE_BYTES:
            raise TargetError(
                f"{', '.join(disk.final_path for disk in group)} cannot be changed: that may take "
                f"{human(growth)} more, and {human(free)} is free in {folder} "
                f"({human(_RESERVE_BYTES)} of it kept in reserve).",
                remedy="Free some space there. Without any, --in-place=direct changes the disk "
                "itself, which nothing can undo.",
            )
