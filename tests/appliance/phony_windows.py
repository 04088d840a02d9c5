"""A phony Windows guest in a running appliance: written in seconds, converted, looked at."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import guestfs

from conversions.pipeline.accelerator import choose_accelerator
from conversions.pipeline.inspection import find_esps, inspect_guest
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.types import Inspection
from conversions.pipeline.windows.inspection import inspect_windows, ntfs_state
from tests.guests.hives import Dump, dump_hive
from tests.guests.windows import SYSTEM32, WindowsGuest, fill, partition

DISK_BYTES = 176 << 20
SECOND_DISK_BYTES = 64 << 20
# The first disk of each appliance, as this host sees it.
DISKS: dict[guestfs.GuestFS, Path] = {}


def launch_for_windows(folder: Path) -> guestfs.GuestFS:
    """Launch an appliance with two empty disks."""
    g = guestfs.GuestFS(python_return_dict=False, close_on_exit=False)
    g.set_backend("direct")
    g.set_backend_settings([] if choose_accelerator().kvm else ["force_tcg"])
    g.set_network(False)
    g.set_smp(2)
    for name, size in (("first", DISK_BYTES), ("second", SECOND_DISK_BYTES)):
        g.disk_create(str(folder / name), "raw", size)
        g.add_drive_opts(str(folder / name), format="raw", cachemode="unsafe")
    g.launch()
    DISKS[g] = folder / "first"
    return g


@dataclass
class PhonyWindows:
    """A guest on /dev/sda, mounted once it is inspected."""

    g: guestfs.GuestFS
    folder: Path
    disk: Path
    esp: str
    root: str
    report: RecordingReporter
    found: Inspection | None = None

    @classmethod
    def make(cls, g: guestfs.GuestFS, folder: Path, guest: WindowsGuest) -> PhonyWindows:
        """Write the guest; the second disk is blank."""
        g.umount_all()
        g.zero("/dev/sdb")
        esp, root = partition(g, uefi=guest.uefi)
        fill(g, guest, esp=esp, root=root, folder=folder)
        return cls(g, folder, DISKS[g], esp, root, RecordingReporter())

    def inspect(self, **options: Any) -> Inspection:
        """Inspect all disks as a conversion does."""
        arguments: dict[str, Any] = {"root": "single", "read_only": False} | options
        self.found = inspect_guest(self.g, report=self.report, **arguments)
        return self.found

    def mount(self) -> Inspection:
        """Mount and describe the guest without a look at the other disks; seconds faster."""
        self.g.umount_all()
        self.g.mount(self.root, "/")
        self.found = inspect_windows(
            self.g,
            self.root,
            esps=find_esps(self.g),
            mountpoints=[("/", self.root)],
            state=ntfs_state(self.g, self.root),
        )
        return self.found

    def change_found(self, **values: Any) -> None:
        """Let the inspection have said something else."""
        self.found = replace(self.found or self.mount(), **values)

    def hive(self, name: str) -> Dump:
        """Return what a hive of the guest holds now."""
        path = self.folder / f"{name}.now"
        self.g.download(f"{SYSTEM32}/Config/{name}", str(path))
        return dump_hive(path)

    def names(self, path: str) -> list[str]:
        """Return what is in a folder of the guest."""
        return sorted(self.g.ls(path))

    def read(self, path: str) -> str:
        """Return a text file of the guest."""
        return bytes(self.g.read_file(path)).decode()

    def checksum(self) -> str:
        """Return a digest of the disk, read on this host."""
        self.g.umount_all()
        self.g.sync()
        with self.disk.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def log(self, level: str) -> list[str]:
        """Return the lines of one level."""
        return [e["text"] for e in self.report.of("log") if e["level"] == level]
