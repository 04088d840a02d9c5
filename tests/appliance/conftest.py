"""One appliance for all of these tests; each gets a disk of its own content."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import guestfs
import pytest

from conversions.pipeline.accelerator import choose_accelerator
from conversions.pipeline.handle import Handle
from conversions.pipeline.report import RecordingReporter
from tests.appliance.phony import PhonyGuest, Tree
from tests.guests.phony_windows import PhonyWindows
from tests.guests.windows import WindowsGuest
from tests.unit.pipeline.windows.conftest import (  # noqa: F401  fixtures
    first_start_tools,
    virtio_win,
    virtio_win_iso,
)

DISK_BYTES = 200 << 20
WINDOWS_DISK_BYTES = 176 << 20
# First, so that of two workers neither is left with one of them at the end.
LONGEST = ("test_real_guests.py", "test_windows_convert.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder, and put the longest files first."""
    for item in items:
        if "tests/appliance" in item.nodeid:
            item.add_marker(pytest.mark.appliance)
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handle]:
    """A running appliance with one partition, /dev/sda1, by the handle that the engine uses."""
    disk = tmp_path_factory.mktemp("appliance") / "disk.raw"
    with disk.open("wb") as stream:
        stream.truncate(DISK_BYTES)
    g = Handle(
        guestfs.GuestFS(python_return_dict=False, close_on_exit=False),
        guestfs.EVENT_WARNING,
        lambda _event, text: print(text),
    )
    g.set_backend("direct")
    g.set_backend_settings([] if choose_accelerator().kvm else ["force_tcg"])
    g.set_network(False)
    g.set_smp(2)
    g.add_drive_opts(str(disk), format="raw", cachemode="unsafe")
    g.launch()
    g.part_disk("/dev/sda", "mbr")
    yield g
    g.close()


@pytest.fixture
def phony(appliance: Handle, tmp_path: Path) -> Iterator[Callable[..., PhonyGuest]]:
    """Make the disk a guest of these files, and mount it."""

    def make(tree: Tree, **options: object) -> PhonyGuest:
        return PhonyGuest.make(appliance, tmp_path, tree, RecordingReporter(), **options)

    yield make
    appliance.umount_all()


@pytest.fixture(scope="session")
def windows_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the disk for a Windows is on this host."""
    return tmp_path_factory.mktemp("windows") / "disk.raw"


@pytest.fixture(scope="session")
def windows_appliance(windows_disk: Path) -> Iterator[guestfs.GuestFS]:
    """A running appliance with a disk for a Windows and a second one, left blank."""
    g = guestfs.GuestFS(python_return_dict=False, close_on_exit=False)
    g.set_backend("direct")
    g.set_backend_settings([] if choose_accelerator().kvm else ["force_tcg"])
    g.set_network(False)
    g.set_smp(2)
    second = windows_disk.with_name("second.raw")
    for disk, size in ((windows_disk, WINDOWS_DISK_BYTES), (second, 64 << 20)):
        g.disk_create(str(disk), "raw", size)
        g.add_drive_opts(str(disk), format="raw", cachemode="unsafe")
    g.launch()
    yield g
    g.close()


@pytest.fixture
def windows(
    windows_appliance: guestfs.GuestFS,
    windows_disk: Path,
    virtio_win: Path,  # noqa: F811
    first_start_tools: Path,  # noqa: F811
    tmp_path: Path,
) -> Iterator[Callable[[WindowsGuest], PhonyWindows]]:
    """Write a Windows guest to the disk."""

    def make(guest: WindowsGuest) -> PhonyWindows:
        return PhonyWindows.make(
            windows_appliance,
            tmp_path,
            guest,
            drivers=virtio_win,
            tools=first_start_tools,
            disk=windows_disk,
        )

    yield make
    windows_appliance.umount_all()
