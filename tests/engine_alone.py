"""An engine process without an appliance, for tests that stop or kill it: disks to their target.

python -m tests.engine_alone    # the job on standard input, events to standard output
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from conversions.pipeline import stop
from conversions.pipeline.converted import Converted
from conversions.pipeline.errors import Stopped
from conversions.pipeline.guestcaps import expected_guestcaps
from conversions.pipeline.job import Job
from conversions.pipeline.kept import remembered
from conversions.pipeline.last_steps import write_target
from conversions.pipeline.outputs import openstack_cloud, output_for, ovirt_api
from conversions.pipeline.overlay import create_overlays
from conversions.pipeline.report import EventReporter, Reporter, json_lines
from conversions.pipeline.source import fingerprint, open_source
from conversions.pipeline.work import work_folder
from inventory.sources.nbdkit import Servers
from tests.unit.pipeline.samples import GUEST

ROOT = Path(__file__).resolve().parents[1]


def started(job: Job) -> subprocess.Popen[str]:
    """Start an engine on a job, which it gets as the console would give it."""
    engine = subprocess.Popen(
        [sys.executable, "-m", "tests.engine_alone"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert engine.stdin
    engine.stdin.write(job.to_json() + "\n")
    engine.stdin.flush()
    return engine


def kill_when(engine: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    """Kill an engine with -9 at some moment, and see that nothing it has started lives on."""
    deadline = time.monotonic() + 60
    while not reached():
        assert engine.poll() is None, engine.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = stop.children_of(engine.pid)
    engine.kill()
    engine.communicate(timeout=60)
    while any(Path(f"/proc/{pid}/exe").exists() for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_copying(engine: subprocess.Popen[str]) -> bool:
    """Tell whether the engine is copying a disk."""
    for pid in stop.children_of(engine.pid):
        with suppress(OSError):  # it may have ended
            if b"\0convert\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return True
    return False


def convert(job: Job, report: Reporter) -> None:
    """Do what a conversion does, as if the guest needed no change."""
    with ExitStack() as stack:
        work = stack.enter_context(work_folder(job, report))
        output = output_for(job, work, report)
        servers = stack.enter_context(Servers(work))
        source = open_source(job, work, report, servers)
        before = fingerprint(source, job.source.location)
        overlays = create_overlays(source, work, report)
        targets = stack.enter_context(output.prepare(source, overlays))
        converted = Converted(
            source=source, before=before, overlays=overlays, estimates={}, guest=GUEST,
            guestcaps=expected_guestcaps(), boot_disk=0,
        )  # fmt: skip
        stack.enter_context(remembered(work, job, converted))
        write_target(job, converted, output, targets, servers, work, report)


def _run(job: Job) -> None:
    try:
        convert(job, EventReporter(json_lines(sys.stdout)))
    except Stopped as stopped:
        print(stopped.message, file=sys.stderr)


if __name__ == "__main__":
    openstack_cloud.POLL_SECONDS = ovirt_api.POLL_SECONDS = 0.02
    stop.on_signals()
    thread = threading.Thread(target=_run, args=(Job.from_json(sys.stdin.readline()),))
    thread.start()
    stop.join_or_stop(thread)
