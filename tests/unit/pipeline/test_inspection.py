"""Opening a guest and finding out what it is, with a stand-in for the appliance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conversions.pipeline.cli import main
from conversions.pipeline.context import Context
from conversions.pipeline.convert import pick_converter
from conversions.pipeline.decrypt import plain_selector, unlock
from conversions.pipeline.errors import GuestError, InspectionError
from conversions.pipeline.firmware import detect_boot_disk, is_uefi_target
from conversions.pipeline.fsck import check_filesystems, has_old_counters
from conversions.pipeline.inspection import (
    Root,
    find_esps,
    inspect_guest,
    list_filesystems,
    report_filesystems,
    without_snapshots,
)
from conversions.pipeline.job import Input, Job, Key, Mode
from conversions.pipeline.linux.convert import linux_guestcaps
from conversions.pipeline.outputs.libvirt_devices import boot_order
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.trim import trim_filesystems
from conversions.pipeline.types import BlockBus, Inspection, NetBus
from inventory.sources.types import Firmware
from tests.guests.folder_linux import FolderLinux
from tests.unit.pipeline.samples import GUEST, KERNEL, make_source, target_disk

rows = pytest.mark.rows
BASH = {"app2_name": "bash", "app2_version": "5", "app2_release": "1", "app2_epoch": 0,
        "app2_arch": "x86_64"}  # fmt: skip
ESP, BIOS_BOOT = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "21686148-6449-6E6F-744E-656564454649"


class Inspected(FolderLinux):
    """A Linux guest and what libguestfs says of it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.roots = {"/dev/sda1": "Debian"}
        self.mountpoints = [("/", "/dev/sda1")]
        self.packages: list[list[dict[str, Any]]] = [[BASH]]
        self.package_format = "deb"
        self.broken: tuple[str, ...] = ()
        self.table = "gpt"
        self.is_read_only = False
        self.labels: dict[str, str] = {}
        self.commands: list[str] = []
        for device in ("/dev/sda1", "/dev/sda2"):
            self.mkfs("ext4", device)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        values = {"distro": "debian", "arch": "x86_64", "major_version": 12, "minor_version": 0,
                  "package_management": "apt", "product_variant": "unknown", "osinfo": "debian12",
                  "hostname": "phony", "type": "linux"}  # fmt: skip
        if (what := name.removeprefix("inspect_get_")) not in values:
            raise AttributeError(name)
        return lambda _root: values[what]

    def inspect_os(self) -> list[str]:
        """Return the roots."""
        return list(self.roots)

    def inspect_get_product_name(self, root: str) -> str:
        """Return the name of the system."""
        return self.roots[root]

    def inspect_get_package_format(self, root: str) -> str:
        """Return the kind of packages."""
        return self.package_format

    def inspect_get_mountpoints(self, root: str) -> list[tuple[str, str]]:
        """Return what fstab mounts."""
        return [("/", root), *self.mountpoints[1:]]

    def inspect_list_applications2(self, root: str) -> list[dict[str, Any]]:
        """Return the packages: each call the next list; a list with None in it is an error."""
        found = self.packages.pop(0) if len(self.packages) > 1 else self.packages[0]
        if found == [{}]:
            raise RuntimeError("inspect_list_applications2: bad magic")
        return found

    def vfs_label(self, device: str) -> str:
        """Return the label of a filesystem."""
        return self.labels.get(device, "")

    def part_get_parttype(self, disk: str) -> str:
        """Return the kind of partition table."""
        return self.table

    def mount(self, device: str, path: str) -> None:
        """Mount it, if it is there."""
        if device in self.broken:
            raise RuntimeError(f"mount: {device}: No such file or directory")
        super().mount(device, path)

    mount_ro = mount

    def touch(self, path: str) -> None:
        """Make a file."""
        if self.is_read_only:
            raise RuntimeError(f"touch: {path}: Read-only file system")
        super().touch(path)

    def sh(self, command: str) -> str:
        """Note the command."""
        self.commands.append(command)
        return ""

    def install(self, path: str, text: str) -> None:
        """Write a file of the guest."""
        self.mount("/dev/sda1", "/")
        self.mkdir_p(path.rsplit("/", 1)[0])
        self.write(path, text.encode("utf-8", "surrogateescape"))
        self.umount_all()


