"""VMX files: the rows of section 8.7, and files that were made to lead elsewhere."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conversions.pipeline.cli import main
from conversions.pipeline.errors import ConversionError, JobError
from conversions.pipeline.job import Input, Job, Mode
from conversions.pipeline.overlay import create_overlays
from conversions.pipeline.report import RecordingReporter
from inventory.sources.errors import SourceError
from inventory.sources.readers import reader_for
from inventory.sources.text import current
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
from inventory.sources.vmx import VmxReader, machine_of
from inventory.sources.vmx_devices import VmxDisk
from inventory.sources.vmx_text import VmxText

HEAD = 'displayName = "web"\n'
SCSI = 'scsi0:0.fileName = "d.vmdk"\n'


def somewhere(number: int, disk: VmxDisk, vmx: VmxText) -> SourceDisk:
    """Return a disk without looking whether it is there."""
    path = "/vm/" + vmx.decoded(disk.file_name)
    return SourceDisk(id=number, controller=disk.controller, path=path, format="vmdk")


def machine(text: str | bytes, *, file_name: str = "web.vmx") -> tuple[Source, list[str]]:
    """Return the machine of a VMX file's text, and the warnings."""
    warnings: list[str] = []
    data = text if isinstance(text, bytes) else text.encode()
    return machine_of(data, file_name, somewhere, warnings.append), warnings


def code_of(work: Callable[[], object]) -> str:
    """Return the code of the error that `work` raises."""
    try:
        work()
    except (SourceError, ConversionError) as error:
        assert error.message.endswith(".")
        return error.code
    pytest.fail("nothing was refused")


def many_disks() -> str:
    places = [(0, n) for n in range(16) if n != 7] + [(1, n) for n in range(6)]
    return "".join(f'scsi{c}:{t}.fileName = "{c}-{t}.vmdk"\n' for c, t in reversed(places))


@pytest.mark.rows("1-T160")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            many_disks() + 'ide1:0.deviceType = "cdrom-image"\n'
            'ethernet0.virtualDev = "vmxnet3"\nethernet0.networkName = "VM Network"\n',
            {"disk count": 21, "controllers": {Controller.SCSI},
             "removables": (
                 Removable(type=RemovableType.CDROM, controller=Controller.IDE, slot=2),),
             "nics": (Nic(vnet="VM Network", vnet_type=VnetType.NETWORK, model="vmxnet3"),)},
            id="21 disks",
        ),
        pytest.param(
            # Without upstream's loss of drives on SATA; see T170.
            SCSI + 'sata0:0.deviceType = "cdrom-image"\n',
            {"disk count": 1, "removables": (
                Removable(type=RemovableType.CDROM, controller=Controller.SATA, slot=0),)},
            id="a drive on SATA",
        ),
        pytest.param('firmware = "efi"\n', {"firmware": Firmware.UEFI}, id="UEFI"),
        pytest.param(
            'ethernet0.virtualDev = "e1000"\n',
            {"nics": (Nic(vnet="ethernet0", vnet_type=VnetType.NETWORK, model="e1000"),)},
            id="e1000",
        ),
        pytest.param(
            'ethernet0.connectiontype = "bridged"\nethernet0.virtualdev = "e1000e"\n'
            'ethernet0.generatedaddress = "00:0c:29:aa:bb:cc"\nnumvcpus = "1"\n'
            'cpuid.corespersocket = "1"\nvm.genid = "-570734802784577186"\n'
            'vm.genidx = "-5042519231342505152"\n',
            {"nics": (Nic(vnet="ethernet0", vnet_type=VnetType.BRIDGE, mac="00:0c:29:aa:bb:cc",
                          model="e1000e"),),
             "cpu_topology": CpuTopology(sockets=1, cores=1, threads=1),
             "genid": "8312995e-57b8-f814-4013-c1ba795f05ba"},
            id="lower case",
        ),
        pytest.param(
            'sata0:0.deviceType = "cdrom-raw"\nnvme0:0.fileName = "n.vmdk"',
            {"disk count": 1, "controllers": {Controller.NVME}},
            id="NVMe, no newline at the end",
        ),
        pytest.param(
            SCSI + 'sata0:3.fileName = "s.vmdk"\nuefi.secureBoot.enabled = "TRUE"\n'
            'numvcpus = "2"\nmemSize = "4096"\nvm.genid = "-802103094701856339"\n'
            'vm.genidX = "-5104727847056752683"\n',
            {"disk count": 2, "controllers": {Controller.SCSI, Controller.SATA},
             "uefi_secureboot": True, "vcpus": 2, "memory_bytes": 4 << 30,
             "genid": "2f0de9ad-5b7c-f4de-d53f-23b1115d28b9"},
            id="secure boot",
        ),
    ],
)  # fmt: skip
def test_what_vmware_writes(text: str, expected: dict[str, object]) -> None:
    source, _warnings = machine(HEAD + text)
    assert (source.hypervisor, source.display, source.features) == ("vmware", None, ())
    found = {"disk count": len(source.disks), "controllers": {d.controller for d in source.disks}}
    for key, value in expected.items():
        assert (found[key] if key in found else getattr(source, key)) == value


