"""The drivers and first-start programs for Windows guests that an administrator has supplied.

They lie in one folder: ISO images and unpacked folders of virtio-win, and the programs, such as
rhsrvany.exe, in its virt-tools/ or beside the drivers.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from auditlog.models import LogEntry
from django.conf import settings
from django.utils.translation import gettext as _

from conversions.models import DriverFile
from conversions.pipeline.errors import HostError
from conversions.pipeline.job import WindowsOptions
from conversions.pipeline.windows.collection import (
    SERVICE_PROGRAMS,
    TOOLS,
    locate,
    open_collection,
)
from conversions.pipeline.windows.driver_match import (
    AGENT_NAMES,
    choose_agents,
    choose_drivers,
    coverage,
)
from conversions.pipeline.windows.driver_versions import DriverVersion, read_driver_versions

TOOLS_FOLDER = "virt-tools"

# The folders of virtio-win, as people call these systems.
SYSTEMS = {
    "xp": "Windows XP", "2k3": "Windows Server 2003", "2k8": "Windows Server 2008, Vista",
    "w7": "Windows 7", "2k8r2": "Windows Server 2008 R2", "w8": "Windows 8",
    "2k12": "Windows Server 2012", "w8.1": "Windows 8.1", "2k12r2": "Windows Server 2012 R2",
    "w10": "Windows 10", "w11": "Windows 11", "2k16": "Windows Server 2016",
    "2k19": "Windows Server 2019", "2k22": "Windows Server 2022", "2k25": "Windows Server 2025",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Drivers:
    """One collection; `covers` maps a version folder such as w10 to its architectures.

    `versions` has the block driver's version for such folders, `agents` the architectures that
    there is a guest agent for, `label` the name that an ISO gives itself.
    """

    name: str
    path: Path
    is_iso: bool
    size_bytes: int | None
    label: str = ""
    covers: dict[str, list[str]]
    versions: dict[str, DriverVersion]
    agents: list[str]
    problem: str = ""

    @property
    def systems(self) -> list[tuple[str, list[str], DriverVersion | None]]:
        """What it covers, in words people use, and the version of the block driver."""
        return [
            (SYSTEMS.get(v, v), arches, self.versions.get(v)) for v, arches in self.covers.items()
        ]


def list_drivers() -> list[Drivers]:
    """Return the collections in the folder, the newest first."""
    top = Path(settings.DRIVERS_DIR)
    if not top.is_dir():
        return []
    found = [
        path
        for path in top.iterdir()
        if (_is_folder(path) or path.suffix.lower() == ".iso")
        and path.name != TOOLS_FOLDER
        and not path.name.startswith(".")
    ]
    found.sort(key=lambda path: (-_changed_ns(path), path.name))
    return [described(path) for path in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A program of the first start."""

    path: Path
    size_bytes: int
    problem: str = ""

    @property
    def name(self) -> str:
        """The name by which the engine knows it."""
        return self.path.name


def list_tools() -> list[Tool]:
    """Return the first-start programs that conversions get."""
    paths = [target_of(name) for name in TOOLS]
    return [
        Tool(path=path, size_bytes=path.stat().st_size, problem=tool_problem(path))
        for path in paths
        if path.is_file()
    ]


def arriving_folder() -> Path:
    """Return the folder of what is not complete or not looked at yet, on the same file system."""
    return Path(settings.DRIVERS_DIR) / ".arriving"


def target_of(name: str) -> Path:
    """Return where a collection or a program of that name lies."""
    return (tools_folder() if name in TOOLS else Path(settings.DRIVERS_DIR)) / name


def tools_folder() -> Path:
    """Return the folder of the programs: virt-tools, unless only that above has one for a service.

    The engine takes all of them from one folder.
    """
    top = Path(settings.DRIVERS_DIR)
    tools = top / TOOLS_FOLDER
    return top if has_service_program(top) and not has_service_program(tools) else tools


def has_service_program(folder: Path) -> bool:
    """Tell whether a folder holds what runs scripts at the first start."""
    return any((folder / name).is_file() for name in SERVICE_PROGRAMS)


