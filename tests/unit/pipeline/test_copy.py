"""The copy with real qemu-img: several at once, limits, failures, checks of the result."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from conversions.pipeline import disk_copy, stop
from conversions.pipeline.copy_slots import copy_slot, host_limit
from conversions.pipeline.disk_copy import convert_command, copy_disks
from conversions.pipeline.errors import CommandError, Stopped, TargetError
from conversions.pipeline.job import CopyOptions, Target
from conversions.pipeline.outputs.files import fsync_path, part_of
from conversions.pipeline.outputs.local import LocalOutput
from conversions.pipeline.outputs.null import NullOutput
from conversions.pipeline.overlay import create_overlays
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.space import measured_bytes
from conversions.pipeline.types import Overlay, TargetDisk
from inventory.sources.types import Source
from tests.unit.pipeline.samples import make_meta, make_source, source_disk, target_disk

MIB = 1 << 20


def make_raw(path: Path, *, size: int = 16 * MIB, data: int = 4 * MIB) -> Path:
    """Write a raw image whose first part holds data."""
    path.write_bytes(os.urandom(data))
    os.truncate(path, size)
    return path


def make_disks(
    folder: Path, count: int, **values: int
) -> tuple[Source, Sequence[Overlay], RecordingReporter]:
    """Return a source of that many disks with overlays over them."""
    report = RecordingReporter()
    raws = [make_raw(folder / f"source{n}.raw", **values) for n in range(count)]
    source = make_source(
        disks=tuple(replace(source_disk(n), path=str(raw)) for n, raw in enumerate(raws))
    )
    return source, create_overlays(source, folder, report), report


def local(folder: Path, report: RecordingReporter, **options: object) -> LocalOutput:
    """Return a local output into a folder that is made."""
    folder.mkdir(exist_ok=True)
    return LocalOutput(Target(directory=str(folder), **options), None, report)  # type: ignore[arg-type]


@pytest.mark.rows("4-T09")
def test_t09_null_reads_everything_and_leaves_nothing(tmp_path: Path) -> None:
    source, overlays, report = make_disks(tmp_path, 1)
    before = sorted(tmp_path.iterdir())
    output = NullOutput(Target(kind="null", format="raw"), None, report)
    with output.prepare(source, overlays) as targets:
        copy_disks(targets, targets.disks, output.target, CopyOptions(verify="full"), report)
        output.write_metadata(targets, make_meta())
        targets.commit()
    assert sorted(tmp_path.iterdir()) == before
    assert report.data("copy")[0]["data_bytes"] == 4 * MIB


@pytest.mark.rows("4-T25")
@pytest.mark.parametrize("parallel", [1, 2, 4])
def test_t25_no_more_copies_than_asked_for(
    parallel: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setenv("V2VWEB_HOST_COPIES", "8")
    monkeypatch.setenv("VIRT_V2V_TMPDIR", str(tmp_path))
    source, overlays, report = make_disks(tmp_path, 4)
    output = local(tmp_path / "t", report)
    gauge = Gauge(at_least=parallel)
    with output.prepare(source, overlays) as targets:
        monkeypatch.setattr(targets, "open", gauge.opened(targets.open))
        monkeypatch.setattr(targets, "close", gauge.closed(targets.close))
        copy_disks(targets, targets.disks, output.target, CopyOptions(parallel=parallel), report)
        output.write_metadata(targets, make_meta())
        targets.commit()
    assert gauge.most == parallel
    assert len(list((tmp_path / "t").iterdir())) == 5
    assert [r["disk"] for r in report.data("copy")] == ["sda", "sdb", "sdc", "sdd"]
    for overlay in overlays:
        subprocess.run(
            ["qemu-img", "compare", "-q", "-f", "qcow2", "-F", "qcow2", overlay.path,
             str(tmp_path / "t" / f"web_01-{overlay.sd}")],
            check=True,
        )  # fmt: skip


class Gauge:
    """Counts the copies between open and close; the first ones wait for each other."""

    def __init__(self, at_least: int) -> None:
        self._lock = threading.Lock()
        self._together = threading.Barrier(at_least)
        self._now = 0
        self._seen = 0
        self._at_least = at_least
        self.most = 0

    def opened(self, real: Callable[[TargetDisk], TargetDisk]) -> Callable[..., TargetDisk]:
        """Wrap `open`."""

        def opened(disk: TargetDisk) -> TargetDisk:
            with self._lock:
                self._now += 1
                self._seen += 1
                wait = self._seen <= self._at_least
                self.most = max(self.most, self._now)
            if wait:
                self._together.wait(30)
            return real(disk)

        return opened

    def closed(self, real: Callable[[TargetDisk], None]) -> Callable[..., None]:
        """Wrap `close`."""

        def closed(disk: TargetDisk) -> None:
            real(disk)
            with self._lock:
                self._now -= 1

        return closed


def test_the_host_copies_no_more_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spec 4.2 [C]: over all conversions of the host."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setenv("V2VWEB_HOST_COPIES", "16")
    assert host_limit() == 2
    monkeypatch.setenv("V2VWEB_HOST_COPIES", "1")
    report = RecordingReporter()
    entered = threading.Event()
    name = str(uuid4())  # what else runs on this host copies too

    def second() -> None:
        with copy_slot(report, name):
            entered.set()

    with copy_slot(report, name):
        thread = threading.Thread(target=second)
        thread.start()
        deadline = time.monotonic() + 30
        while not report.of("log"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not entered.is_set()
    thread.join(30)
    assert entered.is_set()


def test_a_killed_conversion_gives_its_slot_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V2VWEB_HOST_COPIES", "1")
    report, name = RecordingReporter(), str(uuid4())
    program = f"""
