"""Which Windows a guest is, by the short names of the osinfo database."""

from __future__ import annotations

import re

from conversions.pipeline.types import Inspection

FIRST_WINDOWS_11_BUILD = 22000
_CLIENTS = {0: "winvista", 1: "win7", 2: "win8", 3: "win8.1"}
_SERVERS = {0: "win2k8", 1: "win2k8r2", 2: "win2k12", 3: "win2k12r2"}
# Newest first: what a name holds decides, and no name holds two of them.
_SERVER_YEARS = (("2025", "win2k25"), ("2022", "win2k22"), ("2019", "win2k19"))


def short_id(major: int, minor: int, *, name: str, variant: str, build: str) -> str:
    """Return the short id of a Windows, such as win2k22; "unknown" for one not in the tables.

    libguestfs 1.48 has no Windows 11 and no Server 2025.  Windows 11 calls itself Windows 10 in
    ProductName, so its build number tells.
    """
    server = "Server" in variant
    if (major, minor) == (5, 1):
        return "winxp"
    if (major, minor) == (5, 2):
        return "winxp" if "XP" in name else "win2k3r2" if "R2" in name else "win2k3"
    if major == 6:
        return (_SERVERS if server else _CLIENTS).get(minor, "unknown")
    if (major, minor) != (10, 0):
        return "unknown"
    if server:
        return next((id_ for year, id_ in _SERVER_YEARS if year in name), "win2k16")
    return "win11" if build_number(build) >= FIRST_WINDOWS_11_BUILD else "win10"


def build_number(build: str) -> int:
    """Return CurrentBuildNumber as a number, 0 when it is none or longer than any."""
    return int(build) if re.fullmatch(r"[0-9]{1,9}", build) else 0


def product_name(name: str, osinfo: str) -> str:
    """Return the name people know it by: Windows 11 calls itself Windows 10 in the registry."""
    return name.replace("Windows 10", "Windows 11", 1) if osinfo == "win11" else name


def label(guest: Inspection) -> str:
    """Return version, architecture and short id for messages."""
    return (
        f"{guest.product_name} (NT {guest.major_version}.{guest.minor_version}, {guest.arch}, "
        f"{guest.product_variant}, {guest.osinfo})"
    )