def tool_problem(path: Path) -> str:
    """Say what keeps a file from being a program for Windows, "" when nothing does."""
    try:
        with path.open("rb") as stream:
            is_program = stream.read(2) == b"MZ"
    except OSError as error:
        return _("it cannot be read: %(reason)s.") % {"reason": error.strerror or error}
    return "" if is_program else _("it is no Windows program.")


def described(path: Path) -> Drivers:
    """Look into a collection, whether it can be opened or not.

    The answer is kept for an ISO, until that changes; the time of a folder tells nothing of what is
    below it.
    """
    return _look_into(path) if _is_folder(path) else _look_into_iso(path, _changed_ns(path))


@lru_cache(maxsize=32)
def _look_into_iso(path: Path, _changed_ns: int) -> Drivers:
    return _look_into(path)


def _is_folder(path: Path) -> bool:
    """Tell whether it is a folder; a link to where one may not look is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _changed_ns(path: Path) -> int:
    """Return when it last changed, 0 for a dangling link and what was just deleted."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _look_into(path: Path) -> Drivers:
    covers: dict[str, list[str]] = {}
    versions: dict[str, DriverVersion] = {}
    agents: list[str] = []
    label = problem = ""
    is_iso = not _is_folder(path)
    size_bytes = None
    try:
        size_bytes = path.stat().st_size if is_iso else None
        collection = open_collection(path, named=True)
        if collection is not None:
            names = collection.paths()
            label, covers = collection.label(), coverage(names)
            versions = read_driver_versions(collection)
            agents = [arch for arch in AGENT_NAMES if choose_agents(names, arch=arch)]
    except HostError as error:
        problem = f"{error.message} {error.remedy}".strip()
    except OSError as error:
        problem = _("It cannot be read: %(reason)s.") % {"reason": error.strerror or error}
    if not covers and not problem:
        problem = _("It holds no block driver (viostor or vioscsi) in a folder of its Windows.")
    return Drivers(
        name=path.name,
        path=path,
        is_iso=is_iso,
        size_bytes=size_bytes,
        label=label,
        covers=covers,
        versions=versions,
        agents=agents,
        problem=problem,
    )


def default_drivers() -> str:
    """Return the path of the newest collection that can be used; "" lets the engine look itself."""
    return next((str(d.path) for d in list_drivers() if not d.problem), "")


def default_tools() -> str:
    """Return the path of the folder of the programs; "" lets the engine look itself."""
    folder = tools_folder()
    return str(folder) if has_service_program(folder) else ""


def has_drivers_for(guest: Mapping[str, Any], options: WindowsOptions) -> bool:
    """Tell whether a conversion would find drivers for a guest, by the engine's own rule.

    `guest` is what an inspection reported of it.
    """
    place, named = locate(options.virtio_win, os.environ)
    try:
        collection = open_collection(place, named=named)
    except (HostError, OSError):
        return False
    _made_for, drivers = choose_drivers(
        collection.paths() if collection else (),
        arch=guest.get("arch", ""),
        osinfo=guest.get("osinfo", ""),
        siblings=options.sibling_drivers,
    )
    return bool(drivers)


def default_windows_options() -> WindowsOptions:
    """Return the options for a Windows guest nobody has chosen for."""
    return WindowsOptions(virtio_win=default_drivers(), virt_tools=default_tools())


def remove_drivers(name: str, *, user: Any) -> bool:
    """Delete a collection or a program by its name; tell whether it was there."""
    if name not in [d.name for d in list_drivers()] + [t.name for t in list_tools()]:
        return False
    path = target_of(name)
    # Of a link only the link goes: what it leads to lies elsewhere, and may serve others.
    is_folder = not path.is_symlink() and path.is_dir()
    shutil.rmtree(path) if is_folder else path.unlink(missing_ok=True)
    note(LogEntry.Action.DELETE, name, user=user)
    return True


def note(action: int, name: str, *, user: Any) -> None:
    """Enter what was done with a collection or a program into the audit record."""
    LogEntry.objects.log_create(DriverFile(name=name), force_log=True, action=action, actor=user)
