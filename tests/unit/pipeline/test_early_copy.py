"""Copying while the guest is converted gives the same disks as copying afterwards."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conversions.pipeline.disk_copy import copy_disks
from conversions.pipeline.early_copy import can_copy_early, copying_early
from conversions.pipeline.errors import CommandError
from conversions.pipeline.job import CopyOptions, Input, Job, Mode, Target
from conversions.pipeline.outputs.local import LocalOutput
from conversions.pipeline.overlay import create_overlays
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.types import Place
from tests.unit.pipeline.samples import GUEST, make_source, source_disk, target_disk

KIB = 1 << 10
SIZE = 8 << 20
PATTERNS = 50


def job_to(folder: Path, format_: str = "qcow2", **options: object) -> Job:
    """Return a job that copies to a folder."""
    target = Target(kind="local", directory=str(folder), format=format_)  # type: ignore[arg-type]
    return Job(
        mode=Mode.COPY,
        source=Input(kind="disk", location="x.raw"),
        target=target,
        copy=CopyOptions(overlap="always", **options),  # type: ignore[arg-type]
    )


def scribble(image: str, chance: random.Random) -> None:
    """Write, zero and discard at random places, of any alignment where qemu allows it."""
    words = []
    for _ in range(chance.randint(1, 12)):
        verb = chance.choice(["write -P 0x{:02x}", "write -z", "write -z -u", "discard"])
        start = chance.randrange(0, SIZE, 4 * KIB)
        length = min(chance.choice([4, 64, 100, 512, 1024]) * KIB, SIZE - start)
        words += ["-c", f"{verb.format(chance.randrange(1, 256))} {start} {length}"]
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-d", "unmap", *words, image], check=True, capture_output=True
    )


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: many small files, each synced."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


@pytest.mark.timeout(600)
def test_random_changes_reach_the_target(memory: Path) -> None:
    """What a guest could do: data over data, zeros and discards over what is being copied."""
    for seed in range(PATTERNS):
        chance = random.Random(seed)
        folder = memory / str(seed)
        (folder / "target").mkdir(parents=True)
        disk = folder / "x.raw"
        disk.write_bytes(chance.randbytes(SIZE // 2) + bytes(SIZE // 2))
        source = make_source(disks=(replace(source_disk(0), path=str(disk)),))
        report = RecordingReporter()
        job = job_to(folder / "target", chance.choice(["qcow2", "raw"]), verify="full")
        assert job.target
        output = LocalOutput(job.target, "x", report)
        bases = create_overlays(source, folder, report)
        scribble(bases[0].path, chance)
        with output.prepare(source, bases) as targets:
            disks = output.target_disks(source, bases, {})
            with copying_early(output, targets, disks, job, folder, report) as layers:
                scribble(layers[0].path, chance)
                expected = folder / "expected.raw"
                command = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw"]
                subprocess.run([*command, layers[0].path, expected], check=True)
                disks = output.target_disks(source, layers, {})
                copy_disks(targets, disks, job.target, job.copy, report)
            part = folder / "target" / "x-sda.part"
            compare = ["qemu-img", "compare", "-f", "raw", "-F", job.target.format]
            subprocess.run([*compare, expected, part], check=True, capture_output=True)
            (record,) = report.data("copy")
            assert (record["verified"], record["early"]) == ("full", True)
        shutil.rmtree(folder)


def test_a_copy_that_failed_early_fails_in_its_step(tmp_path: Path) -> None:
    disk = tmp_path / "x.raw"
    disk.write_bytes(bytes(SIZE))
    source = make_source(disks=(replace(source_disk(0), path=str(disk)),))
    report = RecordingReporter()
    job = job_to(tmp_path / "gone")
    assert job.target
    output = LocalOutput(job.target, "x", report)
    (tmp_path / "gone").mkdir()
    bases = create_overlays(source, tmp_path, report)
    with output.prepare(source, bases) as targets:
        shutil.rmtree(tmp_path / "gone")
        disks = output.target_disks(source, bases, {})
        with copying_early(output, targets, disks, job, tmp_path, report) as layers:
            disks = output.target_disks(source, layers, {})
            with pytest.raises(CommandError, match="qemu-img"):
                copy_disks(targets, disks, job.target, job.copy, report)


@pytest.mark.parametrize(("parallel", "shared"), [(1, 64 << 20), (2, 32 << 20), (8, 32 << 20)])
def test_the_copies_share_the_rate(tmp_path: Path, parallel: int, shared: int) -> None:
    disk = tmp_path / "x.raw"
    disk.write_bytes(bytes(SIZE))
    source = make_source(disks=[replace(source_disk(n), path=str(disk)) for n in range(2)])
    report = RecordingReporter()
    job = job_to(tmp_path / "target", parallel=parallel, rate_bytes=64 << 20)
    assert job.target
    output = LocalOutput(job.target, "x", report)
    (tmp_path / "target").mkdir()
    bases = create_overlays(source, tmp_path, report)
    with output.prepare(source, bases) as targets:
        disks = output.target_disks(source, bases, {})
        with copying_early(output, targets, disks, job, tmp_path, report) as layers:
            for layer in layers:
                assert layer.early
                layer.early.wait(report)
    texts = [event["text"].split() for event in report.of("log")]
    rates = [words[words.index("-r") + 1] for words in texts if "-r" in words]
    assert rates == [str(shared)] * 2


@pytest.mark.parametrize(
    ("target", "options", "place", "root", "expected"),
    [
        ({}, {}, Place.FILE, "/dev/sda1", True),
        ({}, {}, Place.FILE, "/dev/vg/root", True),
        ({}, {"overlap": "never"}, Place.FILE, "/dev/sda1", False),
        ({"compressed": True}, {}, Place.FILE, "/dev/sda1", False),
        ({"allocation": "preallocated"}, {}, Place.FILE, "/dev/sda1", False),
        ({}, {}, Place.DEVICE, "/dev/sda1", False),
        ({}, {}, None, "/dev/sda1", False),  # a file that waits here for its upload
        ({}, {}, Place.FILE, "btrfsvol:/dev/sda1/@", False),
        ({}, {}, Place.FILE, "/dev/md127", False),
    ],
)
def test_where_it_is_exact(
    target: dict[str, object],
    options: dict[str, object],
    place: Place | None,
    root: str,
    expected: bool,
) -> None:
    job = job_to(Path("/t"))
    assert job.target
    wanted = replace(job.target, **target)  # type: ignore[arg-type]
    copy = replace(job.copy, **options)  # type: ignore[arg-type]
    job = replace(job, target=wanted, copy=copy)
    guest = replace(GUEST, mountpoints=(("/", root),))
    disk = replace(target_disk(0), place=place or Place.FILE, staged=place is None)
    assert can_copy_early(job, guest, {"sda": 1}, [disk]) is expected


@pytest.mark.parametrize(("size", "expected"), [((2 << 30) - 1, False), (2 << 30, True)])
def test_what_is_worth_it(size: int, expected: bool) -> None:
    job = job_to(Path("/t"))
    job = replace(job, copy=CopyOptions())
    guest = replace(GUEST, mountpoints=(("/", "/dev/sda1"),))
    assert can_copy_early(job, guest, {"sda": size}, [target_disk(0)]) is expected
