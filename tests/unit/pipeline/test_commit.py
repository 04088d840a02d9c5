"""All or nothing: what a commit into the source's own disks leaves when it is cut off anywhere."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from conversions.pipeline.commit import (
    finish_commit,
    journal_of,
    keep_if_begun,
    locked,
    mark_of,
    write_journal,
)
from conversions.pipeline.errors import HostError, TargetError
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.types import Overlay, TargetDisk

MIB = 1 << 20


def make_disk(folder: Path, number: int) -> TargetDisk:
    """Make a disk of 4 MiB full of a's, and an overlay that has a MiB of b's at its second."""
    disk, overlay = folder / f"d{number}.raw", folder / f"o{number}.qcow2"
    disk.write_bytes(b"a" * 4 * MIB)
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(disk), str(overlay)]
    subprocess.run(create, check=True)
    write = ["qemu-io", "-f", "qcow2", "-c", "write -P 0x62 1M 1M", str(overlay)]
    subprocess.run(write, check=True, stdout=subprocess.DEVNULL)
    record = Overlay(
        sd="sda", path=str(overlay), virtual_size_bytes=4 * MIB, source_uri=str(disk),
        source_format="raw", source_controller=None, source_label=str(disk),
    )  # fmt: skip
    return TargetDisk(overlay=record, final_path=str(disk), part_path=str(disk), format="raw")


def is_converted(disk: TargetDisk) -> bool:
    data = Path(disk.final_path).read_bytes()
    assert data in (b"a" * 4 * MIB, b"a" * MIB + b"b" * MIB + b"a" * 2 * MIB), "half a disk"
    return b"b" in data


@pytest.fixture
def disks(tmp_path: Path) -> list[TargetDisk]:
    return [make_disk(tmp_path, 0), make_disk(tmp_path, 1)]


def test_a_commit_writes_every_disk_and_leaves_no_trace(
    tmp_path: Path, disks: list[TargetDisk]
) -> None:
    report = RecordingReporter()
    write_journal(tmp_path, disks)
    assert mark_of(Path(disks[0].final_path)).is_symlink()
    finish_commit(tmp_path, report)
    assert [is_converted(disk) for disk in disks] == [True, True]
    assert not journal_of(tmp_path).exists()
    assert list(tmp_path.glob("*.v2vweb-commit")) == []


def test_without_a_journal_nothing_was_begun(tmp_path: Path, disks: list[TargetDisk]) -> None:
    finish_commit(tmp_path, RecordingReporter())
    assert [is_converted(disk) for disk in disks] == [False, False]


def test_a_commit_that_was_cut_off_between_two_disks_is_finished_by_the_next_job(
    tmp_path: Path, disks: list[TargetDisk]
) -> None:
    report = RecordingReporter()
    write_journal(tmp_path, disks)
    commit = ["qemu-img", "commit", "-q", "-d", "-f", "qcow2", disks[0].overlay.path]
    subprocess.run(commit, check=True)
    assert [is_converted(disk) for disk in disks] == [True, False]
    with locked([Path(disks[1].final_path)], report):
        assert [is_converted(disk) for disk in disks] == [True, True]
    assert any("cut off" in e["text"] for e in report.of("log"))


def test_a_disk_half_written_is_finished(tmp_path: Path, disks: list[TargetDisk]) -> None:
    write_journal(tmp_path, disks)
    with Path(disks[0].final_path).open("r+b") as stream:
        stream.seek(MIB)
        stream.write(b"b" * 1000)
    finish_commit(tmp_path, RecordingReporter())
    assert is_converted(disks[0])


def test_a_mark_whose_journal_never_came_is_removed(
    tmp_path: Path, disks: list[TargetDisk]
) -> None:
    """Killed after the mark and before the journal: nothing was begun."""
    write_journal(tmp_path, disks)
    journal_of(tmp_path).unlink()
    with locked([Path(disks[0].final_path)], RecordingReporter()):
        assert not is_converted(disks[0])
    assert not mark_of(Path(disks[0].final_path)).is_symlink()


def test_a_second_job_is_refused(disks: list[TargetDisk]) -> None:
    path = Path(disks[0].final_path)
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(TargetError) as caught, locked([path], RecordingReporter()):
        pass
    os.close(descriptor)
    assert caught.value.code == "E-IN-USE"


def test_a_commit_that_cannot_be_finished_keeps_what_it_needs(
    tmp_path: Path, disks: list[TargetDisk]
) -> None:
    write_journal(tmp_path, disks)
    Path(disks[1].final_path).rename(tmp_path / "away")
    with pytest.raises(HostError) as caught:
        keep_if_begun(tmp_path, RecordingReporter())
    assert str(tmp_path) in caught.value.message
    (tmp_path / "away").rename(disks[1].final_path)
    keep_if_begun(tmp_path, RecordingReporter())
    assert [is_converted(disk) for disk in disks] == [True, True]
