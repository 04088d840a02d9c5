"""What conversion leaves in Windows guests, read back by another library than wrote it.

A guest takes long to make and convert here, so each shows several rows of the specification, whose
numbers are in the docstrings and beside the assertions.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from lxml import etree

from conversions.pipeline.errors import ConversionError, GuestError
from conversions.pipeline.firmware import is_uefi_target
from conversions.pipeline.outputs.libvirt_xml import domain_xml
from conversions.pipeline.types import BlockBus, Machine, NetBus
from conversions.pipeline.windows.collection import DriverCollectionError
from conversions.pipeline.windows.driver_match import choose_drivers
from conversions.pipeline.windows.static_ip import parse_static_ip
from inventory.sources.types import Firmware
from tests.guests import hives, virtio_win
from tests.guests.phony_windows import FIRST_START, PhonyWindows
from tests.guests.windows import (
    BOOT_ENTRY,
    CURRENT,
    K3R2,
    K22,
    SYSTEM32,
    UNINSTALL,
    W7_32,
    W10,
    W11,
    WITH_DATABASE,
    WOW_UNINSTALL,
    XP32,
    WindowsGuest,
    boot_configuration,
    merge,
)
from tests.unit.pipeline.samples import make_meta, make_source

Make = Callable[[WindowsGuest], PhonyWindows]
SERVICES = "ControlSet001\\Services"
CONTROL = "ControlSet001\\Control"
FILTERS = f"{CONTROL}\\Class\\{{4d36e967-e325-11ce-bfc1-08002be10318}}"
POLICY = f"{CURRENT}\\Group Policy\\History\\{{35378EAC-683F-11D2-A89A-00C04FBBCFA2}}"
BLK_IDS = ("VEN_1AF4&DEV_1001&REV_00", "VEN_1AF4&DEV_1042&REV_01")
SCSI_IDS = ("VEN_1AF4&DEV_1004&REV_00", "VEN_1AF4&DEV_1048&REV_01")
ODD = struct.pack("<3H", 0x4E2D, 0xD800, 0x00E9)
UNTOUCHED: hives.Description = {
    f"{SERVICES}\\Processor": {"Start": 1},
    f"{SERVICES}\\intelppm": {"Start": 1},
    f"{SERVICES}\\partmgr\\Parameters": {"SanPolicy": 1},
    f"{CONTROL}\\CI\\Policy": {"UpgradedSystem": 1},
    f"{SERVICES}\\VMTools": {"Start": 2},
}


def collection(folder: Path, *paths: str) -> Path:
    """Make a driver folder of a few files."""
    for path in paths:
        virtio_win.put(folder / path)
    return folder


def driver_names(folder: Path, osinfo: str, arch: str) -> list[str]:
    """Return what a guest gets from a folder."""
    paths = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
    return sorted(choose_drivers(paths, arch=arch, osinfo=osinfo)[1])


def numbered(names: Sequence[str]) -> list[str]:
    """Return script names without their extension."""
    return [name.removesuffix(".bat") for name in names]


@pytest.mark.rows(
    "3-T14",
    "3-T16",
    "3-T17",
    "3-T27",
    "3-T32",
    "3-T33",
    "3-T41",
    "3-T42",
    "3-T43",
    "3-T45",
    "3-T47",
    "3-T50",
    "3-T51",
    "3-T52",
    "3-T58",
    "3-T71",
    "3-T72",
    "3-T73",
    "3-T74",
    "3-T84",
    "3-T86",
    "3-T89",
    "3-T94",
    "3-T95",
)
def test_a_windows_10_of_many_traits(windows: Make, virtio_win: Path) -> None:
    """T14 T16 T17 T27 T32 T33 T42 T43 T45 T47 T50 T51 T52 T71 to T74 T86 T89 T94 T95."""
    members = b"".join(m + b"\0\0" for m in ("prl_strg".encode("utf-16-le"),
                                             "partmgr".encode("utf-16-le"), ODD))  # fmt: skip
    guest = W10.but(
        software={POLICY: {}, "Microsoft\\Windows Defender": {}},
        system=merge(
            UNTOUCHED,
            {
                f"{SERVICES}\\rhelscsi": {"Start": 0},
                f"{SERVICES}\\prl_strg": {"Start": 0, "Type": 1},
                f"{SERVICES}\\prl_tg": {"Start": 2},
                FILTERS: {"LowerFilters": (hives.MULTI_SZ, members + b"\0\0")},
                f"{CONTROL}\\CrashControl": {"AutoReboot": 1},
            },
        ),
        folders=("/Windows/TEMP", "/Windows/drivers"),
        files={f"{FIRST_START}/complete": b""},
    )
    phony = windows(guest)
    before = phony.hive_before("SYSTEM", guest)
    caps = phony.convert()
    # T27, T42: the files, in the folder that was there
    assert phony.names("/Windows/drivers/VirtIO") == driver_names(virtio_win, "win10", "x86_64")
    assert len(phony.names("/Windows/drivers/VirtIO")) == 50
    assert "Drivers" not in phony.names("/Windows")
    # T33: the boot driver's file, once
    system32 = [n for n in phony.names(f"{SYSTEM32}/Drivers") if n.lower() == "viostor.sys"]
    assert system32 == ["viostor.sys"]
    assert "drivers" not in phony.names(SYSTEM32)
    system, software = phony.hive("SYSTEM"), phony.hive("SOFTWARE")
    service = system.of(f"{SERVICES}\\viostor")
    assert service == {
        "Type": hives.typed(1), "Start": hives.typed(0), "ErrorControl": hives.typed(1),
        "Group": hives.typed("SCSI miniport"),
        "ImagePath": hives.expand("system32\\drivers\\viostor.sys"),
    }  # fmt: skip
    for pci_id in BLK_IDS:  # T32
        assert system.of(f"{CONTROL}\\CriticalDeviceDatabase\\PCI#{pci_id}") == {
            "Service": hives.typed("viostor"),
            "ClassGUID": hives.typed("{4D36E97B-E325-11CE-BFC1-08002BE10318}"),
        }
    assert not any(key.startswith("DriverDatabase") for key in system.keys)
    # T43
    path = hives.expand("%SystemRoot%\\inf;%SystemRoot%\\Drivers\\VirtIO")
    assert software.of(CURRENT)["DevicePath"] == path
    # T50
    folder = "C:\\Program Files\\Guestfs\\Firstboot"
    assert system.of(f"{SERVICES}\\firstboot") == {
        "Type": hives.typed(0x10), "Start": hives.typed(2), "ErrorControl": hives.typed(1),
        "ImagePath": hives.typed(f'"{folder}\\rhsrvany.exe" -s firstboot'),
        "DisplayName": hives.typed("First start after conversion"),
        "ObjectName": hives.typed("LocalSystem"),
    }  # fmt: skip
    assert system.of(f"{SERVICES}\\firstboot\\Parameters") == {
        "CommandLine": hives.typed(f'cmd /c "{folder}\\firstboot.bat"'),
        "PWD": hives.typed(folder),
    }
    # T45, T47, T51
    assert set(phony.names(FIRST_START)) == {
        "Temp", "firstboot.bat", "pnp_wait.exe", "rhsrvany.exe", "scripts",
    }  # fmt: skip
    assert phony.g.is_file("/vmdp.exe")
    assert numbered(phony.scripts()) == [
        "2000-0001-pnputil-install-drivers", "5000-0002-wait-pnp", "5000-0003-configure-vmdp",
        "5000-0004-finish-vmdp-setup", "5000-0005-install-blnsvr",
    ]  # fmt: skip
    assert '%SystemRoot%\\Drivers\\VirtIO\\blnsvr.exe" -i' in phony.script("blnsvr")
    for name in [*(f"scripts/{n}" for n in phony.scripts()), "firstboot.bat"]:  # T52
        text = bytes(phony.g.read_file(f"{FIRST_START}/{name}"))
        assert text.count(b"\r\n") == text.count(b"\n") > 0
        assert b"\0" not in text
    # T71, T72, T73, T95
    assert system.of(f"{SERVICES}\\rhelscsi")["Start"] == hives.typed(4)
    assert system.of(f"{SERVICES}\\prl_strg") == {"Start": hives.typed(4), "Type": hives.typed(1)}
    assert system.of(f"{SERVICES}\\prl_tg")["Start"] == hives.typed(4)
    kept = "partmgr".encode("utf-16-le") + b"\0\0" + ODD + b"\0\0\0\0"
    assert system.of(FILTERS)["LowerFilters"] == (hives.MULTI_SZ, kept)
    assert system.of(f"{CONTROL}\\CrashControl")["AutoReboot"] == hives.typed(0)
    assert f"{SERVICES}\\PlugPlay\\Parameters" not in system.keys  # T58
    for key in UNTOUCHED:  # T74
        assert system.of(key) == before.of(key)
    # T86
    assert (caps.block_bus, caps.net_bus) == (BlockBus.VIRTIO_BLK, NetBus.VIRTIO_NET)
    assert caps.virtio_rng and caps.virtio_balloon and caps.isa_pvpanic
    assert not caps.virtio_socket  # T41
    assert (caps.machine, caps.arch, caps.arch_min_version) == (Machine.Q35, "x86_64", 0)
    assert caps.virtio_1_0 and not caps.rtc_utc  # T84
    # T14, T16, T17, T47
    warnings = phony.log("warning")
    assert len([w for w in warnings if "group policy" in w]) == 1
    assert len([w for w in warnings if "Windows Defender" in w]) == 1
    assert len([w for w in warnings if "guest agent" in w]) == 1
    assert not [w for w in warnings if "blnsvr" in w]
    assert phony.concerns()["C-GROUP-POLICY"] == "warning"
    assert phony.concerns()["C-ANTIVIRUS"] == "note"
    # every change is in the report
    changes = {(row["what"], row["path"]) for row in phony.report.data("changes")}
    assert ("driver copied", "/Windows/drivers/VirtIO/netkvm.sys") in changes
    assert ("registry: Start = DWORD 4 (was DWORD 0)", f"SYSTEM\\{SERVICES}\\rhelscsi") in changes
    assert phony.everybody_may_not_write(f"{FIRST_START}/firstboot.bat")  # T89
    # T43, T94: once more
    phony.found = None
    phony.mount()
    phony.convert()
    assert phony.hive("SYSTEM").values == system.values
    assert phony.hive("SOFTWARE").values == software.values
    assert len(phony.scripts()) == 5


@pytest.mark.rows("3-T34")
def test_the_driver_database_of_newer_windows(windows: Make) -> None:
    """T34."""
    phony = windows(W10.but(system=WITH_DATABASE))
    phony.convert()
    system = phony.hive("SYSTEM")
    check_database(system, "guestor.inf_amd64_0000000000000000", "viostor", BLK_IDS)
    assert not any("CriticalDeviceDatabase" in key for key in system.keys)


@pytest.mark.rows("3-T27", "3-T35", "3-T83", "3-T87")
def test_the_database_names_the_architecture(windows: Make) -> None:
    """T35; T83 for the heads; T87."""
    phony = windows(W7_32.but(system=WITH_DATABASE))
    heads = phony.g.pread_device(phony.root, 2, 0x1A)
    caps = phony.convert()
    check_database(phony.hive("SYSTEM"), "guestor.inf_x86_0000000000000000", "viostor", BLK_IDS)
    assert caps.arch == "x86_64"
    assert phony.g.pread_device(phony.root, 2, 0x1A) == heads
    assert len(phony.names("/Windows/Drivers/VirtIO")) == 37  # T27
    assert phony.concerns()["C-SHA2-UPDATE"] == "warning"


def check_database(system: hives.Dump, label: str, service: str, ids: tuple[str, str]) -> None:
    """Compare with the table of the specification."""
    package = f"DriverDatabase\\DriverPackages\\{label}"
    assert system.of("DriverDatabase\\DriverInfFiles\\guestor.inf") == {
        "": hives.typed([label]),
        "Active": hives.typed(label),
        "Configurations": hives.typed(["guestor_conf"]),
    }
    version = bytes.fromhex("00ff0900000000007be9364d25e3ce11bfc108002be10318") + bytes(24)
    assert system.of(package) == {"Version": hives.typed(version)}
    assert system.of(f"{package}\\Configurations\\guestor_conf") == {
        "ConfigFlags": hives.typed(0),
        "Service": hives.typed(service),
    }
    for pci_id in ids:
        assert system.of(f"DriverDatabase\\DeviceIds\\PCI\\{pci_id}") == {
            "guestor.inf": hives.typed(b"\x01\xff\0\0")
        }
        assert system.of(f"{package}\\Descriptors\\PCI\\{pci_id}") == {
            "Configuration": hives.typed("guestor_conf")
        }


@pytest.mark.rows("3-T27", "3-T37", "3-T67", "3-T69", "3-T71", "3-T73", "3-T91")
def test_virtio_scsi_when_asked_for_with_all_other_wishes(windows: Make) -> None:
    """T37 T67 T69 T91; D11, D22."""
    guest = W11.but(system={f"{SERVICES}\\VMTools": {"Start": 2}, f"{SERVICES}\\prl_x": {}})
    phony = windows(guest)
    entry = parse_static_ip("00:11:22:33:44:55:ip:192.168.0.10,192.168.0.1,24,8.8.8.8,8.8.4.4")
    caps = phony.convert(
        block_driver="virtio-scsi", disable_vmware=True, remove_boot_keys=True, disks=2,
        static_ips=(entry,), firstboot=("echo one", "echo two"), hostname="pc1",
    )  # fmt: skip
    assert caps.block_bus is BlockBus.VIRTIO_SCSI
    system = phony.hive("SYSTEM")
    assert f"{SERVICES}\\viostor" not in system.keys
    assert system.of(f"{SERVICES}\\vioscsi")["ImagePath"] == hives.expand(
        "system32\\drivers\\vioscsi.sys"
    )
    for pci_id in SCSI_IDS:
        assert f"{CONTROL}\\CriticalDeviceDatabase\\PCI#{pci_id}" in system.keys
    assert phony.names(f"{SYSTEM32}/Drivers") == ["vioscsi.sys"]
    assert "viostor.sys" in phony.names("/Windows/Drivers/VirtIO")
    assert len(phony.names("/Windows/Drivers/VirtIO")) == 49  # T27
    assert system.of(f"{SERVICES}\\VMTools")["Start"] == hives.typed(4)
    assert f"{SERVICES}\\rhelscsi" not in system.keys  # T71
    assert f"{CONTROL}\\CrashControl" not in system.keys  # T73
    assert numbered(phony.scripts())[0] == "2000-0001-pnputil-install-drivers"
    assert numbered(phony.scripts())[1:] == [
        "2500-0007-network-configure", "5000-0002-wait-pnp", "5000-0003-configure-vmdp",
        "5000-0004-finish-vmdp-setup", "5000-0005-install-blnsvr", "5000-0006-online-disks",
        "5000-0008-user-script-1", "5000-0009-user-script-2", "9000-0010-remove-boot-keys",
    ]  # fmt: skip
    assert "00-11-22-33-44-55" in phony.read(f"{FIRST_START}/Temp/network-configure.ps1")
    assert "DriverDatabase" in phony.script("remove-boot-keys")
    done = f"scripts-done\\{phony.scripts()[0]}"
    assert done in phony.script("remove-boot-keys")
    assert "echo one" in phony.script("user-script-1")
    assert any("a Windows guest: host name (ignored)" in line for line in phony.log("warning"))


@pytest.mark.rows("3-T94")
def test_a_second_conversion_runs_nothing_of_the_first(windows: Make) -> None:
    """T94: with other wishes, after first starts that were not finished."""
    old = (
        "scripts/2000-0001-pnputil-install-drivers.bat", "scripts/5000-0009-user-script-1.bat",
        "scripts-done/5000-0002-wait-pnp.bat", "scripts-failed/5000-0003-configure-vmdp.bat",
        "scripts-attempts/2000-0001-pnputil-install-drivers.bat", "Temp/qemu-ga-x86_64.msi",
        "Temp/network-configure.ps1",
    )  # fmt: skip
    kept = ("scripts/mine.bat", "Temp/qemu-ga-x86_64.msi.log", "log.txt")
    phony = windows(W10.but(files={f"{FIRST_START}/{name}": b"old" for name in (*old, *kept)}))
    phony.convert()
    left = [n for n in old if phony.g.exists(f"{FIRST_START}/{n}")]
    assert left == ["scripts/2000-0001-pnputil-install-drivers.bat"]
    assert "pnputil.exe" in phony.script("pnputil")
    assert all(phony.g.exists(f"{FIRST_START}/{name}") for name in kept)
    rows = [r["path"] for r in phony.report.data("changes") if "earlier conversion" in r["what"]]
    assert sorted(rows) == sorted(f"{FIRST_START}/{name}" for name in old)


@pytest.mark.rows("3-T28", "3-T46", "3-T69")
def test_the_iso_brings_the_agent(windows: Make, virtio_win_iso: Path) -> None:
    """T28 T46 T69."""
    phony = windows(K22)
    phony.convert(virtio_win=virtio_win_iso)
    names = phony.names("/Windows/Drivers/VirtIO")
    assert len(names) == 47
    assert {
        f"{s}.{e}" for s in ("netkvm", "vioscsi", "viostor") for e in ("cat", "inf", "sys")
    } <= (set(names))
    assert numbered(phony.scripts())[4:] == [
        "5000-0005-install-qemu-ga", "5000-0006-install-blnsvr",
    ]  # fmt: skip
    assert phony.names(f"{FIRST_START}/Temp") == ["install-qemu-ga.ps1", "qemu-ga-x86_64.msi"]
    assert "install-qemu-ga.ps1" in phony.script("install-qemu-ga")
    assert not [w for w in phony.log("warning") if "agent" in w]


@pytest.mark.rows("3-T46")
def test_the_agent_comes_without_drivers_too(windows: Make, virtio_win_iso: Path) -> None:
    """2.9: whatever drivers there are; nobody says that the ISO has no agent."""
    phony = windows(XP32)
    phony.convert(virtio_win=virtio_win_iso, emulated_devices=True)
    assert phony.names("/Windows/Drivers/VirtIO") == []
    assert phony.names(f"{FIRST_START}/Temp") == ["install-qemu-ga.ps1", "qemu-ga-i386.msi"]
    assert not [w for w in phony.log("warning") if "agent" in w]


@pytest.mark.rows("3-T40", "3-T56", "3-T57", "3-T81")
def test_windows_xp_with_drivers_of_its_age(windows: Make, tmp_path: Path) -> None:
    """T56 T57 T81: no pnputil, a quiet wizard, heads in the boot sector, no DevicePath."""
    guest = XP32.but(software={CURRENT: {"DevicePath": "x"}})
    phony = windows(guest)
    drivers = collection(tmp_path / "d", *(f"viostor/xp/x86/viostor.{e}" for e in ("sys", "inf")))
    caps = phony.convert(virtio_win=drivers)
    assert (caps.block_bus, caps.net_bus) == (BlockBus.VIRTIO_BLK, NetBus.RTL8139)  # T40
    assert caps.machine is Machine.I440FX
    assert phony.names("/Windows/Drivers/VirtIO") == ["viostor.inf", "viostor.sys"]
    assert not [n for n in phony.scripts() if "pnputil" in n]
    software = phony.hive("SOFTWARE")
    settings = "Policies\\Microsoft\\Windows\\DeviceInstall\\Settings"
    assert software.of(settings) == {"SuppressNewHWUI": hives.typed(1)}
    assert f'reg delete "HKLM\\Software\\{settings}" /v SuppressNewHWUI /f' in (
        phony.script("wait-pnp")
    )
    assert phony.g.pread_device(phony.root, 2, 0x1A) == b"\x40\0"
    assert any("no network driver" in w for w in phony.log("warning"))
    # T57: once more, with the value there
    phony.found = None
    phony.g.hivex_open(f"{SYSTEM32}/Config/SOFTWARE", write=True)
    node = phony.g.hivex_root()
    for name in settings.split("\\"):
        node = phony.g.hivex_node_get_child(node, name)
    phony.g.hivex_node_set_value(node, "SuppressNewHWUI", 4, bytes(4))
    phony.g.hivex_commit(None)
    phony.g.hivex_close()
    phony.convert(virtio_win=drivers)
    assert "/t REG_DWORD /d 0 /f" in phony.script("wait-pnp")


@pytest.mark.rows("3-T49", "3-T58")
def test_server_2003_quiets_another_value(windows: Make, tmp_path: Path) -> None:
    """T58; T49: the wait only where its tool is."""
    phony = windows(K3R2)
    drivers = collection(tmp_path / "d", "viostor/2k3/amd64/viostor.sys")
    phony.convert(virtio_win=drivers)
    key = f"{SERVICES}\\PlugPlay\\Parameters"
    assert phony.hive("SYSTEM").of(key) == {"SuppressUI": hives.typed(1)}
    phony.g.umount_all()


@pytest.mark.rows("3-T18", "3-T31")
def test_a_guest_without_drivers_is_refused_before_anything_is_changed(
    windows: Make, virtio_win: Path
) -> None:
    """T31 with the fallback chosen; T18; the refusal without it."""
    phony = windows(XP32.but(software={POLICY: {}, "Microsoft\\Windows Defender": {}}))
    phony.mount()
    phony.g.umount_all()
    before = phony.checksum()
    phony.g.mount(phony.root, "/")
    with pytest.raises(GuestError, match="no virtio drivers") as caught:
        phony.convert()
    assert caught.value.code == "E-NO-DRIVERS"
    assert "emulated devices" in caught.value.remedy
    assert phony.concerns()["C-NO-DRIVERS"] == "blocks"
    assert phony.checksum() == before
    phony.g.mount(phony.root, "/")
    caps = phony.convert(emulated_devices=True)
    assert (caps.block_bus, caps.net_bus) == (BlockBus.IDE, NetBus.RTL8139)
    assert not (caps.virtio_rng or caps.virtio_balloon or caps.isa_pvpanic or caps.virtio_socket)
    assert caps.virtio_1_0
    assert phony.names("/Windows/Drivers/VirtIO") == []
    assert not [k for k in phony.hive("SYSTEM").keys if "viostor" in k]
    assert phony.g.is_file(f"{FIRST_START}/firstboot.bat")
    warnings = phony.log("warning")
    (none,) = [w for w in warnings if "no virtio drivers" in w]
    assert "NT 5.1, i386, Client, winxp" in none and str(virtio_win) in none
    assert not [w for w in warnings if "policy" in w or "Defender" in w]
    assert "C-GROUP-POLICY" not in phony.concerns()


@pytest.mark.rows("3-T20", "3-T36", "3-T41", "3-T48", "3-T49", "3-T69")
def test_missing_pieces_of_a_collection(windows: Make, tmp_path: Path) -> None:
    """T20 T36 T40 T41 T48 T49, one guest after the other."""
    phony = windows(W10)
    phony.mount()
    before = phony.checksum()
    phony.g.mount(phony.root, "/")
    with pytest.raises(DriverCollectionError, match="not there"):  # T20
        phony.convert(virtio_win=tmp_path / "no.iso")
    empty = virtio_win.tools_folder(tmp_path / "empty", ())
    with pytest.raises(GuestError, match="first start is missing") as caught:  # T48
        phony.convert(virt_tools=empty)
    assert caught.value.code == "E-NO-SERVICE-PROGRAM"
    assert phony.checksum() == before
    phony.g.mount(phony.root, "/")
    old = virtio_win.tools_folder(tmp_path / "old", ("pvvxsvc.exe",))
    drivers = collection(tmp_path / "d", *(f"w10/amd64/{n}" for n in (
        "vioscsi.sys", "vioscsi.inf", "viosock.inf", "netkvm.inf")))  # fmt: skip
    caps = phony.convert(virtio_win=drivers, virt_tools=old, disks=2)
    assert (caps.block_bus, caps.net_bus) == (BlockBus.IDE, NetBus.VIRTIO_NET)  # T36
    assert caps.virtio_socket  # T41
    system = phony.hive("SYSTEM")
    assert f"{SERVICES}\\vioscsi" not in system.keys
    assert "pvvxsvc.exe" in system.of(f"{SERVICES}\\firstboot")["ImagePath"][1].decode("utf-16-le")
    assert numbered(phony.scripts()) == ["2000-0001-pnputil-install-drivers"]  # T49, T69
    warnings = phony.log("warning")
    assert any("no block driver" in w for w in warnings)
    assert not [w for w in warnings if "pnp_wait" in w or "vmdp" in w]
    assert phony.concerns()["C-NO-BLOCK-DRIVER"] == "warning"
    phony.found = None
    drivers = collection(tmp_path / "e", "w10/amd64/viostor.sys", "w10/amd64/viostor.inf")
    caps = phony.convert(virtio_win=drivers)
    assert (caps.block_bus, caps.net_bus) == (BlockBus.VIRTIO_BLK, NetBus.E1000)  # T40


FOREIGN: hives.Description = {
    f"{UNINSTALL}\\{{1}}": {"DisplayName": "VMware Tools", "UninstallString": "MsiExec.exe /I{G}"},
    f"{UNINSTALL}\\{{2}}": {"DisplayName": "Parallels Tools", "UninstallString": "msiexec /X{P}"},
    f"{WOW_UNINSTALL}\\{{3}}": {
        "DisplayName": "Virtuozzo Tools", "UninstallString": "msiexec /X{V}"},
    f"{UNINSTALL}\\Red Hat Paravirtualized Xen Drivers for Windows(R)": {
        "UninstallString": "C:\\Program Files\\Xen\\uninst.exe"},
    f"{UNINSTALL}\\{{4}}": {"DisplayName": b"VMware Tools"},
    f"{UNINSTALL}\\{{5}}": {"DisplayName": "VMware Tools für Zwerge 工具"},
}  # fmt: skip


@pytest.mark.rows("3-T59", "3-T60", "3-T62", "3-T63", "3-T64", "3-T95")
def test_tools_of_other_hypervisors_are_removed_at_the_first_start(windows: Make) -> None:
    """T59 T60 T62 T63 T64 T95; D21: those of 32 bits too."""
    phony = windows(W10.but(software=FOREIGN))
    phony.convert()
    queue = [n.split("-", 2)[2] for n in numbered(phony.scripts()) if "uninstall" in n]
    assert queue == ["uninstall-Xen-PV", "uninstall-Parallels-tools", "uninstall-Parallels-tools",
                     "uninstall-VMware-Tools"]  # fmt: skip
    vmware = phony.script("VMware")
    assert "MsiExec.exe /x{G} /quiet /norestart /l*v+" in vmware
    assert "REBOOT=ReallySuppress REMOVE=ALL" in vmware
    assert '"C:\\Program Files\\Xen\\_uninst.exe"' in phony.script("Xen")
    assert any("VMware Tools für Zwerge 工具 is installed" in w for w in phony.log("warning"))
    assert phony.concerns()["C-HYPERVISOR-TOOLS"] == "warning"
    found = phony.hive("SOFTWARE").of(f"{UNINSTALL}\\{{5}}")
    assert found == {"DisplayName": hives.typed("VMware Tools für Zwerge 工具")}


@pytest.mark.rows("3-T75", "3-T77", "3-T79", "3-T80")
def test_uefi_graphics_come_back_and_the_fallback_loader_is_repaired(windows: Make) -> None:
    """T75 T77 T79; T80: an ESP means UEFI."""
    guest = W10.but(
        uefi=True,
        bcd=boot_configuration(),
        esp_files={
            "/EFI/Microsoft/Boot/bootmgfw.efi": b"the boot manager",
            "/EFI/Boot/bootx64.efi": b"another loader",
            "/EFI/Boot/grub.efi": b"grub",
        },
    )
    phony = windows(guest)
    phony.convert()
    assert phony.names("/Windows/TEMP") == []
    assert any("needs UEFI" in line for line in phony.log("info"))
    found = phony.found
    assert found is not None
    source = make_source(firmware=Firmware.UNKNOWN)
    uefi = is_uefi_target(source, found, phony.report)
    domain = etree.fromstring(domain_xml(make_meta(source=source, uefi=uefi)).encode())
    assert domain.xpath("string(os/@firmware)") == "efi"
    phony.g.umount_all()
    phony.g.mount(phony.esp, "/")
    assert phony.names("/EFI/Boot") == ["bootx64.efi"]
    assert phony.read("/EFI/Boot/bootx64.efi") == "the boot manager"
    phony.g.download("/EFI/Microsoft/Boot/BCD", str(phony.folder / "bcd"))
    elements = {k for k in hives.dump_hive(phony.folder / "bcd").keys if BOOT_ENTRY in k}
    assert f"Objects\\{BOOT_ENTRY}\\Elements\\12000004" in elements
    assert f"Objects\\{BOOT_ENTRY}\\Elements\\16000046" not in elements


@pytest.mark.rows("3-T76", "3-T78", "3-T79")
@pytest.mark.parametrize(
    ("bcd", "files"),
    [
        pytest.param(boot_configuration(default=False), {}, id="no default"),
        pytest.param(boot_configuration(graphics=False), {
            "/EFI/Microsoft/Boot/bootmgfw.efi": b"same", "/EFI/Boot/bootx64.efi": b"same",
            "/EFI/Boot/other.efi": b"x"}, id="nothing to do"),
        pytest.param(None, {"/EFI/Boot/bootx64.efi": b"other"}, id="no BCD, no manager"),
    ],
)  # fmt: skip
def test_uefi_parts_that_need_nothing_stay(
    windows: Make, bcd: hives.Description | None, files: dict[str, bytes]
) -> None:
    """T76 T78; T79: without a Temp folder."""
    phony = windows(W10.but(uefi=True, bcd=bcd, esp_files=files, folders=()))
    phony.g.mount(phony.esp, "/")
    phony.g.tar_out("/", str(phony.folder / "before.tar"))
    phony.g.umount_all()
    phony.convert()
    assert not [n for n in phony.names("/Windows") if n.startswith("ESP_")]
    phony.g.umount_all()
    phony.g.mount(phony.esp, "/")
    phony.g.tar_out("/", str(phony.folder / "after.tar"))
    before, after = ((phony.folder / n).read_bytes() for n in ("before.tar", "after.tar"))
    assert before == after


def test_looking_changes_nothing_and_tells_the_same(windows: Make) -> None:
    """Inspect mode: the guest stays as it is, the report says what would be done."""
    guest = W10.but(
        uefi=True, bcd=boot_configuration(), system={f"{SERVICES}\\rhelscsi": {"Start": 0}}
    )
    phony = windows(guest)
    before = phony.checksum()
    phony.mount(read_only=True)
    looked = phony.convert(change=False)
    would = phony.report.data("changes")
    assert phony.checksum() == before
    phony.found = None
    changed = phony.convert()
    assert looked == changed
    did = phony.report.data("changes")
    late = ("written by administrators only", "key deleted")
    assert [r for r in did if not any(t in r["what"] for t in late)] == would


@pytest.mark.rows("3-T10", "3-T84")
def test_the_control_set_in_use_is_edited(windows: Make) -> None:
    """T10."""
    system: hives.Description = {
        "Select": {"Current": 2}, "ControlSet002\\Control\\CrashControl": {"AutoReboot": 1},
        f"{CONTROL}\\CrashControl": {"AutoReboot": 1},
        "ControlSet002\\Control\\TimeZoneInformation": {"RealTimeIsUniversal": 1},
    }  # fmt: skip
    phony = windows(W10.but(system=system))
    caps = phony.convert()
    found = phony.hive("SYSTEM")
    assert found.of("ControlSet002\\Control\\CrashControl")["AutoReboot"] == hives.typed(0)
    assert found.of(f"{CONTROL}\\CrashControl")["AutoReboot"] == hives.typed(1)
    assert "ControlSet002\\Services\\viostor" in found.keys
    assert f"{SERVICES}\\viostor" not in found.keys
    assert caps.rtc_utc  # T84


def test_a_full_system_drive_is_refused(windows: Make, tmp_path: Path) -> None:
    """The drivers have to fit beside what is there."""
    phony = windows(W10)
    phony.mount()
    free = dict(phony.g.statvfs("/"))
    big = tmp_path / "d/w10/amd64/viostor.sys"
    virtio_win.put(big)
    with big.open("r+b") as stream:
        stream.truncate(free["bfree"] * free["bsize"])
    with pytest.raises(ConversionError) as caught:
        phony.convert(virtio_win=tmp_path / "d")
    assert caught.value.code == "E-GUEST-SPACE"
