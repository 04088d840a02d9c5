"""A phony Windows guest in an appliance or in folders: written, converted, looked at."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conversions.pipeline.appliance_shell import kernel_name, run_in_appliance
from conversions.pipeline.concerns import collect_concerns
from conversions.pipeline.context import Context
from conversions.pipeline.convert import pick_converter
from conversions.pipeline.inspection import find_esps, inspect_guest
from conversions.pipeline.job import Customize, Input, Job, Mode, WindowsOptions
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.types import Guestcaps, Inspection
from conversions.pipeline.windows.inspection import inspect_windows, ntfs_state
from tests.guests.folder_guest import tree
from tests.guests.hives import Dump, dump_hive, make_hive
from tests.guests.windows import SYSTEM32, WindowsGuest, fill, partition
from tests.unit.pipeline.samples import make_source, source_disk

FIRST_START = "/Program Files/Guestfs/Firstboot"


@dataclass
class PhonyWindows:
    """A guest on /dev/sda, mounted once it is inspected."""

    g: Any
    folder: Path
    disk: Path | None
    esp: str
    root: str
    drivers: Path
    tools: Path
    report: RecordingReporter
    found: Inspection | None = None

    @classmethod
    def make(
        cls,
        g: Any,
        folder: Path,
        guest: WindowsGuest,
        *,
        drivers: Path,
        tools: Path,
        disk: Path | None = None,
    ) -> PhonyWindows:
        """Write the guest; the second disk is blank.

        `drivers` and `tools` are what a conversion takes unless it says otherwise.
        """
        g.umount_all()
        g.zero("/dev/sdb")
        esp, root = partition(g, uefi=guest.uefi)
        fill(g, guest, esp=esp, root=root, folder=folder)
        return cls(g, folder, disk, esp, root, drivers, tools, RecordingReporter())

    def inspect(self, **options: Any) -> Inspection:
        """Inspect all disks as a conversion does."""
        arguments: dict[str, Any] = {"root": "single", "read_only": False} | options
        self.found = inspect_guest(
            self.g, self.g.list_filesystems(), report=self.report, **arguments
        )
        return self.found

    def mount(self, *, read_only: bool = False) -> Inspection:
        """Mount and describe the guest without a look at the other disks; seconds faster."""
        self.g.umount_all()
        (self.g.mount_ro if read_only else self.g.mount)(self.root, "/")
        self.found = inspect_windows(
            self.g,
            self.root,
            esps=find_esps(self.g),
            mountpoints=[("/", self.root)],
            filesystems=self.g.list_filesystems(),
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

    def hive_before(self, name: str, guest: WindowsGuest) -> Dump:
        """Return what a hive of the guest held when it was made."""
        description = guest.system_hive() if name == "SYSTEM" else guest.software_hive()
        return dump_hive(make_hive(self.folder / f"{name}.before", description))

    def everybody_may_not_write(self, path: str) -> bool:
        """Tell whether NTFS lets only the owner and his group write a file."""
        self.g.umount_all()
        device = kernel_name(self.g, self.root)
        _status, text = run_in_appliance(self.g, f"ntfssecaudit -v {device} '{path}' 2>&1")
        self.g.mount(self.root, "/")
        return " 0755" in text or "0755 " in text or "mode 755" in text

    def names(self, path: str) -> list[str]:
        """Return what is in a folder of the guest."""
        return sorted(self.g.ls(path))

    def read(self, path: str) -> str:
        """Return a text file of the guest."""
        return bytes(self.g.read_file(path)).decode()

    def convert(
        self, *, change: bool = True, disks: int = 1, guest_agent: bool = True,
        firstboot: tuple[str, ...] = (), hostname: str = "", **windows: Any,
    ) -> Guestcaps:  # fmt: skip
        """Convert the guest and mount it again; `windows` are the options for Windows."""
        found = self.found or self.mount()
        options = {"virt_tools": str(self.tools), "virtio_win": str(self.drivers)} | {
            name: str(value) if isinstance(value, Path) else value
            for name, value in windows.items()
        }
        job = Job(
            mode=Mode.REHEARSE,
            source=Input(kind="ova", location="/x.ova"),
            guest_agent=guest_agent,
            customize=Customize(firstboot=firstboot, hostname=hostname),
            windows=WindowsOptions(**options),
        )
        context = Context(
            g=self.g,
            guest=found,
            source=make_source(disks=tuple(source_disk(n) for n in range(disks))),
            job=job,
            report=self.report,
            work=self.folder,
            change=change,
        )
        collect_concerns(context, ())
        caps = pick_converter(found).convert(context)
        if change:
            self.g.mount(self.root, "/")
        return caps

    def concerns(self) -> dict[str, str]:
        """Return the level of each concern by its code."""
        return {row["code"]: row["level"] for row in self.report.data("concerns")}

    def scripts(self) -> list[str]:
        """Return the queue of the first start."""
        return self.names(f"{FIRST_START}/scripts")

    def script(self, part: str) -> str:
        """Return the one script of the queue whose name has this part."""
        (name,) = [n for n in self.scripts() if part in n]
        return self.read(f"{FIRST_START}/scripts/{name}")

    def checksum(self) -> str:
        """Return a digest of the disk, read on this host."""
        self.g.umount_all()
        self.g.sync()
        if self.disk is None:
            return repr(tree(self.g.folder))
        with self.disk.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def log(self, level: str) -> list[str]:
        """Return the lines of one level."""
        return [e["text"] for e in self.report.of("log") if e["level"] == level]