@pytest.mark.rows("1-T160")
def test_many_disks_keep_their_order() -> None:
    source, _ = machine(HEAD + many_disks())
    assert [d.path for d in source.disks][6:9] == ["/vm/0-6.vmdk", "/vm/0-8.vmdk", "/vm/0-9.vmdk"]
    assert [d.id for d in source.disks] == list(range(21))
    assert source.disks[15].path == "/vm/1-0.vmdk"


@pytest.mark.rows("1-T161")
@pytest.mark.parametrize(
    ("value", "expected"),
    [("a|20|21b", "a !b"), ("x|7Cy", "x|y"), ("|zz", "|zz"), ("a|2", "a|2"), ('a"b|22', 'a"b"')],
)
def test_escapes(value: str, expected: str) -> None:
    assert machine(f'displayName = "{value}"\n')[0].name == expected


@pytest.mark.rows("1-T162")
def test_of_a_key_that_is_there_twice_the_first_counts() -> None:
    source, warnings = machine('displayName = "1"\nDISPLAYNAME = "2"\nscsi0:0.x = "1"\nscsi0 = ""')
    assert source.name == "1"
    assert len(warnings) == 1
    source, warnings = machine(f'{HEAD}{SCSI}scsi0:0 = "x"\n')
    assert (len(source.disks), len(warnings)) == (1, 1)


@pytest.mark.rows("1-T163", "1-T164")
def test_what_is_not_present_is_left_out_with_all_below_it() -> None:
    source, warnings = machine(
        HEAD + SCSI + 'scsi0:1.fileName = "e.vmdk"\nscsi0:1.present = "False"\n'
        'scsi0.present = "FALSE"\nethernet0.present = "false"\nethernet0.networkName = "x"\n'
        'ethernet1.present = "maybe"\nethernet0.filter.name = "y"\nfloppy0.present = "FALSE"\n'
    )
    assert [d.path for d in source.disks] == ["/vm/d.vmdk"]
    assert [n.vnet for n in source.nics] == ["ethernet1"]
    assert not source.removables
    assert [w for w in warnings if "controller of the disk scsi0:0" in w]


@pytest.mark.rows("1-T165", "1-T166")
def test_odd_lines() -> None:
    text = (
        "#!/usr/bin/vmware\r\n.encoding = \"UTF-8\"\r\n\r\n  # comment\r\ndisplayName = web\r\n"
        '\tnumvcpus = "2"\r\nmemSize="64" \t\r\nguestOS = "debian10-64"\r\r\n'
        'sound.virtualDev = "sb16'
    )  # fmt: skip
    source, warnings = machine(text)
    assert (source.vcpus, source.memory_bytes, source.os_hint) == (2, 64 << 20, "debian10-64")
    assert (source.name, source.sound) == ("web", None)
    assert [w for w in warnings if "line 5" in w and "line 9" in w]


@pytest.mark.rows("1-T167")
@pytest.mark.parametrize(
    "head", [b"KDMV\1\0\0\0", b"VMDK", b"# Disk DescriptorFile\nversion=1\n",
             b"# Disk DescriptorFile\r\nversion=1\r\n"]
)  # fmt: skip
def test_a_disk_is_not_taken_for_a_machine(head: bytes) -> None:
    assert code_of(lambda: machine(head)) == "E-VMX-IS-VMDK"


