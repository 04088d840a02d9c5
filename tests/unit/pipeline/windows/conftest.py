"""Phony Windows guests in folders, for the tests that also run in an appliance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.guests.folder_guest import FolderGuest
from tests.guests.phony_windows import PhonyWindows
from tests.guests.virtio_win import driver_iso_tree, driver_tree, make_iso, tools_folder
from tests.guests.windows import WindowsGuest


@pytest.fixture(scope="session")
def virtio_win(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the names of virtio-win: VD of the specification."""
    return driver_tree(tmp_path_factory.mktemp("vd"))


@pytest.fixture(scope="session")
def virtio_win_iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ISO with the names of virtio-win: VI of the specification."""
    folder = tmp_path_factory.mktemp("vi")
    return make_iso(driver_iso_tree(folder / "tree"), folder / "virtio-win.iso")


@pytest.fixture(scope="session")
def first_start_tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three tools of the first start: TT of the specification."""
    return tools_folder(tmp_path_factory.mktemp("tt"))


@pytest.fixture
def windows(
    virtio_win: Path, first_start_tools: Path, tmp_path: Path
) -> Callable[[WindowsGuest], PhonyWindows]:
    """Write a Windows guest to folders."""

    def make(guest: WindowsGuest) -> PhonyWindows:
        g = FolderGuest(tmp_path / "guest")
        return PhonyWindows.make(g, tmp_path, guest, drivers=virtio_win, tools=first_start_tools)

    return make
