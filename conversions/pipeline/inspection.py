"""Step 7: find the guest's system, choose one, mount it, describe it."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.appliance_shell import SUBVOLUME, guest_name
from conversions.pipeline.decrypt import find_encrypted
from conversions.pipeline.errors import InspectionError
from conversions.pipeline.guest_programs import run_in_guest
from conversions.pipeline.linux.files import GuestFiles
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import Application, Inspection
from conversions.pipeline.windows.inspection import (
    check_ntfs,
    find_windows_roots,
    inspect_windows,
    ntfs_state,
)

Filesystems = Sequence[tuple[str, str]]
"""Devices and the types of their filesystems."""

_ESP_GUID = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
_ESP_MBR = 0xEF
_BIOS_BOOT_GUID = "21686148-6449-6E6F-744E-656564454649"
# Folders that a system keeps its own files in, which may be filesystems of their own.
_SYSTEM = ("/boot", "/efi", "/usr", "/var")
_ESP_PLACES = ("/boot/efi", "/efi")
_ON_DISK = ("/dev/", "UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=")


def list_filesystems(g: GuestFS) -> list[tuple[str, str]]:
    """Return every device with the type of its filesystem, under names that stay."""
    return [(guest_name(g, device), kind) for device, kind in g.list_filesystems()]


def report_filesystems(g: GuestFS, filesystems: Filesystems, report: Reporter) -> None:
    """Report the label, the UUID and the version of each filesystem, where it has one."""
    found = {}
    for device, kind in filesystems:
        try:
            details = {"label": g.vfs_label(device), "uuid": g.vfs_uuid(device)}
            if kind == "xfs":
                # XFS Algorithms & Data Structures, sb_versionnum: big-endian, its lowest four bits.
                details["version"] = str(g.pread_device(device, 2, 100)[1] & 15)
        except RuntimeError as error:
            report.log(Level.DEBUG, f"{device} tells no more of itself: {error}")
        else:
            found[device] = {name: text for name, text in details.items() if text}
    report.report("filesystems", found)


def inspect_guest(
    g: GuestFS, filesystems: Filesystems, *, root: str, read_only: bool, report: Reporter
) -> Inspection:
    """Choose the root, mount its filesystems below `/` and return what it is.

    `filesystems` are what list_filesystems() gives; `root` is "single", "first" or one of the roots
    found: its device, UUID=... or LABEL=...  Leaves the guest mounted, read-only if asked.  Raises
    InspectionError.
    """
    esps = find_esps(g, report)
    found = _find_roots(g, filesystems, report)
    if not found:
        raise _nothing_found(g, filesystems)
    found = without_snapshots(found)
    report.report(
        "roots",
        [{"device": r.device, "product_name": r.product_name, "type": r.type} for r in found],
    )
    choice = _named_root(g, found, root)
    device = choose_root([(r.device, r.product_name) for r in found], choice)
    if len(found) == 1 and choice not in ("single", "first", device):
        report.log(Level.INFO, f"{root} is no root of this guest; its only system is {device}.")
    chosen = next(r for r in found if r.device == device)
    if len(found) > 1:
        listing = ", ".join(r.device for r in found)
        report.log(Level.INFO, f"Several systems found ({listing}); taking {device}.")
    if chosen.type == "windows":
        guest = _inspect_windows(g, device, filesystems, esps, read_only=read_only, report=report)
    else:
        guest = _inspect_other(g, chosen, filesystems, esps, read_only=read_only, report=report)
    report.log(Level.INFO, inspection_text(guest))
    report.report("inspection", asdict(guest))
    return guest


@dataclass(frozen=True, slots=True)
class Root:
    """A filesystem that holds a system."""

    device: str
    product_name: str
    type: str


def _find_roots(g: GuestFS, filesystems: Filesystems, report: Reporter) -> list[Root]:
    """Return the systems that libguestfs finds; when it fails, the Windows that can be seen.

    Raises InspectionError when it fails and there is none.
    """
    try:
        devices = [guest_name(g, root) for root in g.inspect_os()]
        return [Root(d, g.inspect_get_product_name(d), g.inspect_get_type(d)) for d in devices]
    except RuntimeError as error:
        g.umount_all()
        roots = find_windows_roots(g, filesystems)
        if not roots:
            raise InspectionError(
                f"The disks could not be inspected: {error}.",
                remedy="A partition table or filesystem may be damaged; start the machine on its "
                "source to see whether it boots.",
            ) from error
        report.log(Level.WARNING, f"libguestfs could not inspect the disks: {error} (ignored).")
        return [Root(r, "Windows", "windows") for r in roots]


def _inspect_windows(
    g: GuestFS,
    root: str,
    filesystems: Filesystems,
    esps: Sequence[str],
    *,
    read_only: bool,
    report: Reporter,
) -> Inspection:
    """Mount the Windows in `root` and describe it.  Raises InspectionError, HiveError."""
    mountpoints = [("/", root)]
    if not read_only:
        check_ntfs(g, root)
    state = ntfs_state(g, root)
    mount_guest(g, mountpoints, read_only=read_only, report=report)
    if not read_only:
        _prove_writable(g)
    return inspect_windows(
        g, root, esps=esps, mountpoints=mountpoints, filesystems=filesystems, state=state
    )


def _inspect_other(
    g: GuestFS,
    root: Root,
    filesystems: Filesystems,
    esps: Sequence[str],
    *,
    read_only: bool,
    report: Reporter,
) -> Inspection:
    """Mount the filesystems of the system in `root` and describe it.  Raises InspectionError."""
    chosen = root.device
    found = ((path, guest_name(g, dev)) for path, dev in g.inspect_get_mountpoints(chosen))
    mountpoints = sorted(found, key=lambda m: len(m[0]))
    if "/" not in dict(mountpoints):  # its entry in fstab names something that is not there
        mountpoints.insert(0, ("/", chosen))
    mount_guest(g, mountpoints, read_only=read_only, report=report)
    if not read_only:
        _prove_writable(g)
    if place := _place_of_esp(g, mountpoints, esps, report):
        mount_guest(g, [(place, esps[0])], read_only=read_only, report=report)
        mountpoints.append((place, esps[0]))
    _compare_fstab(g, [path for path, _device in mountpoints], report)
    return Inspection(
        root=root.device,
        type=g.inspect_get_type(chosen),
        distro=g.inspect_get_distro(chosen),
        arch=g.inspect_get_arch(chosen),
        major_version=g.inspect_get_major_version(chosen),
        minor_version=g.inspect_get_minor_version(chosen),
        package_format=g.inspect_get_package_format(chosen),
        package_management=g.inspect_get_package_management(chosen),
        product_name=_product_name(g, g.inspect_get_product_name(chosen), report),
        product_variant=g.inspect_get_product_variant(chosen),
        osinfo=g.inspect_get_osinfo(chosen),
        hostname=g.inspect_get_hostname(chosen),
        uefi_esps=tuple(esps),
        mountpoints=tuple(mountpoints),
        filesystems=tuple(sorted(filesystems)),
        applications=tuple(_applications(g, chosen, read_only=read_only, report=report)),
    )


def _product_name(g: GuestFS, name: str, report: Reporter) -> str:
    """Return a name people know: Debian's is only a number such as 12.15 to libguestfs."""
    if any(c.isalpha() for c in name):
        return name
    text = GuestFiles(g, report, change=False).read("/etc/os-release") or ""
    for line in text.split("\n")[:100]:
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return str(value.strip().strip("\"'"))[:200] or name
    return name


