"""Which key opens which encrypted device, and under which name."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from conversions.pipeline.decrypt import Encrypted, unlock
from conversions.pipeline.errors import InspectionError
from conversions.pipeline.job import Key
from conversions.pipeline.report import RecordingReporter

BITLOCKER = "/dev/sda2"


@dataclass
class LockedDisk:
    """A disk whose second partition is BitLocker's; one key opens it."""

    key: str
    opened: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def list_partitions(self) -> list[str]:
        """Return both."""
        return ["/dev/sda1", BITLOCKER]

    def list_devices(self) -> list[str]:
        """Return the disk."""
        return ["/dev/sda"]

    def list_md_devices(self) -> list[str]:
        """There is no RAID."""
        return []

    lvs = list_md_devices

    def vfs_type(self, device: str) -> str:
        """Return what is on a device; a partitioned disk has no answer."""
        if device == "/dev/sda":
            raise RuntimeError("vfs_type: no filesystem")
        return "BitLocker" if device == BITLOCKER else "vfat"

    def vfs_uuid(self, device: str) -> str:
        """BitLocker has none that could be read."""
        raise AssertionError(device)

    def cryptsetup_open(self, device: str, key: str, mapname: str, **options: Any) -> None:
        """Open it with the right key."""
        if key != self.key:
            raise RuntimeError("cryptsetup_open: No key available with this passphrase.")
        self.opened.append((device, mapname, options))

    def lvm_scan(self, activate: bool) -> None:
        """Nothing new appears."""


@pytest.mark.rows("3-T97")
@pytest.mark.parametrize(
    ("device", "name"),
    [(BITLOCKER, "cryptsda2"), ("/dev/vg-a/lv_b", "cryptvgalvb"), ("/dev/md0", "cryptmd0")],
)
def test_a_volume_without_uuid_is_named_by_the_letters_of_its_device(
    device: str, name: str
) -> None:
    assert Encrypted(device=device, kind="BitLocker", uuid="").mapname == name


@pytest.mark.rows("3-T96")
def test_a_key_that_does_not_fit_ends_the_conversion() -> None:
    g: Any = LockedDisk("right")
    keys = [Key(selector="all", passphrase="wrong"), Key(selector=BITLOCKER, passphrase="old")]
    with pytest.raises(InspectionError, match=r"/dev/sda2 cannot .* the 2 key") as caught:
        unlock(g, keys, read_only=False, report=RecordingReporter())
    assert caught.value.code == "E-KEY"
    assert g.opened == []


def test_what_is_encrypted_is_reported_whether_a_key_opens_it_or_not() -> None:
    device = {"device": BITLOCKER, "kind": "BitLocker", "uuid": ""}
    for text in ("wrong", "right"):
        g: Any = LockedDisk("right")
        report = RecordingReporter()
        with suppress(InspectionError):
            unlock(g, [Key(selector="all", passphrase=text)], read_only=True, report=report)
        assert [e["data"] for e in report.of("report")] == [[device]]


@pytest.mark.parametrize("selector", ["all", BITLOCKER])
def test_each_key_of_a_device_is_tried(selector: str) -> None:
    g: Any = LockedDisk("right")
    keys = [Key(selector=selector, passphrase=text) for text in ("wrong", "right")]
    unlock(g, keys, read_only=True, report=RecordingReporter())
    assert g.opened == [(BITLOCKER, "cryptsda2", {"readonly": True, "crypttype": "bitlk"})]


def test_a_volume_that_nobody_has_a_key_for_stays_closed() -> None:
    g: Any = LockedDisk("right")
    report = RecordingReporter()
    key = Key(selector="/dev/sda1", passphrase="right")
    unlock(g, [key], read_only=False, report=report)
    assert g.opened == []
    assert any("/dev/sda2 is encrypted" in e["text"] for e in report.of("log"))
