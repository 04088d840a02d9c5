"""Kill -9 parts of a real console in every step of a real conversion; check what is left.

    script/kill-drill OVA [--victims engine,worker,web] [--steps launch,copy,...]
    script/kill-drill OVA --in-place 20

After each kill: within a minute the row must tell the truth (failed, lost, or still running where
only the web process died), and then the source must be as it was, no process of the conversion
may live, the work and target folders must be empty; a retry is started at the end and must end
well.  Each step is made to last a second at least, so that the kill falls into it.  Prints one line
per kill; exits 1 when anything differs.

--in-place converts the OVA's disk where it lies so many times, as that of a domain of the libvirt
that runs on this host, kills the engine or the worker at a random moment, every other time while
the disk is written, and checks that the disk is either unchanged (its digest) or converted (it
starts on virtio).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import libvirt

from tests.browser.console import Console, stand_in
from tests.libvirt_daemon import URI, running_libvirtd

TRUTH_SECONDS = 60
STEP_SECONDS = 1.5
WEB_STEP_SECONDS = 20
READY_SECONDS = 300
RUN_SECONDS = 900
# How long the changes take to be written into the sample guest's disk.
COMMIT_SECONDS = 0.4
ENDED = ("done", "warned", "failed", "stopped", "lost")


def digest_of(path: Path) -> str:
    """Return a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pids(console: Console, words: str) -> list[int]:
    """Return processes of this console whose command line holds the words."""
    found = []
    mark = f"V2VWEB_VAR={console.var}".encode()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if words in line and mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return sorted(found)


def victims_of(console: Console, victim: str) -> list[int]:
    """Return the process ids to kill."""
    words = {"engine": "--job - --events", "worker": "v2vweb worker", "web": "uvicorn"}[victim]
    return [pid for pid in pids(console, words) if "script/keep" not in _line(pid)]


def _line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


class Drill:
    """One console with one machine, converted again and again."""

    def __init__(self, console: Console, ova: Path) -> None:
        from conversions import models
        from inventory.models import SourceVM

        self.console = console
        self.ova = ova
        self.digest = digest_of(ova)
        self.rows = models.Conversion.objects
        self.vms = SourceVM.objects
        self.failures = 0

    def slow_down(self, seconds: float) -> None:
        """Make each step of the engines to come last so long at least."""
        (self.console.var / "step-seconds").write_text(str(seconds))

    def import_machine(self) -> Any:
        """Register the OVA from the import folder and wait until it is ready."""
        folder = self.console.var / "import"
        folder.mkdir(exist_ok=True)
        (folder / self.ova.name).hardlink_to(self.ova)
        from inventory.actions import register_import

        register_import(self.ova.name, user=None)
        deadline = time.monotonic() + READY_SECONDS
        while not (vm := self.vms.filter(status="ready").first()):
            assert time.monotonic() < deadline, "the machine does not become ready"
            time.sleep(0.5)
        return vm

    def start(self, vm: Any) -> Any:
        """Ask for a conversion."""
        from conversions.actions import start_conversion
        from conversions.pipeline.job import Input, Job, Mode, Target

        job = Job(
            mode=Mode.COPY,
            source=Input(kind="ova", location=vm.location),
            target=Target(directory=str(self.console.var / "results")),
            verify_digests=False,
        )
        return start_conversion(vm, job, user=None)

    def wait(self, row: Any, seconds: float, *, steps: tuple[str, ...] = ()) -> Any:
        """Wait until a row has ended, or has reached one of the steps."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            row.refresh_from_db()
            if row.status in ENDED or row.step in steps:
                return row
            time.sleep(0.02)
        return row

    def check(self, what: str, row: Any, expected: tuple[str, ...], began: float) -> None:
        """Check and print what is left after a kill."""
        took = time.monotonic() - began
        problems = []
        if row.status not in expected:
            problems.append(f"the page says {row.status}")
        time.sleep(1)
        if left := [p for p in pids(self.console, "") if str(row.uuid) in _environment(p)]:
            problems.append(f"processes {left} live")
        for folder in ("work", "results"):
            if found := list((self.console.var / folder).iterdir()):
                problems.append(f"{folder} holds {[p.name for p in found]}")
        if digest_of(self.ova) != self.digest:
            problems.append("THE SOURCE CHANGED")
        self.failures += bool(problems)
        print(f"{what:28} {row.status:8} after {took:5.1f} s  {'; '.join(problems) or 'ok'}")
        sys.stdout.flush()


def _environment(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def drill(run: Drill, victims: list[str], steps: list[str]) -> None:
    """Kill each victim in each step."""
    vm = run.import_machine()
    run.slow_down(STEP_SECONDS)
    for victim in victims:
        if victim == "web":
            kill_web_in_one_run(run, vm, steps)
            continue
        for step in steps:
            row = run.wait(run.start(vm), RUN_SECONDS, steps=(step,))
            began = time.monotonic()
            for pid in victims_of(run.console, victim):
                os.kill(pid, signal.SIGKILL)
            run.wait(row, TRUTH_SECONDS)
            run.check(f"{victim} in {step}", row, ("failed", "lost"), began)
    run.slow_down(0)
    row = run.wait(run.start(vm), RUN_SECONDS)
    print(f"{'retry':28} {row.status}")
    run.failures += row.status not in ("done", "warned")


DOMAIN = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>1024</memory>
<os><type arch='x86_64'>hvm</type></os><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>
<target dev='sda' bus='sata'/></disk></devices></domain>"""