def without_snapshots(roots: Sequence[Root]) -> list[Root]:
    """Return the roots without btrfs snapshots of a system that is there itself.

    The plain device is the subvolume that boots; what snapper keeps lies below .snapshots.
    """
    kept = [r for r in roots if "/.snapshots/" not in r.device] or list(roots)
    plain = [r for r in kept if not r.device.startswith(SUBVOLUME)]

    def is_twin(root: Root) -> bool:
        return any(
            root.device.startswith(f"{SUBVOLUME}{p.device}/")
            and root.product_name == p.product_name
            for p in plain
        )

    return [r for r in kept if not is_twin(r)]


def _named_root(g: GuestFS, roots: Sequence[Root], choice: str) -> str:
    """Return the root with the UUID or label of a choice, anything else as it is."""
    kind, _, name = choice.partition("=")
    call = {"UUID": "vfs_uuid", "LABEL": "vfs_label"}.get(kind)
    if call is None:
        return choice

    def has_name(root: Root) -> bool:
        device = "/".join(root.device.removeprefix(SUBVOLUME).split("/")[:3])
        try:
            return bool(getattr(g, call)(device) == name)
        except RuntimeError:
            return False

    found = [root.device for root in roots if has_name(root)]
    return found[0] if len(found) == 1 else choice


