"""The OVF that oVirt reads: both flavours as trees, systems' names as a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from lxml import etree

from conversions.pipeline.guestcaps import expected_guestcaps
from conversions.pipeline.outputs.ovirt_os import OvirtOs, ovirt_os
from conversions.pipeline.outputs.ovirt_ovf import bios_type, ovf, vm_type
from conversions.pipeline.outputs.ovirt_xml import NAMESPACES, NO_UUID, Flavour, OvirtVm, Volume
from conversions.pipeline.types import BlockBus, Inspection, Machine, NetBus, TargetDisk, TargetMeta
from inventory.sources.display import Display, DisplayType
from inventory.sources.types import CpuTopology, Nic, VnetType
from tests.unit.pipeline.samples import GUEST, make_meta, make_source, target_disk

rows = pytest.mark.rows
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
STORAGE = "aaaaaaaa-0000-4000-8000-000000000000"
VM = "bbbbbbbb-0000-4000-8000-000000000000"
WINDOWS_2022 = replace(
    GUEST, type="windows", distro="windows", major_version=10, minor_version=0, osinfo="win2k22",
    product_name="Windows Server 2022 Standard", product_variant="Server",
)  # fmt: skip


def disk(number: int = 0, *, size: int = 512 << 20, format_: str = "raw") -> TargetDisk:
    """Return a disk to be written."""
    base = target_disk(number)
    overlay = replace(base.overlay, virtual_size_bytes=size)
    return replace(base, overlay=overlay, format=format_)


def volume(number: int = 0, *, actual: int | None = None, **values: Any) -> Volume:
    """Return a disk with its identities."""
    return Volume(
        disk=disk(number, **values), image=f"image-{number}", volume=f"volume-{number}",
        actual_bytes=actual,
    )  # fmt: skip


class Read:
    """An OVF that was parsed again."""

    def __init__(self, text: str) -> None:
        self.root = etree.fromstring(text.encode())

    def one(self, path: str) -> etree._Element:
        """Return the only element there."""
        found = self.root.findall(path, NAMESPACES)
        assert len(found) == 1, (path, len(found))
        return found[0]

    def text(self, path: str) -> str:
        """Return its text."""
        return self.one(path).text or ""

    def items(self, kind: int) -> list[dict[str, str]]:
        """Return the devices of a resource type as {tag: text}."""
        found = [
            {etree.QName(child).localname: child.text or "" for child in item}
            for item in self.root.iterfind(".//Item")
        ]
        return [item for item in found if item["ResourceType"] == str(kind)]


def attribute(element: etree._Element, name: str) -> str | None:
    """Return an attribute of OVF's own."""
    return element.get(f"{{{NAMESPACES['ovf']}}}{name}")


def written(
    flavour: Flavour, *volumes: Volume, warn: Callable[[str], None] = lambda _text: None,
    allocation: str = "sparse", measured: bool = False, **meta: object,
) -> Read:  # fmt: skip
    """Return the OVF of a machine."""
    vm = OvirtVm(
        uuid=VM, storage_domain=STORAGE, volumes=volumes or (volume(),), allocation=allocation,
        now=NOW, measured=measured,
    )  # fmt: skip
    return Read(ovf(make_meta(**meta), vm, flavour, warn))


@rows("4-T62")
def test_the_flavour_for_an_export_domain() -> None:
    found = written(
        Flavour.EXPORT, volume(actual=3 << 20), measured=True, guest=WINDOWS_2022,
    )  # fmt: skip
    node = found.one("Section[@xsi:type='ovf:DiskSection_Type']/Disk")
    expected = {
        "size": "1", "capacity": "536870912", "volume-format": "RAW", "volume-type": "Sparse",
        "disk-interface": "VirtIO", "boot": "True", "actual_size": "1", "parentRef": "",
        "diskId": "volume-0", "fileRef": "image-0/volume-0", "disk-type": "System",
    }  # fmt: skip
    assert {name: attribute(node, name) for name in expected} == expected
    file = found.one("References/File")
    assert attribute(file, "href") == "image-0/volume-0"
    assert (attribute(file, "id"), attribute(file, "size")) == ("volume-0", str(3 << 20))
    content = "Content[@xsi:type='ovf:VirtualSystem_Type']"
    assert attribute(found.one(content), "id") == "out"
    system = f"{content}/Section[@xsi:type='ovf:OperatingSystemSection_Type']"
    assert found.text(f"{system}/Description") == "windows_2022"
    assert attribute(found.one(system), "id") == VM
    assert found.text(f"{content}/BiosType") == "1"
    assert found.items(20) and not found.items(32768)


