"""What a Windows is, read from its own files and registry.

libguestfs 1.48 knows neither Windows 11 nor Server 2025, takes ARM programs for x86 ones, and gives
up on all disks when one is blank and MountedDevices holds an entry of 12 bytes ("unrecognised disk
label").  So only the root device is taken from it, and not even that when it fails.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.errors import InspectionError
from conversions.pipeline.types import Application, Inspection
from conversions.pipeline.windows.applications import installed_programs
from conversions.pipeline.windows.registry import (
    SOFTWARE,
    SYSTEM,
    Changes,
    Hive,
    Registry,
)
from conversions.pipeline.windows.versions import product_name, short_id

_ROOTS = ("/windows", "/winnt", "/win32", "/win", "/reactos")
_BOOT_INI_ROOT = re.compile(r"(?im)^(?:multi|scsi)\([^=\\]*(\\[^=\s\"]+)")
_PE_MACHINES = {0x014C: "i386", 0x8664: "x86_64", 0xAA64: "aarch64"}
_MAX_BOOT_INI = 64 << 10
# What ntfs-3g.probe says of a filesystem that is to be written.
_STATES = {13: "inconsistent", 14: "hibernated", 15: "unclean"}
_MEANING = {
    "inconsistent": "its structures contradict each other",
    "hibernated": "Windows is hibernated, or was shut down with Fast Startup, which is the same",
    "unclean": "it was not cleanly unmounted: the machine was running or was cut off",
}
HIBERNATION_REMEDY = (
    "On the source, turn hibernation and Fast Startup off (powercfg /h off), shut Windows down "
    "(shutdown /s /t 0) and export it again."
)
UNCLEAN_REMEDY = (
    "Start the machine on its source, let Windows check the disk (chkdsk /f), shut it down and "
    "export it again."
)


def ntfs_state(g: GuestFS, device: str) -> str:
    """Return why an NTFS must not be written: hibernated, unclean, inconsistent; "" when it may.

    Looks before anything is mounted and changes nothing.
    """
    return _STATES.get(g.ntfs_3g_probe(True, device), "")


def check_ntfs(g: GuestFS, device: str) -> None:
    """Refuse to write a filesystem that Windows has not let go.  Raises InspectionError."""
    state = ntfs_state(g, device)
    if state:
        raise InspectionError(
            f"{device}, the Windows filesystem, cannot be changed safely: {_MEANING[state]}.",
            remedy=state_remedy(state),
            code=f"E-NTFS-{state.upper()}",
        )


def state_meaning(state: str) -> str:
    """Return what a state says about the guest."""
    return _MEANING[state]


def state_remedy(state: str) -> str:
    """Return what to do about a state."""
    return HIBERNATION_REMEDY if state == "hibernated" else UNCLEAN_REMEDY


def find_windows_roots(g: GuestFS, filesystems: Iterable[tuple[str, str]]) -> list[str]:
    """Return the NTFS and FAT filesystems that hold a Windows, with nothing left mounted."""
    found = []
    for device, kind in filesystems:
        if kind not in ("ntfs", "vfat"):
            continue
        g.umount_all()
        try:
            g.mount_ro(device, "/")
        except RuntimeError:
            continue  # damaged, or not what it says: it is not the one
        if find_systemroot(g):
            found.append(device)
    g.umount_all()
    return found


def find_systemroot(g: GuestFS) -> str:
    """Return the folder of Windows on the mounted filesystem as spelled there, "" without one."""
    for candidate in (*_ROOTS, *_boot_ini_roots(g)):
        folder = str(g.case_sensitive_path(candidate))
        if not g.is_dir(folder):
            continue
        system32 = g.case_sensitive_path(f"{folder}/system32")
        if not g.is_dir(system32):
            continue
        config = g.case_sensitive_path(f"{system32}/config")
        shell = g.case_sensitive_path(f"{system32}/cmd.exe")
        if g.is_dir(config) and g.is_file(shell, followsymlinks=True):
            return folder
    return ""


def _boot_ini_roots(g: GuestFS) -> list[str]:
    path = g.case_sensitive_path("/boot.ini")
    if not g.is_file(path) or g.filesize(path) > _MAX_BOOT_INI:
        return []
    return boot_ini_roots(bytes(g.read_file(path)).decode("latin-1"))


def boot_ini_roots(text: str) -> list[str]:
    """Return the folders that boot.ini offers, as paths: multi(0)...\\WINDOWS="..."."""
    _, _, systems = text.partition("[operating systems]")
    folders = [m[1].replace("\\", "/") for m in _BOOT_INI_ROOT.finditer(systems)]
    return [f for f in folders if f.count("/") == 1 and ".." not in f]


def program_arch(data: bytes) -> str:
    """Return the architecture of a Windows program by its PE header, "unknown" without one."""
    if len(data) < 0x40 or data[:2] != b"MZ":
        return "unknown"
    at = struct.unpack_from("<I", data, 0x3C)[0]
    if at + 6 > len(data) or data[at : at + 4] != b"PE\0\0":
        return "unknown"
    return _PE_MACHINES.get(struct.unpack_from("<H", data, at + 4)[0], "unknown")


def inspect_windows(
    g: GuestFS, root: str, *, esps: Iterable[str], mountpoints: Iterable[tuple[str, str]],
    filesystems: Iterable[tuple[str, str]], state: str,
) -> Inspection:  # fmt: skip
    """Describe the Windows whose root is mounted on `/`.

    `state` is that of ntfs_state.  Raises InspectionError without a folder of Windows, HiveError
    when the registry cannot be read.
    """
    systemroot = find_systemroot(g)
    if not systemroot:
        raise InspectionError(f"{root} has no folder of Windows with system32 and cmd.exe.")
    system32 = g.case_sensitive_path(f"{systemroot}/system32")
    config = g.case_sensitive_path(f"{system32}/config")
    hives = {
        SYSTEM: str(g.case_sensitive_path(f"{config}/system")),
        SOFTWARE: str(g.case_sensitive_path(f"{config}/software")),
    }
    registry = Registry(g, hives, Changes(), change=False)
    with registry.reading(SOFTWARE) as software:
        version = _version(software)
        programs = installed_programs(software)
    with registry.reading(SYSTEM) as system:
        control_set = current_control_set(system)
        parameters = system.key(f"{control_set}\\Services\\Tcpip\\Parameters")
        hostname = (parameters.text("Hostname") if parameters else None) or "unknown"
    shell = g.case_sensitive_path(f"{system32}/cmd.exe")
    osinfo = short_id(
        version.major,
        version.minor,
        name=version.name,
        variant=version.variant,
        build=version.build,
    )
    return Inspection(
        root=root,
        type="windows",
        distro="windows",
        arch=program_arch(bytes(g.pread(shell, 4096, 0))),
        major_version=version.major,
        minor_version=version.minor,
        package_format="unknown",
        package_management="unknown",
        product_name=product_name(version.name, osinfo),
        product_variant=version.variant,
        osinfo=osinfo,
        hostname=hostname,
        uefi_esps=tuple(esps),
        mountpoints=tuple(mountpoints),
        filesystems=tuple(sorted(filesystems)),
        applications=tuple(Application(name=p.name or p.key, version=p.version) for p in programs),
        windows_systemroot=systemroot,
        windows_software_hive=hives[SOFTWARE],
        windows_system_hive=hives[SYSTEM],
        windows_current_control_set=control_set,
        windows_ntfs_state=state,
    )


def current_control_set(system: Hive) -> str:
    """Return the control set that Windows starts with, ControlSet001 when it does not say."""
    select = system.key("Select")
    number = select.number("Current") if select else None
    return f"ControlSet{number if number and number < 1000 else 1:03d}"


@dataclass(frozen=True, slots=True)
class _Version:
    """What SOFTWARE says about the version."""

    major: int
    minor: int
    name: str
    variant: str
    build: str


def _version(software: Hive) -> _Version:
    """Read it; since Windows 10 numbers of their own replace the text, which stopped at 6.3."""
    key = software.key("Microsoft\\Windows NT\\CurrentVersion")
    if key is None:
        return _Version(0, 0, "unknown", "unknown", "")
    major, minor = key.number("CurrentMajorVersionNumber"), key.number("CurrentMinorVersionNumber")
    if major is None or minor is None:
        match = re.fullmatch(r"(\d{1,3})\.(\d{1,3})", key.text("CurrentVersion") or "")
        major, minor = (int(match[1]), int(match[2])) if match else (0, 0)
    return _Version(
        major,
        minor,
        key.text("ProductName") or "unknown",
        key.text("InstallationType") or "unknown",
        key.text("CurrentBuildNumber") or "",
    )
