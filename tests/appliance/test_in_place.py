"""In-place mode on a whole disk with a phony guest, by the command line."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import guestfs
import pytest
from lxml import etree

from conversions.pipeline.accelerator import choose_accelerator
from tests.appliance.phony import DEBIAN, Program, Tree, write_tar

MIB = 1 << 20
FSTAB = "/dev/sda1 / ext2 defaults 0 1\n"
# The whole way through takes seconds; kills fall into every part of it.
KILLS = 6


def build_disk(disk: Path, tree: Tree) -> None:
    """Make a disk with one partition that holds the tree."""
    write_tar(disk.with_suffix(".tar"), tree)
    g = guestfs.GuestFS(python_return_dict=False, close_on_exit=False)
    g.set_backend("direct")
    g.set_backend_settings([] if choose_accelerator().kvm else ["force_tcg"])
    g.disk_create(str(disk), "raw", 300 * MIB)
    g.add_drive_opts(str(disk), format="raw", cachemode="unsafe")
    g.launch()
    g.part_disk("/dev/sda", "mbr")
    g.mkfs("ext2", "/dev/sda1")
    g.mount("/dev/sda1", "/")
    g.tar_in(str(disk.with_suffix(".tar")), "/")
    g.umount_all()
    g.shutdown()
    g.close()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk to be converted, with files that name it."""
    disk = tmp_path_factory.mktemp("in-place") / "template.raw"
    build_disk(disk, {**DEBIAN, "/etc/fstab": FSTAB})
    return disk


@pytest.fixture
def disk(template: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "disk.raw"
    subprocess.run(["cp", "--sparse=always", str(template), str(copy)], check=True)
    return copy


@pytest.fixture
def start(repository: Path, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start the engine on a disk in place; its work folder is in the test's own."""
    work = tmp_path / "work"
    work.mkdir()

    def run(disk: Path, *options: str, format_: str = "raw") -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "conversions.pipeline", "--events", "--in-place"]
        return subprocess.Popen(
            [*command, "-i", "disk", "-if", format_, str(disk), *options],
            cwd=repository,
            stdout=subprocess.PIPE,
            text=True,
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "VIRT_V2V_TMPDIR": str(work),
                "XDG_STATE_HOME": str(work.parent / "state"),
            },
        )

    return run


def digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_converted(disk: Path) -> bool:
    """Tell whether the converted text is there; the disk of this guest has it in one place."""
    return b"/dev/vda1 / ext2" in disk.read_bytes()


def test_a_disk_is_converted_where_it_lies(
    disk: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """M-3 and T138's aim: the result is in the disk, and nothing else is left."""
    engine = start(disk)
    out, _ = engine.communicate(timeout=600)
    events = [json.loads(line) for line in out.splitlines()]
    assert engine.returncode == 0, out[-3000:]
    assert is_converted(disk)
    reports = {e["name"]: e["data"] for e in events if e["type"] == "report"}
    assert str(disk) in reports["libvirt_xml"]["xml"]
    assert reports["files"]["created"][0]["path"] == str(disk)
    assert sorted(p.name for p in disk.parent.iterdir()) == ["disk.raw", "state", "work"]
    assert list((disk.parent / "work").iterdir()) == []


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    """A disk whose guest cannot rebuild its initramfs."""
    disk = tmp_path / "failing.raw"
    build_disk(disk, {**DEBIAN, "/usr/sbin/update-initramfs": Program("exit 1")})
    return disk


@pytest.mark.rows("2-T139", "4-T104")
def test_a_failure_leaves_the_disk_as_it_was(
    failing: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """T139, better: the state is known."""
    before = digest(failing)
    engine = start(failing)
    out, _ = engine.communicate(timeout=600)
    assert engine.returncode == 1
    assert json.loads(out.splitlines()[-1])["code"] == "E-INITRAMFS"
    assert digest(failing) == before
    engine = start(failing, "--in-place=direct")
    out, _ = engine.communicate(timeout=600)
    result = json.loads(out.splitlines()[-1])
    assert (engine.returncode, result["code"]) == (1, "E-INITRAMFS")
    assert f"The state of {failing} is unknown, possibly corrupt" in result["message"]
    assert "backup" in result["remedy"]


def test_without_an_overlay_a_disk_is_changed_directly(
    disk: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    engine = start(disk, "--in-place=direct")
    out, _ = engine.communicate(timeout=600)
    assert engine.returncode == 0, out[-3000:]
    assert is_converted(disk)
    assert "qcow2" not in out
    assert sorted(p.name for p in disk.parent.iterdir()) == ["disk.raw", "state", "work"]


@pytest.mark.rows("4-T101", "4-T103")
def test_a_layer_over_another_disk_takes_the_changes_alone(
    disk: Path, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """What was found is written besides; the program's name in it is fixed, whoever writes it."""
    before = digest(disk)
    layer, found, flat = (tmp_path / name for name in ("top.qcow2", "found.xml", "flat.raw"))
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(disk), "-F", "raw"]
    subprocess.run([*create, layer], check=True)
    engine = start(layer, "--disks-anywhere", "-O", str(found), format_="qcow2")
    out, _ = engine.communicate(timeout=600)
    assert engine.returncode == 0, out[-3000:]
    assert digest(disk) == before
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", layer, flat], check=True)
    assert is_converted(flat)
    root = etree.parse(found).getroot()
    assert (root.tag, root.findtext("program")) == ("v2v-inspection", "virt-v2v-inspector")
    [entry] = root.iterfind("disks/disk")
    assert (entry.get("index"), entry.findtext("boot-order")) == ("0", "1")
    assert entry.findtext("virtual-size") == str(300 * MIB)


def test_kills_leave_the_disk_unchanged_or_converted(
    disk: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """Kill -9 at any moment; what was begun is finished by the next start."""
    before = digest(disk)
    chance = random.Random(7)
    for _ in range(KILLS):
        engine = start(disk)
        time.sleep(chance.uniform(0.5, 25))
        engine.send_signal(signal.SIGKILL)
        engine.communicate()
        if digest(disk) == before:
            continue
        engine = start(disk)  # finishes what was begun, and finds nothing more to do
        engine.communicate(timeout=600)
        assert is_converted(disk)
        return
    engine = start(disk)
    engine.communicate(timeout=600)
    assert engine.returncode == 0
    assert is_converted(disk)
