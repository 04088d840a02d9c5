"""Put the drivers into the guest: all of them as files, the boot driver where Windows loads it."""

from __future__ import annotations

from conversions.pipeline.errors import GuestError
from conversions.pipeline.windows.files import WindowsFiles
from conversions.pipeline.windows.plan import Plan

# A little more for folders, scripts and logs.
_RESERVE_BYTES = 10 << 20


def driver_folder(systemroot: str) -> str:
    """Return where drivers go."""
    return f"{systemroot}/Drivers/VirtIO"


def check_room(free_bytes: int, plan: Plan) -> None:
    """Refuse a guest whose system drive cannot take the files.  Raises GuestError."""
    need = plan.size_bytes() + _RESERVE_BYTES
    if free_bytes < need:
        raise GuestError(
            f"Not enough free space for the drivers in the guest: {free_bytes >> 20} MiB free, "
            f"{need >> 20} MiB needed.",
            remedy="Delete files in the guest on its source, and export it again.",
            code="E-GUEST-SPACE",
        )


def copy_drivers(files: WindowsFiles, systemroot: str, plan: Plan) -> str:
    """Copy all drivers into one folder and return it; it is made even when there are none.

    The boot driver is copied once more, to where its service says it is.
    """
    folder = files.make_folder(driver_folder(systemroot))
    if plan.collection is None:
        return folder
    for name, path in sorted(plan.drivers.items()):
        files.write(f"{folder}/{name}", plan.collection.read(path), "driver copied")
    if plan.boot:
        files.write(
            f"{files.make_folder(f'{systemroot}/System32/drivers')}/{plan.boot.file}",
            plan.collection.read(plan.drivers[plan.boot.file]),
            "boot driver copied",
        )
    return folder