@rows("4-T63")
def test_the_flavour_for_the_engine() -> None:
    found = written(Flavour.API, volume(format_="qcow2"), guest=WINDOWS_2022)
    node = found.one("DiskSection/Disk")
    assert attribute(node, "diskId") == "image-0"
    assert attribute(node, "fileRef") == "volume-0"
    assert attribute(node, "volume-format") == "COW"
    assert attribute(node, "actual_size") is None
    assert attribute(found.one("VirtualSystem"), "id") == VM
    system = found.one("VirtualSystem/OperatingSystemSection")
    assert system.get(f"{{{NAMESPACES['ovirt']}}}id") == "37"
    assert len(found.items(32768)) == 1
    assert not found.items(20)


@rows("4-T64")
def test_drives_are_captioned_for_the_importer_and_one_boots() -> None:
    found = written(Flavour.API, volume(0), volume(1), volume(2), boot_disk=1)
    drives = found.items(17)
    assert [d["Caption"] for d in drives] == ["Drive 1", "Drive 2", "Drive 3"]
    assert [d.get("BootOrder") for d in drives] == [None, "1", None]
    nodes = found.root.findall("DiskSection/Disk")
    assert [attribute(n, "boot") for n in nodes] == ["False", "True", "False"]
    first = drives[0]
    assert first["HostResource"] == "volume-0"
    assert (first["StorageId"], first["StoragePoolId"]) == (STORAGE, NO_UUID)
    assert first["CreationDate"] == first["last_modified_date"] == "2026/03/04 05:06:07"
    unknown = written(Flavour.API, volume(0), volume(1), boot_disk=None).items(17)
    assert [d.get("BootOrder") for d in unknown] == ["1", None]


def test_the_parts_come_in_the_order_that_ovirt_reads_them() -> None:
    found = written(Flavour.API)
    parts = [etree.QName(e).localname for e in found.root if isinstance(e.tag, str)]
    assert parts == ["References", "NetworkSection", "DiskSection", "VirtualSystem"]
    content = [etree.QName(e).localname for e in found.one("VirtualSystem")]
    assert content == [
        "Name", "TemplateId", "TemplateName", "Description", "Domain", "CreationDate",
        "IsInitilized", "IsAutoSuspend", "TimeZone", "IsStateless", "VmType", "DefaultDisplayType",
        "BiosType", "Origin", "OperatingSystemSection", "VirtualHardwareSection",
    ]  # fmt: skip
    kinds = [e.text for e in found.root.iterfind(".//rasd:ResourceType", NAMESPACES)]
    assert kinds == ["3", "4", "23", "32768", "0", "0", "17", "10"]


@rows("4-T38")
def test_memory_is_whole_mebibytes_and_processors_as_they_were() -> None:
    found = written(Flavour.API, source=make_source(vcpus=1))
    assert found.items(4)[0]["VirtualQuantity"] == "1024"
    assert {k: v for k, v in found.items(3)[0].items() if "_" in k} == {
        "num_of_sockets": "1", "cpu_per_socket": "1",
    }  # fmt: skip
    topology = make_source(vcpus=8, cpu_topology=CpuTopology(sockets=2, cores=2, threads=2))
    assert {k: v for k, v in written(Flavour.API, source=topology).items(3)[0].items()
            if "_" in k} == {
        "num_of_sockets": "2", "cpu_per_socket": "2", "threads_per_cpu": "2",
    }  # fmt: skip


