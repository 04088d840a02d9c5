"""What a person should know before converting: found, meaning, what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.convert import is_supported
from conversions.pipeline.linux.block_devices import unstable_names
from conversions.pipeline.linux.files import GuestFiles
from conversions.pipeline.linux.packages import UNINSTALLER, foreign_packages
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.space import shortages
from conversions.pipeline.types import Concern, ConcernLevel, Inspection, MountpointStats
from inventory.sources.types import Source

_RAW_DISK = re.compile(r"(?m)^\s*(/dev/(?:[hsv]|xv)d[a-z]+\d*)\s")
# Names that udev derives from the PCI slot, which differs on the target.
_SLOT_NAME = re.compile(r"\b(en[psox]\w*\d\w*)\b")
_STATIC_FILES = ("/etc/network/interfaces",)


def collect_concerns(
    g: GuestFS,
    guest: Inspection,
    source: Source,
    stats: Sequence[MountpointStats],
    report: Reporter,
) -> None:
    """Look at the guest before anything is changed and report every concern, worst first."""
    files = GuestFiles(g, report, change=False)
    order = list(ConcernLevel)
    found = sorted(_concerns(g, files, guest, source, stats), key=lambda c: order.index(c.level))
    for concern in found:
        report.log(Level.INFO, f"Concern ({concern.level}): {concern.title}. {concern.found}")
    report.report("concerns", [asdict(c) for c in found])


def _concerns(
    g: GuestFS,
    files: GuestFiles,
    guest: Inspection,
    source: Source,
    stats: Sequence[MountpointStats],
) -> Iterator[Concern]:
    yield from _system(guest)
    for sentence in shortages(stats):
        yield Concern(
            level=ConcernLevel.BLOCKS,
            code="C-GUEST-SPACE",
            title="Too little free space in the guest",
            found=f"{sentence}.",
            meaning="The conversion writes new files, such as an initramfs, and would fail.",
            remedy="Delete files or an old kernel in the guest on its source, and export again.",
        )
    if guest.type == "linux":
        yield from _hypervisor_software(files, guest)
        yield from _disk_names(files)
        yield from _network(g, files, source)


def _system(guest: Inspection) -> Iterator[Concern]:
    if not is_supported(guest):
        yield Concern(
            level=ConcernLevel.BLOCKS,
            code="C-GUEST-UNSUPPORTED",
            title="This operating system cannot be converted yet",
            found=f"{guest.product_name} (type {guest.type}, distribution {guest.distro}).",
            meaning="There is no converter for it; a conversion would stop at its start.",
            remedy="Debian and Ubuntu guests can be converted.",
        )
    encrypted = sorted(
        dev for dev, kind in guest.filesystems if kind in ("crypto_LUKS", "BitLocker")
    )
    if encrypted:
        yield Concern(
            level=ConcernLevel.WARNING,
            code="C-ENCRYPTED",
            title="Part of the guest is encrypted",
            found=f"{', '.join(encrypted)}.",
            meaning="It is copied as it is; nothing inside can be looked at or adapted.",
            remedy="Check after the first start that it opens.",
        )


def _hypervisor_software(files: GuestFiles, guest: Inspection) -> Iterator[Concern]:
    packages = foreign_packages(guest.applications)
    if files.is_file(UNINSTALLER):
        packages.append(f"VMware Tools ({UNINSTALLER})")
    if packages:
        yield Concern(
            level=ConcernLevel.NOTE,
            code="C-HYPERVISOR-TOOLS",
            title="Tools of the old hypervisor are installed",
            found=f"{', '.join(packages)}.",
            meaning="They are removed during the conversion.",
        )


def _disk_names(files: GuestFiles) -> Iterator[Concern]:
    fstab = files.read("/etc/fstab") or ""
    if raw := sorted(set(_RAW_DISK.findall(fstab))):
        yield Concern(
            level=ConcernLevel.NOTE,
            code="C-RAW-DISK-NAMES",
            title="/etc/fstab names disks by their device",
            found=f"{', '.join(raw)}.",
            meaning="Those names change with the bus; the entries are rewritten.",
        )
    texts = [fstab, files.read("/etc/crypttab") or "", files.read("/etc/default/grub") or ""]
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


def _network(g: GuestFS, files: GuestFiles, source: Source) -> Iterator[Concern]:
    """Interface names that will change, where a fixed address hangs on them."""
    folders = ("/etc/netplan", "/etc/NetworkManager/system-connections",
               "/etc/network/interfaces.d", "/etc/systemd/network")  # fmt: skip
    paths = list(_STATIC_FILES)
    for folder in folders:
        if g.is_dir(folder):
            paths += [f"{folder}/{name}" for name in sorted(g.ls(folder))[:100]]
    for path in paths:
        text = files.read(path) or ""
        body = "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("#"))
        names = sorted(set(_SLOT_NAME.findall(body)))
        if not names:
            continue
        fixed = bool(re.search(r"\bstatic\b|addresses:|address1?=|Address=|method=manual", body))
        yield Concern(
            level=ConcernLevel.WARNING if fixed else ConcernLevel.NOTE,
            code="C-NIC-NAME",
            title="Network names will change",
            found=f"{path} configures {', '.join(names)}"
            + (" with a fixed address." if fixed else "."),
            meaning="On KVM the card gets another name, such as enp1s0, and this configuration "
            "no longer applies to it.",
            remedy="Change the name in the guest after its first start, on its console.",
        )