@pytest.fixture
def guest(tmp_path: Path) -> Inspected:
    return Inspected(tmp_path)


def inspect(g: Inspected, root: str = "single", *, read_only: bool = False) -> Any:
    """Return what is found, and the log."""
    report = RecordingReporter()
    found = inspect_guest(g, list_filesystems(g), root=root, read_only=read_only, report=report)
    return found, [e for e in report.of("log") if e["level"] != "debug"]


def test_a_choice_that_names_no_system_or_several_lists_them(guest: Inspected) -> None:
    guest.roots["/dev/sda2"] = "Fedora"
    guest.labels = {"/dev/sda1": "root", "/dev/sda2": "root"}
    for choice in ("UUID=9", "LABEL=root"):
        with pytest.raises(InspectionError, match=rf"^{choice} is not a root of this guest; found"):
            inspect(guest, choice)


def test_the_only_system_is_taken_whatever_was_chosen(guest: Inspected) -> None:
    found, log = inspect(guest, "/dev/sdz9")
    assert found.root == "/dev/sda1"
    assert [e for e in log if e["text"].endswith("its only system is /dev/sda1.")]


def warnings(log: list[dict[str, Any]]) -> list[str]:
    return [e["text"] for e in log if e["level"] == "warning"]


@pytest.mark.parametrize(
    ("choice", "taken"),
    [
        pytest.param("first", "/dev/sda1", marks=rows("2-T3")),
        pytest.param("/dev/sda2", "/dev/sda2", marks=rows("2-T4")),
        ("UUID=1-2", "/dev/sda2"),
        ("LABEL=old", "/dev/sda1"),
    ],
)
def test_one_of_two_systems_is_taken_and_named(guest: Inspected, choice: str, taken: str) -> None:
    guest.roots["/dev/sda2"] = "Fedora"
    guest.uuids, guest.labels = {"/dev/sda2": "1-2"}, {"/dev/sda1": "old", "/dev/sda2": "new"}
    found, log = inspect(guest, choice)
    assert found.root == taken
    assert [e for e in log if e["level"] == "info" and e["text"].endswith(f"taking {taken}.")]
    assert f"i_root = {taken}" in [e["text"] for e in log]


@rows("2-T1")
def test_the_only_system_is_taken_without_a_word(guest: Inspected) -> None:
    found, log = inspect(guest)
    assert found.root == "/dev/sda1"
    assert all(e["text"].startswith("i_") for e in log)


@rows("2-T10")
def test_snapshots_are_no_systems_of_their_own() -> None:
    plain = Root("/dev/sda2", "openSUSE", "linux")
    volumes = [
        Root(f"btrfsvol:/dev/sda2/@/.snapshots/{n}/snapshot", "openSUSE", "linux")
        for n in (1, 2, 3)
    ]
    other = Root("/dev/sdb1", "Debian", "linux")
    assert without_snapshots([plain, *volumes]) == [plain]
    assert without_snapshots([plain, *volumes, other]) == [plain, other]


class Swapped(Inspected):
    """The kernel found the second disk first; libguestfs takes names of the guest only."""

    def debug(self, command: str, arguments: list[str]) -> str:
        """Answer with the kernel's names of the disks, in the order in which they were given."""
        return "scsi-0 /dev/sdb\nscsi-0-part1 /dev/sdb1\nscsi-1 /dev/sda\n\nstatus=0"

    def list_filesystems(self) -> list[tuple[str, str]]:
        """Return disks by the guest's names, subvolumes as the kernel calls them."""
        return [("/dev/sda1", "ext4"), ("btrfsvol:/dev/sda1/@", "btrfs")]

    def inspect_os(self) -> list[str]:
        """Return the root as the kernel calls it."""
        return ["btrfsvol:/dev/sda1/@"]

    def inspect_get_mountpoints(self, root: str) -> list[tuple[str, str]]:
        """Return what fstab mounts, as the kernel calls it."""
        assert root in self.roots
        return [("/", "btrfsvol:/dev/sda1/@"), ("/home", "btrfsvol:/dev/sda1/@home")]


