"""Opening encrypted devices, so that the guest can be looked into."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.errors import InspectionError
from conversions.pipeline.job import Key
from conversions.pipeline.report import Level, Reporter

_ENCRYPTED = ("crypto_LUKS", "BitLocker")
_MAPPER = re.compile(r"/dev/mapper/((?:[^-]|--)+)-((?:[^-]|--)+)")
_ROUNDS = 5  # LUKS on LVM on LUKS is as deep as it gets


@dataclass(frozen=True, slots=True, kw_only=True)
class Encrypted:
    """An encrypted device; BitLocker has no UUID."""

    device: str
    kind: str
    uuid: str

    @property
    def label(self) -> str:
        """Return what a person can tell it by."""
        return f"{self.device} (UUID {self.uuid})" if self.uuid else self.device

    @property
    def mapname(self) -> str:
        """Return the name of the opened device: the one that the guest itself would use."""
        return (
            f"luks-{self.uuid}"
            if self.uuid
            else "crypt" + re.sub("[^A-Za-z0-9]", "", self.device[5:])
        )


def plain_selector(selector: str) -> str:
    """Return a selector with /dev/mapper/VG-LV as /dev/VG/LV; a hyphen of a name is doubled."""
    match = _MAPPER.fullmatch(selector)
    if match is None:
        return selector
    group, volume = (part.replace("--", "-") for part in match.groups())
    return f"/dev/{group}/{volume}"


def matching_keys(keys: Sequence[Key], device: Encrypted) -> list[Key]:
    """Return the keys meant for a device, in their order."""
    names = ("all", device.device, device.uuid or device.device)
    return [key for key in keys if plain_selector(key.selector) in names]


def find_encrypted(g: GuestFS) -> list[Encrypted]:
    """Return the encrypted devices: partitions, whole disks, RAID devices, logical volumes."""
    devices = [*g.list_partitions(), *g.list_devices(), *g.list_md_devices(), *g.lvs()]
    found = []
    for device in dict.fromkeys(devices):
        try:
            kind = g.vfs_type(device)
            uuid = g.vfs_uuid(device) if kind == "crypto_LUKS" else ""
        except RuntimeError:
            continue
        if kind in _ENCRYPTED:
            found.append(Encrypted(device=device, kind=kind, uuid=uuid))
    return found


def unlock(
    g: GuestFS, keys: Sequence[Key], *, read_only: bool, report: Reporter
) -> tuple[str, ...]:
    """Open every encrypted device there is a key for, also those inside of others.

    Reports every encrypted device before a key is tried on it, and that there is none: the list of
    filesystems has only what is inside of LUKS.
    Returns what stays closed for want of a key; whether that matters, the inspection shows.
    Raises InspectionError when no key that was given for a device fits.
    """
    opened: set[str] = set()
    reported: list[Encrypted] | None = None
    for _ in range(_ROUNDS):
        found = find_encrypted(g)
        if found != reported:
            report.report("encrypted", [asdict(device) for device in found])
            reported = found
        closed = [d for d in found if d.device not in opened]
        todo = [d for d in closed if matching_keys(keys, d)]
        if not todo:
            break
        for device in todo:
            _open(g, device, matching_keys(keys, device), read_only=read_only)
            report.log(Level.INFO, f"{device.label} is open.")
            opened.add(device.device)
        g.lvm_scan(True)
    for device in closed:
        report.log(Level.WARNING, f"{device.label} is encrypted, and no key was given for it.")
    return tuple(device.label for device in closed)


def _open(g: GuestFS, device: Encrypted, keys: Sequence[Key], *, read_only: bool) -> None:
    failure = ""
    for key in keys:
        try:
            # libguestfs keeps the key out of its trace by itself.
            g.cryptsetup_open(
                device.device, key.passphrase, device.mapname, readonly=read_only,
                crypttype="bitlk" if device.kind == "BitLocker" else "luks",
            )  # fmt: skip
        except RuntimeError as error:
            failure = str(error)
        else:
            return
    raise InspectionError(
        f"{device.label} cannot be opened with the {len(keys)} key(s) given for it: {failure}.",
        remedy="Check the key; it may belong to another device.",
        code="E-KEY",
    )
