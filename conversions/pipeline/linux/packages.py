"""Software of the old hypervisor inside the guest, and its removal without a network."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.linux.files import GuestFiles
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import Application, Inspection

UNINSTALLER = "/usr/bin/vmware-uninstall-tools.pl"
_LOCATIONS = "/etc/vmware-tools/locations"
# Keeps the uninstaller from rebuilding every initramfs.
_ANSWERS = "".join(
    f"remove_answer {name}\n"
    for name in ("RESTORE_RAMDISK_CMD", "RESTORE_RAMDISK_KERNELS", "RESTORE_RAMDISK_ONECALL")
)
_PREFIXES = ("vmware-tools-", "kmod-vmware-tools", "open-vm-tools-")
_NAMES = ("VMwareTools", "open-vm-tools", "virtualbox-guest-utils", "virtualbox-guest-x11",
          "virtualbox-guest-dkms", "virtualbox-guest-additions")  # fmt: skip
_SERVICES = ("open-vm-tools.service", "vgauth.service")


def foreign_packages(applications: Sequence[Application]) -> list[str]:
    """Return the packages that belong to another hypervisor, open-vm-tools last.

    open-vm-tools stays where ubuntu-server depends on it; its services are disabled then.
    """
    names = {a.name for a in applications}
    found = sorted(n for n in names if n in _NAMES or n.startswith(_PREFIXES))
    if "ubuntu-server" in names and "open-vm-tools" in found:
        found.remove("open-vm-tools")
    return sorted(found, key=lambda name: name == "open-vm-tools")


def remove_foreign_software(
    g: GuestFS, files: GuestFiles, guest: Inspection, report: Reporter
) -> None:
    """Remove what belongs to VMware or VirtualBox; a failure is a warning, never an error."""
    packages = foreign_packages(guest.applications)
    if packages:
        report.log(Level.INFO, f"Packages of the old hypervisor: {', '.join(packages)}")
        for name in packages:
            files.record("package removed", name)
        if files.change:
            _remove(g, packages, report)
    elif "open-vm-tools" in {a.name for a in guest.applications}:
        for service in _SERVICES:
            files.remove(
                f"/etc/systemd/system/multi-user.target.wants/{service}", "service disabled"
            )
    if files.is_file(UNINSTALLER):
        _run_uninstaller(g, files, report)


def _remove(g: GuestFS, packages: Sequence[str], report: Reporter) -> None:
    """dpkg first: it needs no package lists; apt when something depends on what goes."""
    names = " ".join(shlex.quote(name) for name in packages)
    frontend = "DEBIAN_FRONTEND=noninteractive"
    commands = (
        f"{frontend} dpkg --remove {names} 2>&1",
        f"{frontend} apt-get -q -y -o Dpkg::Options::=--force-confold remove {names} 2>&1",
    )
    for command in commands:
        report.log(Level.INFO, f"In the guest: {command}")
        try:
            report.log(Level.DEBUG, g.sh(command))
            return
        except RuntimeError as error:
            failure = error
            report.log(Level.DEBUG, str(error))
    report.log(
        Level.WARNING,
        f"{', '.join(packages)} could not be removed: {failure} (ignored). "
        "Remove them after the first start.",
    )


def _run_uninstaller(g: GuestFS, files: GuestFiles, report: Reporter) -> None:
    report.log(Level.INFO, f"VMware Tools were installed from an archive; running {UNINSTALLER}.")
    files.record("VMware Tools uninstalled", UNINSTALLER)
    if not files.change:
        return
    try:
        if files.is_file(_LOCATIONS):
            g.write_append(_LOCATIONS, _ANSWERS.encode())
        report.log(Level.DEBUG, g.command([UNINSTALLER]))
    except RuntimeError as error:
        report.log(Level.WARNING, f"{UNINSTALLER} failed: {error} (ignored).")
