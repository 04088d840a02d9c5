"""Commands in the appliance itself, not in the guest: for what libguestfs has no call for."""

from __future__ import annotations

import re

from conversions.pipeline.appliance import GuestFS
from inventory.sources.types import disk_letters

SUBVOLUME = "btrfsvol:"
_DISK = re.compile(r"/dev/[hsv]d([a-z]+)(\d*)")


def run_in_appliance(g: GuestFS, command: str) -> tuple[int, str]:
    """Run a line of shell there; return its status and what it wrote."""
    text = str(g.debug("sh", [f"{command}; printf '\\nstatus=%d' $?"]))
    output, _, status = text.rstrip().rpartition("\nstatus=")
    return int(status or 1), output


def kernel_name(g: GuestFS, device: str) -> str:
    """Return what the appliance's kernel calls a disk or partition at the moment.

    The kernel numbers disks as it finds them; libguestfs translates the names given to its calls,
    but not those inside a command.
    """
    match = _DISK.fullmatch(device)
    if not match:
        return device
    number = 0
    for letter in match[1]:
        number = number * 26 + ord(letter) - ord("a") + 1
    disks = _disks(g)
    return disks[number - 1] + match[2] if number <= len(disks) else device


def guest_name(g: GuestFS, mountable: str) -> str:
    """Return a filesystem's name with the guest's own disk in it.

    libguestfs 1.48 gives the subvolumes of btrfs with the kernel's names, but takes them with the
    guest's, as it does those of whole disks.
    """
    if not mountable.startswith(SUBVOLUME):
        return mountable
    device, slash, volume = mountable.removeprefix(SUBVOLUME + "/dev/").partition("/")
    match = _DISK.fullmatch(f"/dev/{device}")
    for number, disk in enumerate(_disks(g)):
        if match and f"/dev/{device}" == disk + match[2]:
            return f"{SUBVOLUME}/dev/sd{disk_letters(number)}{match[2]}{slash}{volume}"
    return mountable


def _disks(g: GuestFS) -> list[str]:
    """Return the kernel's names of the disks in the order in which they were given."""
    _, text = run_in_appliance(
        g, "cd /dev/disk/by-path && for p in *; do echo $p $(readlink -f $p); done | sort -V"
    )
    return [words[1] for line in text.split("\n")
            if len(words := line.split()) == 2 and "-part" not in words[0]]  # fmt: skip


def layers_below(g: GuestFS, device: str) -> set[str]:
    """Return what a filesystem's device lies on, in lsblk's words: part, lvm, crypt, raid1 ..."""
    status, text = run_in_appliance(g, f"lsblk -n -s -o TYPE '{kernel_name(g, device)}'")
    return {line.strip() for line in text.split("\n") if line.strip()} if status == 0 else set()
