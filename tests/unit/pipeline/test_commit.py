"""All or nothing: what a commit into the source's own disks leaves when it is cut off anywhere."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conversions.pipeline import fsck, marks, stop
from conversions.pipeline.commit import (
    finish_commit,
    journal_of,
    keep_if_begun,
    locked,
    write_journal,
)
from conversions.pipeline.errors import GuestError, HostError, TargetError
from conversions.pipeline.job import Input, Job, Mode, Target
from conversions.pipeline.marks import make_marks_folder, mark_of, marks_folder, set_marks
from conversions.pipeline.outputs.in_place import InPlaceOutput, check_room
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.run import convert
from conversions.pipeline.source import open_source
from conversions.pipeline.types import Overlay, TargetDisk, TargetMeta
from inventory.sources.nbdkit import Servers
from tests.unit.pipeline.guestless import without_appliance
from tests.unit.pipeline.samples import make_meta

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


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of this test's own for the marks."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    make_marks_folder()
    return marks_folder()


@pytest.fixture
def disks(tmp_path: Path) -> list[TargetDisk]:
    return [make_disk(tmp_path, 0), make_disk(tmp_path, 1)]


def test_a_commit_writes_every_disk_and_leaves_no_trace(
    tmp_path: Path, disks: list[TargetDisk]
) -> None:
    report = RecordingReporter()
    write_journal(tmp_path, disks)
    assert all(mark_of(Path(disk.final_path)) for disk in disks)
    finish_commit(tmp_path, report)
    assert [is_converted(disk) for disk in disks] == [True, True]
    assert not journal_of(tmp_path).exists()
    assert list(marks_folder().iterdir()) == []


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


@pytest.mark.parametrize("lost", ["journal", "folder", "entry", "owner"])
def test_a_disk_whose_journal_was_lost_is_named(
    tmp_path: Path, disks: list[TargetDisk], lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written by half; the worst would be to take it for one that nothing was begun with."""
    work, path = tmp_path / "work", Path(disks[0].final_path)
    work.mkdir()
    write_journal(work, disks)
    if lost == "journal":
        journal_of(work).unlink()
    elif lost == "folder":
        shutil.rmtree(work)
    elif lost == "entry":
        journal_of(work).write_text('{"disks": []}')
    else:  # someone else has made a folder of that name
        monkeypatch.setattr("conversions.pipeline.commit.is_own_folder", lambda _folder: False)
    for _again in range(2):
        with pytest.raises(TargetError) as caught, locked([path], RecordingReporter()):
            pass
        assert caught.value.code == "E-HALF-WRITTEN"
        assert str(path) in caught.value.message
    mark = mark_of(path)
    assert mark
    assert str(mark.path) in caught.value.remedy
    assert not is_converted(disks[0])


