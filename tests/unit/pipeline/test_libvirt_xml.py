"""The domain XML: every rule of spec 4, 2.2, and libvirt's own word on each variation."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree

from conversions.pipeline.guestcaps import expected_guestcaps
from conversions.pipeline.outputs.domain_host import DomainHost
from conversions.pipeline.outputs.libvirt_devices import boot_order
from conversions.pipeline.outputs.libvirt_xml import domain_xml
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.target_buses import assign_target_buses
from conversions.pipeline.types import BlockBus, Guestcaps, Machine, TargetBuses, TargetMeta
from inventory.sources.display import Display, DisplayType, Listen, ListenType
from inventory.sources.types import (
    Controller,
    CpuTopology,
    Firmware,
    Nic,
    Removable,
    RemovableType,
    VnetType,
)
from tests.unit.pipeline.samples import CDROM, GUEST, make_meta, make_source, target_disk

CAPS = expected_guestcaps()
OLD = replace(CAPS, virtio_1_0=False)
PC = replace(CAPS, machine=Machine.I440FX)
ARM = replace(CAPS, machine=Machine.VIRT, arch="aarch64")
BARE = replace(CAPS, virtio_rng=False, virtio_balloon=False, isa_pvpanic=False, virtio_socket=False)
FLOPPY = Removable(type=RemovableType.FLOPPY, slot=0)
NO_FLOPPY = DomainHost(features=frozenset({"acpi"}), floppy=False)


def tree(
    meta: TargetMeta, host: DomainHost | None = None, warnings: list[str] | None = None
) -> etree._Element:
    """Return the XML as a tree; warnings go into the list."""
    kept: list[str] = [] if warnings is None else warnings
    return etree.fromstring(domain_xml(meta, host, kept.append).encode())


def shape(element: etree._Element | None) -> str:
    """Return an element on one line, without the space between elements."""
    assert element is not None
    text = etree.tostring(element, encoding="unicode", with_tail=False)
    return "".join(line.strip() for line in text.split("\n"))


def drives(root: etree._Element) -> list[tuple[str, str | None, str | None]]:
    """Return (name, bus, file) of every drive in order."""
    return [
        (
            disk.find("target").get("dev", ""),  # type: ignore[union-attr]
            disk.find("target").get("bus"),  # type: ignore[union-attr]
            source.get("file") if (source := disk.find("source")) is not None else None,
        )
        for disk in root.iterfind("devices/disk")
    ]


def test_the_plain_case_in_order() -> None:
    """Spec 9.1: the order of the elements is pinned."""
    root = tree(make_meta(source=make_source(genid="c3b9e8a4-7a65-4b8a-9d3f-1a2b3c4d5e6f")))
    assert [e.tag for e in root.iterchildren("*")] == [
        "name", "genid", "metadata", "memory", "currentMemory", "vcpu", "cpu", "features", "os",
        "clock", "on_poweroff", "on_reboot", "on_crash", "devices",
    ]  # fmt: skip
    devices = root.find("devices")
    assert devices is not None
    assert [e.tag for e in devices.iterchildren("*")] == [
        "disk", "disk", "interface", "video", "graphics", "rng", "memballoon", "panic", "vsock",
        "input", "input", "console", "controller", "channel",
    ]  # fmt: skip
    assert root.get("type") == "kvm"


@pytest.mark.rows("4-T38")
@pytest.mark.parametrize("extra", [0, 1000])
def test_t38_memory_is_whole_kibibytes(extra: int) -> None:
    root = tree(make_meta(source=make_source(memory_bytes=(1 << 30) + extra, vcpus=1)))
    assert root.findtext("memory") == root.findtext("currentMemory") == "1048576"
    assert root.findtext("vcpu") == "1"


@pytest.mark.rows("4-T39", "4-T40")
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, '<cpu mode="host-model"/>'),
        (
            {
                "cpu_model": "Broadwell",
                "cpu_vendor": "Intel",
                "cpu_topology": CpuTopology(sockets=4, cores=8, threads=2),
            },
            '<cpu match="minimum"><vendor>Intel</vendor><model fallback="allow">Broadwell</model>'
            '<topology sockets="4" cores="8" threads="2"/></cpu>',
        ),
        (
            {"cpu_model": "qemu64"},
            '<cpu match="minimum" check="none"><model fallback="allow">qemu64</model></cpu>',
        ),
    ],
    ids=["T39", "T40", "T40-qemu64"],
)
def test_the_processor(values: dict[str, object], expected: str) -> None:
    assert shape(tree(make_meta(source=make_source(**values))).find("cpu")) == expected


@pytest.mark.rows("4-T30", "4-T41")
@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (("pae", "viridian"), {"acpi", "apic"}, ["acpi", "apic"]),
        ((), {"acpi", "apic", "pae"}, ["acpi", "apic", "pae"]),
        ((), set(), []),
    ],
    ids=["T41", "T41-none", "T30"],
)
def test_features(source: tuple[str, ...], target: set[str], expected: list[str]) -> None:
    host = DomainHost(features=frozenset(target), floppy=True)
    features = tree(make_meta(source=make_source(features=source)), host).find("features")
    assert features is not None
    assert [e.tag for e in features] == expected


@pytest.mark.rows("4-T42")
@pytest.mark.parametrize(
    ("uefi", "secure", "expected"),
    [
        (
            True,
            True,
            '<os firmware="efi"><firmware><feature name="secure-boot" enabled="yes"/>'
            '<feature name="enrolled-keys" enabled="yes"/></firmware>'
            '<type arch="x86_64" machine="q35">hvm</type></os>',
        ),
        (
            True,
            False,
            '<os firmware="efi"><firmware><feature name="secure-boot" enabled="no"/></firmware>'
            '<type arch="x86_64" machine="q35">hvm</type></os>',
        ),
        (False, False, '<os><type arch="x86_64" machine="q35">hvm</type></os>'),
        (False, True, '<os><type arch="x86_64" machine="q35">hvm</type></os>'),
    ],
)
def test_t42_firmware(uefi: bool, secure: bool, expected: str) -> None:
    root = tree(make_meta(uefi=uefi, source=make_source(uefi_secureboot=secure)))
    assert shape(root.find("os")) == expected
    assert (root.find("features/smm") is not None) == (uefi and secure)


def test_secure_boot_needs_q35() -> None:
    warnings: list[str] = []
    meta = make_meta(uefi=True, source=make_source(uefi_secureboot=True), guestcaps=PC)
    feature = tree(meta, warnings=warnings).find("os/firmware/feature")
    assert feature is not None
    assert feature.get("enabled") == "no"
    assert len(warnings) == 1


@pytest.mark.rows("4-T43")
def test_t43_the_clock() -> None:
    root = tree(make_meta(guestcaps=replace(CAPS, rtc_utc=False)))
    assert shape(root.find("clock")) == '<clock offset="localtime"/>'


@pytest.mark.rows("4-T44")
@pytest.mark.parametrize(
    ("boot", "orders"), [(1, ["2", "1", "4"]), (None, ["1", "2", "3"])], ids=["known", "unknown"]
)
def test_t44_the_boot_order(boot: int | None, orders: list[str]) -> None:
    """Differs for Windows, whose boot disk is looked for too: that of its ESP or of C:."""
    disks = tuple(target_disk(n) for n in range(3))
    root = tree(make_meta(buses=TargetBuses(virtio_blk=disks), boot_disk=boot))
    assert [e.get("order") for e in root.iterfind("devices/disk/boot")] == orders
    assert [boot_order(n, boot) for n in range(3)] == [int(order) for order in orders]


@pytest.mark.rows("4-T46")
@pytest.mark.parametrize(
    ("caps", "expected"),
    [
        (CAPS, [("vda", "virtio", "/t/web_01-sda"), ("sdc", "sata", None)]),
        (PC, [("vda", "virtio", "/t/web_01-sda"), ("hdc", "ide", None)]),
    ],
    ids=["q35", "i440fx"],
)
def test_t46_a_cdrom_keeps_its_slot(
    caps: Guestcaps, expected: list[tuple[str, str, str | None]]
) -> None:
    root = tree(make_meta(guestcaps=caps))
    assert drives(root) == expected
    assert len(list(root.iterfind("devices/disk/boot"))) == 1


@pytest.mark.rows("4-T49")
def test_t49_a_floppy() -> None:
    buses = TargetBuses(virtio_blk=(target_disk(0),), floppy=(FLOPPY,))
    warnings: list[str] = []
    root = tree(make_meta(buses=buses), warnings=warnings)
    assert drives(root)[-1] == ("fda", None, None)
    assert root.findall("devices/disk")[-1].get("device") == "floppy"
    assert warnings == []
    without = tree(make_meta(buses=buses), NO_FLOPPY, warnings)
    assert [name for name, _bus, _file in drives(without)] == ["vda"]
    assert len(warnings) == 1


@pytest.mark.rows("4-T50")
@pytest.mark.parametrize(
    ("caps", "model"),
    [(OLD, "virtio-transitional"), (replace(OLD, machine=Machine.I440FX), "virtio")],
    ids=["q35", "i440fx"],
)
def test_t50_guests_before_virtio_1_0(caps: Guestcaps, model: str) -> None:
    root = tree(make_meta(guestcaps=caps))
    found = {
        path: e.get(key)
        for path, key in (
            ("interface/model", "type"),
            ("rng", "model"),
            ("memballoon", "model"),
            ("vsock", "model"),
            ("controller[@type='virtio-serial']", "model"),
        )
        if (e := root.find(f"devices/{path}")) is not None
    }
    assert set(found.values()) == {model}
    assert len(found) == 5
    disk = root.find("devices/disk")
    assert disk is not None
    assert disk.get("model") == (model if model != "virtio" else None)


@pytest.mark.rows("4-T51")
def test_t51_what_the_guest_cannot_drive_is_left_out() -> None:
    root = tree(make_meta(guestcaps=BARE))
    assert shape(root.find("devices/memballoon")) == '<memballoon model="none"/>'
    assert [root.find(f"devices/{tag}") for tag in ("rng", "panic", "vsock")] == [None] * 3
    warnings: list[str] = []
    arm = tree(make_meta(guestcaps=ARM), warnings=warnings)
    assert [name for name, _bus, _file in drives(arm)] == ["vda"]
    assert len(warnings) == 1
    assert arm.find("devices/panic") is None


LOCAL = '<listen type="address" address="127.0.0.1"/>'
SECRET = Display(
    type=DisplayType.VNC,
    keymap="de",
    password="geheim",
    listen=Listen(type=ListenType.ADDRESS, value="192.0.2.7"),
)


@pytest.mark.rows("4-T52", "4-T115")
@pytest.mark.parametrize(
    ("display", "keep", "expected"),
    [
        (None, False, f'<graphics type="vnc" autoport="yes">{LOCAL}</graphics>'),
        (
            Display(type=DisplayType.WINDOW),
            False,
            f'<graphics type="vnc" autoport="yes">{LOCAL}</graphics>',
        ),
        (
            Display(type=DisplayType.VNC, port=5901),
            False,
            f'<graphics type="vnc" port="5901">{LOCAL}</graphics>',
        ),
        (
            Display(type=DisplayType.SPICE),
            False,
            f'<graphics type="spice" autoport="yes">{LOCAL}</graphics>',
        ),
        (
            SECRET,
            True,
            '<graphics type="vnc" autoport="yes" keymap="de" passwd="geheim">'
            '<listen type="address" address="192.0.2.7"/></graphics>',
        ),
        (SECRET, False, f'<graphics type="vnc" autoport="yes" keymap="de">{LOCAL}</graphics>'),
        (
            Display(type=DisplayType.VNC, listen=Listen(type=ListenType.SOCKET)),
            True,
            '<graphics type="vnc" autoport="yes"><listen type="socket"/></graphics>',
        ),
        (
            Display(type=DisplayType.SPICE, listen=Listen(type=ListenType.NONE)),
            True,
            '<graphics type="spice" autoport="yes"><listen type="none"/></graphics>',
        ),
    ],
    ids=["none", "window", "port", "spice", "kept", "T115", "socket", "private"],
)
def test_t52_the_screen(display: Display | None, keep: bool, expected: str) -> None:
    warnings: list[str] = []
    meta = make_meta(source=make_source(display=display), keep_display=keep)
    assert shape(tree(meta, warnings=warnings).find("devices/graphics")) == expected
    assert len(warnings) == (display is SECRET and not keep)


@pytest.mark.rows("4-T116")
def test_t116_the_password_of_a_display_is_in_no_record() -> None:
    source = make_source(display=SECRET)
    assert "geheim" not in str(source.to_dict()) + repr(source)
    assert type(source).from_dict(source.to_dict()) == replace(
        source, display=replace(SECRET, password=None)
    )


@pytest.mark.rows("4-T53")
def test_t53_sound_and_the_name_of_the_system() -> None:
    warnings: list[str] = []
    root = tree(make_meta(source=make_source(sound="ich9")), warnings=warnings)
    assert shape(root.find("devices/sound")) == '<sound model="ich9"/>'
    assert warnings == []
    [system] = root.iterfind("metadata/*/*")
    assert system.get("id") == "http://debian.org/debian/11"
    odd = tree(make_meta(guest=replace(GUEST, osinfo="templeos5")), warnings=warnings)
    assert odd.find("metadata") is None
    assert len(warnings) == 1


@pytest.mark.rows("4-T54")
def test_t54_a_generation_id() -> None:
    genid = "c3b9e8a4-7a65-4b8a-9d3f-1a2b3c4d5e6f"
    assert tree(make_meta(source=make_source(genid=genid))).findtext("genid") == genid


@pytest.mark.rows("4-T55")
def test_t55_scsi_disks_get_their_controller_and_names_of_their_own() -> None:
    buses = TargetBuses(scsi=(target_disk(0), target_disk(1)), ide=(CDROM,))
    root = tree(make_meta(buses=buses))
    assert shape(root.find("devices/controller[@type='scsi']")) == (
        '<controller type="scsi" index="0" model="virtio-scsi"/>'
    )
    assert [name for name, _bus, _file in drives(root)] == ["sda", "sdb", "sdc"]


@pytest.mark.rows("4-T83")
def test_t83_a_mapped_nic_becomes_what_it_was_mapped_to() -> None:
    nic = Nic(vnet="dmz", vnet_type=VnetType.NETWORK, mac="00:16:3e:00:00:0a", model="e1000")
    assert shape(tree(make_meta(nics=(nic,))).find("devices/interface")) == (
        '<interface type="network"><source network="dmz"/><model type="virtio"/>'
        '<mac address="00:16:3e:00:00:0a"/></interface>'
    )


def test_disks_that_libvirt_owns_are_named_by_pool_and_volume() -> None:
    """Spec 9.2, libvirt pool."""
    disk = target_disk(0)
    host = DomainHost(
        features=frozenset(), floppy=True, volumes={disk.final_path: ("images", "web_01-sda")}
    )
    root = tree(make_meta(), host)
    assert shape(root.find("devices/disk/source")) == (
        '<source pool="images" volume="web_01-sda"/>'
    )
    assert root.find("devices/disk").get("type") == "volume"  # type: ignore[union-attr]


def many_disks() -> TargetMeta:
    """Return a machine with 28 disks and two CD-ROMs on one IDE bus of q35."""
    caps = replace(CAPS, block_bus=BlockBus.IDE)
    disks = [target_disk(n) for n in range(28)]
    drives = [CDROM, Removable(type=RemovableType.CDROM, controller=Controller.SATA)]
    return make_meta(
        guestcaps=caps, buses=assign_target_buses(disks, drives, caps, RecordingReporter())
    )


METAS: dict[str, Callable[[], TargetMeta]] = {
    "plain": make_meta,
    "uefi": lambda: make_meta(uefi=True),
    "uefi with secure boot": lambda: make_meta(
        uefi=True, source=make_source(uefi_secureboot=True, firmware=Firmware.UEFI)
    ),
    "transitional": lambda: make_meta(guestcaps=OLD),
    "transitional scsi": lambda: make_meta(
        guestcaps=OLD, buses=TargetBuses(scsi=(target_disk(0),))
    ),
    "i440fx": lambda: make_meta(guestcaps=PC),
    "no drivers": lambda: make_meta(guestcaps=BARE),
    "scsi beside sata": lambda: make_meta(
        buses=TargetBuses(scsi=(target_disk(0),), ide=(CDROM,), floppy=(None, FLOPPY))
    ),
    "many disks": many_disks,
    "aarch64": lambda: make_meta(guestcaps=ARM, uefi=True),
    "named cpu": lambda: make_meta(
        source=make_source(
            cpu_model="Broadwell",
            cpu_vendor="Intel",
            cpu_topology=CpuTopology(sockets=2, cores=1, threads=1),
            sound="ac97",
            genid="c3b9e8a4-7a65-4b8a-9d3f-1a2b3c4d5e6f",
        )
    ),
    "kept display": lambda: make_meta(source=make_source(display=SECRET), keep_display=True),
    "spice": lambda: make_meta(source=make_source(display=Display(type=DisplayType.SPICE))),
    "hostile name": lambda: make_meta(name="a/b <$(touch x)>'\";&"),
}


@pytest.mark.rows("4-T56")
@pytest.mark.parametrize("meta", METAS.values(), ids=METAS.keys())
def test_t56_the_schema_and_libvirt_accept_it(
    meta: Callable[[], TargetMeta], tmp_path: Path
) -> None:
    path = tmp_path / "domain.xml"
    path.write_text(domain_xml(meta()))
    for command in (
        ["virt-xml-validate", str(path), "domain"],
        ["virsh", "-q", "-c", "test:///default", "define", str(path)],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    names = [name for name, _bus, _file in drives(tree(meta()))]
    assert len(names) == len(set(names))
