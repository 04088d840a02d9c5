r"""Small repairs in the registry: what stops a guest from starting on other hardware.

Left alone on purpose: Processor and intelppm services, driver signing, SAN policy, the services of
other hypervisors, hidden network adapters, page file, drive letters.
"""

from __future__ import annotations

from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.windows.registry import (
    DWORD,
    EXPAND_SZ,
    MULTI_SZ,
    NONE,
    QWORD,
    SZ,
    Hive,
    Value,
    dword,
    multi_sz,
)

DISABLED = 4
_PARALLELS = ("prl_boot", "prl_dd", "prl_eth5", "prl_fs", "prl_memdev", "prl_mouf", "prl_pv32",
              "prl_pv64", "prl_scsi", "prl_sound", "prl_strg", "prl_tg", "prl_time", "prl_uprof",
              "prl_va")  # fmt: skip
_VMWARE = ("VMTools", "VGAuthService")
_SCSI_ADAPTERS = "{4d36e967-e325-11ce-bfc1-08002be10318}"
DRIVERS_IN_PATH = ";%SystemRoot%\\Drivers\\VirtIO"


def disable_services(system: Hive, control_set: str, *, vmware: bool) -> None:
    """Turn off services that only work on the old hypervisor; their keys stay for uninstallers.

    Those of VMware are turned off only with `vmware`.
    """
    for name in ("rhelscsi", *_PARALLELS, *(_VMWARE if vmware else ())):
        if key := system.key(f"{control_set}\\Services\\{name}"):
            key.set("Start", dword(DISABLED))


def remove_storage_filter(system: Hive, control_set: str) -> None:
    """Take the filter driver of Parallels out of the disks' class; the other filters stay.

    With the filter and without its service Windows stops with 0x7B.
    """
    key = system.key(f"{control_set}\\Control\\Class\\{_SCSI_ADAPTERS}")
    filters = key.get("LowerFilters") if key else None
    if key is None or filters is None or filters.type != MULTI_SZ:
        return
    kept = [m for m in filters.members() if m.decode("utf-16-le", "replace") != "prl_strg"]
    key.set("LowerFilters", multi_sz(*kept))


def keep_stop_screen(system: Hive, control_set: str) -> None:
    """Let a stop screen stay visible instead of starting over for ever."""
    if key := system.key(f"{control_set}\\Control\\CrashControl"):
        key.set("AutoReboot", dword(0))


def extend_device_path(software: Hive, report: Reporter) -> None:
    """Let Windows look for drivers in the folder they are copied to."""
    key = software.key("Microsoft\\Windows\\CurrentVersion")
    if key is None:
        report.log(
            Level.WARNING,
            "The registry has no SOFTWARE\\Microsoft\\Windows\\CurrentVersion; Windows will not "
            "look for drivers by itself (ignored).",
        )
        return
    value = key.get("DevicePath")
    if value is None:
        return
    added = DRIVERS_IN_PATH.encode("utf-16-le")
    if value.type in (SZ, EXPAND_SZ) and added not in value.data:
        data = value.data.removesuffix(b"\0\0") + added + b"\0\0"
        key.set("DevicePath", Value(value.type, data))


def rtc_is_utc(system: Hive, control_set: str, report: Reporter) -> tuple[bool, str]:
    """Tell whether Windows keeps the hardware clock in UTC, and what says so."""
    key = system.key(f"{control_set}\\Control\\TimeZoneInformation")
    value = key.get("RealTimeIsUniversal") if key else None
    if value is None or value.type == NONE:
        return False, "RealTimeIsUniversal is not set: the hardware clock is in local time"
    if value.type in (DWORD, QWORD):
        utc = value.number() == 1
        return utc, f"RealTimeIsUniversal is {value}"
    report.log(
        Level.WARNING,
        f"RealTimeIsUniversal has an unusual type ({value}); the hardware clock is taken as UTC.",
    )
    return True, f"RealTimeIsUniversal is {value}"
