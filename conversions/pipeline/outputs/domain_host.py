"""What the host that will run the domain offers; asked of libvirt, or assumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_PC_FEATURES = {
    "i686": frozenset({"acpi", "apic", "pae"}),
    "x86_64": frozenset({"acpi", "apic"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainHost:
    """Facts about one host for one architecture.

    `volumes` maps the final path of a disk to (pool, volume) where libvirt owns it.
    """

    features: frozenset[str]
    floppy: bool
    domain_type: str = "kvm"
    uefi: bool = True
    secure_boot: bool = True
    vsock: bool = True
    volumes: Mapping[str, tuple[str, str]] = field(default_factory=lambda: MappingProxyType({}))


def assumed_host(arch: str) -> DomainHost:
    """Return what any current KVM host offers: for files that somebody will define later."""
    return DomainHost(features=_PC_FEATURES.get(arch, frozenset()), floppy=arch in _PC_FEATURES)
