"""Smaller questions about a conversion, one each: clock, geometry, space, refusals, letters."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from lxml import etree

from conversions.pipeline.errors import GuestError
from conversions.pipeline.firmware import detect_boot_disk
from conversions.pipeline.inspection import find_esps
from conversions.pipeline.outputs.libvirt_xml import domain_xml
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.space import shortages
from conversions.pipeline.types import BlockBus, Guestcaps, Inspection, Machine, TargetBuses
from conversions.pipeline.windows import fixes
from conversions.pipeline.windows.code_pages import code_pages
from conversions.pipeline.windows.drive import system_drive
from conversions.pipeline.windows.registry import SOFTWARE, SYSTEM, Changes, HiveError, Registry
from conversions.pipeline.windows.static_ip import parse_static_ip
from tests.guests import folder_guest, hives, virtio_win
from tests.guests.phony_windows import FIRST_START, PhonyWindows
from tests.guests.windows import (
    BIOS_BOOT_GUID,
    CURRENT,
    ESP_GUID,
    K3R2,
    K22,
    SYSTEM32,
    UNINSTALL,
    W7_32,
    W10,
    W11,
    XP32,
    WindowsGuest,
    pe_stub,
)
from tests.unit.pipeline.samples import make_meta, target_disk
from tests.unit.pipeline.test_guest import stats

Make = Callable[[WindowsGuest], PhonyWindows]
TIME_ZONE = "ControlSet001\\Control\\TimeZoneInformation"
SERVICES = "ControlSet001\\Services"


def registry_of(phony: PhonyWindows, *, change: bool = False) -> Registry:
    """Return the registry of a mounted guest."""
    found = phony.found or phony.mount()
    names = {SYSTEM: found.windows_system_hive, SOFTWARE: found.windows_software_hive}
    return Registry(phony.g, names, Changes(), change=change)


@pytest.mark.rows("3-T84")
@pytest.mark.parametrize(
    ("value", "utc", "warned"),
    [
        pytest.param(None, False, False, id="absent"),
        pytest.param((hives.NONE, b""), False, False, id="none"),
        pytest.param(1, True, False, id="DWORD 1"),
        pytest.param(0, False, False, id="DWORD 0"),
        pytest.param((hives.QWORD, struct.pack("<Q", 1)), True, False, id="QWORD 1"),
        pytest.param((hives.QWORD, struct.pack("<Q", 257)), False, False, id="QWORD 257"),
        pytest.param("1", True, True, id="SZ 1"),
    ],
)
def test_t84_the_clock(windows: Make, value: Any, utc: bool, warned: bool) -> None:
    values = {} if value is None else {"RealTimeIsUniversal": value}
    phony = windows(W10.but(system={TIME_ZONE: values}))
    report = RecordingReporter()
    with registry_of(phony).reading(SYSTEM) as system:
        assert fixes.rtc_is_utc(system, "ControlSet001", report)[0] is utc
    assert (report.warnings == 1) is warned


@pytest.mark.rows("3-T44")
def test_t44_a_registry_without_device_path(windows: Make) -> None:
    phony = windows(W10)
    software = {k: v for k, v in W10.software_hive().items() if not k.startswith(CURRENT)}
    path = hives.make_hive(phony.folder / "plain", {**software, CURRENT: {}})
    phony.mount()
    phony.g.upload(str(path), f"{SYSTEM32}/Config/SOFTWARE")
    phony.convert()
    assert phony.hive("SOFTWARE").of(CURRENT) == {}
    phony.g.upload(str(hives.make_hive(path, software)), f"{SYSTEM32}/Config/SOFTWARE")
    phony.convert()
    assert CURRENT not in phony.hive("SOFTWARE").keys
    assert any("CurrentVersion; Windows will not look" in w for w in phony.log("warning"))


@pytest.mark.rows("3-T81")
@pytest.mark.parametrize(
    ("size", "heads"), [(512 << 20, b"\x40\0"), (3 << 30, b"\x80\0"), (8 << 30, b"\xff\0")]
)
def test_t81_the_heads_of_windows_2003(
    windows: Make, monkeypatch: pytest.MonkeyPatch, size: int, heads: bytes
) -> None:
    monkeypatch.setattr(folder_guest, "DISK_BYTES", size)
    phony = windows(K3R2)
    phony.convert(emulated_devices=True)
    assert phony.g.pread_device(phony.root, 2, 0x1A) == heads


@pytest.mark.rows("3-T83")
def test_t83_a_filesystem_without_a_partition_keeps_its_heads(
    windows: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    phony = windows(XP32)
    monkeypatch.setattr(phony.g, "is_whole_device", lambda _device: True)
    phony.convert(emulated_devices=True)
    assert phony.g.pread_device(phony.root, 2, 0x1A) == b"\0\0"


@pytest.mark.rows("3-T88")
@pytest.mark.parametrize(("machine", "bus"), [(Machine.Q35, "sata"), (Machine.I440FX, "ide")])
def test_t88_emulated_disks_in_the_domain(windows: Make, machine: Machine, bus: str) -> None:
    caps = replace(windows(XP32).convert(emulated_devices=True), machine=machine)
    assert caps.block_bus is BlockBus.IDE
    meta = make_meta(guestcaps=caps, buses=TargetBuses(ide=(target_disk(0),)))
    domain = etree.fromstring(domain_xml(meta).encode())
    assert domain.xpath("string(//disk/target/@bus)") == bus
    assert domain.xpath("string(clock/@offset)") == "localtime"
    assert domain.xpath("string(//memballoon/@model)") == "none"


@pytest.mark.rows("3-T90")
def test_t90_a_host_without_the_permission_tool_only_warns(
    windows: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    phony = windows(W10)

    def missing(_command: str, arguments: list[str]) -> str:
        return "ntfssecaudit: not found\nstatus=127" if "ntfssecaudit" in arguments[0] else ""

    monkeypatch.setattr(phony.g, "debug", missing)
    caps: Guestcaps = phony.convert()
    assert caps.block_bus is BlockBus.VIRTIO_BLK
    assert any("could not be protected" in w for w in phony.log("warning"))


@pytest.mark.rows("3-T93")
def test_t93_one_hive_is_open_at_a_time(windows: Make) -> None:
    registry = registry_of(windows(W10))
    refused = pytest.raises(AssertionError, match="SOFTWARE is open")
    with registry.reading(SOFTWARE), refused, registry.reading(SYSTEM):
        pass
    with registry.reading(SYSTEM) as system:
        assert system.key("Select") is not None


def test_an_edit_that_fails_half_way_writes_nothing(windows: Make) -> None:
    phony = windows(W10)
    registry = registry_of(phony, change=True)
    before = phony.hive("SYSTEM")
    with pytest.raises(ZeroDivisionError), registry.editing(SYSTEM) as system:
        fixes.keep_stop_screen(system, "ControlSet001")
        system.make("ControlSet001\\Services\\x").set("Start", fixes.dword(4))
        raise ZeroDivisionError
    assert phony.hive("SYSTEM") == before


def test_a_hive_that_cannot_be_written_back_is_named(
    windows: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    phony = windows(W10)
    phony.mount()

    def refuse(_target: None) -> None:
        raise RuntimeError("hivex_commit: SYSTEM: Read-only file system")

    monkeypatch.setattr(phony.g, "hivex_commit", refuse)
    with pytest.raises(HiveError, match="its filesystem is read-only") as caught:
        phony.convert()
    assert caught.value.message.startswith("The registry file SYSTEM")
    assert phony.g._hive is None


def test_a_file_that_cannot_be_written_is_named(
    windows: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    phony = windows(W10)
    phony.mount()

    def refuse(path: str, _data: bytes) -> None:
        raise RuntimeError(f"write: {path}: No space left on device")

    monkeypatch.setattr(phony.g, "write", refuse)
    with pytest.raises(GuestError, match="of the guest could not be written: write: /") as caught:
        phony.convert()
    assert caught.value.code == "E-GUEST-FILE"


def test_windows_for_arm_is_refused(windows: Make) -> None:
    phony = windows(W11.but(files={f"{SYSTEM32}/cmd.exe": pe_stub(0xAA64)}))
    phony.mount()
    before = phony.checksum()
    phony.g.mount(phony.root, "/")
    with pytest.raises(Exception, match="this processor"):
        phony.convert()
    assert phony.concerns()["C-WINDOWS-ARCH"] == "blocks"
    assert phony.checksum() == before


@pytest.mark.rows("3-T14")
@pytest.mark.parametrize(
    ("history", "present"),
    [
        ("History\\{35378EAC-683F-11D2-A89A-00C04FBBCFA2}", True), ("History\\abc", False),
        ("History\\{x}", False), ("", False),
    ],
)  # fmt: skip
def test_t14_group_policies(windows: Make, history: str, present: bool) -> None:
    key = f"{CURRENT}\\Group Policy\\{history}".rstrip("\\")
    phony = windows(W10.but(software={key: {}}))
    phony.convert(change=False)
    assert ("C-GROUP-POLICY" in phony.concerns()) is present


@pytest.mark.rows("3-T16")
@pytest.mark.parametrize(("value", "counts"), [({}, True), ({"DisableAntiVirus": 1}, False)])
def test_t16_defender(windows: Make, value: dict[str, hives.Data], counts: bool) -> None:
    phony = windows(W10.but(software={"Microsoft\\Windows Defender": value}))
    phony.convert(change=False)
    assert ("C-ANTIVIRUS" in phony.concerns()) is counts


@pytest.mark.rows("3-T64")
def test_t64_a_program_whose_name_cannot_be_read_is_ignored(windows: Make) -> None:
    """D20: half a surrogate pair."""
    names = ("\u4e2d\u4e2d", "{1}")
    phony = windows(W10.but(software={f"{UNINSTALL}\\{n}": {"DisplayName": n} for n in names}))
    phony.mount()
    hive = f"{SYSTEM32}/Config/SOFTWARE"
    data = phony.g.read_file(hive)
    damaged = data.replace(names[0].encode("utf-16-le"), b"\0\xd8\0\xd8", 1)
    assert damaged != data
    phony.g.write(hive, damaged)
    programs = [a.name for a in phony.mount().applications]
    assert [name for name in names if name in programs] == ["{1}"]
    phony.convert()


@pytest.mark.rows("3-T12")
@pytest.mark.parametrize(("mib", "enough"), [(99, False), (101, True)])
def test_t12_the_system_drive_needs_100_mib(mib: int, enough: bool) -> None:
    found = shortages(
        [stats("/", vfs="ntfs", bsize=4096, bfree=mib << 8, files=0, ffree=0)], uefi=False
    )
    assert (found == []) is enough
    assert enough or found == ["/: 99.0 MiB free, 100 MiB needed"]


@pytest.mark.rows("3-T80")
@pytest.mark.parametrize(
    ("types", "uefi"),
    [((ESP_GUID, BIOS_BOOT_GUID), False), ((ESP_GUID, "EBD0"), True), (("EBD0", "EBD0"), False)],
)
def test_t80_firmware_by_partition_types(windows: Make, types: tuple[str, str], uefi: bool) -> None:
    phony = windows(W10)
    phony.g.types = dict(enumerate(types, 1))
    assert bool(find_esps(phony.g)) is uefi


@pytest.mark.rows("3-T80")
def test_t80_disks_that_are_not_gpt_are_bios(
    windows: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    phony = windows(W10)
    phony.g.types = {1: ESP_GUID}
    monkeypatch.setattr(phony.g, "part_get_parttype", lambda _disk: "msdos")
    assert find_esps(phony.g) == []

    def blank(_disk: str) -> str:
        raise RuntimeError("part_get_parttype: unrecognised disk label")

    monkeypatch.setattr(phony.g, "part_get_parttype", blank)
    assert find_esps(phony.g) == []


@pytest.mark.rows("3-T98")
@pytest.mark.parametrize(
    ("root", "esps", "expected"),
    [
        ("/dev/sda2", (), 0),
        ("/dev/sdb2", (), 1),
        ("/dev/sdb1", ("/dev/sda1",), 0),
        ("/dev/sdb2", ("/dev/sda1", "/dev/sdb1"), 1),
        ("/dev/sda2", ("/dev/sda1", "/dev/sdb1"), 0),
        ("/dev/mapper/ldm_vol", ("/dev/sda1", "/dev/sdb1"), 0),
    ],
)
def test_t98_the_boot_disk_is_that_of_windows_or_of_its_esp(
    windows: Make, monkeypatch: pytest.MonkeyPatch, root: str, esps: tuple[str, ...], expected: int
) -> None:
    phony = windows(W10)
    found: Inspection = replace(
        phony.mount(), root=root, mountpoints=(("/", root),), uefi_esps=esps
    )
    monkeypatch.setattr(phony.g, "list_devices", lambda: ["/dev/sda", "/dev/sdb"], raising=False)
    overlays = [target_disk(n).overlay for n in (0, 1)]
    assert detect_boot_disk(phony.g, found, overlays) == expected


GUID = uuid.UUID("00000002-1111-2222-3333-444444444444").bytes_le


@pytest.mark.parametrize(
    ("value", "letter"),
    [
        pytest.param(struct.pack("<IQ", 0x11223344, 32768 << 9), "D", id="MBR"),
        pytest.param(b"DMIO:ID:" + GUID, "D", id="GPT"),
        pytest.param(struct.pack("<IQ", 0x99, 32768 << 9), "C", id="another disk"),
        pytest.param("text", "C", id="no place"),
    ],
)
def test_d18_the_letter_of_the_system_drive(windows: Make, value: hives.Data, letter: str) -> None:
    phony = windows(W10.but(system={"MountedDevices": {"\\DosDevices\\D:": value}}))
    phony.g.sectors["/dev/sda"] = bytearray(512)
    phony.g.pwrite_device("/dev/sda", struct.pack("<I", 0x11223344), 0x1B8)
    registry = registry_of(phony)
    with registry.reading(SYSTEM) as system:
        assert system_drive(phony.g, system, phony.root) == letter
    phony.convert()
    command = phony.hive("SYSTEM").of(f"{SERVICES}\\firstboot")["ImagePath"]
    assert command == hives.typed(
        f'"{letter}:\\Program Files\\Guestfs\\Firstboot\\rhsrvany.exe" -s firstboot'
    )


@pytest.mark.parametrize(
    ("guest", "own", "pages"),
    [
        (W10, "850", ("850", "65001")), (XP32, "850", ("850",)), (W10, None, ("65001",)),
        (XP32, None, ("437",)), (W10, 850, ("65001",)), (W10, "708", ("65001",)),
        (W10, "65001", ("65001", "65001")), (XP32, "../x", ("437",)),
    ],
)  # fmt: skip
def test_d20_code_pages(
    windows: Make, guest: WindowsGuest, own: hives.Data | None, pages: tuple[str, ...]
) -> None:
    values = {} if own is None else {"OEMCP": own}
    phony = windows(guest.but(system={"ControlSet001\\Control\\Nls\\CodePage": values}))
    major = phony.mount().major_version
    with registry_of(phony).reading(SYSTEM) as system:
        assert code_pages(system, "ControlSet001", nt_major=major) == pages


def test_d20_a_persons_script_is_in_the_code_page_of_the_guest(windows: Make) -> None:
    phony = windows(W10.but(system={"ControlSet001\\Control\\Nls\\CodePage": {"OEMCP": "852"}}))
    phony.convert(firstboot=("echo \u0159",))
    (name,) = [n for n in phony.scripts() if "user-script" in n]
    data = phony.g.read_file(f"{FIRST_START}/scripts/{name}")
    assert data == b"@chcp 852 >nul\r\necho \xfd\r\n"


def test_siblings_are_taken_when_asked_for(windows: Make, tmp_path: Any) -> None:
    """D15."""
    virtio_win.put(tmp_path / "d/2k19/amd64/viostor.sys")
    phony = windows(K22)
    caps = phony.convert(virtio_win=tmp_path / "d", sibling_drivers=True)
    assert caps.block_bus is BlockBus.VIRTIO_BLK
    assert phony.concerns()["C-SIBLING-DRIVERS"] == "warning"


def test_data_disks_of_windows_7_need_no_script(windows: Make) -> None:
    """T69: the cmdlets came later; T68 for a guest before them."""
    entry = parse_static_ip("00:11:22:33:44:55:ip:10.0.0.5")
    phony = windows(W7_32)
    phony.convert(disks=2, static_ips=(entry,))
    assert not [n for n in phony.scripts() if "online-disks" in n]
    assert "netsh interface ip set address" in phony.script("network-configure")
    assert phony.names(f"{FIRST_START}/Temp") == []


def test_without_tools_a_fallback_guest_is_left_without_first_start(
    windows: Make, tmp_path: Any
) -> None:
    phony = windows(XP32)
    caps = phony.convert(emulated_devices=True, virt_tools=tmp_path, hostname="pc1")
    assert any("a Windows guest: host name (ignored)" in line for line in phony.log("warning"))
    assert caps.block_bus is BlockBus.IDE
    assert not phony.g.exists(FIRST_START)
    assert phony.concerns()["C-NO-SERVICE-PROGRAM"] == "warning"


@pytest.mark.parametrize(
    ("wishes", "lost"),
    [
        ({"static_ips": (parse_static_ip("00:11:22:33:44:55:ip:10.0.0.5"),)}, "addresses"),
        ({"firstboot": ("echo one",)}, "scripts"),
    ],
)
def test_what_only_the_first_start_can_do_is_not_dropped(
    windows: Make, tmp_path: Any, wishes: dict[str, Any], lost: str
) -> None:
    """E9: also with nothing but emulated devices."""
    phony = windows(XP32)
    with pytest.raises(GuestError, match=f"for it: {lost}") as caught:
        phony.convert(emulated_devices=True, virt_tools=tmp_path, **wishes)
    assert caught.value.code == "E-NO-SERVICE-PROGRAM"
    assert not phony.g.exists("/Windows/Drivers")


@pytest.mark.parametrize("change", [True, False])
def test_a_file_where_windows_has_a_folder_is_told(windows: Make, change: bool) -> None:
    phony = windows(W10)
    phony.mount()
    phony.g.rm_rf("/Program Files")
    phony.g.write("/Program Files", b"")
    with pytest.raises(GuestError, match="Guestfs/Firstboot of the guest could not"):
        phony.convert(change=change)


def test_a_missing_folder_of_drivers_is_made(windows: Make) -> None:
    phony = windows(W10)
    phony.mount()
    phony.g.rm_rf(f"{SYSTEM32}/Drivers")
    phony.convert()
    assert phony.names(f"{SYSTEM32}/drivers") == ["viostor.sys"]


LOADERS = {
    "/EFI/Microsoft/Boot/bootmgfw.efi": b"the boot manager",
    "/EFI/Boot/bootx64.efi": b"for 64 bits",
}


def loaders(phony: PhonyWindows) -> dict[str, str]:
    """Return the fallback loaders of the guest's EFI system partition."""
    phony.g.umount_all()
    phony.g.mount(phony.esp, "/")
    return {name: phony.read(f"/EFI/Boot/{name}") for name in phony.names("/EFI/Boot")}