class InPlaceDrill:
    """A domain whose disk is put back before each conversion."""

    def __init__(self, run: Drill, ova: Path, host: libvirt.virConnect) -> None:
        self.run = run
        self.pristine = run.console.var / "pristine.qcow2"
        with tarfile.open(ova) as tar:
            member = next(m for m in tar if m.name.endswith(".vmdk"))
            vmdk = run.console.var / "pristine.vmdk"
            with tar.extractfile(member) as stream, vmdk.open("wb") as file:
                shutil.copyfileobj(stream, file)
        convert = ["qemu-img", "convert", "-O", "qcow2", vmdk, self.pristine]
        subprocess.run(convert, check=True)
        self.digest = digest_of(self.pristine)
        self.disk = run.console.var / "import" / "guest.qcow2"
        self.host = host
        self.name = f"drill-{os.getpid()}"
        self.domain = DOMAIN.format(name=self.name, disk=self.disk)

    def start(self, vm: Any) -> Any:
        """Put disk and definition back, and ask for a conversion."""
        from conversions.actions import start_conversion
        from conversions.pipeline.job import Input, Job, Mode

        subprocess.run(["cp", "--reflink=auto", self.pristine, self.disk], check=True)
        if self.name in {domain.name() for domain in self.host.listAllDomains()}:
            self.host.lookupByName(self.name).undefine()
        self.host.defineXML(self.domain)
        source = Input(kind="libvirt", location=self.name, connection=URI)
        return start_conversion(vm, Job(mode=Mode.IN_PLACE, source=source, define=True), user=None)

    def kill_at_random(self, vm: Any, number: int, seconds: float) -> None:
        """Convert once, kill something, and check the disk."""
        row = self.start(vm)
        victim = random.choice(["engine", "worker"])
        if number % 2:
            self.wait_for_the_journal(row)
            time.sleep(random.uniform(0, COMMIT_SECONDS))
        else:
            time.sleep(random.uniform(0, seconds))
        row.refresh_from_db()
        step, began = row.step or "waiting", time.monotonic()
        for pid in victims_of(self.run.console, victim):
            os.kill(pid, signal.SIGKILL)
        self.run.wait(row, RUN_SECONDS)
        took = time.monotonic() - began
        time.sleep(1)
        print(f"{number:3} {victim:6} in {step:11} {row.status:8} after {took:5.1f} s  ", end="")
        print(self.state_of_the_disk())
        sys.stdout.flush()

    def wait_for_the_journal(self, row: Any) -> None:
        """Wait until the disk begins to be written; the rows tell that too late."""
        from conversions.pipeline.commit import journal_of

        journal = journal_of(self.run.console.var / "work" / str(row.uuid))
        deadline = time.monotonic() + RUN_SECONDS
        while not journal.exists() and time.monotonic() < deadline:
            time.sleep(0.005)

    def state_of_the_disk(self) -> str:
        """Return "unchanged" or "converted"; count what is neither."""
        from tests.guests.boot import GuestDidNotBootError, boot_guest

        if digest_of(self.disk) == self.digest:
            return "unchanged"
        check = subprocess.run(["qemu-img", "check", "-q", self.disk], check=False)
        try:
            guest = boot_guest([self.disk])
        except GuestDidNotBootError as error:
            self.run.failures += 1
            return f"CHANGED AND DOES NOT START: {error}"
        self.run.failures += check.returncode not in (0, 3) or guest["nic"] != "virtio_net"
        return f"converted: starts from {guest['root']} with {guest['nic']}"


