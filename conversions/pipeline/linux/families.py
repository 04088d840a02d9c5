"""Which family a Linux distribution belongs to, and with that its tools and places of files."""

from __future__ import annotations

from enum import StrEnum

from conversions.pipeline.types import Inspection


class Family(StrEnum):
    """Distributions that share packages, initramfs tools and habits."""

    RHEL = "rhel"
    SUSE = "suse"
    DEBIAN = "debian"
    ALT = "alt"
    ARCH = "arch"


_TESTED = {
    **dict.fromkeys(
        ("fedora", "rhel", "centos", "circle", "scientificlinux", "redhat-based", "oraclelinux",
         "rocky", "neokylin", "anolis"),
        Family.RHEL,
    ),
    **dict.fromkeys(("sles", "suse-based", "opensuse"), Family.SUSE),
    **dict.fromkeys(("debian", "ubuntu", "linuxmint", "kalilinux"), Family.DEBIAN),
    "altlinux": Family.ALT,
    "archlinux": Family.ARCH,
}  # fmt: skip
# What another distribution is by its packages: it has the tools of a family, if not its name.
_BY_PACKAGES = {
    ("rpm", "dnf"): Family.RHEL,
    ("rpm", "yum"): Family.RHEL,
    ("rpm", "up2date"): Family.RHEL,
    ("rpm", "zypper"): Family.SUSE,
    ("deb", "apt"): Family.DEBIAN,
    ("rpm", "apt"): Family.ALT,
    ("pacman", "pacman"): Family.ARCH,
}


def family_of(guest: Inspection) -> Family | None:
    """Return the guest's family by its name, else by its package tools; None for others."""
    if guest.type != "linux":
        return None
    by_packages = _BY_PACKAGES.get((guest.package_format, guest.package_management))
    if guest.distro == "kylin":  # there are two: one of deb and one of rpm packages
        return Family.DEBIAN if guest.package_format == "deb" else Family.RHEL
    return _TESTED.get(guest.distro, by_packages)


def is_tested(guest: Inspection) -> bool:
    """Tell whether the distribution itself is known, not only its package tools."""
    return guest.distro in _TESTED or guest.distro == "kylin"
