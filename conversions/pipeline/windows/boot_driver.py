r"""The block driver that Windows starts from: its place in the SYSTEM hive.

Windows 8 and later bind a driver to a device through DriverDatabase, where a package and its
configuration must look as an installed one; older ones through CriticalDeviceDatabase.  The hive
itself tells which.  The entry is replaced by the real package at the first start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from conversions.pipeline.types import BlockBus
from conversions.pipeline.windows.registry import (
    Hive,
    Value,
    binary,
    dword,
    expand_sz,
    multi_sz,
    sz,
)

SCSI_CLASS = "{4D36E97B-E325-11CE-BFC1-08002BE10318}"
INF = "guestor.inf"
CONFIGURATION = "guestor_conf"
_BLK_IDS = ("VEN_1AF4&DEV_1001&REV_00", "VEN_1AF4&DEV_1042&REV_01")
_SCSI_IDS = ("VEN_1AF4&DEV_1004&REV_00", "VEN_1AF4&DEV_1048&REV_01")
# Windows 10 refuses a package without it; the bytes after the ninth are the SCSI class, the rest
# date and version, zero.
_VERSION = bytes.fromhex("00ff0900000000007be9364d25e3ce11bfc108002be10318") + bytes(24)
_PRIORITY = ("virtio_blk", "vrtioblk", "viostor")


@dataclass(frozen=True, slots=True, kw_only=True)
class BootDriver:
    """A driver file and the devices it drives: the legacy and the modern PCI id."""

    name: str
    bus: BlockBus
    pci_ids: tuple[str, str]

    @property
    def file(self) -> str:
        """Return the name of its file."""
        return f"{self.name}.sys"


def driver_names(wanted: BlockBus) -> tuple[str, ...]:
    """Return the drivers in order of preference; virtio-scsi only when it is asked for."""
    return ("vioscsi", *_PRIORITY) if wanted is BlockBus.VIRTIO_SCSI else _PRIORITY


def choose_boot_driver(files: Iterable[str], wanted: BlockBus) -> BootDriver | None:
    """Return the first driver of the order whose file is there, None without any."""
    present = set(files)
    name = next((n for n in driver_names(wanted) if f"{n}.sys" in present), None)
    if name is None:
        return None
    if name == "vioscsi":
        return BootDriver(name=name, bus=BlockBus.VIRTIO_SCSI, pci_ids=_SCSI_IDS)
    return BootDriver(name=name, bus=BlockBus.VIRTIO_BLK, pci_ids=_BLK_IDS)


def register_boot_driver(system: Hive, control_set: str, driver: BootDriver, *, arch: str) -> None:
    """Enter the driver into SYSTEM as one that starts with Windows."""
    _set(system, service_entries(control_set, driver))
    if system.key("DriverDatabase") is None:
        _set(system, critical_device_entries(control_set, driver))
    else:
        _set(system, driver_database_entries(driver, arch=arch))


def _set(system: Hive, entries: Mapping[str, Mapping[str, Value]]) -> None:
    for path, values in entries.items():
        key = system.make(path)
        for name, value in values.items():
            key.set(name, value)


def service_entries(control_set: str, driver: BootDriver) -> dict[str, dict[str, Value]]:
    """Return the service: a kernel driver (1) that the boot loader loads (0)."""
    return {
        f"{control_set}\\Services\\{driver.name}": {
            "Type": dword(1),
            "Start": dword(0),
            "Group": sz("SCSI miniport"),
            "ErrorControl": dword(1),
            "ImagePath": expand_sz(f"system32\\drivers\\{driver.file}"),
        }
    }


def critical_device_entries(control_set: str, driver: BootDriver) -> dict[str, dict[str, Value]]:
    """Return the devices as Windows before 8 wants them.

    No subsystem id is in the names on purpose: it differs between vendors.
    """
    return {
        f"{control_set}\\Control\\CriticalDeviceDatabase\\PCI#{pci_id}": {
            "Service": sz(driver.name),
            "ClassGUID": sz(SCSI_CLASS),
        }
        for pci_id in driver.pci_ids
    }


def package_label(arch: str) -> str:
    """Return the package's name, in the shape that pnputil and upgrades of Windows expect."""
    return f"{INF}_{'x86' if arch == 'i386' else 'amd64'}_0000000000000000"


def driver_database_entries(driver: BootDriver, *, arch: str) -> dict[str, dict[str, Value]]:
    """Return the devices as Windows 8 and later want them."""
    label = package_label(arch)
    package = f"DriverDatabase\\DriverPackages\\{label}"
    entries: dict[str, dict[str, Value]] = {
        f"DriverDatabase\\DriverInfFiles\\{INF}": {
            "": multi_sz(label),
            "Active": sz(label),
            "Configurations": multi_sz(CONFIGURATION),
        },
        package: {"Version": binary(_VERSION)},
        f"{package}\\Configurations\\{CONFIGURATION}": {
            "ConfigFlags": dword(0),
            "Service": sz(driver.name),
        },
    }
    for pci_id in driver.pci_ids:
        entries[f"DriverDatabase\\DeviceIds\\PCI\\{pci_id}"] = {INF: binary(b"\x01\xff\0\0")}
        entries[f"{package}\\Descriptors\\PCI\\{pci_id}"] = {"Configuration": sz(CONFIGURATION)}
    return entries


def temporary_keys(driver: BootDriver, *, arch: str) -> Sequence[str]:
    """Return the keys of DriverDatabase that the real package makes superfluous."""
    return (
        *(f"DriverDatabase\\DeviceIds\\PCI\\{pci_id}" for pci_id in driver.pci_ids),
        f"DriverDatabase\\DriverInfFiles\\{INF}",
        f"DriverDatabase\\DriverPackages\\{package_label(arch)}",
    )
