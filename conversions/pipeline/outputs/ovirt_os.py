"""What oVirt calls a guest's operating system: the name and the number of its kind.

Source: oVirt's osinfo-defaults.properties, in the order of virt-v2v, whose first match counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from conversions.pipeline.types import Inspection

Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class OvirtOs:
    """`name` goes into every OVF, `number` into those for the engine's API."""

    name: str
    number: int


UNASSIGNED = OvirtOs("Unassigned", 0)
_RHEL = {
    ("i386", 4): OvirtOs("RHEL4", 8),
    ("i386", 5): OvirtOs("RHEL5", 7),
    ("i386", 6): OvirtOs("RHEL6", 18),
    ("x86_64", 4): OvirtOs("RHEL4x64", 14),
    ("x86_64", 5): OvirtOs("RHEL5x64", 13),
    ("x86_64", 6): OvirtOs("RHEL6x64", 19),
    ("x86_64", 7): OvirtOs("rhel_7x64", 24),
    ("ppc", 6): OvirtOs("rhel_6_ppc64", 1003),
    ("ppc", 7): OvirtOs("rhel_7_ppc64", 1006),
    ("s390x", 7): OvirtOs("rhel_7_s390x", 2003),
}
_OTHER_LINUX = {
    "ppc": OvirtOs("other_linux_ppc64", 1002),
    "s390x": OvirtOs("other_linux_s390x", 2002),
}
_GENERIC_LINUX = OvirtOs("OtherLinux", 5)
_UBUNTU = {(12, 4): 1252, (12, 10): 1253, (13, 4): 1254, (13, 10): 1255}
# Windows before 10 by version: of 32 bits, of 64 bits for desktops, of 64 bits for servers.
_WINDOWS = {
    (5, 2): (OvirtOs("Windows2003", 3), *[OvirtOs("Windows2003x64", 10)] * 2),
    (6, 0): (OvirtOs("Windows2008", 4), *[OvirtOs("Windows2008x64", 16)] * 2),
    (6, 1): (OvirtOs("Windows7", 11), OvirtOs("Windows7x64", 12), OvirtOs("Windows2008R2x64", 17)),
    (6, 2): (OvirtOs("windows_8", 20), OvirtOs("windows_8x64", 21), OvirtOs("windows_2012x64", 23)),
    (6, 3): (
        OvirtOs("windows_8", 20), OvirtOs("windows_8x64", 21), OvirtOs("windows_2012R2x64", 25),
    ),
}  # fmt: skip
_WINDOWS_10 = {
    "win10": OvirtOs("windows_10x64", 27),
    "win11": OvirtOs("windows_11", 36),
    "win2k16": OvirtOs("windows_2016x64", 29),
    "win2k19": OvirtOs("windows_2019x64", 31),
    "win2k22": OvirtOs("windows_2022", 37),
}
_NEWEST_WINDOWS = OvirtOs("windows_2025", 37)


def ovirt_os(guest: Inspection | None, warn: Warn) -> OvirtOs:
    """Return what oVirt calls the guest's system; `warn` hears when it has no name for it.

    A guest that was never looked into is unassigned, without a word.
    """
    if guest is None:
        return UNASSIGNED
    found = _linux(guest) if guest.type == "linux" else _windows(guest, warn)
    if found is None:
        warn(
            f"oVirt has no name for {guest.product_name} ({guest.arch}); its operating system is "
            "left unassigned."
        )
    return found or UNASSIGNED


def _linux(guest: Inspection) -> OvirtOs:
    arch = "ppc" if guest.arch in ("ppc64", "ppc64le") else guest.arch
    major, minor = guest.major_version, guest.minor_version
    found: OvirtOs | None = None
    match guest.distro:
        case "rhel" | "centos":
            if arch == "x86_64" and major >= 8:
                found = OvirtOs(f"rhel_{major}x64", _GENERIC_LINUX.number)
            elif (arch, major) == ("ppc", 6) and minor >= 9:
                found = OvirtOs("rhel_6_9_plus_ppc64", 1007)
            else:
                found = _RHEL.get((arch, major))
        case "sles":
            found = _sles(arch, major)
        case "debian" if major >= 7:
            found = OvirtOs("debian_7", 1300)
        case "ubuntu":
            found = _ubuntu(arch, major, minor)
    return found or _OTHER_LINUX.get(arch, _GENERIC_LINUX)


def _sles(arch: str, major: int) -> OvirtOs | None:
    if arch == "x86_64" and major >= 11:
        return OvirtOs("sles_11", 1193)
    if arch == "ppc" and major >= 11:
        return OvirtOs("sles_11_ppc64", 1004)
    return OvirtOs("sles_12_s390x", 2004) if arch == "s390x" and major >= 12 else None


def _ubuntu(arch: str, major: int, minor: int) -> OvirtOs | None:
    if arch == "ppc" and major >= 14:
        return OvirtOs("ubuntu_14_04_ppc64", 1005)
    if arch == "s390x" and major >= 16:
        return OvirtOs("ubuntu_16_04_s390x", 2005)
    if major >= 14:
        return OvirtOs("ubuntu_14_04", 1256)
    number = _UBUNTU.get((major, minor))
    return OvirtOs(f"ubuntu_{major}_{minor:02}", number) if number else None


def _windows(guest: Inspection, warn: Warn) -> OvirtOs | None:
    version = (guest.major_version, guest.minor_version)
    is_client = guest.product_variant == "Client"
    if guest.type != "windows" or guest.arch not in ("i386", "x86_64"):
        return None
    if version == (5, 1) or (version == (5, 2) and "XP" in guest.product_name):
        return OvirtOs("WindowsXP", 1)
    if version == (10, 0):
        return OvirtOs("windows_10", 26) if guest.arch == "i386" else _windows_10(guest, warn)
    if version == (6, 3) and guest.arch == "i386" and not is_client:
        return None
    if version not in _WINDOWS:
        return None
    small, client, server = _WINDOWS[version]
    return small if guest.arch == "i386" else client if is_client else server


def _windows_10(guest: Inspection, warn: Warn) -> OvirtOs:
    """Tell the systems that all call themselves version 10.0 by libosinfo's names."""
    if found := _WINDOWS_10.get(guest.osinfo):
        return found
    if guest.osinfo != "win2k25":
        warn(f"{guest.product_name} ({guest.osinfo}) is not known; oVirt is told windows_2025.")
    warn("oVirt has no number for windows_2025 yet; the machine gets that of Windows Server 2022.")
    return _NEWEST_WINDOWS
