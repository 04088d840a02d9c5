"""What every test may rely on: nothing it does reaches the console's own state."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.guests import cache

pytest_plugins = ["tests.row_listing"]
REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def results_dir() -> Path:
    """A folder for what people look at after a test run: screenshots, server logs."""
    path = REPOSITORY / "var" / "test-results"
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="session", autouse=True)
def direct_backend() -> None:
    """Let libguestfs start qemu itself, as the engine does: no libvirtd in the tests."""
    os.environ["LIBGUESTFS_BACKEND"] = "direct"


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the marks on disks that are changed in place out of the home folder."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def build_sample() -> Callable[..., Path]:
    """Build a sample guest's OVA (minutes), or take it from an earlier run of the same builder."""
    return cache.build_sample