def test_what_is_no_vmx_file_is_said_to_be_none() -> None:
    assert code_of(lambda: machine("<html>\n</html>\n")) == "E-VMX-EMPTY"
    assert code_of(lambda: machine('a = "1"\n' * 200_000)) == "E-VMX-SIZE"


@pytest.mark.rows("1-T168", "1-T169")
def test_the_order_of_disks() -> None:
    units = ["scsi0:10", "scsi0:2", "ide0:0", "nvme0:0", "sata0:0", "sched.scsi0:0", "scsi0:0x"]
    lines = "".join(f'{unit}.fileName = "{unit}"\n' for unit in units)
    source, _ = machine(f'{HEAD}{lines}ide0:0.deviceType = "ata-hardDisk"\n')
    assert [d.path.removeprefix("/vm/") for d in source.disks] == [
        "scsi0:2", "scsi0:10", "nvme0:0", "sata0:0", "ide0:0",
    ]  # fmt: skip
    assert [d.controller for d in source.disks][2:] == ["nvme", "sata", "ide"]
    assert len(machine(HEAD + lines)[0].disks) == 4


@pytest.mark.rows("1-T170", "1-T171")
def test_drives_with_removable_media() -> None:
    source, _ = machine(
        HEAD + 'scsi0:1.deviceType = "cdrom-image"\nscsi0:1.fileName = "a.iso"\n'
        'ide1:0.deviceType = "ATAPI-cdrom"\nide0:1.deviceType = "cdrom-raw"\n'
        'scsi0:2.deviceType = "scsi-passthru"\nscsi0:2.fileName = "x"\nfloppy1.fileName = "f.img"\n'
    )
    assert source.disks == ()
    assert [(r.type, r.controller, r.slot) for r in source.removables] == [
        ("CD-ROM", "ide", 1), ("CD-ROM", "ide", 2), ("CD-ROM", "scsi", 1), ("Floppy", None, 1),
    ]  # fmt: skip
    assert "\tCD-ROM [ide] in slot 2\n" in current(source)


@pytest.mark.rows("1-T172", "1-T173", "1-T175", "1-T176")
@pytest.mark.parametrize(
    ("line", "field", "expected", "warned"),
    [
        ("", "memory_bytes", 32 << 20, 0),
        ('memSize = "abc"', "", "E-VMX-INT", 0),
        ('memSize = "0"', "", "E-VMX-INT", 0),
        ('memSize = "99999999999999999999"', "", "E-VMX-INT", 0),
        ('numvcpus = "-1"', "", "E-VMX-INT", 0),
        ('numvcpus = " 4 "', "vcpus", 4, 0),
        ('firmware = "bios"', "firmware", Firmware.BIOS, 0),
        ("", "firmware", Firmware.BIOS, 0),
        ('firmware = "open"', "firmware", Firmware.BIOS, 1),
        ('cpuid.coresPerSocket = "0"', "cpu_topology", None, 1),
        ('cpuid.coresPerSocket = "2"', "cpu_topology", None, 1),
        ('uefi.secureBoot.enabled = "maybe"', "", "E-VMX-BOOL", 0),
        ('uefi.secureBoot.enabled = "True"', "uefi_secureboot", True, 0),
        ('sound.virtualDev = "hdaudio"', "sound", "ich6", 0),
        ('sound.virtualDev = "es1371"', "sound", "es1370", 0),
        ('sound.virtualDev = "gus"', "sound", None, 1),
    ],
)
def test_single_keys(line: str, field: str, expected: object, warned: int) -> None:
    if not field:
        assert code_of(lambda: machine(HEAD + line)) == expected
        return
    source, warnings = machine(HEAD + line)
    assert getattr(source, field) == expected
    assert len(warnings) == warned


@pytest.mark.rows("1-T174")
def test_a_generation_id_needs_both_halves() -> None:
    both = 'vm.genid = "-570734802784577186"\nvm.genidX = "-5042519231342505152"\n'
    assert machine(HEAD + both)[0].genid == "8312995e-57b8-f814-4013-c1ba795f05ba"
    assert machine(HEAD + both.split("\n")[0])[0].genid is None
    assert code_of(lambda: machine(HEAD + both.replace("-5", "-9999"))) == "E-VMX-INT"


