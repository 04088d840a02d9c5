"""What a guest can do, and its forms in reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from conversions.pipeline.types import BlockBus, Guestcaps, Machine, NetBus

_BOOLEANS = ("virtio_rng", "virtio_balloon", "isa_pvpanic", "virtio_socket")
# Distributions whose age decides the machine: major version below which q35 does not work.
_FIRST_Q35 = {
    **dict.fromkeys(
        ("rhel", "centos", "circle", "scientificlinux", "redhat-based", "oraclelinux", "rocky"), 5
    ),
    **dict.fromkeys(("sles", "suse-based", "opensuse"), 10),
    **dict.fromkeys(("debian", "ubuntu", "linuxmint", "kalilinux"), 4),
}
# From the osinfo database: last major version without virtio 1.0, per distribution.
_LAST_WITHOUT_VIRTIO_1 = {
    "debian": 8,
    "ubuntu": 16,
    "rhel": 6,
    "centos": 6,
    "oraclelinux": 6,
    "scientificlinux": 6,
    "fedora": 25,
    "sles": 11,
}
# From the osinfo database: last major version that is listed without q35.
_LAST_WITHOUT_Q35 = {"debian": 8, "ubuntu": 16, "rhel": 5, "centos": 5, "fedora": 25, "sles": 11}
_X86 = ("i386", "i486", "i586", "i686", "x86_64", "unknown")
_RHEL_LIKE = ("rhel", "centos", "circle", "rocky", "oraclelinux", "redhat-based")


def target_arch(arch: str) -> str:
    """Return the architecture of the machine for a guest's; one that is not known is taken so."""
    return "x86_64" if arch in _X86 else arch


def machine_for(distro: str, major: int, arch: str) -> Machine:
    """Return the machine type a Linux guest runs on."""
    if arch not in ("i386", "x86_64"):
        return Machine.VIRT
    first = max(_FIRST_Q35.get(distro, 0), _LAST_WITHOUT_Q35.get(distro, -1) + 1)
    return Machine.I440FX if 0 < major < first else Machine.Q35


def has_virtio_1_0(distro: str, major: int) -> bool:
    """Tell whether the guest's drivers speak virtio 1.0; unknown distributions do."""
    return not 0 < major <= _LAST_WITHOUT_VIRTIO_1.get(distro, -1)


def arch_min_version(distro: str, major: int, arch: str) -> int:
    """Return the x86-64 level the guest's programs need, 0 for the baseline."""
    if distro not in _RHEL_LIKE or arch != "x86_64" or major < 9:
        return 0
    return 2 if major == 9 else 3


def guestcaps_from_dict(data: Mapping[str, Any]) -> Guestcaps:
    """Build Guestcaps from a stored report.  Raises KeyError, ValueError."""
    values = {f.name: data[f.name] for f in fields(Guestcaps)}
    values["block_bus"] = BlockBus(values["block_bus"])
    values["net_bus"] = NetBus(values["net_bus"])
    values["machine"] = Machine(values["machine"])
    return Guestcaps(**values)


def expected_guestcaps() -> Guestcaps:
    """Return what a current Linux guest can do; for previews before an inspection."""
    return Guestcaps(
        block_bus=BlockBus.VIRTIO_BLK,
        net_bus=NetBus.VIRTIO_NET,
        virtio_rng=True,
        virtio_balloon=True,
        isa_pvpanic=True,
        virtio_socket=True,
        machine=Machine.Q35,
        arch="x86_64",
        arch_min_version=0,
        virtio_1_0=True,
        rtc_utc=True,
        video="vga",
        acpi=True,
        reasons={},
    )


def emulated_guestcaps(arch: str, reason: str) -> Guestcaps:
    """Return what any guest can do: emulated IDE and e1000 on the oldest machine."""
    return replace(
        expected_guestcaps(),
        block_bus=BlockBus.IDE,
        net_bus=NetBus.E1000,
        virtio_rng=False,
        virtio_balloon=False,
        isa_pvpanic=False,
        virtio_socket=False,
        machine=machine_for("", 0, arch),
        arch=arch,
        virtio_1_0=False,
        reasons={"block_bus": reason, "net_bus": reason},
    )


def guestcaps_text(caps: Guestcaps) -> str:
    """Return the report of the text log: one gcaps_x = value a line."""
    pairs: list[tuple[str, object]] = [
        ("block_bus", caps.block_bus),
        ("net_bus", caps.net_bus),
        *((name, getattr(caps, name)) for name in _BOOLEANS),
        ("video", caps.video),
        ("machine", caps.machine),
        ("arch", caps.arch),
        ("arch_min_version", caps.arch_min_version),
        ("virtio_1_0", caps.virtio_1_0),
        ("rtc_utc", caps.rtc_utc),
        ("acpi", caps.acpi),
    ]
    lines = [f"gcaps_{name} = {_value(value)}" for name, value in pairs]
    return "\n".join(["guestcaps:", *lines])


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
