"""What inspection finds in Windows guests, and what it refuses: rows T7 to T11, bad hives."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lxml import etree

from conversions.pipeline.errors import ConversionError, InspectionError
from conversions.pipeline.types import BlockBus
from conversions.pipeline.windows.registry import HiveError
from tests.guests.hives import empty_hive
from tests.guests.phony_windows import PhonyWindows
from tests.guests.windows import (
    GUESTS,
    K3R2,
    K22,
    K25,
    SYSTEM32,
    W7_32,
    W10,
    W11,
    XP32,
    WindowsGuest,
    fill,
    partition,
    pe_stub,
)

Make = Callable[[WindowsGuest], PhonyWindows]


@pytest.mark.rows("3-T7")
@pytest.mark.parametrize(
    ("guest", "expected", "libguestfs", "name"),
    [
        pytest.param(W11, "win11", "win10", "Windows 11 Home", id="11"),
        pytest.param(K25, "win2k25", "win2k16", "Windows Server 2025 Datacenter", id="2025"),
    ],
)
def test_t7_versions_that_libguestfs_does_not_know(
    windows: Make, guest: WindowsGuest, expected: str, libguestfs: str, name: str
) -> None:
    phony = windows(guest)
    found = phony.inspect()
    assert (found.type, found.osinfo, found.product_name) == ("windows", expected, name)
    assert phony.g.inspect_get_osinfo(phony.root) == libguestfs


@pytest.mark.rows("3-T8")
@pytest.mark.parametrize(
    ("guest", "arch", "version"),
    [
        pytest.param(XP32, "i386", (5, 1), id="xp"),
        pytest.param(K3R2, "x86_64", (5, 2), id="2003r2"),
        pytest.param(W7_32, "i386", (6, 1), id="7"),
        pytest.param(K22, "x86_64", (10, 0), id="2022"),
    ],
)
def test_t8_facts_of_each_age(
    windows: Make, guest: WindowsGuest, arch: str, version: tuple[int, int]
) -> None:
    found = windows(guest).mount()
    assert found.arch == arch
    assert (found.major_version, found.minor_version) == version
    assert found.windows_systemroot == "/Windows"
    assert found.windows_current_control_set == "ControlSet001"
    assert found.windows_system_hive == f"{SYSTEM32}/Config/SYSTEM"
    assert found.windows_software_hive == f"{SYSTEM32}/Config/SOFTWARE"
    assert found.hostname == "PHONY-PC"
    assert [a.name for a in found.applications] == ["Test1", "Test2", "Test3", "Test4"]


def test_every_fixture_is_recognised_by_our_own_look(windows: Make) -> None:
    expected = {"xp32": "winxp", "2k3r2": "win2k3r2", "2k8": "win2k8", "w7-32": "win7",
                "2k12r2": "win2k12r2", "w10": "win10", "w11": "win11", "2k22": "win2k22",
                "2k25": "win2k25"}  # fmt: skip
    assert {name: windows(guest).mount().osinfo for name, guest in GUESTS.items()} == expected


@pytest.mark.rows("3-T9")
def test_t9_a_blank_second_disk_ends_neither_inspection_nor_conversion(windows: Make) -> None:
    drive_c = struct.pack("<IQ", 0x12345678, 1 << 20)
    phony = windows(W10.but(system={"MountedDevices": {"\\DosDevices\\C:": drive_c}}))
    found = phony.inspect()
    assert found.osinfo == "win10"
    assert found.mountpoints == (("/", phony.root),)
    assert any("unrecognised disk label" in line for line in phony.log("warning"))
    assert phony.convert(disks=2).block_bus is BlockBus.VIRTIO_BLK
    assert phony.g.is_zero_device("/dev/sdb")


@pytest.mark.rows("3-T10")
def test_t10_the_control_set_in_use_is_the_selected_one(windows: Make) -> None:
    guest = W10.but(system={"Select": {"Current": 2}, "ControlSet002\\Control": {}})
    assert windows(guest).mount().windows_current_control_set == "ControlSet002"


@pytest.mark.rows("3-T11")
def test_t11_a_hibernated_guest_is_refused_and_left_alone(windows: Make) -> None:
    phony = windows(W10.but(files={"/hiberfil.sys": b"hibr" + bytes(4092)}))
    before = phony.checksum()
    with pytest.raises(InspectionError, match="Fast Startup") as caught:
        phony.inspect()
    assert caught.value.code == "E-NTFS-HIBERNATED"
    assert "powercfg /h off" in caught.value.remedy
    assert phony.checksum() == before
    assert phony.inspect(read_only=True).windows_ntfs_state == "hibernated"
    assert phony.g.is_file("/hiberfil.sys")


def test_a_guest_of_another_processor_is_told_by_its_programs(windows: Make) -> None:
    arm = W11.but(files={f"{SYSTEM32}/cmd.exe": pe_stub(0xAA64)})
    assert windows(arm).mount().arch == "aarch64"


@pytest.mark.parametrize("name", ["SYSTEM", "SOFTWARE"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(None, "missing", id="missing"),
        pytest.param(b"", "it is empty", id="empty"),
        pytest.param(b"hello " * 2000, "does not begin like a registry file", id="foreign"),
        pytest.param(empty_hive()[:5000], "damaged or cut off", id="truncated"),
        pytest.param(empty_hive()[:4096] + b"\xff" * 4096, "damaged or cut off", id="overwritten"),
    ],
)
def test_a_bad_registry_file_is_named(
    windows: Make, name: str, content: bytes | None, said: str
) -> None:
    phony = windows(W10.but(hives={name: content}))
    before = phony.checksum()
    with pytest.raises(HiveError, match=said) as caught:
        phony.mount(read_only=True)
    assert name in caught.value.message
    assert caught.value.remedy
    assert phony.checksum() == before


def test_a_folder_without_windows_is_no_guest(windows: Make) -> None:
    phony = windows(W10)
    phony.g.mount(phony.root, "/")
    phony.g.rm(f"{SYSTEM32}/cmd.exe")
    phony.g.umount("/")
    with pytest.raises(ConversionError, match="No operating system"):
        phony.inspect()


@pytest.mark.rows("3-T96")
def test_t96_a_locked_volume_is_said_to_be_encrypted(windows: Make) -> None:
    phony = windows(W10)
    phony.g.pwrite_device(phony.root, b"-FVE-FS-", 3)
    before = phony.checksum()
    with pytest.raises(InspectionError) as caught:
        phony.inspect()
    assert caught.value.code == "E-ENCRYPTED"
    assert phony.checksum() == before


@pytest.mark.rows("3-T92")
def test_t92_of_two_windows_only_the_chosen_one_is_edited(windows: Make) -> None:
    phony = windows(W10)
    second = partition(phony.g, "/dev/sdb")
    fill(phony.g, K22, esp=second[0], root=second[1], folder=phony.folder)
    try:
        with pytest.raises(InspectionError, match=r"/dev/sda2 .*/dev/sdb2") as caught:
            phony.inspect()
        assert caught.value.code == "E-ROOT-CHOICE"
        assert phony.inspect(root="first").root == "/dev/sda2"
        phony.g.umount_all()
        before = phony.checksum()
        found = phony.inspect(root="/dev/sdb2")
        assert (found.root, found.osinfo) == ("/dev/sdb2", "win2k22")
        phony.root = found.root
        phony.convert(disks=2)
        assert "ControlSet001\\Services\\viostor" in phony.hive("SYSTEM").keys
        assert phony.checksum() == before
    finally:
        phony.g.umount_all()
        phony.g.zero_device("/dev/sdb")


@pytest.mark.rows("4-T105")
def test_a_raw_disk_of_a_windows_as_xml(
    windows: Make, windows_disk: Path, repository: Path, tmp_path: Path
) -> None:
    """The command line writes what virt-v2v-inspector would, and the disk stays as it was."""
    phony = windows(K22)
    phony.g.sync()
    disk, found = tmp_path / "win.raw", tmp_path / "found.xml"
    subprocess.run(["cp", "--sparse=always", windows_disk, disk], check=True)
    before = hashlib.sha256(disk.read_bytes()).hexdigest()
    command = [sys.executable, "-m", "conversions.pipeline", "-i", "disk", "-if", "raw", str(disk)]
    done = subprocess.run(
        [*command, "--inspect", "-O", str(found)],
        cwd=repository, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    root = etree.parse(found).getroot()
    system = root.find("operatingsystem")
    assert system is not None
    assert [system.findtext(tag) for tag in ("name", "distro", "osinfo", "major_version")] == [
        "windows", "windows", "win2k22", "10",
    ]  # fmt: skip
    assert root.findtext("disks/disk/virtual-size") == str(windows_disk.stat().st_size)
    assert hashlib.sha256(disk.read_bytes()).hexdigest() == before
