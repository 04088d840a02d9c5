"""Software of the old hypervisor inside the guest, and its removal without a network."""

from __future__ import annotations

import re
import shlex

from conversions.pipeline.context import Context
from conversions.pipeline.guest_programs import run_in_guest
from conversions.pipeline.linux.families import Family, family_of
from conversions.pipeline.linux.files import GuestFiles
from conversions.pipeline.linux.packages import remove_packages
from conversions.pipeline.report import Level
from conversions.pipeline.types import Inspection

VMWARE_UNINSTALLER = "/usr/bin/vmware-uninstall-tools.pl"
_VMWARE_LOCATIONS = "/etc/vmware-tools/locations"
# Keeps the uninstaller from rebuilding every initramfs.
_VMWARE_ANSWERS = "".join(
    f"remove_answer {name}\n"
    for name in ("RESTORE_RAMDISK_CMD", "RESTORE_RAMDISK_KERNELS", "RESTORE_RAMDISK_ONECALL")
)
_VBOX_CONFIG = "/var/lib/VBoxGuestAdditions/config"
_PARALLELS = "/usr/lib/parallels-tools/install"
_KUDZU = ("/etc/init.d/kudzu", "/sbin/chkconfig")
_PREFIXES = ("vmware-tools-", "kmod-vmware-tools", "open-vm-tools-", "virtualbox-guest-",
             "virtualbox-kmp-", "xe-guest-utilities", "kmod-xenpv")  # fmt: skip
_NAMES = ("VMwareTools", "open-vm-tools")
_SERVICES = ("open-vm-tools.service", "vgauth.service", "vmtoolsd.service", "vgauthd.service")
_XEN_MODULES = re.compile(r"(?<![\w-])(?:xennet|xen-vnif|xenblk|xen-vbd)(?![\w-])[ ]?")
_INITRD_LINES = re.compile(r"(?m)^\s*(?:DOMU_)?INITRD_MODULES=.*$")


def foreign_packages(guest: Inspection) -> list[str]:
    """Return the packages that belong to another hypervisor, open-vm-tools last.

    open-vm-tools stays where ubuntu-server depends on it; its services are disabled then.
    """
    names = {a.name for a in guest.applications}
    found = sorted(n for n in names if n in _NAMES or n.startswith(_PREFIXES))
    if "ubuntu-server" in names and "open-vm-tools" in found:
        found.remove("open-vm-tools")
    return sorted(found, key=lambda name: name == "open-vm-tools")


def remove_foreign_software(c: Context, files: GuestFiles) -> None:
    """Remove what belongs to another hypervisor; a failure is a warning, never an error."""
    # The uninstallers go first: they put old copies of files back.
    _uninstall_virtualbox(c, files)
    _uninstall_vmware(c, files)
    if files.is_file(_PARALLELS):
        _run(c, files, f"{_PARALLELS} -r", "Parallels Tools uninstalled")
    packages = foreign_packages(c.guest)
    if packages:
        c.report.log(Level.INFO, f"Packages of the old hypervisor: {', '.join(packages)}")
        remove_packages(c, files, packages)
    if "open-vm-tools" in {a.name for a in c.guest.applications} - set(packages):
        for service in _SERVICES:
            files.remove(
                f"/etc/systemd/system/multi-user.target.wants/{service}", "service disabled"
            )
    for path in files.paths("/etc/yum.repos.d", ".repo"):
        files.edit(path, disable_vmware_repositories, "VMware repository disabled")
    if any(name.startswith("xe-guest-utilities") for name in packages):
        files.edit("/etc/inittab", restore_gettys, "login consoles restored")
    if family_of(c.guest) is Family.SUSE:
        files.edit("/etc/sysconfig/kernel", drop_xen_modules, "Xen drivers dropped")
    if all(files.is_file(path) for path in _KUDZU):
        _run(c, files, f"{_KUDZU[1]} kudzu off", "kudzu turned off")


def _run(c: Context, files: GuestFiles, command: str, what: str) -> None:
    """Run a line of shell in the guest; a failure is a warning."""
    files.record(what, command.split()[0])
    if not c.change:
        return
    try:
        run_in_guest(c.g, command, c.report)
    except RuntimeError as error:
        c.report.log(Level.WARNING, f"{command} failed: {str(error).strip()} (ignored).")


def _uninstall_vmware(c: Context, files: GuestFiles) -> None:
    if not files.is_file(VMWARE_UNINSTALLER):
        return
    c.report.log(Level.INFO, f"VMware Tools came from an archive; running {VMWARE_UNINSTALLER}.")
    files.edit(
        _VMWARE_LOCATIONS, lambda text: text + _VMWARE_ANSWERS, "told to leave the initramfs alone"
    )
    root = f"rootdev={shlex.quote(c.guest.root)} " if family_of(c.guest) is Family.SUSE else ""
    _run(c, files, root + VMWARE_UNINSTALLER, "VMware Tools uninstalled")


def _uninstall_virtualbox(c: Context, files: GuestFiles) -> None:
    text = files.read(_VBOX_CONFIG) or ""
    script = files.first_file(*(f"{folder}/uninstall.sh" for folder in install_folders(text)))
    if script:
        _run(c, files, shlex.quote(script), "VirtualBox Guest Additions uninstalled")


def install_folders(text: str) -> list[str]:
    """Return the absolute folders of the INSTALL_DIR lines of VirtualBox' settings."""
    folders = []
    for line in text.split("\n"):
        name, _, value = line.strip().partition("=")
        if name != "INSTALL_DIR":
            continue
        if value.startswith('"'):  # where a shell has more escapes than shlex
            value = value.replace("\\$", "$").replace("\\`", "`")
        try:
            words = shlex.split(value)
        except ValueError:
            continue
        if len(words) == 1 and words[0].startswith("/"):
            folders.append(words[0].rstrip("/"))
    return folders


def disable_vmware_repositories(text: str) -> str:
    """Return a .repo file with every section disabled whose baseurl is on vmware.com."""
    parts = re.split(r"(?m)^(?=\[)", text)
    return "".join(_disabled(part) if _is_vmware(part) else part for part in parts)


def _is_vmware(section: str) -> bool:
    return bool(
        re.search(r"(?mi)^\s*baseurl\s*=\s*https?://(?:[\w.-]+\.)?vmware\.com[:/]", section)
    )


def _disabled(section: str) -> str:
    if re.search(r"(?m)^\s*enabled\s*=", section):
        return re.sub(r"(?m)^(\s*enabled\s*=\s*)\S*", r"\g<1>0", section)
    return section.rstrip("\n") + "\nenabled=0\n"


def restore_gettys(text: str) -> str:
    """Return an inittab with the consoles back that Citrix' tools had commented out."""
    return re.sub(r"(?m)^#[ \t]*([1-6]:[2-5]+:respawn:.*getty.*)$", r"\1", text)


def drop_xen_modules(text: str) -> str:
    """Return SUSE's /etc/sysconfig/kernel without drivers of Xen in the initramfs."""

    def line(match: re.Match[str]) -> str:
        return re.sub(r"[ ]+(?=[\"']\s*$)", "", _XEN_MODULES.sub("", match[0]))

    return _INITRD_LINES.sub(line, text)
