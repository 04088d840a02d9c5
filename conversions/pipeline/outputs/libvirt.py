"""Output `libvirt`: the disks as volumes of a pool, the machine defined, not started."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from conversions.pipeline.disk_copy import copy_disks
from conversions.pipeline.errors import TargetError
from conversions.pipeline.job import CopyOptions, Target
from conversions.pipeline.outputs.base import Targets
from conversions.pipeline.outputs.domain_host import DomainHost
from conversions.pipeline.outputs.files import part_of, safe_name
from conversions.pipeline.outputs.folder import (
    RESERVE_BYTES,
    check_staging_space,
    how_many_fit,
    needed_bytes,
)
from conversions.pipeline.outputs.libvirt_host import LibvirtHost, Pool, check_uri
from conversions.pipeline.outputs.libvirt_targets import (
    PoolFiles,
    PoolTargets,
    UploadedVolumes,
)
from conversions.pipeline.outputs.libvirt_xml import domain_xml, public_xml
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.sizes import human
from conversions.pipeline.types import Overlay, TargetDisk, TargetMeta
from inventory.sources.types import Source, VnetType

DEFAULT_POOL = "default"


class LibvirtOutput:
    """Writes into the pool's folder where that is on this host and ours to write, else uploads."""

    def __init__(self, target: Target, name: str | None, report: Reporter) -> None:
        if target.uri:
            check_uri(target.uri)
        self.target = target
        self._wanted_pool = target.storage or DEFAULT_POOL
        self._name = name
        self._report = report
        self._host: LibvirtHost | None = None
        self._pool: Pool | None = None
        self._staging: Path | None = None

    def describe(self) -> str:
        """Return one line for messages."""
        return (
            f"pool {self._wanted_pool} of libvirt ({self.target.uri or 'its default connection'})"
        )

    def name_for(self, source: Source) -> str:
        """Return the name asked for, else the source's."""
        return safe_name(self._name or source.name)

    @contextmanager
    def prepare(self, source: Source, overlays: Sequence[Overlay]) -> Iterator[PoolTargets]:
        """Connect and refuse what cannot work; on the way out remove what was not committed."""
        with ExitStack() as stack:
            self._host = LibvirtHost(self.target.uri)
            stack.callback(self._host.close)
            self._host.refuse_taken_name(self.name_for(source))
            self._pool = self._host.find_pool(self._wanted_pool)
            if not self._is_direct(self._host, self._pool):
                self._staging = Path(overlays[0].path).parent
            kind = UploadedVolumes if self._staging else PoolFiles
            disks = self.target_disks(source, overlays, {})
            targets = kind(self._host, self._pool, disks, self.target, self._report)
            try:
                targets.refuse_existing(overwrite=self.target.overwrite)
                yield targets
            except BaseException:
                if not targets.committed:
                    targets.remove()
                raise

    @staticmethod
    def _is_direct(host: LibvirtHost, pool: Pool) -> bool:
        return host.is_local and os.access(pool.path, os.W_OK | os.X_OK)

    def target_disks(
        self, source: Source, overlays: Sequence[Overlay], estimates: Mapping[str, int]
    ) -> tuple[TargetDisk, ...]:
        """Return the volumes; their copies are made in the pool, or in the work folder first."""
        stem = self.name_for(source)
        folder = self._pool.path if self._pool else Path("/")
        finals = [folder / f"{stem}-{o.sd}" for o in overlays]
        return tuple(
            TargetDisk(
                overlay=overlay,
                final_path=str(final),
                part_path=str(
                    self._staging / f"upload-{overlay.sd}" if self._staging else part_of(final)
                ),
                format=self.target.format,
                estimated_bytes=estimates.get(overlay.sd),
                staged=self._staging is not None,
            )
            for overlay, final in zip(overlays, finals, strict=True)
        )

    def check_space(self, estimates: Mapping[str, int], overlays: Sequence[Overlay]) -> None:
        """Compare the pool's free space with what the disks need.

        Copies that wait for their upload need room in the work folder, too.  Raises TargetError.
        """
        assert self._pool  # noqa: S101  prepare comes first
        if self._staging:
            check_staging_space(self._staging, estimates, overlays, self.target, self._report)
        need = needed_bytes(estimates, overlays, self.target)
        free = self._pool.free_bytes
        self._report.log(
            Level.INFO,
            f"Pool {self._pool.name}: at most {human(need)} needed, {human(free)} free.",
        )
        if free < need:
            raise TargetError(
                f"Not enough free space in pool {self._pool.name}: {human(free)} free, "
                f"up to {human(need)} needed ({human(RESERVE_BYTES)} of it in reserve).",
                remedy="Free some space there or choose another pool.",
            )

    def check(self, meta: TargetMeta) -> None:
        """Refuse what the host cannot run.  Raises TargetError."""
        self._facts(meta, quiet=True)

    def copy(self, targets: Targets, disks: Sequence[TargetDisk], options: CopyOptions) -> None:
        """Convert each overlay into what stands for it here."""
        assert isinstance(targets, PoolTargets)  # noqa: S101  ours, from prepare
        targets.verify = options.verify
        if self._staging:
            at_once = how_many_fit(self._staging, disks, self.target, options.parallel)
            options = replace(options, parallel=at_once)
        copy_disks(targets, disks, self.target, options, self._report)

    def preview(self, meta: TargetMeta) -> None:
        """Report the domain XML that would be defined."""
        self._report.report("libvirt_xml", {"xml": public_xml(meta)})

    def write_metadata(self, targets: Targets, meta: TargetMeta) -> None:
        """Hand the domain XML to the targets, which define it when everything is in place."""
        assert isinstance(targets, PoolTargets)  # noqa: S101  ours, from prepare
        host = self._facts(meta)
        self._warn_of_networks(meta)
        targets.xml = domain_xml(meta, host, self._warn)
        self._report.report("libvirt_xml", {"xml": public_xml(meta, host)})
        self._report.report("metadata", [{"path": meta.name, "kind": "libvirt domain"}])

    def _facts(self, meta: TargetMeta, *, quiet: bool = False) -> DomainHost:
        assert self._host and self._pool  # noqa: S101  prepare comes first
        caps, host, pool = meta.guestcaps, self._host, self._pool
        type_ = self.target.option("domain-type") or host.domain_type(caps.arch)
        if type_ is None:
            raise TargetError(
                f"libvirt ({host.uri}) cannot run machines of {caps.arch}.",
                remedy="Choose a host of that architecture.",
            )
        if type_ != "kvm" and not quiet:
            self._warn(f"The machine is defined without KVM ({type_}); it will be slow.")
        slots = (*meta.buses.virtio_blk, *meta.buses.ide, *meta.buses.scsi)
        disks = [slot for slot in slots if isinstance(slot, TargetDisk)]
        volumes = {d.final_path: (pool.name, Path(d.final_path).name) for d in disks}
        facts = host.facts(caps.arch, caps.machine, type_, volumes)
        if meta.uefi and not (facts.secure_boot if meta.source.uefi_secureboot else facts.uefi):
            raise TargetError(
                f"libvirt ({host.uri}) has no UEFI firmware"
                f"{' with secure boot' if facts.uefi else ''} for {caps.machine} machines.",
                remedy="Install it on that host (Debian: ovmf), or choose another.",
            )
        return facts

    def _warn_of_networks(self, meta: TargetMeta) -> None:
        assert self._host  # noqa: S101  prepare comes first
        wanted = {nic.vnet for nic in meta.nics if nic.vnet_type is VnetType.NETWORK}
        for name in sorted(wanted - self._host.networks()):
            self._warn(
                f"Network {name} is not defined on the target; the machine will not start "
                "before it is. Another one can be given with --network."
            )

    def _warn(self, text: str) -> None:
        self._report.log(Level.WARNING, text)
