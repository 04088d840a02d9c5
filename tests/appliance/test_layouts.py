"""Guests on LUKS, LVM, btrfs, RAID and damaged filesystems, rehearsed by the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import guestfs
import pytest

from conversions.pipeline.accelerator import choose_accelerator
from tests.appliance.phony import DEBIAN, write_tar
from tests.guests.layouts import KEY, install, make_btrfs, make_luks, make_plain, make_raid

MIB = 1 << 20
DISK_BYTES = 400 * MIB
NAMES = ("luks", "btrfs", "raid0", "raid1", "damaged", "blank", "plain")


def make_damaged(g: guestfs.GuestFS, disk: str, tar: Path) -> None:
    """An ext4 whose bitmap of blocks says that nothing is used."""
    g.part_disk(disk, "mbr")
    g.mkfs("ext4", f"{disk}1")
    install(g, f"{disk}1", tar)
    text = g.debug("sh", [f"dumpe2fs {disk}1 2>/dev/null"])
    line = next(line for line in text.split("\n") if "Block bitmap at" in line)
    block = int(line.split("Block bitmap at ")[1].split()[0].rstrip(","))
    size = int(next(x for x in text.split("\n") if x.startswith("Block size")).split()[-1])
    g.pwrite_device(f"{disk}1", b"\0" * size, block * size)


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
    write_tar(tar, {**DEBIAN, "/etc/fstab": "LABEL=none /data ext4 defaults 0 0\n"})
    g = guestfs.GuestFS(python_return_dict=False, close_on_exit=False)
    g.set_backend("direct")
    g.set_backend_settings([] if choose_accelerator().kvm else ["force_tcg"])
    for name in NAMES:
        path = folder / f"{name}.raw"
        with path.open("wb") as stream:
            stream.truncate(DISK_BYTES)
        g.add_drive_opts(str(path), format="raw", cachemode="unsafe")
    g.launch()
    sd = dict(zip(NAMES, g.list_devices(), strict=True))
    make_btrfs(g, sd["btrfs"], tar)
    make_raid(g, [sd["raid0"], sd["raid1"]], tar)
    make_damaged(g, sd["damaged"], tar)
    make_plain(g, sd["plain"], tar)
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
            cwd=repository, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    return run


def reports(events: list[dict[str, Any]]) -> dict[str, Any]:
    return {e["name"]: e["data"] for e in events if e["type"] == "report"}


def warnings(events: list[dict[str, Any]]) -> list[str]:
    return [e["text"] for e in events if e["type"] == "log" and e["level"] == "warning"]


Rehearse = Callable[..., tuple[int, list[dict[str, Any]]]]


def test_lvm_on_luks(disks: Disks, rehearse: Rehearse) -> None:
    """T11; and the key is in no event."""
    status, events = rehearse(disks["luks"], "--key", f"/dev/sda1:key:{KEY}")
    assert status == 0, events[-1]
    assert reports(events)["inspection"]["root"] == "/dev/vg-a/root"
    assert KEY not in json.dumps(events)
    assert any(f"luks-{disks.luks_uuid}" in e.get("text", "") for e in events)


@pytest.mark.parametrize(
    ("keys", "code"), [(["--key", "all:key:wrong"], "E-KEY"), ([], "E-ENCRYPTED")]
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


def test_btrfs_with_snapshots_is_one_system(disks: Disks, rehearse: Rehearse) -> None:
    """T10, T38."""
    status, events = rehearse(disks["btrfs"])
    assert status == 0, events[-1]
    found = reports(events)
    assert found["inspection"]["root"] == "btrfsvol:/dev/sda1/@"
    assert 0 <= found["estimate"]["disks"]["sda"] <= DISK_BYTES


def test_raid_over_two_disks(disks: Disks, rehearse: Rehearse) -> None:
    """T18."""
    status, events = rehearse(disks["raid0"], disks["raid1"])
    assert status == 0, events[-1]
    assert reports(events)["inspection"]["root"].startswith("/dev/md")


@pytest.mark.rows("1-T258")
def test_a_blank_second_disk_goes_along(disks: Disks, rehearse: Rehearse) -> None:
    """T9."""
    status, events = rehearse(disks["plain"], disks["blank"])
    assert status == 0, events[-1]
    assert len(reports(events)["target_buses"]["virtio_blk"]) == 2


@pytest.mark.rows("1-T257")
def test_a_blank_disk_alone_is_no_guest(disks: Disks, rehearse: Rehearse) -> None:
    """T8."""
    status, events = rehearse(disks["blank"])
    assert status == 1
    assert events[-1]["code"].startswith("E-")


def test_a_damaged_filesystem_is_found_before_anything_is_changed(
    disks: Disks, rehearse: Rehearse
) -> None:
    """T23; without the check the guest can be converted as it is."""
    status, events = rehearse(disks["damaged"])
    assert status == 1
    assert events[-1]["code"] == "E-FSCK"
    assert "/dev/sda1" in events[-1]["message"]


def test_two_systems_need_a_choice(disks: Disks, rehearse: Rehearse) -> None:
    """T2, T6, T5."""
    for options in ([], ["--root", "/dev/sdz9"]):
        status, events = rehearse(disks["plain"], disks["btrfs"], *options)
        assert status == 1
        assert events[-1]["code"] == "E-ROOT-CHOICE"
        assert "/dev/sda1" in events[-1]["message"]
        assert "btrfsvol:/dev/sdb1/@" in events[-1]["message"]
