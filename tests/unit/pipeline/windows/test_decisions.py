"""What is decided about drivers, machine, geometry and uninstallers, as tables."""

from __future__ import annotations

import struct

import pytest

from conversions.pipeline.cli import main
from conversions.pipeline.types import BlockBus, Machine
from conversions.pipeline.windows.applications import Program, antivirus_programs
from conversions.pipeline.windows.boot_driver import (
    choose_boot_driver,
    critical_device_entries,
    driver_database_entries,
    service_entries,
    temporary_keys,
)
from conversions.pipeline.windows.foreign_tools import (
    foreign_tools,
    msi_command,
    uninstall_command,
    xen_command,
)
from conversions.pipeline.windows.guestcaps import machine_for_windows
from conversions.pipeline.windows.inspection import boot_ini_roots, program_arch
from conversions.pipeline.windows.ntfs import heads_for
from conversions.pipeline.windows.registry import (
    BINARY,
    MULTI_SZ,
    Value,
    binary,
    dword,
    expand_sz,
    multi_sz,
    sz,
)
from tests.guests import hives
from tests.guests.windows import pe_stub

FILES = ("viostor.sys", "vioscsi.sys")


@pytest.mark.rows("3-T37", "3-T38")
@pytest.mark.parametrize(
    ("files", "wanted", "name", "bus"),
    [
        pytest.param(FILES, BlockBus.VIRTIO_BLK, "viostor", BlockBus.VIRTIO_BLK, id="default"),
        pytest.param(FILES, BlockBus.VIRTIO_SCSI, "vioscsi", BlockBus.VIRTIO_SCSI, id="T37"),
        pytest.param(
            ("viostor.sys",), BlockBus.VIRTIO_SCSI, "viostor", BlockBus.VIRTIO_BLK, id="T38"
        ),
        pytest.param(
            (*FILES, "vrtioblk.sys"), BlockBus.VIRTIO_BLK, "vrtioblk", BlockBus.VIRTIO_BLK,
            id="order",
        ),
    ],
)  # fmt: skip
def test_the_boot_driver(
    files: tuple[str, ...], wanted: BlockBus, name: str, bus: BlockBus
) -> None:
    driver = choose_boot_driver(files, wanted)
    assert driver is not None
    assert (driver.name, driver.bus) == (name, bus)


@pytest.mark.rows("3-T36")
def test_t36_the_default_never_takes_vioscsi() -> None:
    assert choose_boot_driver(("vioscsi.sys", "viostor.inf"), BlockBus.VIRTIO_BLK) is None


@pytest.mark.rows("3-T32", "3-T33", "3-T34")
def test_t32_t33_t34_entries_of_the_boot_driver() -> None:
    driver = choose_boot_driver(FILES, BlockBus.VIRTIO_BLK)
    assert driver is not None
    service = service_entries("ControlSet001", driver)["ControlSet001\\Services\\viostor"]
    assert service == {
        "Type": Value(4, b"\1\0\0\0"),
        "Start": Value(4, b"\0\0\0\0"),
        "Group": Value(1, hives.text("SCSI miniport")),
        "ErrorControl": Value(4, b"\1\0\0\0"),
        "ImagePath": Value(2, hives.text("system32\\drivers\\viostor.sys")),
    }
    devices = critical_device_entries("ControlSet001", driver)
    assert set(devices) == {
        "ControlSet001\\Control\\CriticalDeviceDatabase\\PCI#VEN_1AF4&DEV_1001&REV_00",
        "ControlSet001\\Control\\CriticalDeviceDatabase\\PCI#VEN_1AF4&DEV_1042&REV_01",
    }
    database = driver_database_entries(driver, arch="i386")
    label = "guestor.inf_x86_0000000000000000"
    version = database[f"DriverDatabase\\DriverPackages\\{label}"]["Version"]
    assert version.type == BINARY
    assert len(version.data) == 48
    made = {path for path, _ in database.items()}
    assert all(any(path.startswith(key) for key in temporary_keys(driver, arch="i386"))
               for path in made)  # fmt: skip


def test_values_are_stored_as_windows_stores_them() -> None:
    assert sz("né") == Value(*hives.typed("né"))
    assert expand_sz("%x%") == Value(*hives.expand("%x%"))
    assert dword(5) == Value(*hives.typed(5))
    assert binary(b"\1") == Value(*hives.typed(b"\1"))
    assert multi_sz("a", "b") == Value(*hives.typed(["a", "b"]))
    assert multi_sz() == Value(MULTI_SZ, b"\0\0")


@pytest.mark.rows("3-T95")
def test_t95_members_of_a_list_keep_their_bytes() -> None:
    odd = struct.pack("<3H", 0xD800, 0x4E2D, 0x00E9)  # an unpaired surrogate among them
    value = multi_sz("prl_strg", odd, "partmgr")
    assert value.members()[1] == odd
    assert multi_sz(*value.members()) == value
    assert Value(MULTI_SZ, b"").members() == Value(MULTI_SZ, b"\0").members() == []


@pytest.mark.rows("3-T82")
@pytest.mark.parametrize(
    ("size", "heads"),
    [(2114445311, 0x40), (2114445312, 0x80), (4228374779, 0x80), (4228374780, 0xFF)],
)
def test_t82_heads_by_size(size: int, heads: int) -> None:
    assert heads_for(size) == heads


