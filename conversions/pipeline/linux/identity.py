"""Small things of a guest that a move must put right: machine-id, random seed, device caches."""

from __future__ import annotations

import secrets

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.guest_errors import naming
from conversions.pipeline.linux.families import Family
from conversions.pipeline.linux.files import GuestFiles

_MACHINE_ID = "/etc/machine-id"
_SEEDS = (
    "/var/lib/random-seed",
    "/var/lib/systemd/random-seed",
    "/var/lib/urandom/random-seed",
    "/var/lib/misc/random-seed",
    "/etc/random-seed",
)
# They name the old disks; an LVM devices file makes a guest hang at boot.
CACHES = (
    "/etc/blkid/blkid.tab",
    "/etc/blkid.tab",
    "/etc/lvm/cache/.cache",
    "/etc/lvm/devices/system.devices",
)
_SEED_MIN, _SEED_MAX = 512, 8192
# Where a guest without a seed looks for one; by its family before systemd.
_SYSTEMD_SEED = "/var/lib/systemd/random-seed"
_FAMILY_SEEDS = {
    Family.RHEL: "/var/lib/random-seed",
    Family.DEBIAN: "/var/lib/urandom/random-seed",
    Family.SUSE: "/var/lib/misc/random-seed",
}


def remove_device_caches(files: GuestFiles) -> None:
    """Delete files that remember the names of the old disks."""
    for path in CACHES:
        files.remove(path, "cache of old device names deleted")


def refresh_identity(g: GuestFS, files: GuestFiles, family: Family) -> None:
    """Fill an empty machine-id, and renew random seeds or make one; a real machine-id is kept."""
    if files.is_file(_MACHINE_ID) and g.filesize(_MACHINE_ID) == 0:
        files.write(_MACHINE_ID, secrets.token_hex(16) + "\n", "empty machine-id filled")
    seeds = [path for path in _SEEDS if files.is_file(path)]
    if not seeds:
        _make_seed(g, files, family)
    for path in seeds:
        size = min(max(g.filesize(path), _SEED_MIN), _SEED_MAX)
        if files.change:
            with naming(path, "written"):
                g.truncate(path)
                g.write_append(path, secrets.token_bytes(size))
        files.record("random seed renewed", path)


def _make_seed(g: GuestFS, files: GuestFiles, family: Family) -> None:
    """Make a seed where the guest keeps its own, if it has the folder."""
    for path in filter(None, (_SYSTEMD_SEED, _FAMILY_SEEDS.get(family))):
        if files.is_folder(path.rpartition("/")[0]):
            if files.change:
                g.write(path, secrets.token_bytes(_SEED_MIN))
                g.chmod(0o600, path)
            files.record("random seed made", path)
            return
