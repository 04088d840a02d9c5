"""A source as text, and what happens before one is opened: section 8.1."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest

from conversions.pipeline import work
from conversions.pipeline.cli import main
from conversions.pipeline.cli_job import job_from
from conversions.pipeline.cli_options import options_parser
from conversions.pipeline.source import fingerprint
from inventory.sources.disk import DiskReader
from inventory.sources.display import Display, DisplayType, Listen, ListenType
from inventory.sources.errors import SourceError
from inventory.sources.ova import name_from_file
from inventory.sources.text import current, legacy
from inventory.sources.types import (
    Controller,
    CpuTopology,
    Firmware,
    Nic,
    Removable,
    RemovableType,
    Source,
    SourceDisk,
    VnetType,
)

DEMO = Source(
    name="demo",
    original_name="demo",
    hypervisor="vmware",
    memory_bytes=1 << 30,
    vcpus=4,
    cpu_topology=CpuTopology(sockets=2, cores=2, threads=1),
    firmware=Firmware.UEFI,
    disks=(
        SourceDisk(id=0, controller=Controller.SCSI, path="/vm/demo.vmdk", format="vmdk"),
        SourceDisk(id=1, controller=Controller.SATA, path="/vm/data.vmdk", format="vmdk"),
    ),
    removables=(Removable(type=RemovableType.CDROM, controller=Controller.IDE, slot=0),),
    nics=(
        Nic(vnet="VM Network", vnet_type=VnetType.BRIDGE, mac="00:50:56:aa:bb:cc", model="vmxnet3"),
    ),
)
BLOCK = """\
    source name: demo
hypervisor type: vmware
       VM genid:~
         memory: 1073741824 (bytes)
       nr vCPUs: 4
     CPU vendor:~
      CPU model:~
   CPU topology: sockets: 2 cores/socket: 2 threads/core: 1
   CPU features:~
       firmware: uefi
UEFI secureboot: false
        display:~
          sound:~
