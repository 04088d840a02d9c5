"""Which version of its block driver a collection holds for each Windows, as the INF files say."""

from __future__ import annotations

import re
from dataclasses import dataclass

from conversions.pipeline.windows.collection import Collection
from conversions.pipeline.windows.driver_match import VERSION_FOLDERS, driver_place

MAX_INF_BYTES = 1 << 20
# DriverVer = 07/21/2023,100.93.104.24000 in [Version]; month first.  Source: INF Version section.
_DRIVER_VER = re.compile(
    r"^[ \t]*DriverVer[ \t]*=[ \t]*(\d\d?)/(\d\d?)/(\d{4})[ \t]*,[ \t]*(\d{1,5}(?:\.\d{1,5}){0,3})",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverVersion:
    """A driver's version and its day as YYYY-MM-DD."""

    version: str
    day: str


def parse_driver_ver(inf: bytes) -> DriverVersion | None:
    """Return what an INF file says in its DriverVer line, None without one."""
    is_wide = inf[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = inf.decode("utf-16" if is_wide else "latin-1", "replace")
    found = _DRIVER_VER.search(text)
    if found is None:
        return None
    month, day, year, version = found.groups()
    return DriverVersion(version=version, day=f"{year}-{int(month):02}-{int(day):02}")


def read_driver_versions(collection: Collection) -> dict[str, DriverVersion]:
    """Return the version of the block driver for each version folder, oldest Windows first.

    One file is read for each; architectures are built together.  Raises DriverCollectionError,
    IsoError.
    """
    infs: dict[str, str] = {}
    for path in collection.paths():
        place = driver_place(path)
        if place and path.lower().endswith(("/viostor.inf", "/vioscsi.inf")):
            infs[place[1]] = max(path, infs.get(place[1], ""), key=_preference)
    found = {
        folder: parse_driver_ver(collection.read(infs[folder]))
        for folder in VERSION_FOLDERS
        if folder in infs and collection.size_bytes(infs[folder]) <= MAX_INF_BYTES
    }
    return {folder: version for folder, version in found.items() if version}


def _preference(path: str) -> tuple[bool, bool, str]:
    """Prefer viostor, which conversions install first, and x86_64."""
    lower = path.lower()
    return lower.endswith("/viostor.inf"), "/amd64/" in lower, path