def test_devices_are_those_that_the_guest_can_use() -> None:
    caps = expected_guestcaps()
    found = written(Flavour.EXPORT, nics=(Nic(vnet="a&b", vnet_type=VnetType.NETWORK),))
    assert [d["Device"] for d in found.items(0)] == ["virtio", "memballoon"]
    nic = found.items(10)[0]
    assert (nic["ResourceSubType"], nic["Connection"], nic["Name"]) == ("3", "a&b", "eth0")
    assert "MACAddress" not in nic
    network = found.one("Section[@xsi:type='ovf:NetworkSection_Type']/Network")
    assert attribute(network, "name") == "a&b"
    old = replace(
        caps, virtio_rng=False, virtio_balloon=False, net_bus=NetBus.E1000, block_bus=BlockBus.IDE
    )
    found = written(Flavour.API, guestcaps=old)
    assert found.items(0) == []
    assert found.items(10)[0]["ResourceSubType"] == "2"
    assert found.items(10)[0]["MACAddress"] == "52:54:00:aa:bb:01"
    assert attribute(found.one("DiskSection/Disk"), "disk-interface") == "IDE"


@rows("4-T118")
def test_a_sound_card_and_a_password_that_ovirt_cannot_have_are_warnings() -> None:
    said: list[str] = []
    display = Display(type=DisplayType.VNC, password="hush")
    source = make_source(sound="es1370", display=display)
    vm = OvirtVm(uuid=VM, storage_domain=STORAGE, volumes=[volume()], allocation="sparse", now=NOW)
    text = ovf(make_meta(source=source), vm, Flavour.API, said.append)
    assert len(said) == 2
    assert "es1370" in said[0]
    assert "password" in said[1]
    assert "hush" not in text and "es1370" not in text
    kept = written(Flavour.API, source=make_source(sound="ich6"))
    assert "ich6" in [d["Device"] for d in kept.items(0)]


@pytest.mark.rows("4-T117")
def test_names_of_a_stranger_stay_text() -> None:
    name, nic = "$(touch x);'\"<&\x01", Nic(vnet="</Network>\x02", vnet_type=VnetType.BRIDGE)
    found = written(Flavour.API, name=name, nics=(nic,), source=make_source(cpu_model="<x>"))
    assert found.text("VirtualSystem/Name") == name.replace("\x01", "\ufffd")
    assert found.items(10)[0]["Connection"] == "</Network>\ufffd"
    assert found.text("VirtualSystem/CustomCpuName") == "<x>"


def test_preallocated_disks_say_so() -> None:
    found = written(Flavour.EXPORT, allocation="preallocated")
    node = found.one("Section[@xsi:type='ovf:DiskSection_Type']/Disk")
    assert attribute(node, "volume-type") == "Preallocated"


@pytest.mark.parametrize(
    ("arch", "machine", "uefi", "secure", "expected"),
    [
        ("x86_64", Machine.I440FX, False, False, 0),
        ("x86_64", Machine.Q35, False, False, 1),
        ("x86_64", Machine.Q35, True, False, 2),
        ("x86_64", Machine.Q35, True, True, 3),
        ("x86_64", Machine.I440FX, True, False, None),
        ("ppc64le", Machine.VIRT, True, False, 0),
    ],
)
def test_firmware_and_chipset(
    arch: str, machine: Machine, uefi: bool, secure: bool, expected: int | None
) -> None:
    caps = replace(expected_guestcaps(), arch=arch, machine=machine)
    source = make_source(uefi_secureboot=secure)
    meta: TargetMeta = make_meta(guestcaps=caps, uefi=uefi, source=source)
    assert bios_type(meta) == expected


def linux(distro: str, major: int, minor: int = 0, arch: str = "x86_64") -> Inspection:
    """Return a Linux guest."""
    return replace(GUEST, distro=distro, major_version=major, minor_version=minor, arch=arch)