def choose_root(roots: Sequence[tuple[str, str]], choice: str) -> str:
    """Return the root to convert: the only one, whatever the choice, else the chosen one.

    `roots` are (device, product name).  Raises InspectionError.
    """
    devices = [device for device, _name in roots]
    listing = ", ".join(f"{device} ({name})" for device, name in roots)
    if len(devices) == 1 or choice == "first":
        return devices[0]
    if choice == "single":
        raise InspectionError(
            f"Several operating systems were found: {listing}.",
            remedy="Choose one of them as the root, or say first.",
            code="E-ROOT-CHOICE",
        )
    if choice not in devices:
        raise InspectionError(
            f"{choice} is not a root of this guest; found: {listing}.",
            remedy="Choose one of those.",
            code="E-ROOT-CHOICE",
        )
    return choice


def _nothing_found(g: GuestFS, filesystems: Filesystems) -> InspectionError:
    if encrypted := find_encrypted(g):
        return InspectionError(
            "No operating system was found; encrypted and without a key: "
            f"{', '.join(device.label for device in encrypted)}.",
            remedy="Give the key for each of them.",
            code="E-ENCRYPTED",
        )
    seen = ", ".join(f"{dev} ({kind})" for dev, kind in sorted(filesystems)) or "none"
    return InspectionError(
        f"No operating system was found on the disks. Filesystems: {seen}.",
        remedy="The disks may be blank, damaged, or encrypted in a way that is not known here; "
        "start the machine on its source to see whether it boots.",
        code="E-NO-ROOT",
    )


def mount_guest(
    g: GuestFS, mountpoints: Iterable[tuple[str, str]], *, read_only: bool, report: Reporter
) -> None:
    """Mount shortest path first; only `/`, `/boot` and `/usr` must be there."""
    for path, device in mountpoints:
        try:
            (g.mount_ro if read_only else g.mount)(device, path)
        except RuntimeError as error:
            if path in ("/", "/boot", "/usr"):
                raise InspectionError(
                    f"{path} of the guest ({device}) could not be mounted: {error}.",
                    remedy="Check the filesystem on the source, shut the machine down cleanly "
                    "and export it again.",
                ) from error
            report.log(Level.WARNING, f"{path} ({device}) could not be mounted: {error} (ignored).")


def _place_of_esp(
    g: GuestFS, mountpoints: Sequence[tuple[str, str]], esps: Sequence[str], report: Reporter
) -> str | None:
    """Return where the EFI system partition belongs that nothing mounts yet: the loader is on it.

    That is where /etc/fstab has one, though by a name that no disk has, or where a folder waits
    for it.  None when it is mounted, or not the only one.
    """
    taken = dict(mountpoints)
    if len(esps) != 1 or esps[0] in taken.values():
        return None
    text = GuestFiles(g, report, change=False).read("/etc/fstab") or ""
    entries = [line.split()[1] for line in text.split("\n") if len(line.split()) > 1]
    wanted = [path for path in _ESP_PLACES if path in entries]
    there = [path for path in _ESP_PLACES if g.is_dir(path, followsymlinks=True)]
    return next((p for p in (*wanted, *there) if p in there and p not in taken), None)


def _compare_fstab(g: GuestFS, mounted: Sequence[str], report: Reporter) -> None:
    """Look for filesystems of the system itself that /etc/fstab names and no disk has.

    Raises InspectionError for /boot and /usr: a new initramfs would go to the wrong place.
    """
    text = GuestFiles(g, report, change=False).read("/etc/fstab") or ""
    there = {path.rstrip("/") for path in mounted}
    for line in text.split("\n"):
        spec, path, _kind, options = [*line.split(), "", "", "", ""][:4]
        top = "/" + path.strip("/").split("/")[0]
        if not spec.startswith(_ON_DISK) or top not in _SYSTEM or path.rstrip("/") in there:
            continue
        if {"noauto", "nofail"} & set(options.split(",")):
            continue
        message = f"/etc/fstab mounts {spec} on {path}, but no disk of the guest has it"
        if path.rstrip("/") in ("/boot", "/usr"):
            raise InspectionError(
                f"{message}.",
                remedy="A disk may be missing from the export; if the entry is an old one, delete "
                "it on the source and export again.",
                code="E-MOUNTPOINT",
            )
        report.log(Level.WARNING, f"{message} (ignored).")


