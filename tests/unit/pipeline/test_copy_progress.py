"""What is told of a copy while it runs: bytes, rate, silence, a figure over all disks."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from conversions.pipeline import copy_progress
from conversions.pipeline.copy_progress import (
    CopyProgress,
    ProgressParser,
    looking_at,
    written_bytes,
)
from conversions.pipeline.report import EventReporter, RecordingReporter
from conversions.pipeline.text_log import text_lines

MIB = 1 << 20


@pytest.mark.rows("4-T93")
def test_progress_is_read_in_any_chunks_and_never_falls() -> None:
    stream = b"    (0.00/100%)\r    (40.00/100%)\r    (39.00/100%)\r    (100.00/100%)\r"
    for size in (1, 3, 7, 100):
        parser = ProgressParser(1000)
        seen = [parser.feed(stream[i : i + size]) for i in range(0, len(stream), size)]
        assert seen == sorted(seen)
        assert 400 in seen or size == 100
        assert seen[-1] == 999
    assert ProgressParser(0).feed(b"(100.00/100%)") == 0


class Clock:
    """A clock that a test turns."""

    now = 1000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


def test_the_rate_is_that_of_the_last_half_minute() -> None:
    clock, report = Clock(), RecordingReporter()
    progress = CopyProgress("sda", 1000 * MIB, report, clock)
    for second in range(5, 65, 5):
        clock.now = 1000.0 + second
        progress.look(min(second, 30) * MIB)  # a MiB a second, and nothing from the 30th on
    told = report.of("progress")
    assert "rate" not in told[0]
    assert told[1]["rate"] == told[6]["rate"] == MIB
    assert told[9]["rate"] == MIB // 2
    assert told[12]["rate"] == 0
    assert [e["done_bytes"] for e in told] == sorted(e["done_bytes"] for e in told)


def test_what_is_written_counts_between_the_lines_of_the_program() -> None:
    clock, report = Clock(), RecordingReporter()
    progress = CopyProgress("sda", 100 * MIB, report, clock)
    for written, done in ((3, 3), (2, 3), (500, 99.9)):
        clock.now += 5
        progress.look(written * MIB)
        assert report.of("progress")[-1]["done_bytes"] == int(done * MIB)
    progress.feed(b"    (40.00/100%)\r")
    assert report.of("progress")[-1]["done_bytes"] == int(99.9 * MIB)


def test_two_minutes_without_a_byte_are_a_warning_once_each_time() -> None:
    clock, report = Clock(), RecordingReporter()
    progress = CopyProgress("sda", 100 * MIB, report, clock)
    for written in (1, 1, 1, 1, 2, 2, 2):
        clock.now += 60
        progress.look(written * MIB)
    warned = [e["text"] for e in report.of("log") if e["level"] == "warning"]
    assert [line.partition("done")[0] for line in warned] == [
        "Disk sda: nothing was written for 2 min, 1.0 MiB of 100.0 MiB are ",
        "Disk sda: nothing was written for 2 min, 2.0 MiB of 100.0 MiB are ",
    ]


def test_a_program_is_looked_at_while_it_runs_and_not_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_progress, "_LOOK_SECONDS", 0.02)
    report = RecordingReporter()
    code = "import sys, time; open(sys.argv[1], 'wb').write(b'x' * 65536); time.sleep(60)"
    with looking_at(CopyProgress("sda", MIB, report)) as started:
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out")])
        started(process)
        deadline = time.monotonic() + 20
        while report.of("progress")[-1]["done_bytes"] < 65536:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
        process.wait()
    count = len(report.events)
    time.sleep(0.1)
    assert len(report.events) == count
    assert written_bytes(process.pid) == 0
    assert written_bytes(os.getpid()) > 0


def lines_of(*events: dict[str, Any]) -> list[str]:
    """Return what --machine-readable prints for events."""
    out = io.StringIO()
    reporter = EventReporter(
        text_lines(out, out, quiet=False, verbose=False, trace=False, machine_readable=True)
    )
    reporter.report("copy_plan", {"sda": 100, "sdb": 300})
    for event in events:
        reporter.event("progress", **event)
    return out.getvalue().splitlines()


@pytest.mark.rows("4-T93")
def test_programs_read_one_figure_for_all_disks_that_never_falls() -> None:
    """Spec 6.3: digits, slash, digits, alone on a line."""
    figures = [("sda", 0, 100), ("sda", 50, 100), ("sda", 50, 100), ("sdb", 0, 600)]
    figures += [("sda", 100, 100), ("sdb", 599, 600), ("sdb", 600, 600)]
    lines = lines_of(
        *({"disk": sd, "done_bytes": done, "total_bytes": total} for sd, done, total in figures)
    )
    assert lines == ["0/100", "12/100", "14/100", "99/100", "100/100"]