def test_subvolumes_are_asked_for_and_mounted_by_the_names_of_the_guest(tmp_path: Path) -> None:
    """The kernel's order of the disks differs from start to start."""
    swapped = Swapped(tmp_path)
    swapped.roots = {"btrfsvol:/dev/sdb1/@": "openSUSE"}
    for name in ("@", "@home"):
        swapped.mkfs("btrfs", f"btrfsvol:/dev/sdb1/{name}")
    assert list_filesystems(swapped)[1] == ("btrfsvol:/dev/sdb1/@", "btrfs")
    found, _log = inspect(swapped)
    assert found.root == "btrfsvol:/dev/sdb1/@"
    assert found.mountpoints == (
        ("/", "btrfsvol:/dev/sdb1/@"), ("/home", "btrfsvol:/dev/sdb1/@home"),
    )  # fmt: skip
    assert swapped.mounted == dict(found.mountpoints)


@rows("2-T19")
def test_a_root_that_cannot_be_written(guest: Inspected) -> None:
    guest.is_read_only = True
    with pytest.raises(InspectionError, match="not cleanly unmounted, or the guest was running or"):
        inspect(guest)
    assert inspect(guest, read_only=True)[0].root == "/dev/sda1"


@rows("2-T20")
def test_filesystems_of_data_may_be_missing(guest: Inspected) -> None:
    guest.install("/etc/fstab", "server:/export /mnt nfs defaults 0 0\nUUID=1-2 /data ext4 x 0 0\n")
    assert warnings(inspect(guest)[1]) == []
    guest.mountpoints.append(("/data", "/dev/sdz1"))
    guest.broken = ("/dev/sdz1",)
    [warning] = warnings(inspect(guest)[1])
    assert "/data (/dev/sdz1) could not be mounted" in warning
    assert "(ignored)" in warning


@rows("2-T21")
@pytest.mark.parametrize("path", ["/boot", "/usr"])
def test_filesystems_of_the_system_may_not_be_missing(guest: Inspected, path: str) -> None:
    """Whether libguestfs knows a device for them or not."""
    for spec in ("UUID=gone", "/dev/disk/by-path/pci-0000:00:10.0-part1"):
        guest.install("/etc/fstab", f"# x {path}\n{spec} {path} ext4 defaults 0 2\n")
        with pytest.raises(InspectionError, match=f"{spec} on {path}") as caught:
            inspect(guest)
        assert caught.value.code == "E-MOUNTPOINT"
    guest.install("/etc/fstab", f"UUID=gone {path} ext4 noauto 0 2\n")
    assert warnings(inspect(guest)[1]) == []
    guest.install("/etc/fstab", f"LABEL=there {path}/ ext4 defaults 0 2\n")
    guest.mountpoints.append((path, "/dev/sda2"))
    assert warnings(inspect(guest)[1]) == []
    guest.mountpoints[1] = (path, "/dev/sdz1")
    guest.broken = ("/dev/sdz1",)
    with pytest.raises(InspectionError, match=f"{path} of the guest .* could not be mounted"):
        inspect(guest)


def test_a_missing_folder_of_the_system_is_a_warning(guest: Inspected) -> None:
    text = "# caf\udce9\nUUID=gone /var/log ext4 defaults 0 2\n/old /boot none bind 0 0\n"
    guest.install("/etc/fstab", text)
    [warning] = warnings(inspect(guest)[1])
    assert "UUID=gone on /var/log" in warning


@rows("2-T46")
def test_a_damaged_database_of_rpm_is_rebuilt_once(guest: Inspected) -> None:
    guest.package_format = "rpm"
    for first in ([{}], []):
        guest.commands.clear()
        guest.packages = [first, [BASH]]
        found, _log = inspect(guest)
        assert [app.name for app in found.applications] == ["bash"]
        assert guest.commands == ["rpmdb --rebuilddb 2>&1"]
    guest.commands.clear()
    guest.packages = [[]]
    with pytest.raises(InspectionError, match="inspection found no installed package"):
        inspect(guest)
    assert guest.commands == ["rpmdb --rebuilddb 2>&1"]


@rows("2-T47")
def test_a_guest_without_packages_was_not_read_rightly(guest: Inspected) -> None:
    guest.packages = [[]]
    with pytest.raises(InspectionError, match="inspection found no installed package") as caught:
        inspect(guest)
    assert caught.value.code == "E-NO-PACKAGES"
    assert guest.commands == []
    [warning] = warnings(inspect(guest, read_only=True)[1])
    assert "no installed package" in warning