disks:
\t0 [scsi]
\t1 [sata]
removable media:
\tCD-ROM [ide] in slot 0
NICs:
\tBridge "VM Network" mac: 00:50:56:aa:bb:cc [vmxnet3]
""".replace("~", " ")


@pytest.fixture
def fedora(tmp_path: Path) -> Path:
    """A raw disk."""
    path = tmp_path / "fedora.img"
    path.write_bytes(bytes(1 << 20))
    return path


@pytest.mark.rows("1-T003")
def test_the_example_of_the_specification() -> None:
    assert current(DEMO) == BLOCK


@pytest.mark.rows("1-T001", "1-T002", "1-T004")
def test_a_disk_is_printed_with_what_it_does_not_say(
    fedora: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("disk", "local"):
        assert main(["-q", "-i", kind, str(fedora), "--print-source"]) == 0
        heading, empty, *lines = capsys.readouterr().out.split("\n")
        assert heading
        assert not empty
        assert lines == [
            "    source name: fedora", "hypervisor type: unknownhv", "       VM genid: ",
            "         memory: 2147483648 (bytes)", "       nr vCPUs: 1", "     CPU vendor: ",
            "      CPU model: ", "   CPU topology: ", "   CPU features: acpi,apic,pae",
            "       firmware: unknown", "UEFI secureboot: false", "        display: window",
            "          sound: ", "disks:", "\t0", "removable media:", "", "NICs:",
            '\tNetwork "default"', "", "",
        ]  # fmt: skip
    assert current(replace(DEMO, features=("pae", "acpi", "apic"))).count("acpi,apic,pae") == 1


@pytest.mark.rows("1-T005")
@pytest.mark.parametrize(
    ("display", "text"),
    [
        (
            Display(type=DisplayType.VNC, keymap="de", password="secret",
                    listen=Listen(type=ListenType.ADDRESS, value="192.0.2.1")),
            "vnc de with password listening on address 192.0.2.1",
        ),
        (Display(type=DisplayType.SPICE, port=5900), "spice"),
        (
            Display(type=DisplayType.VNC, listen=Listen(type=ListenType.SOCKET)),
            "vnc listening on automatically created Unix domain socket",
        ),
        (
            Display(type=DisplayType.VNC, listen=Listen(type=ListenType.NONE)),
            "vnc listening on private fd",
        ),
    ],
)  # fmt: skip
def test_screens_are_printed_without_their_password(display: Display, text: str) -> None:
    printed = current(replace(DEMO, display=display))
    assert f"        display: {text}\n" in printed
    assert "secret" not in printed


@pytest.mark.rows("1-T006")
def test_the_layout_of_the_log() -> None:
    lines = legacy(replace(DEMO, disks=DEMO.disks[:1])).split("\n")
    assert "          video:" in lines
    assert "        /vm/demo.vmdk (vmdk) [scsi]" in lines
    assert not [line for line in lines if "secureboot" in line]


@pytest.mark.rows("1-T007")
def test_networks_are_printed_as_the_source_has_them(
    tmp_path: Path, fedora: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "web.xml"
    path.write_text(
        f"<domain type='kvm'><name>web</name><devices><disk type='file'><source file='{fedora}'/>"
        "</disk><interface type='bridge'><source bridge='br0'/></interface></devices></domain>"
    )
    assert main(["-i", "libvirtxml", str(path), "--print-source", "-b", "br0:x"]) == 0
    assert '\tBridge "br0"\n' in capsys.readouterr().out


@pytest.mark.rows("1-T011", "4-T18")
def test_names_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        "a-sda": "a",
        "b.tar.gz": "b.tar.gz",
        "a.ova.vmdk": "a.ova",
        "c.vmx": "c",
        "d.IMG": "d.IMG",
        "e.img": "e",
        "f.tar": "f.tar",
    }
    assert {name: name_from_file(name) for name in names} == names
    with pytest.raises(SourceError):
        name_from_file(".img")
    (tmp_path / ".img").write_bytes(bytes(512))
    with pytest.raises(SourceError):
        DiskReader([tmp_path / ".img"], format=None, warn=pytest.fail).read()


def test_an_error_of_the_host_is_told_as_one_of_the_source(
    fedora: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_reader: DiskReader) -> Source:
        raise OSError(errno.EIO, "Input/output error", str(fedora))

    monkeypatch.setattr(DiskReader, "read", fail)
    assert main(["-i", "disk", str(fedora), "--print-source"]) == 1
    assert "error: The source cannot be read: [Errno 5]" in capsys.readouterr().err


def test_a_source_that_fails_under_the_engine_is_named(fedora: Path) -> None:
    source = DiskReader([fedora], format="raw", warn=pytest.fail).read()
    fedora.unlink()
    with pytest.raises(SourceError, match=f"{fedora} cannot be read: No such file") as caught:
        fingerprint(source, str(fedora))
    assert caught.value.code == "E-IMG-READ"


@pytest.mark.rows("1-T012")
@pytest.mark.parametrize("mode", ["--print-source", "--inspect"])
def test_without_room_for_work_files_no_source_is_opened(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    monkeypatch.setattr(work, "MIN_FREE_BYTES", 1 << 60)
    assert main(["-i", "disk", "/no/such.img", mode]) == 1
    said = capsys.readouterr().err
    assert "Not enough free space for work files" in said
    assert "such.img" not in said


def test_everything_is_printed_as_json(fedora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-i", "disk", str(fedora), "--print-source=json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert Source.from_dict(data).disks[0].path == str(fedora)


@pytest.mark.parametrize(
    "words",
    [["-i", "disk", "-i", "ova"], ["-if", "raw", "-if", "raw"], ["-ic", "a", "-ic", "a"],
     ["-i", "floppy"]],
)  # fmt: skip
def test_options_that_contradict_each_other_are_refused(fedora: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(fedora), "--print-source", *words])
    assert caught.value.code != 0


@pytest.mark.parametrize("words", [["-ic", "test:///default", "test"], ["test"]])
def test_a_domain_is_meant_where_no_kind_is_given(words: list[str]) -> None:
    source = job_from(options_parser().parse_args([*words, "--inspect"])).source
    assert (source.kind, source.location) == ("libvirt", "test")
