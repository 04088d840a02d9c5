"""The appliance: the small VM in which libguestfs reaches the disks; the only user of `guestfs`."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import guestfs

from conversions.pipeline.accelerator import choose_accelerator
from conversions.pipeline.errors import ApplianceError
from conversions.pipeline.handle import Handle, without_contents
from conversions.pipeline.job import Job
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import Overlay

GuestFS = Any
"""The libguestfs handle; guestfs(3) documents its calls.  Errors are RuntimeError("call: text")."""

MEMORY_FACTOR = 2  # initramfs tools and xfs_repair run inside; libguestfs' own default is for less
MAX_VCPUS = 8


def available_cpus() -> int:
    """Return how many CPUs this process may use, the cgroup's quota included, at least 1."""
    cpus = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cpus = min(cpus, max(1, int(quota) // int(period)))
    return max(1, cpus)


class Appliance:
    """One appliance with an overlay as each disk, in source order (sda, sdb, ...)."""

    def __init__(
        self,
        job: Job,
        overlays: Sequence[Overlay],
        report: Reporter,
        *,
        read_only: bool,
    ) -> None:
        self._job = job
        self._overlays = overlays
        self._report = report
        self._read_only = read_only
        self._g: GuestFS | None = None

    def _handle(self) -> GuestFS:
        job = self._job
        g = Handle(
            guestfs.GuestFS(python_return_dict=False, close_on_exit=False),
            guestfs.EVENT_TRACE
            | guestfs.EVENT_LIBRARY
            | guestfs.EVENT_APPLIANCE
            | guestfs.EVENT_WARNING,
            self._on_event,
        )
        g.set_identifier("v2v")
        g.set_backend("direct")
        g.set_autosync(True)
        g.set_recovery_proc(True)  # takes qemu down when this process is killed
        g.set_network(False)  # package scripts of a stranger's guest reach nothing
        g.set_memsize(job.memory_mib or MEMORY_FACTOR * g.get_memsize())
        g.set_smp(job.vcpus or min(MAX_VCPUS, available_cpus()))
        g.set_trace(True)
        g.set_verbose(job.trace)
        for overlay in self._overlays:
            g.add_drive_opts(
                overlay.path,
                format=overlay.format,
                cachemode="writeback" if self._job.direct else "unsafe",
                discard="disable" if self._read_only else "besteffort",
            )
        return g

    def _on_event(self, event: int, text: str) -> None:
        if event == guestfs.EVENT_TRACE:
            self._report.log(Level.TRACE, f"libguestfs: trace: v2v: {without_contents(text)}")
        else:
            self._report.log(Level.TRACE, text)

    def launch(self, overlays: Sequence[Overlay] = ()) -> GuestFS:
        """Boot the appliance and return its handle; again, on other `overlays`, after a shutdown.

        Uses KVM where a guest really starts with it, software emulation elsewhere, and says which.
        Raises ApplianceError.
        """
        self._overlays = overlays or self._overlays
        begun = time.monotonic()
        choice = choose_accelerator()
        if choice.kvm:
            try:
                return self._launched(self._start("kvm"), "kvm", choice.reason, begun)
            except RuntimeError as error:
                reason = f"the appliance did not start with KVM: {error}"
                self._report.log(Level.WARNING, f"{reason}; trying software emulation.")
        else:
            reason = choice.reason
            self._report.log(
                Level.WARNING,
                f"KVM cannot be used on this host: {reason}. "
                "Software emulation (TCG) is used, which is several times slower.",
            )
        try:
            return self._launched(self._start("tcg"), "tcg", reason, begun)
        except RuntimeError as error:
            raise ApplianceError(
                f"The appliance did not start: {error}.",
                remedy="Run libguestfs-test-tool on this host; it names what is missing.",
            ) from error

    def _start(self, accelerator: str) -> GuestFS:
        self.kill()
        self._g = g = self._handle()
        g.set_backend_settings(["force_tcg"] if accelerator == "tcg" else [])
        g.launch()
        return g

    def _launched(self, g: GuestFS, accelerator: str, reason: str, begun: float) -> GuestFS:
        version = "{major}.{minor}.{release}".format(**g.version())
        self._report.report(
            "appliance",
            {
                "accelerator": accelerator,
                "reason": reason,
                "memory_mib": g.get_memsize(),
                "vcpus": g.get_smp(),
                "libguestfs": version,
                "qemu": g.get_hv(),
                "kernel": g.utsname()["uts_release"],
                "seconds": round(time.monotonic() - begun, 1),
            },
        )
        self._report.log(
            Level.INFO,
            f"Appliance started in {time.monotonic() - begun:.1f} s with {accelerator.upper()}, "
            f"{g.get_memsize()} MiB of memory and {g.get_smp()} vCPUs.",
        )
        return g

    def shutdown(self) -> None:
        """Unmount, write back and power off.  Raises ApplianceError: cached writes may be lost."""
        g = self._g
        if g is None:
            return
        try:
            g.umount_all()
            g.shutdown()
        except RuntimeError as error:
            raise ApplianceError(
                f"The appliance did not shut down cleanly: {error}. "
                "What was written may be incomplete.",
                remedy="" if self._job.direct else "Convert again; the source is unchanged.",
            ) from error
        self.kill()

    def kill(self) -> None:
        """End the appliance at once if it runs; nothing is written back.  Safe to call again."""
        g, self._g = self._g, None
        if g is not None:
            g.close()