@pytest.mark.parametrize(
    ("table", "types", "esps", "is_ambiguous"),
    [
        pytest.param("gpt", {1: ESP}, ("/dev/sda1",), False, marks=rows("2-T40")),
        pytest.param("gpt", {1: ESP, 2: BIOS_BOOT}, (), True, marks=rows("2-T41")),
        pytest.param("msdos", {1: ESP}, (), False, marks=rows("2-T42")),
        ("msdos", {1: "ef"}, ("/dev/sda1",), False),
        ("gpt", {2: BIOS_BOOT}, (), False),
    ],
)
def test_the_firmware_by_the_partitions(
    guest: Inspected, table: str, types: dict[int, str], esps: tuple[str, ...], is_ambiguous: bool
) -> None:
    guest.table, guest.types = table, types
    found, log = inspect(guest)
    assert found.uefi_esps == esps
    assert tuple(find_esps(guest)) == esps
    assert any("Ambiguous firmware" in e["text"] for e in log) == is_ambiguous


@pytest.mark.parametrize(("active", "sector"), [({2}, b""), (set(), b"..GRUB ")])
def test_a_disk_with_an_mbr_that_a_bios_starts(
    guest: Inspected, monkeypatch: pytest.MonkeyPatch, active: set[int], sector: bytes
) -> None:
    guest.table, guest.types, guest.active = "msdos", {1: "ef"}, active
    monkeypatch.setattr(guest, "pread_device", lambda *_: sector)
    assert find_esps(guest) == []


@pytest.mark.parametrize(
    ("fstab", "folders", "place"),
    [
        ("", ("/boot/efi", "/efi"), "/boot/efi"),
        ("/dev/disk/by-path/x-part2 /efi vfat x 0 0\n", ("/boot/efi", "/efi"), "/efi"),
        ("", ("/boot",), None),
    ],
)
def test_an_esp_that_nothing_mounts_is_mounted(
    guest: Inspected, fstab: str, folders: tuple[str, ...], place: str | None
) -> None:
    guest.types = {2: ESP}
    guest.install("/etc/fstab", fstab)
    for folder in folders:
        guest.install(f"{folder}/.keep", "")
    found, log = inspect(guest)
    assert [path for path, device in found.mountpoints if device == "/dev/sda2"] == (
        [place] if place else []
    )
    assert guest.mounted.get(place or "/none") == ("/dev/sda2" if place else None)
    assert warnings(log) == []


@pytest.mark.parametrize(
    ("firmware", "is_uefi", "expected", "warns"),
    [
        pytest.param(Firmware.BIOS, True, False, True, marks=rows("2-T43")),
        (Firmware.UEFI, False, True, True),
        (Firmware.UEFI, True, True, False),
        (Firmware.UNKNOWN, True, True, False),
    ],
)
def test_the_firmware_of_the_target(
    firmware: Firmware, is_uefi: bool, expected: bool, warns: bool
) -> None:
    report = RecordingReporter()
    found = replace(GUEST, uefi_esps=("/dev/sda1",) if is_uefi else ())
    assert is_uefi_target(make_source(firmware=firmware), found, report) is expected
    assert report.warnings == warns


@rows("2-T26", "4-T108")
def test_an_unknown_system_is_refused_by_what_is_unknown(tmp_path: Path) -> None:
    found = replace(
        GUEST, distro="unknown", package_format="unknown", package_management="unknown",
        product_name="Some Linux",
    )  # fmt: skip
    job = Job(mode=Mode.REHEARSE, source=Input(kind="ova", location="/x.ova"))
    context = Context(
        g=None, guest=found, source=make_source(), job=job, report=RecordingReporter(),
        work=tmp_path, change=True,
    )  # fmt: skip
    with pytest.raises(GuestError, match=r"Some Linux \(type linux, distribution unknown, "):
        pick_converter(found).convert(context)


class Labelled:
    """Filesystems that say who they are, but for one."""

    def vfs_label(self, device: str) -> str:
        """Return the label."""
        if device == "/dev/sdc1":
            raise RuntimeError("vfs_label: odd")
        return "data" if device == "/dev/sda1" else ""

    def vfs_uuid(self, device: str) -> str:
        """Return the UUID."""
        return f"u-{device[-4:]}"

    def pread_device(self, device: str, count: int, offset: int) -> bytes:
        """Return what mkfs.xfs writes as the version of the superblock."""
        assert (device, count, offset) == ("/dev/sdb1", 2, 100)
        return b"\xb4\xb5"


