"""Removing and installing packages of a guest."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from conversions.pipeline.context import Context
from conversions.pipeline.guest_programs import run_in_guest
from conversions.pipeline.linux.files import GuestFiles
from conversions.pipeline.report import Level
from conversions.pipeline.types import Inspection

_APT = "DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Options::=--force-confold"
# Of each manager: how it installs and how it removes, names are appended; how it updates all.
_MANAGERS = {
    "apt": (f"{_APT} update; {_APT} install", f"{_APT} remove", f"{_APT} update; {_APT} upgrade"),
    "dnf": (
        "dnf -y install",
        "dnf -y --disableplugin=subscription-manager "
        "--setopt=clean_requirements_on_remove=False remove",
        "dnf -y upgrade",
    ),
    "yum": (
        "yum -y install",
        "yum -y --setopt=clean_requirements_on_remove=False remove",
        "yum -y update",
    ),
    "zypper": ("zypper -n in -l", "zypper -n rm", "zypper -n up -l"),
    "urpmi": ("urpmi --auto", "urpme --auto", "urpmi --auto --auto-update"),
    "pacman": ("pacman -S --noconfirm", "pacman -R --noconfirm", "pacman -Syu --noconfirm"),
    "apk": ("apk update; apk add", "apk del", "apk update; apk upgrade"),
    "xbps": ("xbps-install -Sy", "xbps-remove -Sy", "xbps-install -Syu"),
    "pisi": ("pisi it -y", "pisi rm -y", "pisi up -y"),
}
# Straight from the database: quick, and without any look at repositories.  Debian's settings of a
# package go too, for they hold its init script and the links that start it.
_DIRECT = {
    "deb": "DEBIAN_FRONTEND=noninteractive dpkg --purge",
    "rpm": "rpm -e",
    "pacman": "pacman -R --noconfirm",
}


def install_command(guest: Inspection, packages: Sequence[str]) -> str | None:
    """Return the shell line that installs packages; None for a manager that is not known."""
    manager = _MANAGERS.get(guest.package_management)
    return f"{manager[0]} {shlex.join(packages)}" if manager else None


def update_command(guest: Inspection) -> str | None:
    """Return the shell line that updates all packages; None for a manager that is not known."""
    manager = _MANAGERS.get(guest.package_management)
    return manager[2] if manager else None


def removal_commands(guest: Inspection, packages: Sequence[str]) -> list[str]:
    """Return the shell lines that remove packages, the first to be tried first."""
    names = shlex.join(packages)
    lines = []
    if direct := _DIRECT.get(guest.package_format):
        lines.append(f"{direct} {names}")
    if manager := _MANAGERS.get(guest.package_management):
        lines.append(f"{manager[1]} {names}")
    return list(dict.fromkeys(lines))


def remove_packages(c: Context, files: GuestFiles, packages: Sequence[str]) -> None:
    """Remove packages as well as it goes; a failure is a warning, never an error."""
    if not packages:
        return
    for name in packages:
        files.record("package removed", name)
    if not c.change:
        return
    failure = f"no way to remove packages of format {c.guest.package_format} is known"
    for command in removal_commands(c.guest, packages):
        try:
            run_in_guest(c.g, command, c.report)
            return
        except RuntimeError as error:
            failure = str(error).strip()
            c.report.log(Level.DEBUG, failure)
    c.report.log(
        Level.WARNING,
        f"{', '.join(packages)} could not be removed: {failure} (ignored). "
        "Remove them after the first start.",
    )
