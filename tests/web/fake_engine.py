"""An engine that only talks: the event protocol, with every way to end that a real one has.

    fake_engine.py MODE

ok, error, error:STEP, crash (no result), hang (until stopped), hang:STEP, deaf (ignores TERM,
leaves a child in a session of its own), chatty:LINES, die:STEP (kills itself with KILL in that
step), renaming (the same when one of two target files has its final name), changing (deaf for two
seconds, in which it changes the disks of its source).

A job that keeps what it has converted gets a true record of it; one that goes on with kept files
uses them up when it succeeds.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

STEPS = """
    request source overlays targets handle launch inspection space conversion trim close
    target_buses copy metadata finish
""".split()  # noqa: SIM905
sequence = 0


def emit(type_: str, **values: Any) -> None:
    """Write one event."""
    global sequence
    sequence += 1
    event = {"seq": sequence, "at": datetime.now(UTC).isoformat(), "type": type_, **values}
    print(json.dumps(event), flush=True)


def main(mode: str) -> int:
    """Play a conversion."""
    job = json.loads(sys.stdin.readline())
    stop = threading.Event()
    signal.signal(signal.SIGTERM, signal.SIG_IGN if mode == "deaf" else lambda *_: stop.set())

    def wait_for_the_end_of_input() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait_for_the_end_of_input, daemon=True).start()
    work = Path(job["work_dir"])
    work.mkdir()
    (work / "overlay").write_bytes(b"x")
    wanted, _, number = mode.partition(":")
    for step in STEPS:
        emit("step", name=step, title=step.title(), state="started")
        emit("log", level="info", step=step, text=f"Now in {step}.")
        if step == "overlays":
            disk = {"sd": "sda", "path": "", "virtual_size_bytes": 1 << 30}
            emit("report", name="overlays", data=[disk])
        if step == "targets" and job["target"]:
            part = Path(job["target"]["directory"]) / "web01-sda.part"
            emit("report", name="targets", data={"parts": [str(part)], "finals": []})
            part.write_bytes(b"half a disk")
        if step == "conversion" and wanted == "chatty":
            for line in range(int(number)):
                emit("log", level="debug", step=step, text=f"line {line}")
        if step == "finish" and wanted == "renaming":
            metadata = part.with_name("web01.xml.part")
            metadata.write_text("half")
            names = {"parts": [str(part), str(metadata)]}
            finals = [name.removesuffix(".part") for name in names["parts"]]
            emit("report", name="targets", data={**names, "finals": finals, "committing": True})
            part.rename(part.with_suffix(""))
            os.kill(os.getpid(), signal.SIGKILL)
        if wanted == "die" and number == step:
            os.kill(os.getpid(), signal.SIGKILL)
        if step == "conversion" and wanted == "changing":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            emit("report", name="commit", data={"state": "direct"})
            time.sleep(2)
            emit("report", name="commit", data={"state": "finished"})
        if step == "conversion" and wanted == "crash":
            print("the library says goodbye", file=sys.stderr, flush=True)
            return 134
        if step == "close" and job["copy"]["keep_converted"] and not job["resume"]:
            write_record(work)
        if wanted == "error" and step == (number or "conversion"):
            emit("step", name=step, title=step, state="failed", seconds=0.1)
            emit("result", status="error", code="E-X", message="It broke.", remedy="", step=step)
            return 1
        if wanted in ("hang", "deaf") and step == (number or "conversion"):
            if wanted == "deaf":
                subprocess.Popen(["sleep", "600"], start_new_session=True)
            while not stop.wait(0.05) or wanted == "deaf":
                time.sleep(0.01)
            emit("result", status="stopped", code="E-STOPPED", message="", remedy="", step=step)
            return 143
        if step == "copy":
            for done in (25, 100):
                emit("progress", disk="sda", done_bytes=done << 20, total_bytes=100 << 20)
        emit("step", name=step, title=step, state="finished", seconds=0.01)
    if job["target"]:
        part.rename(part.with_suffix(""))
    emit("result", status="ok", code="", message="", remedy="", step="")
    shutil.rmtree(work)
    if job["resume"]:
        shutil.rmtree(job["resume"])
    return 0


def write_record(work: Path) -> None:
    """Leave what the real engine does before its copy, and what is of no use later."""
    sys.path.insert(0, str(Path.cwd()))  # the supervisor starts engines in the checkout
    from conversions.pipeline.converted import Converted
    from conversions.pipeline.guestcaps import expected_guestcaps
    from conversions.pipeline.job import CopyOptions, Input, Job, Mode, Target
    from conversions.pipeline.kept import remembered
    from tests.unit.pipeline.samples import GUEST, make_source, target_disk

    overlay = replace(target_disk(0).overlay, path=str(work / "v2vovl-sda.qcow2"))
    Path(overlay.path).write_bytes(b"converted")
    converted = Converted(
        source=make_source(), before={}, overlays=(overlay,), estimates={}, guest=GUEST,
        guestcaps=expected_guestcaps(), boot_disk=0,
    )  # fmt: skip
    options = CopyOptions(keep_converted=True)
    source = Input(kind="ova", location="/srv/web01.ova")
    job = Job(mode=Mode.COPY, source=source, target=Target(directory="/"), copy=options)
    with remembered(work, job, converted):
        pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
