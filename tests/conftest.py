"""What every test may rely on: nothing it does reaches the console's own state."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest_plugins = ["tests.row_listing"]
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


@pytest.fixture(scope="session")
def build_sample(cache_dir: Path) -> Callable[..., Path]:
    """Build a sample guest's OVA (minutes), or take it from an earlier run of the same builder.

    Options are those of the builder: build_sample("debian", layout="plain").
    """
    folder = REPOSITORY / "tests/guests"

    def key_of(builder: str) -> str:
        sources = sorted([folder / "common.py", *folder.glob(f"{builder}*"), *folder.glob("el9/*")])
        return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]

    def build(builder: str, **options: str) -> Path:
        key = key_of(builder)
        ova = cache_dir / "-".join(["sample", builder, *options.values(), f"{key}.ova"])
        # Of tests that run side by side one builds; the unpacked system is the same for all OVAs.
        with (cache_dir / "build.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not ova.exists():
                arguments = [f"--{name}={value}" for name, value in options.items()]
                rootfs = cache_dir / f"sample-rootfs-{builder}-{key}.tar"
                command = [sys.executable, "-m", f"tests.guests.{builder}", ova, "--rootfs", rootfs]
                subprocess.run([*command, *arguments], cwd=REPOSITORY, check=True)
        return ova

    keys = {key_of(path.stem) for path in folder.glob("*.py")}
    for outdated in cache_dir.glob("sample-*"):
        if not any(key in outdated.name for key in keys):
            outdated.unlink(missing_ok=True)
    return build
