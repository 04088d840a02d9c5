"""Disks as guests divide them: LVM on LUKS, btrfs with snapshots, RAID; filled with a system."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import guestfs

KEY = "correct horse"


def install(g: guestfs.GuestFS, device: str, tar: Path, options: str = "") -> None:
    """Unpack a system's files into a filesystem."""
    g.mount_options(options, device, "/")
    g.tar_in(str(tar), "/")
    g.umount_all()


def make_plain(g: guestfs.GuestFS, disk: str, tar: Path) -> None:
    """One partition, ext4."""
    g.part_disk(disk, "mbr")
    g.mkfs("ext4", f"{disk}1")
    install(g, f"{disk}1", tar)


def make_luks(g: guestfs.GuestFS, disk: str, tar: Path) -> str:
    """LVM inside LUKS inside a partition; return the UUID of LUKS."""
    g.part_disk(disk, "mbr")
    g.luks_format(f"{disk}1", KEY, 0)
    g.cryptsetup_open(f"{disk}1", KEY, "opened")
    g.pvcreate("/dev/mapper/opened")
    g.vgcreate("vg-a", ["/dev/mapper/opened"])
    g.lvcreate_free("root", "vg-a", 100)
    g.mkfs("ext4", "/dev/vg-a/root")
    install(g, "/dev/vg-a/root", tar)
    g.vg_activate_all(False)
    g.cryptsetup_close("/dev/mapper/opened")
    return str(g.vfs_uuid(f"{disk}1"))


def make_btrfs(g: guestfs.GuestFS, disk: str, tar: Path) -> None:
    """A system in a subvolume, with two snapshots of it."""
    g.part_disk(disk, "mbr")
    g.mkfs("btrfs", f"{disk}1")
    g.mount(f"{disk}1", "/")
    g.btrfs_subvolume_create("/@")
    g.umount_all()
    install(g, f"{disk}1", tar, "subvol=@")
    g.mount_options("subvol=@", f"{disk}1", "/")
    g.mkdir("/.snapshots")
    for number in ("1", "2"):
        g.mkdir(f"/.snapshots/{number}")
        g.btrfs_subvolume_snapshot("/", f"/.snapshots/{number}/snapshot")
    g.umount_all()


def make_raid(g: guestfs.GuestFS, disks: Sequence[str], tar: Path) -> None:
    """RAID 1 over partitions of two disks."""
    for disk in disks:
        g.part_disk(disk, "mbr")
    g.md_create("md0", [f"{disk}1" for disk in disks], level="raid1")
    device = g.list_md_devices()[0]
    g.mkfs("ext4", device)
    install(g, device, tar)
    g.md_stop(device)
