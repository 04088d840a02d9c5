"""Packing files of the guest before it is changed."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from pathlib import Path

import pytest

from conversions.pipeline.collect import collect_files
from conversions.pipeline.errors import JobError, TargetError
from conversions.pipeline.job import Input, Job, Mode
from conversions.pipeline.report import RecordingReporter

pytestmark = pytest.mark.rows("4-T112")


class Guest:
    """The calls that packing needs, on a folder of this host."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def _at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def is_file(self, path: str, *, followsymlinks: bool) -> bool:
        """Tell whether it is a file."""
        assert followsymlinks
        return self._at(path).is_file()

    def is_dir(self, path: str) -> bool:
        """Tell whether it is a folder."""
        return self._at(path).is_dir()

    def download(self, path: str, target: str) -> None:
        """Copy a file to the host."""
        shutil.copyfile(self._at(path), target)

    def tar_out(self, path: str, target: str) -> None:
        """Pack a folder as tar does: names begin with ./"""
        with tarfile.open(target, "w") as archive:
            archive.add(self._at(path), ".")


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    root = tmp_path / "guest"
    (root / "var/log/app").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "etc/fstab").write_text("/dev/sda1 / ext4\n")
    (root / "var/log/messages").write_text("hello\n")
    (root / "var/log/app/a.log").write_text("a\n")
    (root / "var/log/escape").symlink_to("../../../../etc/shadow")
    os.link(root / "var/log/messages", root / "var/log/messages.1")
    return Guest(root)


def packed(guest: Guest, tmp_path: Path, *values: str) -> dict[str, tarfile.TarInfo]:
    """Pack and return the members of the archive by name; it is nobody else's to read."""
    output = tmp_path / "out.tar.xz"
    collect_files(guest, values, output, tmp_path, RecordingReporter())
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["guest", "out.tar.xz"]
    with tarfile.open(output, "r:xz") as archive:
        return {member.name: member for member in archive}


def test_files_and_folders_keep_their_place_or_get_one(guest: Guest, tmp_path: Path) -> None:
    found = packed(guest, tmp_path, "/etc/fstab", "/etc/fstab:conf", "/var/log:logs", "/var/log")
    assert set(found) == {
        "etc/fstab", "conf/fstab",
        *(f"{at}/{name}" for at in ("logs", "var/log")
          for name in ("app", "app/a.log", "messages", "messages.1", "escape")),
    }  # fmt: skip
    with tarfile.open(tmp_path / "out.tar.xz") as archive:
        member = archive.extractfile("logs/app/a.log")
        assert member
        assert member.read() == b"a\n"
    second = next(found[f"logs/{name}"] for name in ("messages.1", "messages")
                  if found[f"logs/{name}"].islnk())  # fmt: skip
    assert second.linkname in found
    assert found["logs/escape"].issym()


def test_what_is_not_there_is_left_out(guest: Guest, tmp_path: Path) -> None:
    assert set(packed(guest, tmp_path, "/etc/missing", "/etc/fstab")) == {"etc/fstab"}


def test_a_failure_leaves_no_half_archive(
    guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_path: str, _target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(guest, "download", fail)
    with pytest.raises(TargetError, match="No space left"):
        packed(guest, tmp_path, "/etc/fstab")
    assert [p.name for p in tmp_path.iterdir()] == ["guest"]


@pytest.mark.parametrize(
    ("values", "output", "said"),
    [
        (("/etc/fstab",), "", "needs a file to pack into"),
        ((), "/tmp/out.tar.xz", "needs something to pack"),
        (("/etc/fstab:/abs",), "/tmp/out.tar.xz", "'/abs' must be a folder inside"),
        (("/etc/fstab:a/../..",), "/tmp/out.tar.xz", "must be a folder inside"),
        (("etc/fstab",), "/tmp/out.tar.xz", "no path of a file"),
        (("/",), "/tmp/out.tar.xz", "no path of a file"),
        (("/a/../b",), "/tmp/out.tar.xz", "no path of a file"),
        (("/etc/fstab",), "/no/such/folder/out.tar.xz", "does not exist"),
    ],
)
def test_collections_that_cannot_be(values: tuple[str, ...], output: str, said: str) -> None:
    source = Input(kind="ova", location="/x.ova")
    with pytest.raises(JobError, match=said):
        Job(mode=Mode.INSPECT, source=source, collect=values, collect_output=output)


def test_a_collection_survives_json() -> None:
    source = Input(kind="ova", location="/x.ova")
    job = Job(mode=Mode.INSPECT, source=source, collect=("/etc/fstab",), collect_output="/tmp/o")
    assert Job.from_json(job.to_json()) == job
