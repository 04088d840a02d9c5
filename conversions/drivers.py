"""The drivers and first-start programs for Windows guests that an administrator has supplied.

They lie in one folder: ISO images and unpacked folders of virtio-win, and virt-tools/ with programs
such as rhsrvany.exe, which the engine finds beside the drivers.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from django.conf import settings
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.utils.translation import gettext as _

from conversions.pipeline.errors import HostError
from conversions.pipeline.job import WindowsOptions
from conversions.pipeline.windows.collection import TOOLS, open_collection
from conversions.pipeline.windows.driver_match import coverage
from inventory.uploads import safe_filename

TOOLS_FOLDER = "virt-tools"
MAX_TOOL_BYTES = 64 << 20


# The folders of virtio-win, as people call these systems.
SYSTEMS = {
    "xp": "Windows XP", "2k3": "Windows Server 2003", "2k8": "Windows Server 2008, Vista",
    "w7": "Windows 7", "2k8r2": "Windows Server 2008 R2", "w8": "Windows 8",
    "2k12": "Windows Server 2012", "w8.1": "Windows 8.1", "2k12r2": "Windows Server 2012 R2",
    "w10": "Windows 10", "w11": "Windows 11", "2k16": "Windows Server 2016",
    "2k19": "Windows Server 2019", "2k22": "Windows Server 2022", "2k25": "Windows Server 2025",
}  # fmt: skip


class DriversRefusedError(Exception):
    """What was sent is of no use; the message is for the person at the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drivers:
    """One collection; `covers` maps a version folder such as w10 to its architectures."""

    name: str
    path: Path
    is_iso: bool
    size_bytes: int | None
    covers: dict[str, list[str]]
    problem: str = ""

    @property
    def systems(self) -> list[tuple[str, list[str]]]:
        """What it covers, in words people use."""
        return [(SYSTEMS.get(v, v), arches) for v, arches in self.covers.items()]


def list_drivers() -> list[Drivers]:
    """Return the collections in the folder, the newest first."""
    top = Path(settings.DRIVERS_DIR)
    if not top.is_dir():
        return []
    found = [
        path
        for path in top.iterdir()
        if (path.is_dir() and path.name != TOOLS_FOLDER) or path.suffix.lower() == ".iso"
    ]
    found.sort(key=lambda path: (-path.stat().st_mtime, path.name))
    return [_described(path, path.stat().st_mtime_ns) for path in found]


def list_tools() -> list[Path]:
    """Return the first-start programs in the folder."""
    folder = Path(settings.DRIVERS_DIR) / TOOLS_FOLDER
    return [folder / name for name in TOOLS if (folder / name).is_file()]


@lru_cache(maxsize=32)
def _described(path: Path, _mtime_ns: int) -> Drivers:
    """Look into a collection; its time of change makes the answer a new one."""
    covers: dict[str, list[str]] = {}
    problem = ""
    try:
        collection = open_collection(path, named=True)
        covers = coverage(collection.paths()) if collection else {}
    except HostError as error:
        problem = f"{error.message} {error.remedy}".strip()
    if not covers and not problem:
        problem = _("It holds no block driver (viostor or vioscsi) in a folder of its Windows.")
    is_iso = path.is_file()
    return Drivers(
        name=path.name,
        path=path,
        is_iso=is_iso,
        size_bytes=path.stat().st_size if is_iso else None,
        covers=covers,
        problem=problem,
    )


def default_drivers() -> str:
    """Return the path of the newest collection that can be used; "" lets the engine look itself."""
    return next((str(d.path) for d in list_drivers() if not d.problem), "")


def default_windows_options() -> WindowsOptions:
    """Return the options for a Windows guest nobody has chosen for."""
    return WindowsOptions(virtio_win=default_drivers())


def take_drivers(file: TemporaryUploadedFile) -> str:
    """Keep an ISO of drivers or a first-start program; return its name.

    Raises DriversRefusedError; nothing is left behind then.
    """
    name = safe_filename(file.name or "")
    top = Path(settings.DRIVERS_DIR)
    if name.lower() in TOOLS:
        return _take_tool(file, name.lower(), top / TOOLS_FOLDER)
    if not name.lower().endswith(".iso"):
        raise DriversRefusedError(
            _("%(name)s is neither an ISO image nor one of the programs %(tools)s.")
            % {"name": name, "tools": ", ".join(TOOLS)}
        )
    target = top / name
    if target.exists():
        raise DriversRefusedError(
            _("%(name)s is there already. Remove it first, or give this one another name.")
            % {"name": name}
        )
    top.mkdir(parents=True, exist_ok=True)
    part = top / f".{name}.part"
    try:
        shutil.move(file.temporary_file_path(), part)
        seen = _described(part, part.stat().st_mtime_ns)
        if seen.problem:
            raise DriversRefusedError(
                _("%(name)s was not kept: %(problem)s") % {"name": name, "problem": seen.problem}
            )
        part.chmod(0o644)
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)
    return name


def _take_tool(file: TemporaryUploadedFile, name: str, folder: Path) -> str:
    if (file.size or 0) > MAX_TOOL_BYTES or file.read(2) != b"MZ":
        raise DriversRefusedError(
            _("%(name)s was not kept: it is no Windows program.") % {"name": name}
        )
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / name
    shutil.move(file.temporary_file_path(), target)
    target.chmod(0o644)
    return name


def remove_drivers(name: str) -> bool:
    """Delete a collection or a program by its name; tell whether it was there."""
    for drivers in list_drivers():
        if drivers.name == name:
            shutil.rmtree(drivers.path) if drivers.path.is_dir() else drivers.path.unlink()
            return True
    for tool in list_tools():
        if tool.name == name:
            tool.unlink()
            return True
    return False
