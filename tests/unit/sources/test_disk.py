"""Disk images and NBD servers as a source: the rows of section 8.9."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conversions.pipeline.cli import main
from conversions.pipeline.errors import JobError
from conversions.pipeline.job import Input, Job, Mode
from conversions.pipeline.overlay import create_overlays
from conversions.pipeline.report import RecordingReporter
from inventory.sources.base import disk_uri
from inventory.sources.disk import DiskReader, nbd_server
from inventory.sources.errors import SourceError
from inventory.sources.nbdkit import Servers
from inventory.sources.readers import reader_for

COMPARE = ("qemu-img", "compare", "-q", "-f", "raw")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A raw disk of 1 MiB."""
    path = tmp_path / "fedora.img"
    path.write_bytes(os.urandom(1 << 20))
    return path


def make(path: Path, fmt: str = "qcow2", *options: str) -> Path:
    """Create an image of 1 MiB."""
    subprocess.run(["qemu-img", "create", "-q", "-f", fmt, *options, path, "1M"], check=True)
    return path


def code_of(work: Callable[[], object]) -> str:
    """Return the code of the error that `work` raises."""
    with pytest.raises(SourceError) as caught:
        work()
    assert caught.value.message.endswith(".")
    return caught.value.code


@pytest.mark.rows("1-T250", "1-T251", "1-T262")
def test_files_are_opened_as_they_are_without_any_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """qemu opens files of this host by itself, so that nbdkit is not even asked for."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("qemu-img", "prlimit"):
        (programs / name).symlink_to(shutil.which(name) or "")
    monkeypatch.setenv("PATH", str(programs))
    for name in ("a-sda", "b.raw", "c.img", "d"):
        (tmp_path / name).write_bytes(bytes(1 << 20))
    paths = [tmp_path / name for name in ("a-sda", "b.raw", "c.img", "d")]
    source = DiskReader(paths, format=None, warn=pytest.fail).read()
    assert (source.name, source.original_name) == ("a", "a")
    assert [disk_uri(disk) for disk in source.disks] == [str(path) for path in paths]
    assert [(d.id, d.format, d.controller) for d in source.disks] == [
        (n, "raw", None) for n in range(4)
    ]
    mixed = [paths[1], make(tmp_path / "web.qcow2")]
    disks = DiskReader(mixed, format=None, warn=pytest.fail).read().disks
    assert [(d.format, d.virtual_size_bytes) for d in disks] == [
        ("raw", 1 << 20), ("qcow2", 1 << 20),
    ]  # fmt: skip


@pytest.fixture
def nbd(tmp_path: Path, raw: Path) -> Iterator[str]:
    """The address of a server of the disk."""
    socket = tmp_path / "socket"
    process = subprocess.Popen(["nbdkit", "-f", "-r", "-U", socket, "file", raw])
    while not socket.exists():
        assert process.poll() is None
        time.sleep(0.02)
    yield f"nbd+unix:///?socket={socket}"
    process.terminate()
    process.wait(10)


@pytest.mark.rows("1-T252", "1-T253", "4-T17")
def test_a_disk_of_an_nbd_server_is_read_through_one_of_ours(
    tmp_path: Path, raw: Path, nbd: str
) -> None:
    reader = reader_for("disk", nbd, work_dir=tmp_path, warn=pytest.fail)
    assert isinstance(reader, DiskReader)
    source = reader.read()
    assert (source.name, source.disks[0].remote) == ("unknown", True)
    assert nbd_server(nbd).plugin == "nbd"
    work = tmp_path / "work"
    work.mkdir()
    with Servers(work) as servers:
        [disk] = reader.serve(source, servers).disks
        [overlay] = create_overlays(reader.serve(source, servers), work, RecordingReporter())
        write = ["qemu-io", "-f", "qcow2", "-c", "write -P 1 0 64k", overlay.path]
        subprocess.run(write, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["qemu-img", "compare", "-q", raw, disk_uri(disk)], check=True)
    with_file = reader_for(
        "disk", nbd, work_dir=tmp_path, warn=pytest.fail, more=[str(make(tmp_path / "web.qcow2"))]
    )
    source = with_file.read()
    assert source.name == "web"
    assert [disk.format for disk in source.disks] == ["raw", "qcow2"]


@pytest.mark.rows("1-T254")
def test_without_an_image_there_is_no_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(DiskReader([], format=None, warn=pytest.fail).read) == "E-DISK-NONE"
    assert main(["-i", "disk", "--print-source"]) == 1
    assert "No disk image was given" in capsys.readouterr().err


@pytest.mark.rows("1-T255", "1-T259")
def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name in ("missing", "empty", "."):
        reader = DiskReader([tmp_path / name], format=None, warn=pytest.fail)
        assert code_of(reader.read) == "E-IMG-READ"
    make(tmp_path / "cut.qcow2")
    os.truncate(tmp_path / "cut.qcow2", 600)
    reader = DiskReader([tmp_path / "cut.qcow2"], format="raw", warn=list[str]().append)
    assert reader.read().disks[0].virtual_size_bytes == 1024


def test_a_size_between_two_sectors_is_warned_about(tmp_path: Path) -> None:
    (tmp_path / "odd.raw").write_bytes(bytes((1 << 20) + 5))
    warnings: list[str] = []
    source = DiskReader([tmp_path / "odd.raw"], format=None, warn=warnings.append).read()
    assert source.disks[0].virtual_size_bytes == (1 << 20) + 512
    assert len(warnings) == 1


@pytest.mark.rows("1-T256")
def test_a_stated_format_counts(tmp_path: Path, raw: Path) -> None:
    """Also for a raw disk into which its guest wrote the header of a layer over another file."""
    path = make(tmp_path / "web.img")
    warnings: list[str] = []
    assert DiskReader([path], format=None, warn=warnings.append).read().disks[0].format == "qcow2"
    assert len(warnings) == 1
    layer = make(tmp_path / "layer.img", "qcow2", "-b", str(raw), "-F", "raw")
    for image in (path, layer):
        [disk] = DiskReader([image], format="raw", warn=warnings.append).read().disks
        assert disk.virtual_size_bytes == -(-image.stat().st_size // 512) * 512
    for fmt, code in (
        ("qcow2", "E-IMG-BACKING"),
        ("vvfat", "E-IMG-FORMAT"),
        (None, "E-IMG-BACKING"),
    ):
        reader = DiskReader([layer], format=fmt, warn=warnings.append)
        assert code_of(reader.read) == code


@pytest.mark.rows("1-T260")
def test_the_source_is_as_it_was(tmp_path: Path, raw: Path) -> None:
    paths = [raw, make(tmp_path / "b.qcow2"), make(tmp_path / "c.vmdk", "vmdk")]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths]
    source = DiskReader(paths, format=None, warn=list[str]().append).read()
    for overlay in create_overlays(source, tmp_path, RecordingReporter()):
        write = ["qemu-io", "-f", "qcow2", "-c", "write -P 1 0 1M", overlay.path]
        subprocess.run(write, check=True, stdout=subprocess.DEVNULL)
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths] == before


@pytest.mark.rows("1-T261")
@pytest.mark.parametrize("stage", ["request", "source", "server", "overlays"])
def test_after_a_failure_nothing_is_left(tmp_path: Path, raw: Path, stage: str) -> None:
    """The stages before the appliance; those after it are in tests/appliance."""
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "none.vmx").write_text('displayName = "none"\n')
    words = {
        "request": ["-i", "disk", str(raw), "-o", "local", "-os", str(tmp_path / "missing")],
        "source": ["-i", "disk", str(raw), str(tmp_path / "missing"), "--inspect"],
        "server": ["-i", "disk", str(raw), f"nbd+unix:///?socket={tmp_path}/none", "--inspect"],
        "overlays": ["-i", "vmx", str(tmp_path / "none.vmx"), "--inspect"],
    }[stage]
    before = set(Path("/tmp").glob("v2vnbd.*"))
    done = subprocess.run(
        [sys.executable, "-m", "conversions.pipeline", *words],
        env=os.environ | {"VIRT_V2V_TMPDIR": str(work)},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert not list(work.iterdir())
    assert set(Path("/tmp").glob("v2vnbd.*")) <= before
    commands = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
    assert not [c for c in commands if os.fsencode(tmp_path) in c]


@pytest.mark.rows("1-T263", "4-T102")
@pytest.mark.parametrize("kind", ["ova", "vmx"])
def test_packages_are_not_changed_in_place(kind: str) -> None:
    with pytest.raises(JobError):
        Job(mode=Mode.IN_PLACE, source=Input(kind=kind, location="/x"))