def test_filesystems_are_reported_with_what_they_say_of_themselves() -> None:
    report = RecordingReporter()
    kinds = [("/dev/sda1", "ext4"), ("/dev/sdb1", "xfs"), ("/dev/sdc1", "unknown")]
    report_filesystems(Labelled(), kinds, report)
    assert report.data("filesystems") == {
        "/dev/sda1": {"label": "data", "uuid": "u-sda1"},
        "/dev/sdb1": {"uuid": "u-sdb1", "version": "5"},
    }


class Disks:
    """Disks with what is in their first sectors."""

    def __init__(self, *sectors: bytes) -> None:
        self.sectors = sectors

    def list_devices(self) -> list[str]:
        """Return the disks."""
        return [f"/dev/sd{'abcd'[n]}" for n in range(len(self.sectors))]

    def pread_device(self, device: str, count: int, offset: int) -> bytes:
        """Return a first sector."""
        return self.sectors["abcd".index(device[-1])].ljust(count, b"\0")


@pytest.mark.rows("4-T44", "4-T45")
@pytest.mark.parametrize(
    ("sectors", "boot", "index", "orders"),
    [
        pytest.param((b"", b"..GRUB ", b"", b""), "/dev/sdd1", 1, [2, 1, 4, 5],
                     marks=rows("2-T131")),
        pytest.param((b"", b""), "/dev/vg/boot", None, [1, 2], marks=rows("2-T132")),
        ((b"", b""), "/dev/sdb1", 1, [2, 1]),
    ],
)  # fmt: skip
def test_the_boot_disk(
    sectors: tuple[bytes, ...], boot: str, index: int | None, orders: list[int]
) -> None:
    found = replace(GUEST, mountpoints=(("/", "/dev/sda1"), ("/boot", boot)))
    overlays = [target_disk(n).overlay for n in range(len(sectors))]
    assert detect_boot_disk(Disks(*sectors), found, overlays) == index
    assert [boot_order(n, index) for n in range(len(sectors))] == orders


@pytest.mark.parametrize(
    ("mountpoints", "index"),
    [
        ((("/boot/efi", "/dev/sdc1"),), 2),
        ((), 1),
    ],
)
def test_uefi_starts_the_disk_of_its_esp(
    mountpoints: tuple[tuple[str, str], ...], index: int
) -> None:
    """Whatever GRUB an earlier life left in a first sector."""
    found = replace(
        GUEST, mountpoints=(("/", "/dev/sdb2"), *mountpoints),
        uefi_esps=("/dev/sda1", "/dev/sdb1", "/dev/sdc1"),
    )  # fmt: skip
    overlays = [target_disk(n).overlay for n in range(3)]
    assert detect_boot_disk(Disks(b"GRUB", b"", b""), found, overlays) == index


@rows("2-T25")
@pytest.mark.parametrize(
    ("distro", "major", "expected"), [("rhel", 7, True), ("centos", 7, True), ("rhel", 8, False)]
)
def test_whose_filesystems_are_not_checked_afterwards(
    distro: str, major: int, expected: bool
) -> None:
    assert has_old_counters(replace(GUEST, distro=distro, major_version=major)) is expected


class Filesystems:
    """Filesystems that are trimmed, or not."""

    kinds = (("/dev/sda1", "ext4"), ("/dev/sda2", "swap"), ("/dev/sda3", "unknown"),
             ("/dev/sda4", "ntfs"), ("/dev/sda5", "xfs"))  # fmt: skip

    def __init__(self) -> None:
        self.mounted: list[str] = []

    def list_filesystems(self) -> list[tuple[str, str]]:
        """Return them all."""
        return list(self.kinds)

    def umount_all(self) -> None:
        """Nothing stays mounted."""

    def mount_options(self, options: str, device: str, path: str) -> None:
        """Note what is mounted."""
        assert (options, path) == ("discard", "/")
        self.mounted.append(device)

    def debug(self, command: str, arguments: list[str]) -> str:
        """Answer fstrim."""
        if self.mounted[-1] == "/dev/sda4":
            raise RuntimeError("fstrim: /sysroot: the discard operation is not supported")
        return "/sysroot: 2 MiB (2097152 bytes) trimmed"