def test_firmware_of_32_bits_looks_for_another_name(windows: Make) -> None:
    """D7."""
    phony = windows(W10.but(bits=32, uefi=True, esp_files=LOADERS))
    phony.convert()
    assert loaders(phony) == {"bootia32.efi": "the boot manager"}


# A Hivex that could not be opened fails once more when it is deleted.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("content", [b"", b"text" * 3000, hives.empty_hive()[:5000]])
def test_a_damaged_boot_configuration_stays_and_the_loader_is_repaired(
    windows: Make, content: bytes
) -> None:
    bcd = "/EFI/Microsoft/Boot/BCD"
    phony = windows(W10.but(uefi=True, esp_files={**LOADERS, bcd: content}))
    phony.convert()
    assert len([w for w in phony.log("warning") if "registry file BCD" in w]) == 1
    assert loaders(phony) == {"bootx64.efi": "the boot manager"}
    assert phony.g.read_file(bcd) == content


def test_an_esp_that_cannot_be_mounted_is_only_warned_of(
    windows: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    phony = windows(W10.but(uefi=True, esp_files=LOADERS))
    phony.mount()
    mount = phony.g.mount

    def refuse(device: str, path: str) -> None:
        if device == phony.esp:
            raise RuntimeError("mount: wrong fs type")
        mount(device, path)

    with monkeypatch.context() as patch:
        patch.setattr(phony.g, "mount", refuse)
        caps = phony.convert()
    assert caps.block_bus is BlockBus.VIRTIO_BLK
    assert any("could not be mounted: mount: wrong fs type" in w for w in phony.log("warning"))
    assert phony.names("/Windows/TEMP") == []
    assert loaders(phony) == {"bootx64.efi": "for 64 bits"}
