"""Spec rows T103 to T106, T119, T120 and T130 to T150: what a descriptor means."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from inventory.sources.errors import DescriptorError
from inventory.sources.ovf import Ovf, parse_ovf
from inventory.sources.ovf_items import unit_bytes
from inventory.sources.types import Controller, CpuTopology, Firmware
from tests.unit.sources import ova_builder as builder


def parsed(ovf: bytes) -> tuple[Ovf, list[str]]:
    warnings: list[str] = []
    return parse_ovf(ovf, warnings.append), warnings


def refused(ovf: bytes) -> str:
    with pytest.raises(DescriptorError) as caught:
        parse_ovf(ovf, lambda _text: None)
    return caught.value.code


def drive(number: int = 1, *, parent: str = builder.ON_SCSI, resource: str = "") -> str:
    text = builder.DRIVE.format(20 + number, parent, f"ovf:/disk/k{number}")
    return re.sub("<r:HostResource>.*</r:HostResource>", resource, text) if resource else text


def make_ovf(**options: object) -> bytes:
    """Return a descriptor; memory and firmware are given as the builder's texts need them."""
    shapes = {"name": "<Name>{}</Name>", "firmware": builder.FIRMWARE, "memory": builder.MEMORY}
    for key, shape in shapes.items():
        if key in options:
            value = options[key]
            options[key] = "" if value is None else shape.format(value, "")
    return builder.make_ovf(**options)


LAN = builder.NIC


def item(kind: int, inside: str = "", number: int = 50) -> str:
    return (
        f"<Item><r:InstanceID>{number}</r:InstanceID>"
        f"<r:ResourceType>{kind}</r:ResourceType>{inside}</Item>"
    )


@pytest.mark.rows("1-T130")
def test_the_minimal_descriptor_gives_the_machine_it_describes() -> None:
    machine, warnings = parsed(make_ovf())
    assert machine.name == "demo"
    assert machine.memory_bytes == 1 << 30
    assert (machine.vcpus, machine.topology) == (4, CpuTopology(sockets=2, cores=2, threads=1))
    assert machine.firmware is Firmware.UEFI
    assert [(d.controller, d.href) for d in machine.disks] == [(Controller.SCSI, "d1.vmdk")]
    assert machine.removables == ()
    assert [(n.vnet_type, n.vnet, n.model) for n in machine.nics] == [("Bridge", "LAN", "vmxnet3")]
    assert warnings == []


@pytest.mark.parametrize(
    ("units", "expected"),
    [("byte * 2^30", 1 << 30), ("byte*2^20", 1 << 20), ("byte * 10^6", 10**6), ("byte", 1),
     ("", 1 << 20), ("MegaBytes", 1 << 20), ("GIGABYTES", 1 << 30), ("KiloBytes", 1 << 10)],
)  # fmt: skip
def test_memory_units_are_read(units: str, expected: int) -> None:
    assert unit_bytes(units, 1 << 20, pytest.fail) == expected


@pytest.mark.parametrize("units", ["furlong", "byte * 3^4", "byte * 2^99", "byte*2^" + "9" * 5000])
def test_an_unknown_memory_unit_is_a_mebibyte_with_a_warning(units: str) -> None:
    warnings: list[str] = []
    assert unit_bytes(units, 1 << 20, warnings.append) == 1 << 20
    assert len(warnings) == 1


@pytest.mark.rows("1-T131")
def test_memory_with_a_unit_is_multiplied() -> None:
    memory = builder.MEMORY.format(2, "<r:AllocationUnits>byte * 2^30</r:AllocationUnits>")
    assert parsed(builder.make_ovf(memory=memory))[0].memory_bytes == 2 << 30


@pytest.mark.rows("1-T132")
def test_absent_memory_is_one_gibibyte_with_a_warning() -> None:
    machine, warnings = parsed(make_ovf(memory=None))
    assert machine.memory_bytes == 1 << 30
    assert len(warnings) == 1


@pytest.mark.rows("1-T133")
@pytest.mark.parametrize("number", ["1.5", "0x10", "1_0", "-5", "0", "9" * 30, "many"])
def test_a_memory_size_that_is_no_natural_number_is_refused(number: str) -> None:
    assert refused(make_ovf(memory=number)) == "E-OVF-INT"


@pytest.mark.rows("1-T133")
def test_blanks_around_a_number_are_accepted() -> None:
    assert parsed(make_ovf(memory=" 1024 "))[0].memory_bytes == 1 << 30