def drill_in_place(run: Drill, ova: Path, times: int) -> None:
    """Convert once undisturbed, which tells how long it takes, then kill `times` times."""
    vm = run.import_machine()
    run.slow_down(0)
    (run.console.var / "libvirtd").mkdir()
    with running_libvirtd(run.console.var / "libvirtd") as host:
        drill = InPlaceDrill(run, ova, host)
        row = run.wait(drill.start(vm), RUN_SECONDS)
        seconds = row.elapsed.total_seconds()
        print(f"undisturbed: {row.status} in {seconds:.1f} s, {drill.state_of_the_disk()}")
        if row.status not in ("done", "warned"):
            run.failures += 1
            print(row.result)
            return
        for number in range(1, times + 1):
            drill.kill_at_random(vm, number, seconds)
        host.lookupByName(drill.name).undefine()


def kill_web_in_one_run(run: Drill, vm: Any, steps: list[str]) -> None:
    """Kill the web process in each step of one conversion, which goes on and ends well."""
    # The web process starts again after a pause that grows; each step has to outlast it.
    run.slow_down(WEB_STEP_SECONDS)
    row = run.start(vm)
    for step in steps:
        run.wait(row, RUN_SECONDS, steps=(step,))
        began = time.monotonic()
        for pid in victims_of(run.console, "web"):
            os.kill(pid, signal.SIGKILL)
        while not run.console.answers() and time.monotonic() - began < TRUTH_SECONDS:
            time.sleep(0.1)
        row.refresh_from_db()
        answers = "answers again" if run.console.answers() else "DOES NOT ANSWER"
        run.failures += not run.console.answers()
        print(f"{'web in ' + step:28} {row.status:8} {answers} {time.monotonic() - began:5.1f} s")
        sys.stdout.flush()
    run.wait(row, RUN_SECONDS)
    print(f"{'web: the conversion':28} {row.status}")
    run.failures += row.status not in ("done", "warned")
    for path in (run.console.var / "results").iterdir():
        path.unlink()


def main() -> None:
    """Run the drill the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ova", type=Path)
    parser.add_argument("--victims", default="engine,worker,web")
    parser.add_argument("--steps", default="")
    parser.add_argument("--in-place", type=int, metavar="TIMES")
    options = parser.parse_args()
    var = Path(tempfile.mkdtemp(prefix="v2vweb-", dir="/var/tmp"))
    ova = var / "drill.ova"
    subprocess.run(["cp", "--reflink=auto", str(options.ova), str(ova)], check=True)
    settings = {
        "V2VWEB_ENGINE_PYTHON": str(stand_in(var, "tests.slow_engine")),
        "XDG_STATE_HOME": str(var / "state"),
    }
    console = Console(var=var, log=var / "server.log", settings=settings)
    os.environ.update(console.environment)
    console.start()
    try:
        import django

        os.environ["DJANGO_SETTINGS_MODULE"] = "v2vweb.settings"
        django.setup()
        from conversions.pipeline.steps import Step

        run = Drill(console, ova)
        steps = options.steps.split(",") if options.steps else [s.value for s in Step]
        if options.in_place:
            drill_in_place(run, options.ova, options.in_place)
        else:
            drill(run, options.victims.split(","), steps)
    finally:
        console.stop()
        shutil.rmtree(var, ignore_errors=True)
    print("all as it should be" if not run.failures else f"{run.failures} differ")
    sys.exit(bool(run.failures))


if __name__ == "__main__":
    main()
