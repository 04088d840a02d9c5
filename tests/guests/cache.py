"""Guests that take minutes to build, kept between runs and shared by all checkouts of a user."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
UNUSED_SECONDS = 14 * 86400


def cache_folder() -> Path:
    """Return the folder, made when it is missing: $V2VWEB_TEST_CACHE, or below ~/.cache."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("V2VWEB_TEST_CACHE") or caches / "v2vweb-tests")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def build_sample(builder: str, **options: str) -> Path:
    """Return a sample guest's OVA, built unless the same builder has built it before.

    Options are those of the builder: build_sample("debian", layout="plain").
    """
    key = key_of(builder)
    folder = cache_folder()
    ova = folder / "-".join(["sample", builder, *options.values(), f"{key}.ova"])
    # Of tests that run side by side one builds; the unpacked system is the same for all OVAs.
    with (folder / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rootfs = folder / f"sample-rootfs-{builder}-{key}.tar"
        if not ova.exists():
            unfinished = ova.with_suffix(".part.ova")
            arguments = [f"--{name}={value}" for name, value in options.items()]
            arguments += ["--rootfs", str(rootfs), str(unfinished)]
            command = [sys.executable, "-m", f"tests.guests.{builder}", *arguments]
            subprocess.run(command, cwd=REPOSITORY, check=True)
            unfinished.rename(ova)
        for path in (ova, rootfs):
            path.touch()
        _remove_unused(folder)
    return ova


def key_of(builder: str) -> str:
    """Return what changes with the builder's sources."""
    folder = REPOSITORY / "tests/guests"
    sources = sorted([folder / "common.py", *folder.glob(f"{builder}*"), *folder.glob("el9/*")])
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def _remove_unused(folder: Path) -> None:
    """Remove guests that nobody has asked for in a while, such as those of older builders."""
    for path in folder.glob("*-*"):
        if path.stat().st_mtime < time.time() - UNUSED_SECONDS:
            path.unlink()