from conversions.pipeline.copy_slots import copy_slot
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.space import measured_bytes
with copy_slot(RecordingReporter(), {name!r}):
    print("held", flush=True)
    input()
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        threading.Timer(0.5, holder.kill).start()
        with copy_slot(report, name):
            assert [e["text"] for e in report.of("log")] == [
                "Waiting: the limit of copies at once on this host is 1."
            ]


def kill_copies(number: int) -> int:
    """Send a signal to the first copy that this process runs; return its id."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for pid in stop.children_of(os.getpid()):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[:2] == [b"qemu-img", b"convert"]:
                os.kill(pid, number)
                return pid
        time.sleep(0.01)
    raise AssertionError("no copy was started")


@pytest.mark.rows("4-T22")
def test_t22_a_killed_copy_names_its_signal_and_leaves_nothing(tmp_path: Path) -> None:
    source, overlays, report = make_disks(tmp_path, 1, data=16 * MIB)
    output = local(tmp_path / "t", report)
    killer = threading.Thread(target=kill_copies, args=(signal.SIGTERM,))
    killer.start()
    with (
        pytest.raises(CommandError, match="SIGTERM"),
        output.prepare(source, overlays) as targets,
    ):
        copy_disks(targets, targets.disks, output.target, CopyOptions(rate_bytes=MIB // 2), report)
    killer.join()
    assert list((tmp_path / "t").iterdir()) == []
    progress = report.of("progress")[-1]
    assert progress["done_bytes"] < progress["total_bytes"]


@pytest.mark.rows("4-T23")
def test_t23_the_other_copies_end_with_the_one_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The siblings run at a rate that would take hours."""
    source, overlays, report = make_disks(tmp_path, 3, data=8 * MIB)

    def broken_sdb(disk: TargetDisk, target: Target, rate: int | None) -> list[str]:
        command = convert_command(disk, target, rate)
        missing = str(tmp_path / "missing.qcow2")
        return [missing if disk.overlay.sd == "sdb" and w == disk.overlay.path else w
                for w in command]  # fmt: skip

    monkeypatch.setattr(disk_copy, "convert_command", broken_sdb)
    output = local(tmp_path / "t", report)
    with (
        pytest.raises(CommandError, match="missing"),
        output.prepare(source, overlays) as targets,
    ):
        copy_disks(
            targets,
            targets.disks,
            output.target,
            CopyOptions(parallel=2, rate_bytes=2048),
            report,
        )
    assert list((tmp_path / "t").iterdir()) == []
    assert stop.children_of(os.getpid()) == []
    assert "copy" not in {e["name"] for e in report.of("report")}


@pytest.mark.rows("4-T89")
@pytest.mark.parametrize("format_", ["qcow2", "raw"])
def test_t89_preallocated_is_preallocated_at_the_end(format_: str, tmp_path: Path) -> None:
    source, overlays, report = make_disks(tmp_path, 1, size=512 * MIB)
    output = local(tmp_path / "t", report, format=format_, allocation="preallocated")
    with output.prepare(source, overlays) as targets:
        copy_disks(targets, targets.disks, output.target, CopyOptions(), report)
        assert Path(targets.disks[0].part_path).stat().st_blocks * 512 >= 500 * MIB


