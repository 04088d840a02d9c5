"""What differs between two readings of one machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext_lazy as _

from inventory.sources.types import Nic, Source, SourceDisk
from inventory.templatetags.console import DASH, size

KEPT = 50
WORDS = {
    "name": _("Name"),
    "power": _("Power"),
    "memory": _("Memory"),
    "vcpus": _("vCPUs"),
    "firmware": _("Firmware"),
    "secure_boot": _("Secure boot"),
    "cpu_model": _("CPU model"),
    "disk": _("Disk"),
    "card": _("Network card"),
}


def compare(old: Source, new: Source) -> list[dict[str, str]]:
    """Return the differences that matter to a reader, as {"what", "subject", "before", "after"}.

    `what` is a key of WORDS, `subject` the disk or card it is about or ""; `before` is "" for what
    was added and `after` for what was removed.
    """
    scalars = [
        ("name", old.name, new.name),
        ("memory", size(old.memory_bytes), size(new.memory_bytes)),
        ("vcpus", str(old.vcpus), str(new.vcpus)),
        ("firmware", str(old.firmware), str(new.firmware)),
        ("secure_boot", _flag(old.uefi_secureboot), _flag(new.uefi_secureboot)),
        ("cpu_model", old.cpu_model or DASH, new.cpu_model or DASH),
    ]
    found = [_change(what, "", before, after) for what, before, after in scalars if before != after]
    found += _differences("disk", _disks(old), _disks(new))
    return found + _differences("card", _cards(old), _cards(new))


def remember(
    earlier: list[dict[str, str]], new: list[dict[str, str]], at: str
) -> list[dict[str, str]]:
    """Return the list to keep: what was found at that time (ISO 8601) before what is known."""
    return [*({"at": at, **change} for change in new), *earlier][:KEPT]


def compare_power(old: str, new: str) -> list[dict[str, str]]:
    """Return the difference of two power states, as compare() does."""
    return [_change("power", "", old, new)] if old and old != new else []


def _change(what: str, subject: str, before: str, after: str) -> dict[str, str]:
    return {"what": what, "subject": subject, "before": before, "after": after}


def _differences(what: str, old: Mapping[str, str], new: Mapping[str, str]) -> list[dict[str, str]]:
    return [
        _change(what, subject, old.get(subject, ""), new.get(subject, ""))
        for subject in dict.fromkeys([*old, *new])
        if old.get(subject) != new.get(subject)
    ]


def _disks(source: Source) -> dict[str, str]:
    return {disk.member or disk.path: _disk_words(disk) for disk in source.disks}


def _disk_words(disk: SourceDisk) -> str:
    capacity = disk.virtual_size_bytes or disk.declared_capacity_bytes
    words: list[Any] = [disk.format, disk.controller, size(capacity) if capacity else None]
    return ", ".join(str(word) for word in words if word)


def _cards(source: Source) -> dict[str, str]:
    return {nic.mac or f"#{index + 1}": _card_words(nic) for index, nic in enumerate(source.nics)}


def _card_words(nic: Nic) -> str:
    return f"{nic.vnet_type} {nic.vnet}" + (f", {nic.model}" if nic.model else "")


def _flag(value: bool) -> str:
    return "on" if value else "off"