@pytest.mark.rows("1-T134")
@pytest.mark.parametrize(
    ("vcpus", "cores", "topology", "warned"),
    [(4, 0, None, 1), (4, 8, None, 1), (5, 2, (2, 2), 1), (4, 4, (1, 4), 0)],
)
def test_cores_that_do_not_fit_are_warned_about(
    vcpus: int, cores: int, topology: tuple[int, int] | None, warned: int
) -> None:
    machine, warnings = parsed(make_ovf(vcpus=vcpus, cores=cores))
    found = machine.topology and (machine.topology.sockets, machine.topology.cores)
    assert (found, len(warnings)) == (topology, warned)


def test_a_machine_without_processors_is_refused() -> None:
    assert refused(make_ovf(vcpus=0)) == "E-OVF-INT"


@pytest.mark.rows("1-T135")
@pytest.mark.parametrize(
    ("value", "expected", "warned"),
    [(None, Firmware.UNKNOWN, 0), ("bios", Firmware.BIOS, 0), ("efi", Firmware.UEFI, 0),
     ("EFI", Firmware.UEFI, 1)],
)  # fmt: skip
def test_firmware_is_read(value: str | None, expected: Firmware, warned: int) -> None:
    machine, warnings = parsed(make_ovf(firmware=value))
    assert (machine.firmware, len(warnings)) == (expected, warned)


@pytest.mark.rows("1-T135")
def test_unknown_firmware_is_refused() -> None:
    assert refused(make_ovf(firmware="uefi")) == "E-OVF-FIRMWARE"


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("TRUE", True), ("false", False)])
def test_secure_boot_is_read(value: str, expected: bool) -> None:
    config = f'<vmw:Config vmw:key="bootOptions.efiSecureBootEnabled" vmw:value="{value}"/>'
    assert parsed(make_ovf(more=config))[0].secureboot is expected


@pytest.mark.rows("1-T136")
@pytest.mark.parametrize(
    ("controller", "expected", "warned"),
    [(item(5), "ide", 0), (item(6), "scsi", 0), (item(20), "sata", 0), (item(23), None, 1),
     ("", None, 1),
     (item(20, "<r:ResourceSubType>vmware.nvme.controller</r:ResourceSubType>"), "nvme", 0)],
)  # fmt: skip
def test_the_parent_of_a_disk_decides_its_bus(
    controller: str, expected: str | None, warned: int
) -> None:
    disk = drive(parent="<r:Parent>50</r:Parent>")
    machine, warnings = parsed(make_ovf(drives=disk, more=controller))
    assert machine.disks[0].controller == expected
    assert len(warnings) == warned


@pytest.mark.rows("1-T136")
def test_a_disk_without_parent_has_no_bus_and_no_warning() -> None:
    machine, warnings = parsed(make_ovf(drives=drive(parent="")))
    assert (machine.disks[0].controller, warnings) == (None, [])


@pytest.mark.rows("1-T137")
def test_disks_keep_the_order_of_the_document() -> None:
    drives = "".join(
        drive(n, parent=f"<r:AddressOnParent>{9 - n}</r:AddressOnParent>") for n in (2, 1)
    )
    machine, _ = parsed(make_ovf(hrefs=["a", "b"], drives=drives))
    assert [d.href for d in machine.disks] == ["b", "a"]


@pytest.mark.rows("1-T138", "1-T140")
def test_removables_keep_their_order_bus_and_slot() -> None:
    on = "<r:Parent>60</r:Parent><r:AddressOnParent>0</r:AddressOnParent>"
    items = (
        item(5, number=60)
        + item(15, on, 61)
        + item(14, "<r:AddressOnParent>0</r:AddressOnParent>", 62)
        + item(16, number=63)
    )
    machine, warnings = parsed(make_ovf(more=items))
    assert [(r.type, r.controller, r.slot) for r in machine.removables] == [
        ("CD-ROM", "ide", 0),
        ("Floppy", None, 0),
        ("CD-ROM", None, None),
    ]
    assert warnings == []


def test_an_impossible_slot_is_left_open_with_a_warning() -> None:
    items = item(15, "<r:AddressOnParent>999999999999</r:AddressOnParent>")
    machine, warnings = parsed(make_ovf(more=items))
    assert (machine.removables[0].slot, len(warnings)) == (None, 1)