@pytest.mark.rows("4-T90", "4-T92")
def test_t90_t92_only_data_is_written(tmp_path: Path) -> None:
    """64 MiB with 10 MiB of data; then 4 of them discarded in the overlay."""
    source, overlays, report = make_disks(tmp_path, 1, size=64 * MIB, data=10 * MIB)
    sizes = []
    for folder in ("before", "after"):
        output = local(tmp_path / folder, report)
        with output.prepare(source, overlays) as targets:
            copy_disks(targets, targets.disks, output.target, CopyOptions(verify="full"), report)
            sizes.append(Path(targets.disks[0].part_path).stat().st_blocks * 512)
        subprocess.run(
            ["qemu-io", "-f", "qcow2", "-d", "unmap", "-c", "discard 0 4M", overlays[0].path],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    assert 10 * MIB < sizes[0] <= 12 * MIB
    assert 6 * MIB <= sizes[1] <= 7 * MIB


@pytest.mark.rows("4-T94")
def test_t94_a_disk_of_zeros(tmp_path: Path) -> None:
    source, overlays, report = make_disks(tmp_path, 1, data=0)
    output = local(tmp_path / "t", report)
    with output.prepare(source, overlays) as targets:
        copy_disks(targets, targets.disks, output.target, CopyOptions(), report)
    progress = [(e["done_bytes"], e["total_bytes"]) for e in report.of("progress")]
    assert progress[0][0] == 0
    assert progress[-1][0] == progress[-1][1] > 0


@pytest.mark.rows("4-T95")
def test_t95_a_copy_that_fails_at_its_end_is_not_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, overlays, report = make_disks(tmp_path, 1)
    script = "printf '    (100.00/100%%)\\r'; exit 1"
    monkeypatch.setattr(disk_copy, "convert_command", lambda *_: ["sh", "-c", script])
    output = local(tmp_path / "t", report)
    with (
        pytest.raises(CommandError, match="exit status 1"),
        output.prepare(source, overlays) as targets,
    ):
        copy_disks(targets, targets.disks, output.target, CopyOptions(), report)
    assert all(e["done_bytes"] < e["total_bytes"] for e in report.of("progress"))


@pytest.mark.rows("4-T96")
def test_t96_a_stop_ends_every_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop, "_asked", threading.Event())
    source, overlays, report = make_disks(tmp_path, 2, data=8 * MIB)
    output = local(tmp_path / "t", report)
    raised: list[BaseException] = []

    def work() -> None:
        try:
            with output.prepare(source, overlays) as targets:
                copy_disks(
                    targets,
                    targets.disks,
                    output.target,
                    CopyOptions(parallel=2, rate_bytes=2048),
                    report,
                )
        except Stopped as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    kill_copies(0)
    stop.ask_stop("a test asked")
    stop.join_or_stop(thread)
    assert len(raised) == 1
    assert list((tmp_path / "t").iterdir()) == []
    assert stop.children_of(os.getpid()) == []