@pytest.mark.rows("1-T177")
def test_addresses_of_network_cards() -> None:
    source, warnings = machine(
        HEAD + 'ethernet10.address = "00:50:56:00:00:01"\nethernet10.addressType = "static"\n'
        'ethernet10.generatedAddress = "00:0c:29:00:00:09"\n'
        'ethernet9.address = "00:50:56:00:00:02"\n'
        'ethernet9.generatedAddress = "00:0C:29:00:00:02"\n'
        'ethernet2.generatedAddress = "wrong"\n'
    )  # fmt: skip
    assert [(n.vnet, n.mac) for n in source.nics] == [
        ("ethernet2", None), ("ethernet9", "00:0C:29:00:00:02"),
        ("ethernet10", "00:50:56:00:00:01"),
    ]  # fmt: skip
    assert len(warnings) == 1


@pytest.mark.rows("1-T178")
@pytest.mark.parametrize("text", ['memSize = "64"', 'displayName = ""', 'displayName = "  "'])
def test_a_machine_without_a_name_is_called_after_its_file(text: str) -> None:
    source, warnings = machine(text)
    assert (source.name, len(warnings)) == ("web", 1)


def test_names_in_other_encodings() -> None:
    text = '.encoding = "windows-1252"\ndisplayName = "Büro"\nethernet0.networkName = "Küche"\n'
    source, _ = machine(text.encode("cp1252"))
    assert (source.name, source.nics[0].vnet) == ("Büro", "Küche")
    assert machine('displayName = "B\xfc"'.encode("latin-1"))[0].name == "B\ufffd"
    # Python's own codecs are no encodings of text.
    assert machine('.encoding = "zlib"\ndisplayName = "a|0Ab"')[0].name == "a b"


