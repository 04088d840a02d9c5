"""An engine that only talks: the event protocol, with every way to end that a real one has.

    fake_engine.py MODE

ok, error, crash (no result), hang (until stopped), deaf (ignores TERM, leaves a child in a
session of its own), chatty:LINES, die:STEP (kills itself with KILL in that step).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
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
        if wanted == "die" and number == step:
            os.kill(os.getpid(), signal.SIGKILL)
        if step == "conversion" and wanted == "crash":
            print("the library says goodbye", file=sys.stderr, flush=True)
            return 134
        if step == "conversion" and wanted == "error":
            emit("step", name=step, title=step, state="failed", seconds=0.1)
            emit("result", status="error", code="E-X", message="It broke.", remedy="", step=step)
            return 1
        if step == "conversion" and wanted in ("hang", "deaf"):
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
    for path in work.iterdir():
        path.unlink()
    work.rmdir()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