@pytest.mark.rows("3-T85")
@pytest.mark.parametrize(
    ("osinfo", "major", "arch", "machine"),
    [
        ("winxp", 5, "i386", Machine.I440FX), ("winvista", 6, "i386", Machine.I440FX),
        ("win7", 6, "x86_64", Machine.Q35), ("win2k22", 10, "x86_64", Machine.Q35),
        ("win2k25", 10, "x86_64", Machine.Q35), ("unknown", 10, "x86_64", Machine.Q35),
        ("unknown", 5, "i386", Machine.I440FX), ("win11", 10, "aarch64", Machine.VIRT),
    ],
)  # fmt: skip
def test_t85_the_machine(osinfo: str, major: int, arch: str, machine: Machine) -> None:
    assert machine_for_windows(osinfo, major, arch) is machine


@pytest.mark.rows("3-T15")
@pytest.mark.parametrize(
    ("program", "found"),
    [
        (Program(key="x", publisher="AVG Technologies CZ"), True),
        (Program(key="x", name="Sophos Endpoint"), True),
        (Program(key="x", name="Foo AntiVirus"), True),
        (Program(key="McAfee"), True),
        (Program(key="x", name="Test1", publisher="Test Works"), False),
    ],
)
def test_t15_antivirus_is_known_by_name_or_publisher(program: Program, found: bool) -> None:
    assert bool(antivirus_programs([program])) is found


VMWARE = Program(key="{1}", name="VMware Tools", uninstall="MsiExec.exe /I{GUID}")


@pytest.mark.rows("3-T59")
def test_t59_vmware_is_uninstalled_where_it_says_install() -> None:
    tools, silent = foreign_tools([VMWARE])
    assert silent == []
    command = uninstall_command(tools[0], "C:\\s\\5000-0001-x")
    assert command == (
        'MsiExec.exe /x{GUID} /quiet /norestart /l*v+ "C:\\s\\5000-0001-x.log" '
        "REBOOT=ReallySuppress REMOVE=ALL"
    )


@pytest.mark.rows("3-T60")
def test_t60_a_tool_that_does_not_say_how_is_named() -> None:
    assert foreign_tools([Program(key="{1}", name="VMware Tools")]) == ([], ["VMware Tools"])


@pytest.mark.rows("3-T61")
def test_t61_another_uninstaller_stays_as_it_is() -> None:
    assert msi_command('"C:\\VMware\\setup.exe" /i') == '"C:\\VMware\\setup.exe" /i'


@pytest.mark.rows("3-T62")
def test_t62_both_names_of_parallels_are_known() -> None:
    programs = [
        Program(key="1", name=name, uninstall="MsiExec.exe /X{1}")
        for name in ("Parallels Tools", "Virtuozzo Tools for Windows", "parallels tools")
    ]
    tools, _ = foreign_tools(programs)
    assert len(tools) == 2
    for tool in tools:
        assert "RefCount" in tool.prepare
        assert uninstall_command(tool, "x").endswith("PREVENT_REBOOT=Yes LAUNCHED_BY_SETUP_EXE=Yes")


@pytest.mark.rows("3-T63")
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("C:\\Xen\\uninst.exe", '"C:\\Xen\\_uninst.exe"'),
        ('"C:\\Xen PV\\UNINST.EXE"', '"C:\\Xen PV\\_uninst.exe"'),
        ("C:\\Xen\\_uninst.exe", '"C:\\Xen\\_uninst.exe"'),
        ("", ""),
    ],
)
def test_t63_the_uninstaller_behind_the_asking_one(command: str, expected: str) -> None:
    assert xen_command(command) == expected


@pytest.mark.parametrize(
    ("data", "arch"),
    [
        (pe_stub(0x014C), "i386"), (pe_stub(0x8664), "x86_64"), (pe_stub(0xAA64), "aarch64"),
        (pe_stub(0x1234), "unknown"), (b"", "unknown"), (b"MZ" + b"\xff" * 200, "unknown"),
        (pe_stub(0x8664)[:0x82], "unknown"),
    ],
)  # fmt: skip
def test_the_architecture_of_a_program(data: bytes, arch: str) -> None:
    assert program_arch(data) == arch


def test_boot_ini_names_other_folders() -> None:
    text = (
        "[boot loader]\r\ndefault=multi(0)disk(0)rdisk(0)partition(1)\\NO\r\n"
        "[operating systems]\r\n"
        'multi(0)disk(0)rdisk(0)partition(1)\\WINXP="Windows" /fastdetect\r\n'
        'scsi(0)disk(0)rdisk(0)partition(1)\\..\\etc="x"\r\n'
    )
    assert boot_ini_roots(text) == ["/WINXP"]


@pytest.mark.rows("3-T39")
def test_t39_the_block_driver_is_given_once(capsys: pytest.CaptureFixture[str]) -> None:
    once = ["--block-driver", "virtio-scsi"]
    assert main(["-i", "ova", "x.ova", "--inspect", *once, *once]) == 1
    assert "more than once" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["-i", "ova", "x.ova", "--inspect", "--block-driver", "ide"])