def test_the_journal_is_there_before_the_marks(
    tmp_path: Path, disks: list[TargetDisk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a mark cannot be set nothing was begun, and nothing is committed later."""
    seen = []

    def broken(paths: list[Path], journal: Path) -> None:
        seen.append(journal.exists())
        set_marks(paths[:1], journal)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("conversions.pipeline.commit.set_marks", broken)
    with pytest.raises(HostError, match=r"No space left.*They are unchanged"):
        write_journal(tmp_path, disks)
    assert seen == [True]
    assert list(marks_folder().iterdir()) == []
    assert not keep_if_begun(tmp_path, RecordingReporter())
    assert not is_converted(disks[0])


def test_a_mark_is_found_by_every_name_of_the_disk(tmp_path: Path, disks: list[TargetDisk]) -> None:
    write_journal(tmp_path, disks)
    link, twin = tmp_path / "link", tmp_path / "twin"
    link.symlink_to(disks[0].final_path)
    twin.hardlink_to(disks[0].final_path)
    assert mark_of(link) == mark_of(twin) == mark_of(Path(disks[0].final_path)) is not None
    assert mark_of(Path(disks[0].overlay.path)) is None


@pytest.mark.parametrize("exchanged", [False, True])
def test_a_block_device_is_known_by_what_stays_after_a_restart(
    tmp_path: Path, disks: list[TargetDisk], exchanged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/dev/sda may be another device then; nothing is written into that."""
    by_id = tmp_path / "by-id"
    by_id.mkdir()
    monkeypatch.setattr(marks, "BY_ID", by_id)
    path, other = (Path(disk.final_path) for disk in disks)
    (by_id / "wwn-1").symlink_to(path)
    write_journal(tmp_path, disks[:1])
    if not exchanged:
        finish_commit(tmp_path, RecordingReporter())
        assert is_converted(disks[0])
        return
    was = path.rename(tmp_path / "was-sda")
    other.rename(path)
    (by_id / "wwn-1").unlink()
    (by_id / "wwn-1").symlink_to(was)
    (by_id / "wwn-2").symlink_to(path)
    assert mark_of(path) is None
    assert mark_of(was) is not None
    with pytest.raises(TargetError, match="another device"), locked([was], RecordingReporter()):
        pass
    assert path.read_bytes() == b"a" * 4 * MIB


def test_nothing_beside_a_disk_leads_to_a_journal(tmp_path: Path, disks: list[TargetDisk]) -> None:
    """Whoever may write there could make it commit into whatever the engine may write."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    entries = [{"overlay": disks[1].overlay.path, "disk": disks[1].final_path, "ids": []}]
    journal_of(theirs).write_text(json.dumps({"disks": entries}))
    mark = Path(f"{disks[0].final_path}.v2vweb-commit")
    mark.symlink_to(journal_of(theirs))
    with locked([Path(disks[0].final_path)], RecordingReporter()):
        assert not is_converted(disks[1])


@pytest.mark.parametrize("case", ["file", "foreign", "homeless"])
def test_where_marks_cannot_be_kept_nothing_begins(
    disks: list[TargetDisk], state: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.rmdir()
    if case == "file":
        state.touch()
    elif case == "foreign":
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
    else:
        monkeypatch.delenv("XDG_STATE_HOME")
        monkeypatch.setattr(os, "geteuid", lambda: 2**31 - 3)
    path = Path(disks[0].final_path)
    with pytest.raises(HostError) as caught, locked([path], RecordingReporter()):
        pass
    assert "XDG_STATE_HOME" in caught.value.remedy
    assert mark_of(path) is None


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


def in_place(tmp_path: Path, disk: TargetDisk, **values: Any) -> Job:
    source = Input(kind="disk", location=disk.final_path, format="raw")
    return Job(mode=Mode.IN_PLACE, source=source, work_dir=str(tmp_path / "run"), **values)


def write_c(work: Path) -> None:
    """Do what the conversion of a guest does: write a MiB of c's at the third."""
    write = ["qemu-io", "-f", "qcow2", "-c", "write -P 0x63 2M 1M", str(work / "v2vovl-sda.qcow2")]
    subprocess.run(write, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def stoppable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next test be stopped again."""
    monkeypatch.setattr(stop, "no_return", stop.check_stop)


@pytest.mark.usefixtures("stoppable")
def test_a_retry_finishes_what_was_cut_off_and_goes_on(
    tmp_path: Path, disks: list[TargetDisk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it compares the disk with at the end is the disk as it is then."""
    write_journal(tmp_path, disks)
    without_appliance(monkeypatch, write_c)
    convert(in_place(tmp_path, disks[0]), RecordingReporter())
    assert (
        Path(disks[0].final_path).read_bytes() == b"a" * MIB + b"b" * MIB + b"c" * MIB + b"a" * MIB
    )
    assert is_converted(disks[1])


@pytest.mark.parametrize("mode", [Mode.COPY, Mode.INSPECT, Mode.REHEARSE])
def test_nothing_else_reads_a_disk_written_by_half(
    tmp_path: Path, disks: list[TargetDisk], mode: Mode
) -> None:
    target = Target(directory=str(tmp_path)) if mode is Mode.COPY else None
    job = replace(in_place(tmp_path, disks[0]), mode=mode, target=target)
    with Servers(tmp_path) as servers:
        open_source(job, tmp_path, RecordingReporter(), servers)
        write_journal(tmp_path, disks)
        with pytest.raises(TargetError, match="written by half") as caught:
            open_source(job, tmp_path, RecordingReporter(), servers)
    assert caught.value.code == "E-HALF-WRITTEN"
    assert disks[0].final_path in caught.value.message


def test_nor_a_layer_above_it(tmp_path: Path, disks: list[TargetDisk]) -> None:
    """Also in place: that finishes what was begun in the layer itself only."""
    top = disks[0].overlay.path
    source = Input(kind="disk", location=top, format="qcow2", disks_anywhere=True)
    job = replace(in_place(tmp_path, disks[0]), source=source)
    write_journal(tmp_path, disks)
    with Servers(tmp_path) as servers, pytest.raises(TargetError, match="written by half"):
        open_source(job, tmp_path, RecordingReporter(), servers)


@pytest.mark.usefixtures("stoppable")
def test_the_definition_is_reported_before_the_disks_are_written(
    tmp_path: Path, disks: list[TargetDisk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash in that would take it along, and what was written is finished without it."""

    def crash(*_args: object, **_options: object) -> None:
        raise SystemExit

    report = RecordingReporter()
    without_appliance(monkeypatch, write_c)
    monkeypatch.setattr("conversions.pipeline.outputs.in_place.finish_commit", crash)
    with pytest.raises(SystemExit):
        convert(in_place(tmp_path, disks[0]), report)
    assert disks[0].final_path in report.data("libvirt_xml")["xml"]


def test_a_host_that_cannot_be_asked_for_a_definition_is_known_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Input(kind="libvirt", location="web", connection="test:///default")
    job = Job(mode=Mode.IN_PLACE, source=source, define=True)
    output = InPlaceOutput(job, tmp_path, RecordingReporter())

    def silent(uri: str, _meta: TargetMeta) -> None:
        raise TargetError(f"{uri} does not answer.")

    monkeypatch.setattr("conversions.pipeline.outputs.in_place.host_facts", silent)
    with pytest.raises(TargetError, match="test:///default does not answer"):
        output.check(make_meta())


@pytest.fixture
def damaging(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversion whose check finds the filesystem whole before, and damaged after."""
    found = iter([(0, ""), (4, "bad block")])
    monkeypatch.setattr(fsck, "run_in_appliance", lambda *_args: next(found))
    monkeypatch.setattr(fsck, "kernel_name", lambda _g, device: device)
    without_appliance(monkeypatch, write_c, check_filesystems=fsck.check_filesystems)


@pytest.mark.usefixtures("damaging", "stoppable")
def test_damage_found_after_the_conversion_stays_out_of_the_disks(
    tmp_path: Path, disks: list[TargetDisk]
) -> None:
    """M-9."""
    with pytest.raises(GuestError, match="damaged: bad block"):
        convert(in_place(tmp_path, disks[0]), RecordingReporter())
    assert Path(disks[0].final_path).read_bytes() == b"a" * 4 * MIB


@pytest.mark.usefixtures("damaging")
def test_in_a_copy_it_is_a_warning(tmp_path: Path, disks: list[TargetDisk]) -> None:
    report = RecordingReporter()
    convert(replace(in_place(tmp_path, disks[0]), mode=Mode.REHEARSE), report)
    assert [c["clean"] for c in report.data("fsck")] == [False]
    assert any("bad block" in e["text"] for e in report.of("log") if e["level"] == "warning")


@pytest.mark.parametrize(("free_mib", "fits"), [(1000, False), (1500, True)])
def test_disks_of_one_file_system_share_its_room(
    disks: list[TargetDisk], monkeypatch: pytest.MonkeyPatch, free_mib: int, fits: bool
) -> None:
    """Two overlays of 600 MiB each, and 256 MiB in reserve."""
    room = SimpleNamespace(f_bavail=free_mib, f_frsize=MIB)
    monkeypatch.setattr(os, "statvfs", lambda _path: room)
    monkeypatch.setattr("conversions.pipeline.outputs.in_place.allocated", lambda _path: 600 * MIB)
    if fits:
        check_room(disks)
        return
    with pytest.raises(TargetError) as caught:
        check_room(disks)
    assert all(disk.final_path in caught.value.message for disk in disks)
    assert "1.2 GiB" in caught.value.message
