"""What every test may rely on: nothing it does reaches the console's own state."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def cache_dir() -> Path:
    """A folder for what is expensive to build and kept between test runs."""
    path = REPOSITORY / "var" / "cache"
    path.mkdir(parents=True, exist_ok=True)
    return path


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
