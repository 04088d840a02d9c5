"""What a person should know before converting: found, meaning, what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from conversions.pipeline.context import Context
from conversions.pipeline.convert import is_supported
from conversions.pipeline.guestcaps import machine_for
from conversions.pipeline.linux import network_names
from conversions.pipeline.linux.block_devices import accepted_by_lvm, unstable_names
from conversions.pipeline.linux.families import is_tested
from conversions.pipeline.linux.files import GuestFiles
from conversions.pipeline.linux.hypervisors import VMWARE_UNINSTALLER, foreign_packages
from conversions.pipeline.linux.loaders import find_bootloader
from conversions.pipeline.report import Level
from conversions.pipeline.space import shortages
from conversions.pipeline.types import Concern, ConcernLevel, Inspection, MountpointStats
from conversions.pipeline.windows.concerns import windows_concerns

_RAW_DISK = re.compile(r"(?m)^\s*(/dev/(?:[hsv]|xv)d[a-z]+\d*)\s")


def collect_concerns(c: Context, stats: Sequence[MountpointStats]) -> None:
    """Look at the guest before anything is changed and report every concern, worst first."""
    files = GuestFiles(c.g, c.report, change=False)
    order = list(ConcernLevel)
    found = sorted(_concerns(c, files, stats), key=lambda one: order.index(one.level))
    for concern in found:
        c.report.log(Level.INFO, f"Concern ({concern.level}): {concern.title}. {concern.found}")
    c.report.report("concerns", [asdict(one) for one in found])


def _concerns(c: Context, files: GuestFiles, stats: Sequence[MountpointStats]) -> Iterator[Concern]:
    guest = c.guest
    yield from _system(c)
    for sentence in shortages(stats, uefi=guest.is_uefi):
        yield Concern(
            level=ConcernLevel.BLOCKS,
            code="C-GUEST-SPACE",
            title="Too little free space in the guest",
            found=f"{sentence}.",
            meaning="The conversion writes new files, such as an initramfs, and would fail.",
            remedy="Delete files or an old kernel in the guest on its source, and export again.",
        )
    if guest.type == "windows":
        yield from windows_concerns(c)
    if guest.type == "linux":
        yield from _hypervisor_software(files, guest)
        yield from _disk_names(files, guest)
        yield from _sealed_keys(files)
        yield from _network(c, files)


def _system(c: Context) -> Iterator[Concern]:
    guest = c.guest
    if not is_supported(guest):
        yield Concern(
            level=ConcernLevel.BLOCKS,
            code="C-GUEST-UNSUPPORTED",
            title="This operating system cannot be converted yet",
            found=f"{guest.product_name} (type {guest.type}, distribution {guest.distro}).",
            meaning="There is no converter for it; a conversion would stop at its start.",
            remedy="Linux guests with rpm, deb or pacman packages can be converted.",
        )
    elif guest.type == "linux" and not is_tested(guest):
        yield Concern(
            level=ConcernLevel.WARNING,
            code="C-DISTRO-UNTESTED",
            title="This distribution is not a tested one",
            found=f"{guest.product_name} ({guest.distro}).",
            meaning=f"It has the tools of a family that is known ({guest.package_management}) and "
            "is converted as one of it.",
            remedy="Rehearse the conversion first, and keep the source until the result has "
            "started.",
        )
    if c.closed:
        yield Concern(
            level=ConcernLevel.WARNING,
            code="C-ENCRYPTED",
            title="Part of the guest is encrypted",
            found=f"{', '.join(c.closed)}; no key was given.",
            meaning="It is copied as it is; nothing inside can be looked at or adapted.",
            remedy="Give its key if the guest needs what is inside, or check after the first start "
            "that it opens.",
        )


def _hypervisor_software(files: GuestFiles, guest: Inspection) -> Iterator[Concern]:
    packages = foreign_packages(guest)
    if files.is_file(VMWARE_UNINSTALLER):
        packages.append(f"VMware Tools ({VMWARE_UNINSTALLER})")
    if packages:
        yield Concern(
            level=ConcernLevel.NOTE,
            code="C-HYPERVISOR-TOOLS",
            title="Tools of the old hypervisor are installed",
            found=f"{', '.join(packages)}.",
            meaning="They are removed during the conversion.",
        )


def _disk_names(files: GuestFiles, guest: Inspection) -> Iterator[Concern]:
    fstab = files.read("/etc/fstab") or ""
    if raw := sorted(set(_RAW_DISK.findall(fstab))):
        yield Concern(
            level=ConcernLevel.NOTE,
            code="C-RAW-DISK-NAMES",
            title="/etc/fstab names disks by their device",
            found=f"{', '.join(raw)}.",
            meaning="Those names change with the bus; the entries are rewritten.",
        )
    units = files.paths("/etc/systemd/system", ".swap", ".mount")
    texts = [files.read(path) or "" for path in ("/etc/fstab", "/etc/crypttab", *units)]
    texts.append(accepted_by_lvm(files.read("/etc/lvm/lvm.conf") or ""))
    if loader := find_bootloader(files, guest):
        texts += loader.argument_lines(files)
    if unstable := sorted({name for text in texts for name in unstable_names(text)}):
        yield Concern(
            level=ConcernLevel.WARNING,
            code="C-UNSTABLE-DISK-NAMES",
            title="Disks are named by path or serial",
            found=f"{', '.join(unstable)}.",
            meaning="These names hold the old bus or serial number and will not exist on KVM; "
            "the entries are left as they are.",
            remedy="Change them to UUID= in the guest on its source, and export it again.",
        )


def _sealed_keys(files: GuestFiles) -> Iterator[Concern]:
    text = files.read("/etc/crypttab") or ""
    entries = [line.split() for line in text.split("\n") if not line.lstrip().startswith("#")]
    if sealed := [e[0] for e in entries if len(e) > 3 and "tpm2-device=" in e[3]]:
        yield Concern(
            level=ConcernLevel.WARNING,
            code="C-TPM-KEYS",
            title="Encrypted disks are opened by the old machine's TPM",
            found=f"{', '.join(sealed)} in /etc/crypttab.",
            meaning="The new machine has another TPM or none, and asks for a passphrase.",
            remedy="See on the source that a passphrase opens them. After the move take the old "
            "key out with systemd-cryptenroll --wipe-slot=tpm2.",
        )


def _network(c: Context, files: GuestFiles) -> Iterator[Concern]:
    """Interface names that will change: kept where it is certain which card has them."""
    configured = network_names.configured_nics(files)
    machine = machine_for(c.guest.distro, c.guest.major_version, c.guest.arch)
    matches = network_names.match_nics(configured, c.source.nics)
    for index, (nic, _mac, certain) in enumerate(matches):
        new = network_names.expected_name(machine, index)
        kept = certain and c.job.keep_nic_names
        fixed = " with a fixed address" if nic.static else ""
        if kept:
            level, title = ConcernLevel.NOTE, f"Network card keeps the name {nic.name}"
            meaning = f"On KVM it would be called {new}; a rule keeps the old name."
            remedy = ""
        else:
            level = ConcernLevel.WARNING if nic.static else ConcernLevel.NOTE
            title = f"Network name {nic.name} will change"
            meaning = f"On KVM it is probably called {new}; this configuration no longer applies."
            remedy = (
                "Turn on keeping of network names."
                if certain
                else f"Change {nic.name} to its new name on the guest's console after the first "
                "start."
            )
        yield Concern(
            level=level,
            code="C-NIC-NAME",
            title=title,
            found=f"{nic.path} configures {nic.name}{fixed}.",
            meaning=meaning,
            remedy=remedy,
        )
