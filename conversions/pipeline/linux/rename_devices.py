"""Carry the new names of the disks into every file of the guest that holds old ones."""

from __future__ import annotations

import re

from conversions.pipeline.context import Context
from conversions.pipeline.guestcaps import machine_for
from conversions.pipeline.linux import block_devices
from conversions.pipeline.linux.bootloader import Bootloader
from conversions.pipeline.linux.families import Family
from conversions.pipeline.linux.files import GuestFiles
from conversions.pipeline.report import Level
from conversions.pipeline.types import BlockBus, Inspection, Machine
from inventory.sources.types import RemovableType

_WHAT = "disk names changed"


def ide_prefix(guest: Inspection, family: Family) -> str:
    """Return what the guest's kernel calls an IDE disk: hd before libata took them over."""
    old_redhat = family is Family.RHEL and 0 < guest.major_version <= 5
    old_suse = family is Family.SUSE and 0 < guest.major_version <= 10
    return "hd" if old_redhat or old_suse else "sd"


def target_ide_prefix(guest: Inspection, family: Family) -> str:
    """Return the same for the target, whose IDE bus is SATA on every machine but i440fx."""
    machine = machine_for(guest.distro, guest.major_version, guest.arch)
    return ide_prefix(guest, family) if machine is Machine.I440FX else "sd"


def rename_block_devices(
    c: Context, files: GuestFiles, loader: Bootloader, family: Family, bus: BlockBus
) -> None:
    """Rename disks in fstab, crypttab, the bootloader's files and what else names them.

    The menu of the loader gets the same substitution as its settings, so that it is right now and
    after the guest makes it anew; making it here would write the appliance's device names.
    """
    prefix = ide_prefix(c.guest, family)
    mapping = block_devices.block_device_map(
        c.source.disks,
        bus,
        ide_prefix=prefix,
        target_ide_prefix=target_ide_prefix(c.guest, family),
    )
    drives = [r for r in c.source.removables if r.type is RemovableType.CDROM]
    if len(drives) > 1:
        c.report.log(Level.WARNING, "The guest has several CD-ROM drives; their names may change.")
    # A name that a disk has is not that of the drive.
    mapping = dict(sorted((block_devices.cdrom_map(c.source.removables, prefix) | mapping).items()))
    c.report.log(Level.INFO, block_devices.map_text(mapping))
    c.report.report("block_device_map", mapping)
    rename = block_devices.Renamer(mapping)

    def crypt(value: str) -> str:
        new = rename(value)
        # SLES 12 opens it in the initramfs: by a UUID more surely than by any name of a disk.
        return _uuid_of(c, new) if new != value or value.startswith("/dev/sd") else value

    files.edit("/etc/fstab", lambda text: block_devices.rename_fstab(text, rename), _WHAT)
    files.edit("/etc/crypttab", lambda text: block_devices.rename_crypttab(text, crypt), _WHAT)
    for path in files.distinct(loader.device_maps):
        files.edit(path, lambda text: block_devices.rename_device_map(text, rename), _WHAT)
    loader.edit_arguments(files, lambda line: block_devices.rename_arguments(line, rename), _WHAT)
    files.edit(
        "/etc/initramfs-tools/conf.d/resume",
        lambda text: block_devices.rename_resume(text, rename),
        _WHAT,
    )
    for name in dict.fromkeys(rename.unknown):
        c.report.log(
            Level.WARNING,
            f"{name} is named in the guest but is not one of its {len(c.source.disks)} disks; "
            "the entry is left as it is and probably needs a hand.",
        )


def _uuid_of(c: Context, name: str) -> str:
    """Return UUID=... of an encrypted device, which no bus changes; the name where it has none.

    The letters of a new name are those of the disk's place, and with that the appliance's.
    """
    match = re.fullmatch(r"/dev/[a-z]d([a-z]+\d*)", name)
    try:
        uuid = c.g.vfs_uuid(f"/dev/sd{match[1]}") if match else ""
    except RuntimeError as error:
        c.report.log(Level.DEBUG, f"No UUID of {name}: {error}")
        uuid = ""
    if uuid:
        return f"UUID={uuid}"
    c.report.log(Level.WARNING, f"{name} in /etc/crypttab has no UUID; it is named by its device.")
    return name
