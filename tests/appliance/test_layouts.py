"""Guests on LUKS, LVM, btrfs, RAID and damaged filesystems, rehearsed by the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import guestfs
import pytest

from conversions.pipeline.accelerator import choose_accelerator
from conversions.pipeline.appliance_shell import kernel_name
from tests.appliance.phony import DEBIAN, write_tar
from tests.guests.layouts import (
    KEY,
    install,
    make_btrfs,
    make_luks,
    make_plain,
    make_raid,
)

MIB = 1 << 20
DISK_BYTES = 400 * MIB
NAMES = ("luks", "btrfs", "raid0", "raid1", "damaged", "blank", "plain", "data", "deleted")
DELETED_BYTES = 600 * MIB
FSTAB = "UUID=00-11 /data ext4 defaults 0 0\nserver:/export /mnt nfs defaults 0 0\n"


def make_damaged(g: guestfs.GuestFS, disk: str, tar: Path) -> None:
    """An ext4 whose bitmap of blocks says that nothing is used."""
    g.part_disk(disk, "mbr")
    g.mkfs("ext4", f"{disk}1")
    install(g, f"{disk}1", tar)
    text = g.debug("sh", [f"dumpe2fs {kernel_name(g, f'{disk}1')} 2>/dev/null"])
    line = next(line for line in text.split("\n") if "Block bitmap at" in line)
    block = int(line.split("Block bitmap at ")[1].split()[0].rstrip(","))
    size = int(next(x for x in text.split("\n") if x.startswith("Block size")).split()[-1])
    g.pwrite_device(f"{disk}1", b"\0" * size, block * size)


def leave_dirty(g: guestfs.GuestFS, device: str) -> None:
    """Change a filesystem and cut it off, as a machine that loses its power does."""
    g.mount(device, "/")
    g.mkdir("/made")
    g.sync()
    g.write("/made/file", b"x" * 1000)
    assert "status=0" in g.debug("sh", ["xfs_io -x -c 'shutdown -f' /sysroot; echo status=$?"])
    g.umount_all()


@dataclass(frozen=True)
class Disks:
    folder: Path
    luks_uuid: str

    def __getitem__(self, name: str) -> str:
        return str(self.folder / f"{name}.raw")


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disks]:
    """One disk of each kind, all made in one appliance; read only by the tests."""
    folder = tmp_path_factory.mktemp("layouts")
    tar = folder / "tree.tar"
    write_tar(tar, {**DEBIAN, "/etc/fstab": FSTAB})
    g = guestfs.GuestFS(python_return_dict=False, close_on_exit=False)
    g.set_backend("direct")
    g.set_backend_settings([] if choose_accelerator().kvm else ["force_tcg"])
    for name in NAMES:
        path = folder / f"{name}.raw"
        with path.open("wb") as stream:
            stream.truncate(DISK_BYTES)
            if name == "deleted":  # what was there before stays where no file is
                stream.seek(100 * MIB)
                for _ in range(DELETED_BYTES // MIB):
                    stream.write(b"\xa5" * MIB)
                stream.truncate(2 * DELETED_BYTES)
        g.add_drive_opts(str(path), format="raw", cachemode="unsafe")
    g.launch()
    sd = dict(zip(NAMES, g.list_devices(), strict=True))
    make_btrfs(g, sd["btrfs"], tar)
    make_raid(g, [sd["raid0"], sd["raid1"]], tar)
    make_damaged(g, sd["damaged"], tar)
    make_plain(g, sd["plain"], tar)
    leave_dirty(g, f"{sd['plain']}1")
    superblock = g.debug("sh", [f"dumpe2fs -h {kernel_name(g, sd['plain'] + '1')}"])
    assert "needs_recovery" in superblock
    g.part_disk(sd["data"], "mbr")
    g.mkfs("xfs", f"{sd['data']}1")
    leave_dirty(g, f"{sd['data']}1")
    make_plain(g, sd["deleted"], tar)
    uuid = make_luks(g, sd["luks"], tar)
    g.shutdown()
    g.close()
    yield Disks(folder, uuid)


@pytest.fixture
def rehearse(repository: Path) -> Callable[..., tuple[int, list[dict[str, Any]]]]:
    """Rehearse a conversion of disks; return the exit status and the events."""

    def run(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
        command = [sys.executable, "-m", "conversions.pipeline", "--events", "--rehearse"]
        done = subprocess.run(
            [*command, "-x", "-i", "disk", "-if", "raw", *arguments],
            cwd=repository, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    return run


def reports(events: list[dict[str, Any]]) -> dict[str, Any]:
    return {e["name"]: e["data"] for e in events if e["type"] == "report"}


def warnings(events: list[dict[str, Any]]) -> list[str]:
    return [e["text"] for e in events if e["type"] == "log" and e["level"] == "warning"]


Rehearse = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.mark.rows("2-T11")
def test_lvm_on_luks(disks: Disks, rehearse: Rehearse) -> None:
    """T11; and the key is in no event."""
    status, events = rehearse(disks["luks"], "--key", f"/dev/sda1:key:{KEY}")
    assert status == 0, events[-1]
    assert reports(events)["inspection"]["root"] == "/dev/vg-a/root"
    assert [found["device"] for found in reports(events)["encrypted"]] == ["/dev/sda1"]
    assert KEY not in json.dumps(events)
    assert any(f"luks-{disks.luks_uuid}" in e.get("text", "") for e in events)


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        pytest.param(
            ["--key", "all:key:wrong"], "E-KEY", marks=pytest.mark.rows("2-T12"), id="wrong"
        ),
        pytest.param([], "E-ENCRYPTED", marks=pytest.mark.rows("2-T17"), id="none"),
    ],
)
def test_luks_without_the_right_key(
    disks: Disks, rehearse: Rehearse, keys: list[str], code: str
) -> None:
    """T12, T17: an error that names the device and its UUID, and no question is asked."""
    status, events = rehearse(disks["luks"], *keys)
    assert status == 1
    assert events[-1]["code"] == code
    assert "/dev/sda1" in events[-1]["message"]
    assert disks.luks_uuid in json.dumps(events)


@pytest.mark.rows("2-T10", "2-T38")
def test_btrfs_with_snapshots_is_one_system(disks: Disks, rehearse: Rehearse) -> None:
    """T10, T38."""
    status, events = rehearse(disks["btrfs"])
    assert status == 0, events[-1]
    found = reports(events)
    assert found["inspection"]["root"] == "btrfsvol:/dev/sda1/@"
    assert 0 <= found["estimate"]["disks"]["sda"] <= DISK_BYTES


@pytest.mark.rows("2-T18", "2-T129")
def test_raid_over_two_disks(disks: Disks, rehearse: Rehearse) -> None:
    """T18 and T129: /etc/fstab is left alone; and nothing is trimmed when that is turned off."""
    status, events = rehearse(disks["raid0"], disks["raid1"], "--no-fstrim")
    assert status == 0, events[-1]
    found = reports(events)
    assert found["inspection"]["root"].startswith("/dev/md")
    assert "/etc/fstab" not in {change["path"] for change in found["changes"]}
    assert not [w for w in warnings(events) if "/dev/md" in w]
    [trim] = [e for e in events if e["type"] == "step" and e["name"] == "trim"]
    assert (trim["state"], trim["reason"]) == ("skipped", "turned off")
    assert "trim" not in found


@pytest.mark.rows("1-T258", "2-T9", "2-T20", "2-T22", "2-T24")
def test_a_machine_that_lost_its_power(disks: Disks, rehearse: Rehearse) -> None:
    """T9, T20, T22, T24: journals are replayed before the check; a blank disk goes along.

    Filesystems of its fstab that no disk has, and those of a network, are left out.
    """
    status, events = rehearse(disks["plain"], disks["blank"], disks["data"])
    assert status == 0, events[-1]
    found = reports(events)
    assert len(found["target_buses"]["virtio_blk"]) == 3
    assert found["inspection"]["mountpoints"] == [["/", "/dev/sda1"]]
    checks = [e["data"] for e in events if e["type"] == "report" and e["name"] == "fsck"]
    assert [(c["filesystem"], c["type"], c["clean"]) for c in checks[0]] == [
        ("/dev/sda1", "ext4", True), ("/dev/sdc1", "xfs", True),
    ]  # fmt: skip


@pytest.mark.rows("1-T257", "2-T8", "4-T107")
def test_a_blank_disk_alone_is_no_guest(disks: Disks, rehearse: Rehearse) -> None:
    """T8."""
    status, events = rehearse(disks["blank"])
    assert status == 1
    assert events[-1]["code"] == "E-NO-ROOT"
    assert "blank, damaged, or encrypted" in events[-1]["remedy"]


@pytest.mark.rows("2-T23")
def test_a_damaged_filesystem_is_found_before_anything_is_changed(
    disks: Disks, rehearse: Rehearse
) -> None:
    """T23; without the check the guest can be converted as it is."""
    status, events = rehearse(disks["damaged"])
    assert status == 1
    assert events[-1]["code"] == "E-FSCK"
    assert "/dev/sda1" in events[-1]["message"]


@pytest.mark.rows("2-T2", "2-T5", "2-T6", "4-T110")
def test_two_systems_need_a_choice(disks: Disks, rehearse: Rehearse) -> None:
    """T2, T6, T5."""
    for options in ([], ["--root", "/dev/sdz9"]):
        status, events = rehearse(disks["plain"], disks["btrfs"], *options)
        assert status == 1
        assert events[-1]["code"] == "E-ROOT-CHOICE"
        assert events[-1]["step"] == "inspection"
        assert "/dev/sda1" in events[-1]["message"]
        assert "btrfsvol:/dev/sdb1/@" in events[-1]["message"]
        roots = [root["device"] for root in reports(events)["roots"]]
        assert roots == ["/dev/sda1", "btrfsvol:/dev/sdb1/@"]
    status, events = rehearse(disks["plain"], disks["btrfs"], "--root", roots[1])
    assert status == 0, events[-1]
    assert reports(events)["inspection"]["root"] == roots[1]


@pytest.mark.rows("2-T145")
def test_deleted_data_is_not_copied(disks: Disks, repository: Path, tmp_path: Path) -> None:
    """T145: 600 MiB that were written and deleted; the copy has less than half of them."""
    command = [sys.executable, "-m", "conversions.pipeline", "--events", "-i", "disk", "-if", "raw"]
    done = subprocess.run(
        [*command, disks["deleted"], "-o", "local", "-os", str(tmp_path), "-on", "copy"],
        cwd=repository, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    before = Path(disks["deleted"]).stat().st_blocks * 512
    assert before > DELETED_BYTES
    copied = (tmp_path / "copy-sda").stat().st_blocks * 512
    assert copied < before - DELETED_BYTES + 300_000_000


@pytest.fixture
def convert(repository: Path, tmp_path: Path) -> Callable[..., str]:
    """Convert a disk with options; return the text that it prints.  Its work folder is empty."""

    def run(disk: str, *options: str) -> str:
        work = tmp_path / "work"
        work.mkdir()
        command = [sys.executable, "-m", "conversions.pipeline", "-i", "disk", "-if", "raw", disk]
        done = subprocess.run(
            [*command, *options], cwd=repository, capture_output=True, text=True, timeout=900,
            env=os.environ | {"VIRT_V2V_TMPDIR": str(work)},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
        assert [p.name for p in work.iterdir() if "copies" not in p.name] == []
        return done.stdout

    return run


@pytest.mark.rows("4-T09")
def test_a_whole_conversion_into_nothing(
    disks: Disks, convert: Callable[..., str], tmp_path: Path
) -> None:
    text = convert(disks["plain"], "-o", "null", "--machine-readable")
    figures = [line for line in text.splitlines() if line.endswith("/100")]
    assert (figures[0], figures[-1]) == ("0/100", "100/100")
    assert "qemu-img convert" in text
    assert [p.name for p in tmp_path.iterdir()] == ["work"]


@pytest.mark.rows("4-T112", "4-T113")
def test_without_trimming_the_copy_is_right_too(
    disks: Disks, convert: Callable[..., str], tmp_path: Path
) -> None:
    """Files of the guest are packed as they were before they were changed."""
    archive, target = tmp_path / "old.tar.xz", tmp_path / "target"
    target.mkdir()
    text = convert(
        disks["plain"], "-o", "local", "-os", str(target), "--no-fstrim", "--verify", "full",
        "--collect", "/etc/fstab", "--collect", "/missing", "--collect", "/boot:old",
        "--collect-output", str(archive),
    )  # fmt: skip
    assert "Skipped: Trimming the filesystems (turned off)" in text
    assert "full check of the copy passed" in text
    assert "Not in the guest, so not packed: /missing" in text
    assert {p.name for p in target.iterdir()} == {"plain-sda", "plain.xml"}
    with tarfile.open(archive) as packed:
        member = packed.extractfile("etc/fstab")
        assert member
        assert member.read().decode() == FSTAB
        assert any(name.startswith("old/vmlinuz") for name in packed.getnames())