def write_machine(folder: Path, *names: str, text: str = "") -> Path:
    """Write a VMX file and small disks of VMware's kinds beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        create(folder / name)
    path = folder / "web.vmx"
    lines = "".join(f'scsi0:{n}.fileName = "{name}"\n' for n, name in enumerate(names))
    path.write_text(HEAD + (text or lines))
    return path


def create(path: Path, *options: str, subformat: str = "monolithicSparse") -> None:
    """Create a VMDK of 1 MiB."""
    command = ["qemu-img", "create", "-q", "-f", "vmdk", "-o", f"subformat={subformat}", *options]
    subprocess.run([*command, path, *(["1M"] if "-b" not in options else [])], check=True)


def test_a_machine_is_read_with_the_disks_beside_it(tmp_path: Path) -> None:
    path = write_machine(tmp_path / "vm", "one.vmdk", "two.vmdk")
    reader = reader_for("vmx", str(path), work_dir=tmp_path, warn=pytest.fail)
    source = reader.read()
    assert [Path(d.path) for d in source.disks] == [
        path.parent / n for n in ("one.vmdk", "two.vmdk")
    ]
    assert [(d.format, d.virtual_size_bytes) for d in source.disks] == [("vmdk", 1 << 20)] * 2
    assert Source.from_dict(source.to_dict()) == source
    assert reader.verify(lambda _done, _total: None) == []


@pytest.mark.rows("1-T179")
def test_disks_elsewhere_are_taken_only_when_that_is_wanted(tmp_path: Path) -> None:
    create(tmp_path / "d.vmdk")
    (tmp_path / "vm").mkdir()
    (tmp_path / "vm/link.vmdk").symlink_to(tmp_path / "d.vmdk")
    for name in ("../d.vmdk", str(tmp_path / "d.vmdk"), "link.vmdk"):
        path = write_machine(tmp_path / "vm", text=f'scsi0:0.fileName = "{name}"\n')
        reader = VmxReader(path, warn=pytest.fail)
        assert code_of(reader.read) == "E-VMX-OUTSIDE"
        [disk] = VmxReader(path, warn=pytest.fail, anywhere=True).read().disks
        assert Path(disk.path).samefile(tmp_path / "d.vmdk")


@pytest.mark.rows("1-T180")
def test_a_missing_disk_is_an_error_and_an_empty_drive_is_none(tmp_path: Path) -> None:
    path = write_machine(tmp_path, text=SCSI)
    assert code_of(VmxReader(path, warn=pytest.fail).read) == "E-IMG-READ"
    assert code_of(VmxReader(tmp_path / "none.vmx", warn=pytest.fail).read) == "E-VMX-READ"
    lines = 'scsi0:0.fileName = ""\nscsi0:1.fileName = "emptyBackingString"\n'
    source, warnings = machine(HEAD + lines)
    assert (source.disks, len(warnings)) == ((), 2)
    assert code_of(lambda: machine(HEAD + 'scsi0:0.fileName = "a|00b"')) == "E-VMX-NAME"


def test_a_raw_image_is_no_disk_of_a_vmx(tmp_path: Path) -> None:
    """qemu would read any text as a descriptor once it is told that it is a VMDK."""
    path = write_machine(tmp_path, text=SCSI)
    (tmp_path / "d.vmdk").write_bytes(b'createType="monolithicFlat"\nRW 1 FLAT "/etc/passwd" 0\n')
    assert code_of(VmxReader(path, warn=pytest.fail).read) == "E-IMG-READ"


@pytest.mark.parametrize(
    ("entry", "warned"),
    [("web.vmx.lck/", 1), ("web-1a2b.vmem", 1), ("web.vmss", 0), ("other.vmem", 0)],
)
def test_a_machine_that_seems_to_run_is_warned_about(
    tmp_path: Path, entry: str, warned: int
) -> None:
    path = write_machine(tmp_path, "d.vmdk")
    (tmp_path / entry).mkdir() if entry.endswith("/") else (tmp_path / entry).touch()
    warnings: list[str] = []
    VmxReader(path, warn=warnings.append).read()
    assert len(warnings) == warned


@pytest.mark.rows("1-T184")
def test_a_vmx_is_only_read_from_this_host(tmp_path: Path) -> None:
    path = str(write_machine(tmp_path, "d.vmdk"))
    job = Job(mode=Mode.INSPECT, source=Input(kind="vmx", location=path))
    with pytest.raises(JobError):
        replace(job, mode=Mode.IN_PLACE)
    for words in (["-it", "vddk"], ["-io", "a=b"], [path]):
        assert status_of("-i", "vmx", path, *words) != 0


def status_of(*words: str) -> int:
    """Return the exit status of the command line; nothing is converted."""
    try:
        return main([*words, "--print-source"])
    except SystemExit as error:
        return int(str(error.code))


@pytest.mark.rows("1-T185")
def test_a_machine_without_disks_is_printed_but_not_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_machine(tmp_path)
    assert status_of("-i", "vmx", str(path)) == 0
    printed = capsys.readouterr()
    assert "\ndisks:\n\nremovable media:\n\nNICs:\n\n" in printed.out
    assert "no disks" in printed.err
    source = VmxReader(path, warn=pytest.fail).read()
    assert code_of(lambda: create_overlays(source, tmp_path, RecordingReporter())) == "E-NODISKS"


@settings(max_examples=200, deadline=None)
@given(
    lines=st.lists(
        st.builds(
            lambda key, value: key + b' = "' + value + b'"\n',
            st.sampled_from([
                b"displayName", b"memSize", b"numvcpus", b"cpuid.coresPerSocket", b"firmware",
                b"vm.genid", b"vm.genidX", b"scsi0:0.fileName", b"scsi0:0.deviceType",
                b"scsi0:0.present", b".encoding", b"uefi.secureBoot.enabled", b"ethernet0.address",
                b"ethernet0.networkName", b"floppy0.x", b"ide1:0.deviceType", b"guestOS",
                b"sound.virtualDev", b"scsi0", b".", b"..", b"\xff",
            ]),
            st.binary(max_size=12) | st.sampled_from([b"true", b"1", b"cdrom-raw", b"|ff|00|0a"]),
        ),
        max_size=12,
    )
)  # fmt: skip
def test_any_values_end_in_a_clear_error_or_a_machine(lines: list[bytes]) -> None:
    try:
        source, _warnings = machine(b"".join(lines))
    except SourceError as error:
        assert error.code.startswith("E-VMX-")
        return
    assert Source.from_dict(json.loads(json.dumps(source.to_dict()))) == source
    current(source).encode()
