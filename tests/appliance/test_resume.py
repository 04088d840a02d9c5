"""A real conversion that is cut off in its copy, and the run that goes on from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conversions.pipeline.kept import RECORD
from conversions.pipeline.stop import children_of
from tests.appliance.phony import DEBIAN
from tests.appliance.test_in_place import FSTAB, build_disk, digest, is_converted

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk to be converted, with enough in it that a slow copy can be cut off."""
    disk = tmp_path / "web.raw"
    build_disk(disk, {**DEBIAN, "/etc/fstab": FSTAB, "/srv-data": os.urandom(24 << 20)})
    return disk


@pytest.fixture
def start(repository: Path, tmp_path: Path) -> Start:
    """Start the engine; its work folders are in the test's own."""
    work = tmp_path / "work"
    work.mkdir()

    def run(*options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "conversions.pipeline", "--events", *options],
            cwd=repository,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "VIRT_V2V_TMPDIR": str(work)},
        )

    return run


def finished(engine: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Wait for an engine's end and return its events."""
    out, _ = engine.communicate(timeout=600)
    return [json.loads(line) for line in out.splitlines()]


def killed_in_copy(engine: subprocess.Popen[str]) -> list[int]:
    """Send KILL when the first bytes are copied; return the processes the engine had started."""
    assert engine.stdout
    for line in engine.stdout:
        event = json.loads(line)
        assert event["type"] != "result", event
        if event["type"] == "progress" and event["done_bytes"] > 0:
            break
    children = children_of(engine.pid)
    engine.kill()
    engine.communicate(timeout=60)
    return children


@pytest.mark.rows("4-T97")
def test_a_conversion_that_was_killed_in_its_copy_goes_on_from_there(
    disk: Path, start: Start, tmp_path: Path
) -> None:
    """With -9; the slow copy would take half a minute.  Two layers are in the unit tests."""
    first, second, work = tmp_path / "first", tmp_path / "second", tmp_path / "work"
    first.mkdir()
    second.mkdir()
    before = digest(disk)
    slow = ("--rate-limit", "1", "--overlap", "never", "--keep-converted")
    target = ("-o", "local", "-of", "qcow2", "-os")
    children = killed_in_copy(
        start("-i", "disk", "-if", "raw", str(disk), *slow, *target, str(first))
    )
    assert children
    assert not any(Path(f"/proc/{pid}/exe").exists() for pid in children)
    [folder] = work.glob("v2v.*")
    finished(start("--clean-up", str(folder)))
    overlay = folder / "v2vovl-sda.qcow2"
    assert sorted(folder.iterdir()) == [folder / RECORD, overlay]
    expected = tmp_path / "expected.raw"
    convert = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", overlay, expected]
    subprocess.run(convert, check=True)
    assert is_converted(expected)

    events = finished(start("--resume", str(folder), "--verify", "full", *target, str(second)))

    assert events[-1]["status"] == "ok", events[-1]
    result = second / "web-sda"
    compare = ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", expected, result]
    subprocess.run(compare, check=True, capture_output=True)
    states = {e["name"]: e["state"] for e in events if e["type"] == "step"}
    skipped = ["handle", "launch", "inspection", "conversion", "trim", "close"]
    assert [name for name, state in states.items() if state == "skipped"] == skipped
    reports = {e["name"]: e["data"] for e in events if e["type"] == "report"}
    assert reports["source_check"]["unchanged"]
    assert sorted(path.name for path in second.iterdir()) == ["web-sda", "web.xml"]
    assert list(work.glob("v2v.*")) == []
    assert digest(disk) == before
