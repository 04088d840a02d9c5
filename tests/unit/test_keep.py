"""script/keep: the parts of the console come back after a crash and never outlive the server."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

KEEP = Path(__file__).resolve().parents[2] / "script/keep"
# Notes its start and its stop, then waits.
PART = """
trap 'echo stopped $0 >> "$NOTES"; exit 0' TERM
echo started $$ >> "$NOTES"
while :; do sleep 0.02; done
"""

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Where the parts note what happens to them."""
    path = tmp_path / "notes"
    path.touch()
    return path


@pytest.fixture
def start(tmp_path: Path, notes: Path) -> Iterator[Start]:
    """Start kept parts; kill what is left of them at the end."""
    (tmp_path / "run").mkdir()
    started: list[subprocess.Popen[bytes]] = []

    def start_one(
        name: str, *options: str, server: int | None = None, part: str = PART
    ) -> subprocess.Popen[bytes]:
        environment = os.environ | {"V2VWEB_VAR": str(tmp_path), "NOTES": str(notes)}
        environment.pop("V2VWEB_SERVER_PID", None)
        if server:
            environment["V2VWEB_SERVER_PID"] = str(server)
        command = [str(KEEP), *options, "bash", "-c", part, name]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        started.append(process)
        return process

    yield start_one
    for process in started:
        process.kill()
        process.wait()


def wait_for(notes: Path, text: str, count: int = 1) -> list[str]:
    """Wait until `text` stands in the notes `count` times; return the lines."""
    deadline = time.monotonic() + 10
    while notes.read_text().count(text) < count:
        assert time.monotonic() < deadline, f"no {text!r} x{count} in:\n{notes.read_text()}"
        time.sleep(0.02)
    return notes.read_text().splitlines()


def pid_of(line: str) -> int:
    """Return the process id that a part noted at its start."""
    return int(line.split()[1])


def test_a_killed_part_is_started_again(start: Start, notes: Path) -> None:
    start("web")
    first = wait_for(notes, "started")[0]
    os.kill(pid_of(first), signal.SIGKILL)
    lines = wait_for(notes, "started", 2)
    assert lines[1] != first


def test_stopping_stops_the_part_cleanly(start: Start, notes: Path) -> None:
    keep = start("web")
    wait_for(notes, "started")
    keep.terminate()
    assert keep.wait(10) == 0
    wait_for(notes, "stopped web")


def test_the_last_part_stops_after_all_others(start: Start, notes: Path) -> None:
    redis = start("redis", "--last")
    worker = start("worker")
    wait_for(notes, "started", 2)
    redis.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        redis.wait(0.3)
    worker.terminate()
    assert (worker.wait(10), redis.wait(10)) == (0, 0)
    assert [line for line in wait_for(notes, "stopped", 2) if "stopped" in line] == [
        "stopped worker",
        "stopped redis",
    ]


def test_a_part_ends_when_the_server_is_killed(start: Start, notes: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as server:
        keep = start("web", server=server.pid)
        wait_for(notes, "started")
        server.kill()
    assert keep.wait(10) == 0
    wait_for(notes, "stopped web")


def test_a_part_dies_with_its_keeper(start: Start, notes: Path) -> None:
    keep = start("web")
    part = pid_of(wait_for(notes, "started")[0])
    keep.kill()
    keep.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{part}").exists():
        assert time.monotonic() < deadline, "the part outlived its keeper"
        time.sleep(0.02)


def test_a_part_that_does_not_end_is_killed_when_patience_is_over(
    start: Start, notes: Path
) -> None:
    keep = start("web", "--patience", "0.2", part=PART.replace("exit 0", ":"))
    pid = pid_of(wait_for(notes, "started")[0])
    keep.terminate()
    assert keep.wait(10) == 0
    assert not Path(f"/proc/{pid}").exists()