@pytest.mark.parametrize(
    ("more", "name", "warned"),
    [("", "Debian GNU/Linux 12", False), ("#" * (2 << 20), "12.15", True)],
)
def test_a_name_of_the_system_for_people(
    guest: Inspected, more: str, name: str, warned: bool
) -> None:
    """From a file that may be of any size."""
    guest.roots = {"/dev/sda1": "12.15"}
    guest.install("/etc/os-release", f'ID=debian\nPRETTY_NAME="Debian GNU/Linux 12"\n{more}')
    found, log = inspect(guest)
    assert found.product_name == name
    assert [w for w in warnings(log) if "too large" in w] == (
        ["/etc/os-release is too large to be read (ignored)."] if warned else []
    )


class Checked(Filesystems):
    """One filesystem, and how the program that checks it ends."""

    mountable = True

    def __init__(self, status: int, words: str) -> None:
        super().__init__()
        self.answer = f"{words}\n\nstatus={status}"
        self.commands: list[str] = []

    def umount_all(self) -> None:
        """Unmount all."""
        self.mounted.clear()

    def mount_options(self, options: str, device: str, path: str) -> None:
        """Note what is mounted."""
        if not self.mountable:
            raise RuntimeError("mount: wrong fs type")
        self.mounted.append(device)

    def debug(self, command: str, arguments: list[str]) -> str:
        """Answer a check."""
        if "by-path" in arguments[0]:
            return "scsi-0 /dev/sda\n\nstatus=0"
        assert self.mounted == (["/dev/sda1"] if "/sysroot" in arguments[0] else [])
        self.commands.append(arguments[0].split(" 2>&1")[0])
        return self.answer


SCRUB = "timeout -s INT 60 btrfs scrub start -B -r /sysroot"


@pytest.mark.parametrize(
    ("kind", "command", "status", "words", "clean"),
    [
        ("ext4", "e2fsck -f -n /dev/sda1", 0, "words", True),
        ("ext4", "e2fsck -f -n /dev/sda1", 4, "words", False),
        ("ext3", "e2fsck -f -n /dev/sda1", 12, "words", False),
        ("ext2", "e2fsck -f -n /dev/sda1", 8, "words", None),
        ("xfs", "xfs_repair -n -P /dev/sda1", 1, "words", False),
        ("xfs", "xfs_repair -n -P /dev/sda1", 127, "words", None),
        ("btrfs", SCRUB, 0, "Error summary:    no errors found", True),
        ("btrfs", SCRUB, 0, "Error summary:    csum=1", False),
        ("btrfs", SCRUB, 1, "not started", None),
        ("btrfs", SCRUB, 124, "Error summary:    csum=1", False),
    ],
)
def test_only_damage_is_called_damage(
    kind: str, command: str, status: int, words: str, clean: bool | None
) -> None:
    """O-33: a check that cannot be made stops nothing, but is no silence either."""
    g, report = Checked(status, words), RecordingReporter()

    def check(*, strict: bool) -> None:
        filesystems = [("/dev/sda1", kind), ("btrfsvol:/dev/sda1/@", kind), ("/dev/sda2", "vfat")]
        check_filesystems(g, filesystems, when="before", strict=strict, report=report)

    if clean is False:
        with pytest.raises(GuestError, match=rf"/dev/sda1 \({kind}\) is damaged: {words}"):
            check(strict=True)
        check(strict=False)
    else:
        check(strict=True)
    assert set(g.commands) == {command}
    assert g.mounted == []
    assert report.data("fsck") == [
        {"filesystem": "/dev/sda1", "type": kind, "when": "before", "clean": clean}
    ]
    told = {True: [], False: ["is damaged"], None: [f"could not be checked: {words}"]}[clean]
    found = warnings(report.of("log"))
    assert len(found) == len(told)
    assert all(what in line for what, line in zip(told, found, strict=True))


def test_a_btrfs_that_cannot_be_mounted_is_not_checked() -> None:
    g, report = Checked(0, ""), RecordingReporter()
    g.mountable = False
    check_filesystems(g, [("/dev/sda1", "btrfs")], when="before", strict=True, report=report)
    [warning] = warnings(report.of("log"))
    assert warning.startswith("/dev/sda1 (btrfs) could not be checked: it cannot be mounted")