def _prove_writable(g: GuestFS) -> None:
    probe = f"/v2vweb-{secrets.token_hex(4)}"
    try:
        g.touch(probe)
        g.rm(probe)
    except RuntimeError as error:
        hint = (
            " The filesystem was not cleanly unmounted, or the guest was running or hibernated."
            if "Read-only file system" in str(error)
            else ""
        )
        raise InspectionError(
            f"The guest's root filesystem cannot be written: {error}.{hint}",
            remedy="Start the machine on its source, shut it down cleanly and export it again.",
        ) from error


def find_esps(g: GuestFS, report: Reporter | None = None) -> list[str]:
    """Return the EFI system partitions when the disks say UEFI, else an empty list.

    A BIOS boot partition beside them means a hybrid image, which boots with BIOS; `report` is told.
    """
    esps, bios_boot = [], False
    for partition in g.list_partitions():
        device = g.part_to_dev(partition)
        try:
            table, number = g.part_get_parttype(device), g.part_to_partnum(partition)
            guid = g.part_get_gpt_type(device, number).upper() if table == "gpt" else ""
            is_esp = guid == _ESP_GUID or (
                table == "msdos"
                and g.part_get_mbr_id(device, number) == _ESP_MBR
                and not _starts_with_bios(g, device)
            )
        except RuntimeError:
            continue  # no partition table that parted understands
        if is_esp:
            esps.append(partition)
        bios_boot = bios_boot or guid == _BIOS_BOOT_GUID
    if esps and bios_boot and report:
        report.log(
            Level.INFO,
            f"Ambiguous firmware: there is an EFI system partition ({', '.join(esps)}) beside a "
            "BIOS boot partition; it is taken for BIOS unless the source says UEFI.",
        )
    return [] if bios_boot else esps


def _starts_with_bios(g: GuestFS, disk: str) -> bool:
    """Tell whether a disk with an MBR has GRUB in it, or an active partition for other code."""
    numbers = [part["part_num"] for part in g.part_list(disk)]
    return b"GRUB" in g.pread_device(disk, 512, 0) or any(
        g.part_get_bootable(disk, number) for number in numbers
    )


def _applications(
    g: GuestFS, root: str, *, read_only: bool, report: Reporter
) -> Iterator[Application]:
    """Return the installed packages.

    Raises InspectionError when the database of rpm or dpkg lists none, even after rpm rebuilt its
    own; read-only that is a warning.
    """
    kind = g.inspect_get_package_format(root)
    rows, failure = _listed(g, root)
    if not rows and kind == "rpm" and not read_only:
        report.log(Level.WARNING, "The guest's database of packages is damaged; it is rebuilt.")
        try:
            run_in_guest(g, "rpmdb --rebuilddb", report)
        except RuntimeError as error:
            report.log(Level.DEBUG, f"rpmdb --rebuilddb: {error}")
        rows, failure = _listed(g, root)
    if not rows and kind in ("rpm", "deb"):
        message = f"The inspection found no installed package ({kind}){failure}."
        if not read_only:
            raise InspectionError(
                message,
                remedy="See in the guest on its source whether its package manager lists any, and "
                "export it again.",
                code="E-NO-PACKAGES",
            )
        report.log(Level.WARNING, message)
    for row in rows:
        yield Application(
            name=row["app2_name"],
            version=row["app2_version"],
            release=row["app2_release"],
            epoch=row["app2_epoch"],
            arch=row["app2_arch"],
        )


def _listed(g: GuestFS, root: str) -> tuple[Sequence[Mapping[str, Any]], str]:
    """Return the rows of libguestfs' list of packages, and why there are none."""
    try:
        return g.inspect_list_applications2(root), ""
    except RuntimeError as error:
        return [], f": {error}"


def inspection_text(guest: Inspection) -> str:
    """Return the report in the layout of the text log."""
    firmware = f"UEFI [{', '.join(guest.uefi_esps)}]" if guest.is_uefi else "BIOS"
    pairs = [
        ("root", guest.root),
        ("type", guest.type),
        ("distro", guest.distro),
        ("arch", guest.arch),
        ("major_version", guest.major_version),
        ("minor_version", guest.minor_version),
        ("package_format", guest.package_format),
        ("package_management", guest.package_management),
        ("product_name", guest.product_name),
        ("product_variant", guest.product_variant),
        ("firmware", firmware),
        ("windows_systemroot", guest.windows_systemroot),
        ("windows_software_hive", guest.windows_software_hive),
        ("windows_system_hive", guest.windows_system_hive),
        ("windows_current_control_set", guest.windows_current_control_set),
    ]
    return "\n".join(f"i_{name} = {value}" for name, value in pairs)