@pytest.mark.rows("1-T141")
@pytest.mark.parametrize(
    ("subtype", "expected"),
    [("E1000", "e1000"), ("e1000", "e1000"), ("VmxNet3", "vmxnet3"), (None, None)],
)
def test_the_model_of_a_network_card_is_lower_case(subtype: str | None, expected: str) -> None:
    inside = f"<r:ResourceSubType>{subtype}</r:ResourceSubType>" if subtype else ""
    assert parsed(make_ovf(more=item(10, inside)))[0].nics[0].model == expected


@pytest.mark.rows("1-T142")
def test_a_network_card_without_connection_is_named_by_its_number() -> None:
    nics = parsed(make_ovf(more=LAN + item(10)))[0].nics
    assert [(n.vnet_type, n.vnet) for n in nics] == [("Bridge", "LAN"), ("Network", "eth1")]


@pytest.mark.parametrize(
    ("address", "mac", "warned"),
    [
        ("00:50:56:AA:bb:01", "00:50:56:AA:bb:01", 0),
        ("00-50-56-AA-bb-01", "00:50:56:AA:bb:01", 0),
        ("00:11:zz", None, 1),
        ("01:50:56:aa:bb:01", None, 1),  # of a group
        ("ff-ff-ff-ff-ff-ff", None, 1),
    ],
)
def test_a_network_card_gets_an_address_it_can_have(
    address: str, mac: str | None, warned: int
) -> None:
    machine, warnings = parsed(make_ovf(more=item(10, f"<r:Address>{address}</r:Address>")))
    assert (machine.nics[0].mac, len(warnings)) == (mac, warned)


@pytest.mark.rows("1-T143")
@pytest.mark.parametrize("resource", ["/disk/k1", "ovf:/disk/k1", "ovf:/file/f1"])
def test_a_disk_may_be_named_in_three_ways(resource: str) -> None:
    disk = drive(resource=f"<r:HostResource>{resource}</r:HostResource>")
    assert parsed(make_ovf(drives=disk))[0].disks[0].href == "d1.vmdk"


@pytest.mark.rows("1-T143")
@pytest.mark.parametrize("resource", ["<r:HostResource>k1</r:HostResource>", "<r:Caption/>"])
def test_a_disk_without_usable_host_resource_is_refused(resource: str) -> None:
    assert refused(make_ovf(drives=drive(resource=resource))) == "E-OVF-HOSTRES"


def test_configurations_other_than_the_default_and_ranges_are_passed_over() -> None:
    other = LAN.replace("<Item>", '<Item ovf:configuration="large">')
    ranged = LAN.replace("<Item>", '<Item ovf:bound="max">')
    ovf = make_ovf(more=other + ranged + LAN).replace(
        b"<VirtualSystem",
        b'<DeploymentOptionSection><Configuration ovf:id="small"/>'
        b'<Configuration ovf:id="large"/></DeploymentOptionSection><VirtualSystem',
    )
    assert len(parsed(ovf)[0].nics) == 1