@rows("2-T128", "2-T130")
def test_a_filesystem_that_cannot_be_trimmed_is_a_warning() -> None:
    report, g = RecordingReporter(), Filesystems()
    trim_filesystems(g, g.list_filesystems(), report)
    assert g.mounted == ["/dev/sda1", "/dev/sda4", "/dev/sda5"]
    [warning] = warnings(report.of("log"))
    assert warning.startswith("/dev/sda4 (ntfs) could not be trimmed")
    assert [r["trimmed_bytes"] for r in report.data("trim")] == [2 << 20, None, 2 << 20]


@rows("2-T135")
@pytest.mark.parametrize("arch", ["i386", "i686", "x86_64"])
def test_the_architecture_of_the_target(arch: str) -> None:
    found: Inspection = replace(GUEST, arch=arch)
    caps = linux_guestcaps(found, KERNEL, BlockBus.VIRTIO_BLK, NetBus.VIRTIO_NET, "")
    assert caps.arch == "x86_64"


class Encrypted:
    """Four volumes of LUKS, each with a key of its own."""

    keys = {f"/dev/vg/{n}": f"key {n}" for n in range(4)}

    def __init__(self) -> None:
        self.opened: dict[str, str] = {}

    def list_partitions(self) -> list[str]:
        """Return none."""
        return []

    list_devices = list_md_devices = list_partitions

    def lvs(self) -> list[str]:
        """Return the volumes."""
        return list(self.keys)

    def vfs_type(self, device: str) -> str:
        """Return the type."""
        return "crypto_LUKS"

    def vfs_uuid(self, device: str) -> str:
        """Return the UUID."""
        return f"u-{device[-1]}"

    def lvm_scan(self, activate: bool) -> None:
        """Nothing new comes up."""

    def cryptsetup_open(self, device: str, key: str, name: str, **_: Any) -> None:
        """Open a device with its key."""
        if self.keys[device] != key:
            raise RuntimeError("cryptsetup_open: No key available with this passphrase.")
        self.opened[device] = name


@rows("2-T13")
def test_every_volume_is_opened_by_the_key_that_fits() -> None:
    g = Encrypted()
    keys = [Key(selector="all", passphrase=text) for text in reversed(g.keys.values())]
    unlock(g, keys, read_only=False, report=RecordingReporter())
    assert g.opened == {f"/dev/vg/{n}": f"luks-u-{n}" for n in range(4)}


@rows("2-T12")
def test_a_wrong_key_is_told_with_the_device_and_the_last_error() -> None:
    keys = [Key(selector="u-2", passphrase="wrong")]
    with pytest.raises(InspectionError, match=r"/dev/vg/2 \(UUID u-2\).*No key available"):
        unlock(Encrypted(), keys, read_only=False, report=RecordingReporter())


@rows("2-T14")
@pytest.mark.parametrize(
    ("selector", "plain"),
    [
        ("/dev/mapper/Volume--Group-Root", "/dev/Volume-Group/Root"),
        ("/dev/mapper/Volume--Group-Logical--Volume--1", "/dev/Volume-Group/Logical-Volume-1"),
        ("/dev/mapper/name", "/dev/mapper/name"),
        ("/dev/mapper/a-b-c", "/dev/mapper/a-b-c"),
        ("/dev/sda1", "/dev/sda1"),
    ],
)
def test_names_of_the_mapper_mean_volumes(selector: str, plain: str) -> None:
    assert plain_selector(selector) == plain


@pytest.mark.parametrize(
    ("value", "words"),
    [
        pytest.param("id:foo:bar", "--key takes", marks=rows("2-T15")),
        pytest.param("id:key", "--key takes", marks=rows("2-T15")),
        pytest.param("id:key:a:b", "with a colon", marks=rows("2-T15")),
        pytest.param("id:clevis:x", "Clevis is not available", marks=rows("2-T15")),
        pytest.param("id:clevis", "Clevis is not available", marks=rows("2-T16")),
    ],
)
def test_keys_that_are_no_keys(value: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-i", "disk", "/no.img", "--inspect", "--key", value]) == 1
    assert words in capsys.readouterr().err


def test_a_large_btrfs_is_checked_as_far_as_time_goes() -> None:
    g, report = Checked(124, "Status: aborted"), RecordingReporter()
    check_filesystems(g, [("/dev/sda1", "btrfs")], when="before", strict=True, report=report)
    assert warnings(report.of("log")) == []
    assert [fs["clean"] for fs in report.data("fsck")] == [None]