@pytest.mark.rows("4-T98")
@pytest.mark.parametrize("format_", ["qcow2", "raw"])
@pytest.mark.parametrize("level", ["quick", "full"])
def test_t98_a_changed_byte_is_found(
    format_: str, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """full finds a byte, quick a damaged structure; both pass what is right."""
    source, overlays, report = make_disks(tmp_path, 1)
    options = CopyOptions(verify=level, digests=True)  # type: ignore[arg-type]
    output = local(tmp_path / "t", report, format=format_)
    with output.prepare(source, overlays) as targets:
        copy_disks(targets, targets.disks, output.target, options, report)
        part = Path(targets.disks[0].part_path)
        assert report.data("copy")[0]["verified"] == level
        assert report.data("copy")[0]["sha256"] == hashlib.sha256(part.read_bytes()).hexdigest()

    real = fsync_path

    def damage(path: Path) -> None:
        real(path)
        if level == "full":
            command = ["-c", "write -P 7 1M 512"]
            subprocess.run(["qemu-io", "-f", format_, *command, path], check=True)
        elif format_ == "raw":
            os.truncate(path, 15 * MIB)
        else:
            with path.open("r+b") as stream:
                stream.seek(65536)  # the refcount table
                stream.write(b"\xff" * 65536)

    monkeypatch.setattr(disk_copy, "fsync_path", damage)
    for unfinished in (tmp_path / "t").iterdir():
        unfinished.unlink()
    with (
        pytest.raises(TargetError, match="sda") as raised,
        output.prepare(source, overlays) as targets,
    ):
        copy_disks(targets, targets.disks, output.target, options, report)
    assert raised.value.code == "E-VERIFY"
    assert list((tmp_path / "t").iterdir()) == []


def test_a_storage_that_fails_at_the_end_is_no_defect_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system may take every write and only then tell that there is no room, or no disk."""
    source, overlays, report = make_disks(tmp_path, 1)
    output = local(tmp_path / "t", report)

    def failing(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(disk_copy, "fsync_path", failing)
    with (
        pytest.raises(TargetError, match=r"web_01-sda\.part is copied, but not safe"),
        output.prepare(source, overlays) as targets,
    ):
        copy_disks(targets, targets.disks, output.target, CopyOptions(), report)
    assert list((tmp_path / "t").iterdir()) == []


def test_what_disks_hold_is_measured_on_this_host_alone(tmp_path: Path) -> None:
    source, overlays, report = make_disks(tmp_path, 2, data=3 * MIB)
    assert measured_bytes(source, overlays, report) == {"sda": 3 * MIB, "sdb": 3 * MIB}
    elsewhere = replace(source.disks[1], remote=True)
    source = replace(source, disks=(source.disks[0], elsewhere))
    assert measured_bytes(source, overlays, report) == {"sda": 3 * MIB}


def test_the_rate_is_shared_and_passed_on() -> None:
    assert "-r" not in convert_command(target_disk(0), Target())
    command = convert_command(target_disk(0), Target(), 4096)
    assert command[command.index("-r") + 1] == "4096"


@pytest.fixture
def loop_device(tmp_path: Path) -> Iterator[Path]:
    """A block device of 32 MiB full of old data; skips where none can be had."""
    backing = make_raw(tmp_path / "backing", size=32 * MIB, data=32 * MIB)
    done = subprocess.run(
        ["losetup", "--find", "--show", str(backing)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip("this host gives no loop device")
    yield Path(done.stdout.strip())
    subprocess.run(["losetup", "--detach", done.stdout.strip()], check=True)


@pytest.mark.rows("4-T19")
def test_t19_a_link_to_a_device_is_followed_and_stays(tmp_path: Path, loop_device: Path) -> None:
    """The old data beyond the disk's end is no difference; a failure keeps link and device."""
    source, overlays, report = make_disks(tmp_path, 1)
    output = local(tmp_path / "t", report, format="raw", overwrite=True)
    link = tmp_path / "t" / "web_01-sda"
    link.symlink_to(loop_device)
    with pytest.raises(TargetError, match="stop"), output.prepare(source, overlays) as targets:
        raise TargetError("stop")
    with output.prepare(source, overlays) as targets:
        # However large: it takes no space of the folder.
        output.check_space({"sda": 1 << 60}, overlays)
        copy_disks(targets, targets.disks, output.target, CopyOptions(verify="full"), report)
        output.write_metadata(targets, make_meta())
        targets.commit()
    assert link.readlink() == loop_device
    with loop_device.open("rb") as stream:
        assert stream.read(16 * MIB) == (tmp_path / "source0.raw").read_bytes()
    large = make_disks(tmp_path, 1, size=64 * MIB)[1]
    for options, words in (({"overwrite": True}, "the disk needs 64"), ({}, "is a block device")):
        refusing = local(tmp_path / "t", report, format="raw", **options)
        with pytest.raises(TargetError, match=words), refusing.prepare(source, large):
            raise AssertionError("not reached")


@pytest.mark.rows("4-T20")
def test_t20_what_exists_is_replaced_only_when_asked(tmp_path: Path) -> None:
    """A link to a device counts as existing, also when the device is gone."""
    source, overlays, report = make_disks(tmp_path, 1)
    output = local(tmp_path / "t", report, format="raw")
    (tmp_path / "t" / "web_01-sda").symlink_to("/dev/no-such-device")
    with (
        pytest.raises(TargetError, match="exists already"),
        output.prepare(source, overlays),
    ):
        raise AssertionError("not reached")
    assert not part_of(tmp_path / "t" / "web_01-sda").exists()