SYSTEM = '<VirtualSystem ovf:id="{0}"><Info>x</Info><Name>{0}</Name></VirtualSystem>'
DISK = builder.DISK.format(1, "")
FILE = builder.FILE.format(1, "d1.vmdk", "")
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty file": (lambda: b"", "E-XML-PARSE"),
    "not well-formed": (lambda: make_ovf()[:-20], "E-XML-PARSE"),
    "unknown encoding": (lambda: make_ovf().replace(b"UTF-8", b"KLINGON"), "E-XML-PARSE"),
    "xhtml": (lambda: b'<html xmlns="http://www.w3.org/1999/xhtml"/>', "E-OVF-ROOT"),
    "ovf 2": (lambda: make_ovf().replace(b"ovf/envelope/1", b"ovf/envelope/2"), "E-OVF-VERSION"),
    "no machine": (lambda: make_ovf(system=""), "E-OVF-NO-VM"),
    "two machines": (
        lambda: make_ovf(
            system="<VirtualSystemCollection>"
            + SYSTEM.format("a")
            + SYSTEM.format("b")
            + "</VirtualSystemCollection>"
        ),
        "E-OVF-MULTI-VM",
    ),
    "disk without entry": (lambda: make_ovf(disk_section=""), "E-OVF-FILEREF"),
    "empty disk": (lambda: make_ovf(disk_section='<Disk ovf:diskId="k1"/>'), "E-OVF-FILEREF"),
    "fileRef without file": (lambda: make_ovf(references=""), "E-OVF-HREF"),
    "file without href": (lambda: make_ovf(references='<File ovf:id="f1"/>'), "E-OVF-HREF"),
    "two files of one id": (lambda: make_ovf(references=FILE * 2), "E-OVF-DUP-ID"),
    "two disks of one id": (lambda: make_ovf(disk_section=DISK * 2), "E-OVF-DUP-ID"),
    "delta disk": (
        lambda: make_ovf(disk_section=DISK.replace("/>", 'ovf:parentRef="k9"/>')),
        "E-OVF-DELTA",
    ),
    "resource type in words": (lambda: make_ovf(more=item(10).replace(">10<", ">x<")), "E-OVF-INT"),
    "too many disks": (lambda: make_ovf(hrefs=[f"d{n}" for n in range(300)]), "E-OVF-SIZE"),
    "too many elements": (lambda: make_ovf(more="<x/>" * 200_001), "E-OVF-SIZE"),
    "too deep": (lambda: make_ovf(more="<x>" * 100_000 + "</x>" * 100_000), "E-XML-DEPTH"),
    "too large": (lambda: make_ovf(more=" " * (17 << 20)), "E-OVF-SIZE"),
    "external entity": (
        lambda: make_ovf(
            name="&x;", doctype='<!DOCTYPE E [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
        ),
        "E-XML-DTD",
    ),
    "remote document type": (
        lambda: make_ovf(doctype='<!DOCTYPE E SYSTEM "http://192.0.2.1/x.dtd">'),
        "E-XML-DTD",
    ),
    "document type in utf-16": (
        lambda: make_ovf(doctype="<!DOCTYPE E>").decode().replace("UTF-8", "UTF-16").encode("u16"),
        "E-XML-DTD",
    ),
    "document type in utf-7": (
        lambda: b'<?xml version="1.0" encoding="UTF-7"?>'
        b'+ADwAIQ-DOCTYPE E [ +ADwAIQ-ENTITY x "y"+AD4-]+AD4-+ADw-E+AD4-+ADw-/E+AD4-',
        "E-XML-DTD",
    ),
}  # fmt: skip


@pytest.mark.rows(
    "1-T104", "1-T105", "1-T106", "1-T120", "1-T145", "1-T146", "1-T147", "1-T148", "1-T149"
)
@pytest.mark.parametrize("what", REFUSED)
def test_a_bad_descriptor_is_refused(what: str) -> None:
    make, code = REFUSED[what]
    assert refused(make()) == code


@pytest.mark.rows("1-T103")
def test_a_billion_laughs_are_refused_at_once() -> None:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    started = time.monotonic()
    prolog = f'<!DOCTYPE E [<!ENTITY l0 "ha">{laughs}]>'
    assert refused(make_ovf(name="&l9;", doctype=prolog)) == "E-XML-DTD"
    assert time.monotonic() - started < 1


@pytest.mark.rows("1-T119")
@pytest.mark.parametrize("identity", ["k'1", "x' or '1'='1"])
def test_an_id_is_looked_up_as_it_is(identity: str) -> None:
    disk = drive(resource=f"<r:HostResource>ovf:/disk/{identity}</r:HostResource>")
    section = DISK.replace("k1", identity)
    assert parsed(make_ovf(drives=disk, disk_section=section))[0].disks[0].href == "d1.vmdk"
    assert refused(make_ovf(drives=disk)) == "E-OVF-FILEREF"


@pytest.mark.rows("1-T148")
def test_a_collection_of_one_machine_is_that_machine() -> None:
    collection = f"<VirtualSystemCollection>{SYSTEM.format('one')}</VirtualSystemCollection>"
    assert parsed(make_ovf(system=collection))[0].name == "one"


@pytest.mark.rows("1-T150")
def test_prefixes_do_not_matter() -> None:
    renamed = make_ovf().replace(b"ovf:", b"o:").replace(b"xmlns:ovf", b"xmlns:o")
    renamed = renamed.replace(b"o:/disk", b"ovf:/disk").replace(b"<r:", b"<z:")
    renamed = renamed.replace(b"</r:", b"</z:").replace(b"xmlns:r=", b"xmlns:z=")
    assert parsed(renamed) == parsed(make_ovf())


def test_a_name_is_text_on_one_line() -> None:
    assert parsed(make_ovf(name=" web\n &lt;b&gt; &#233;<!-- x --> "))[0].name == "web <b> é"


def test_the_words_of_the_parser_stay_on_one_line() -> None:
    with pytest.raises(DescriptorError) as caught:
        parse_ovf(b"<a>\n<![CDATA[ x\x85\n y\n", lambda _text: None)
    assert caught.value.code == "E-XML-PARSE"
    assert caught.value.message.isprintable()