def windows(major: int, minor: int, arch: str = "x86_64", **values: str) -> Inspection:
    """Return a Windows guest."""
    base = replace(WINDOWS_2022, major_version=major, minor_version=minor, arch=arch)
    return replace(base, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("guest", "name", "number"),
    [
        pytest.param(linux("rhel", 6, arch="i386"), "RHEL6", 18, marks=rows("4-T65")),
        pytest.param(linux("rhel", 6), "RHEL6x64", 19, marks=rows("4-T65")),
        pytest.param(linux("centos", 7), "rhel_7x64", 24, marks=rows("4-T65")),
        pytest.param(linux("rhel", 9), "rhel_9x64", 5, marks=rows("4-T65")),
        (linux("rhel", 6, 8, "ppc64"), "rhel_6_ppc64", 1003),
        (linux("rhel", 6, 9, "ppc64le"), "rhel_6_9_plus_ppc64", 1007),
        (linux("rhel", 7, 4, "s390x"), "rhel_7_s390x", 2003),
        (linux("rhel", 7, 4, "aarch64"), "OtherLinux", 5),
        (linux("sles", 15), "sles_11", 1193),
        (linux("sles", 12, arch="s390x"), "sles_12_s390x", 2004),
        (linux("sles", 11, arch="s390x"), "other_linux_s390x", 2002),
        (linux("debian", 12), "debian_7", 1300),
        (linux("debian", 6), "OtherLinux", 5),
        (linux("ubuntu", 22, 4), "ubuntu_14_04", 1256),
        (linux("ubuntu", 13, 4), "ubuntu_13_04", 1254),
        (linux("ubuntu", 12, 10), "ubuntu_12_10", 1253),
        (linux("ubuntu", 10, 4), "OtherLinux", 5),
        (linux("ubuntu", 16, 4, "ppc64le"), "ubuntu_14_04_ppc64", 1005),
        (linux("fedora", 39, arch="ppc64le"), "other_linux_ppc64", 1002),
        (windows(5, 1, "i386"), "WindowsXP", 1),
        (windows(5, 2, product_name="Microsoft Windows XP"), "WindowsXP", 1),
        (windows(5, 2, "i386"), "Windows2003", 3),
        (windows(5, 2), "Windows2003x64", 10),
        (windows(6, 0), "Windows2008x64", 16),
        pytest.param(windows(6, 1, product_variant="Client"), "Windows7x64", 12,
                     marks=rows("4-T66")),
        pytest.param(windows(6, 1), "Windows2008R2x64", 17, marks=rows("4-T66")),
        (windows(6, 1, "i386"), "Windows7", 11),
        (windows(6, 2, product_variant="Client"), "windows_8x64", 21),
        (windows(6, 3), "windows_2012R2x64", 25),
        (windows(10, 0, "i386"), "windows_10", 26),
        (windows(10, 0, osinfo="win2k16"), "windows_2016x64", 29),
        pytest.param(windows(10, 0, osinfo="win11"), "windows_11", 36, marks=rows("4-T67")),
    ],
)  # fmt: skip
def test_systems_have_ovirts_names(guest: Inspection, name: str, number: int) -> None:
    said: list[str] = []
    assert ovirt_os(guest, said.append) == OvirtOs(name, number)
    assert said == []


@pytest.mark.parametrize(
    ("guest", "expected", "warnings"),
    [
        pytest.param(windows(10, 0, osinfo="win2k25"), OvirtOs("windows_2025", 37), 1,
                     marks=rows("4-T67")),
        pytest.param(windows(10, 0, osinfo="win99"), OvirtOs("windows_2025", 37), 2,
                     marks=rows("4-T67")),
        (windows(6, 3, "i386"), OvirtOs("Unassigned", 0), 1),
        (replace(GUEST, type="freebsd"), OvirtOs("Unassigned", 0), 1),
        (None, OvirtOs("Unassigned", 0), 0),
    ],
)  # fmt: skip
def test_systems_that_ovirt_does_not_know(
    guest: Inspection | None, expected: OvirtOs, warnings: int
) -> None:
    said: list[str] = []
    assert ovirt_os(guest, said.append) == expected
    assert len(said) == warnings


@pytest.mark.parametrize(
    ("guest", "expected"),
    [
        (replace(linux("rhel", 4), product_name="Red Hat Enterprise Linux AS release 4"), 1),
        (replace(linux("rhel", 4), product_name="Red Hat Enterprise Linux WS release 4"), 0),
        (windows(10, 0), 1),
        (windows(10, 0, product_variant="Client"), 0),
        (replace(linux("fedora", 39), product_name="Fedora Desktop"), 0),
        (linux("debian", 12), 1),
        (None, 1),
    ],
)
def test_desktops_and_servers(guest: Inspection | None, expected: int) -> None:
    assert vm_type(guest) == expected
