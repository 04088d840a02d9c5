"""Spec rows T020 to T040: the kinds of packages, and how little of them is touched."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import IO, NoReturn, cast

import pytest

from conversions.pipeline.cli import main
from inventory.sources.base import disk_uri
from inventory.sources.errors import SourceError
from inventory.sources.ova import OvaReader
from inventory.sources.text import current, legacy_block
from inventory.sources.types import Source
from tests.unit.sources.ova_builder import disk_image, make_ova, make_ovf, manifest, vmdk


def read(path: Path, warnings: list[str] | None = None) -> Source:
    """Read a package with its digests checked; the work folder is work/ beside it."""
    work = path.parent / "work"
    work.mkdir(exist_ok=True)
    told: list[str] = warnings if warnings is not None else []
    reader = OvaReader(path, work_dir=work, warn=told.append)
    reader.verify(lambda _done, _total: None)
    return reader.read()


def code_of(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        read(path)
    return caught.value.code


def unpacked(path: Path) -> list[str]:
    return sorted(p.name for p in (path.parent / "work").rglob("*"))


def folder_of(tmp_path: Path, files: dict[str, bytes]) -> Path:
    top = tmp_path / "vm"
    for name, data in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(data)
    return top


@pytest.mark.rows("1-T020")
def test_nothing_of_a_plain_tar_is_unpacked(tmp_path: Path) -> None:
    path = make_ova(tmp_path / "a.ova")
    [disk] = read(path).disks
    assert unpacked(path) == []
    assert disk.offset_bytes is not None
    with path.open("rb") as stream:
        stream.seek(disk.offset_bytes)
        assert stream.read(len(vmdk())) == vmdk()


@pytest.mark.parametrize("name", ["vm.ovf", "vm.mf", "d1.vmdk"])
def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    files = {"vm.ovf": make_ovf(), "d1.vmdk": vmdk()}
    top = folder_of(tmp_path, files | {"vm.mf": manifest(files)})
    opened = Path.open

    def refuse(path: Path, *how: str) -> IO[bytes]:
        if path == top / name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return cast(IO[bytes], opened(path, *how))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SourceError, match=f"'{name}' cannot be read: Permission") as caught:
        read(top)
    assert (caught.value.code, "setfacl" in caught.value.remedy) == ("E-OVA-READ", True)
    if name != "vm.mf":
        assert main(["-i", "ova", str(top), "--print-source"]) == 1
        assert "Permission denied" in capsys.readouterr().err


def test_a_folder_that_may_not_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = folder_of(tmp_path, {"vm.ovf": make_ovf(), "d1.vmdk": vmdk()})

    def refuse(path: object) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    assert code_of(top) == "E-OVA-READ"


@pytest.mark.rows("1-T024")
@pytest.mark.parametrize("ending", ["", "/"])
def test_a_folder_is_read_where_it_is(tmp_path: Path, ending: str) -> None:
    files = {"vm.ovf": make_ovf(), "d1.vmdk": vmdk()}
    top = folder_of(tmp_path, files | {"vm.mf": manifest(files)})
    for file in top.iterdir():
        file.chmod(0o440)
    top.chmod(0o550)
    before = {p: p.stat() for p in [top, *top.iterdir()]}
    source = read(Path(f"{top}{ending}"))
    assert (source.name, source.disks[0].path) == ("demo", str(top / "d1.vmdk"))
    after = {p: p.stat() for p in [top, *top.iterdir()]}
    assert [(s.st_mode, s.st_mtime_ns) for s in before.values()] == [
        (s.st_mode, s.st_mtime_ns) for s in after.values()
    ]
    assert unpacked(top) == []


def zip_of(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


@pytest.mark.rows("1-T026")
@pytest.mark.parametrize(
    "data",
    [
        lambda: gzip.compress(zip_of({"vm.ovf": make_ovf()})),
        lambda: gzip.compress(vmdk()),
        vmdk,
        lambda: b"",
        lambda: b"just words\n" * 100,
    ],
    ids=["gz of zip", "gz of vmdk", "vmdk", "empty", "text"],
)
def test_what_is_no_package_is_refused(tmp_path: Path, data: object) -> None:
    assert callable(data)
    path = tmp_path / "x.ova"
    path.write_bytes(data())
    assert code_of(path) == "E-OVA-FORMAT"
    assert unpacked(path) == []


@pytest.mark.rows("1-T027")
def test_the_content_of_a_file_decides_not_its_name(tmp_path: Path) -> None:
    assert read(make_ova(tmp_path / "x.zip")).disks[0].offset_bytes is not None


@pytest.mark.rows("1-T028")
def test_an_archive_from_before_posix_is_read(tmp_path: Path) -> None:
    path = make_ova(tmp_path / "a.ova")
    data = bytearray(path.read_bytes())
    for head in [n for n in range(0, len(data), 512) if data[n + 257 : n + 262] == b"ustar"]:
        data[head + 257 : head + 512] = bytes(255)
        data[head + 148 : head + 156] = b" " * 8
        data[head + 148 : head + 156] = b"%06o\0 " % sum(data[head : head + 512])
    path.write_bytes(data)
    assert b"ustar" not in data
    assert read(path).name == "demo"


@pytest.mark.rows("1-T029")
def test_everything_may_be_in_a_folder_of_the_archive(tmp_path: Path) -> None:
    path = make_ova(tmp_path / "a.ova", prefix="sub/")
    assert read(path).disks[0].member == "sub/d1.vmdk"
    spoilt = make_ova(
        tmp_path / "b.ova", prefix="sub/", change=lambda files: files.update({"d1.vmdk": b"x"})
    )
    assert code_of(spoilt) == "E-MF-MISMATCH"


@pytest.mark.rows("1-T030")
def test_two_descriptors_are_refused(tmp_path: Path) -> None:
    assert code_of(make_ova(tmp_path / "a.ova", {"sub/b.ovf": make_ovf()})) == "E-OVA-MANY-OVF"


@pytest.mark.rows("1-T031")
def test_no_descriptor_is_refused_and_nothing_unpacked(tmp_path: Path) -> None:
    def change(files: dict[str, bytes]) -> None:
        del files["vm.ovf"]
        files["vm.mf"] = b"garbage"

    path = make_ova(tmp_path / "a.ova", change=change)
    assert code_of(path) == "E-OVA-NO-OVF"
    assert unpacked(path) == []


@pytest.mark.rows("1-T032")
def test_companions_of_macos_are_passed_over(tmp_path: Path) -> None:
    warnings: list[str] = []
    disks = {"d1.vmdk": vmdk()}
    companions = {"._vm.ovf": b"\0\5\x16\7", "._vm.mf": b"\0\5\x16\7"}
    path = make_ova(tmp_path / "a.ova", disks, change=lambda files: files.update(companions))
    assert (read(path, warnings).name, warnings) == ("demo", [])


@pytest.mark.rows("1-T033")
def test_names_of_an_archive_may_begin_with_a_dot(tmp_path: Path) -> None:
    path = make_ova(tmp_path / "a.ova", prefix="./")
    assert read(path).disks[0].member == "d1.vmdk"


@pytest.mark.rows("1-T034", "1-T035")
@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_long_name_leaves_the_bytes_where_they_are(tmp_path: Path, tar_format: int) -> None:
    name = "d" * 115 + ".vmdk"
    ovf = make_ovf(href=name)
    path = make_ova(tmp_path / "a.ova", {name: vmdk()}, ovf=ovf, tar_format=tar_format)
    [disk] = read(path).disks
    assert disk.offset_bytes is not None
    served = path.read_bytes()[disk.offset_bytes :][: len(vmdk())]
    assert hashlib.sha256(served).digest() == hashlib.sha256(vmdk()).digest()


@pytest.mark.rows("1-T036")
def test_a_disk_in_an_archive_is_rounded_up_to_whole_blocks(tmp_path: Path) -> None:
    ovf = make_ovf(href="d1.raw")
    [disk] = read(make_ova(tmp_path / "a.ova", {"d1.raw": b"x" * 1000}, ovf=ovf)).disks
    assert disk.length_bytes == 1024
    assert json.loads(disk_uri(disk).removeprefix("json:"))["file"]["size"] == 1024


@pytest.mark.rows("1-T037")
def test_names_of_owners_do_not_matter(tmp_path: Path) -> None:
    path = make_ova(tmp_path / "a.ova")
    with tarfile.open(path) as archive, tarfile.open(tmp_path / "b.ova", "w") as other:
        for info in archive.getmembers():
            info.uname, info.gname = "Domain Users", "a b (c)"
            other.addfile(info, archive.extractfile(info))
    assert read(tmp_path / "b.ova").disks[0].member == "d1.vmdk"


@pytest.mark.rows("1-T038")
def test_folders_of_a_zip_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zip_of({"vm.ovf": make_ovf(href="sub/d1.vmdk"), "sub/d1.vmdk": vmdk()}))
    assert read(path).disks[0].member == "sub/d1.vmdk"


@pytest.mark.rows("1-T039")
@pytest.mark.parametrize("arguments", [["a.ova", "b.ova"], []])
def test_an_ova_is_one_file(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-i", "ova", *arguments, "--print-source"]) != 0
    assert capsys.readouterr().out == ""


@pytest.mark.rows("1-T039")
def test_an_ova_has_no_options_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(["-i", "ova", "a.ova", "-io", "x=y", "--print-source"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    assert status != 0
    assert capsys.readouterr().err


@pytest.mark.rows("1-T040")
def test_a_machine_without_name_is_called_like_its_file(tmp_path: Path) -> None:
    warnings: list[str] = []
    path = make_ova(tmp_path / "web01.ova", ovf=make_ovf(name=""))
    assert read(path, warnings).name == "web01"
    assert len(warnings) == 1


@pytest.mark.rows("1-T139")
def test_an_ova_is_printed_to_the_letter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drive = (
        "<Item><r:InstanceID>60</r:InstanceID><r:ResourceType>5</r:ResourceType>"
        "<r:Address>1</r:Address></Item>"
        "<Item><r:InstanceID>61</r:InstanceID><r:ResourceType>15</r:ResourceType>"
        "<r:Parent>60</r:Parent><r:AddressOnParent>0</r:AddressOnParent></Item>"
    )
    path = make_ova(tmp_path / "a.ova", ovf=make_ovf(more=drive))
    head = ["    source name: demo", "hypervisor type: vmware"]
    cpu = ["         memory: 1073741824 (bytes)", "       nr vCPUs: 4", "     CPU vendor: ",
           "      CPU model: ", "   CPU topology: sockets: 2 cores/socket: 2 threads/core: 1",
           "   CPU features: ", "       firmware: uefi"]  # fmt: skip
    devices = ["removable media:", "\tCD-ROM [ide] in slot 0", "NICs:", "", "", ""]
    assert main(["-i", "ova", "-q", str(path), "--print-source"]) == 0
    assert capsys.readouterr().out.split("\n")[1:] == [
        "", *head, "       VM genid: ", *cpu, "UEFI secureboot: false", "        display: ",
        "          sound: ", "disks:", "\t0 [scsi]", *devices,
    ]  # fmt: skip
    assert main(["-i", "ova", "-q", str(path), "--print-source=legacy"]) == 0
    assert capsys.readouterr().out.split("\n")[1:] == [
        "", *head, *cpu, "        display: ", "          video: ", "          sound: ", "disks:",
        f"\t{path} d1.vmdk (vmdk) [scsi]", *devices,
    ]  # fmt: skip
    assert main(["-i", "ova", "-q", str(path), "--print-source=json"]) == 0
    assert Source.from_dict(json.loads(capsys.readouterr().out)) == read(path)


def test_a_name_of_bytes_that_are_no_text_is_printed_escaped(tmp_path: Path) -> None:
    source = replace(read(make_ova(tmp_path / "a.ova")), name="caf\udce9")
    assert "source name: caf\\xe9\n" in current(source)
    assert "source name: caf\\xe9\n" in legacy_block(source)


@pytest.mark.rows("1-T114")
def test_a_disk_with_its_data_elsewhere_is_refused(tmp_path: Path) -> None:
    image = bytearray(disk_image("qcow2"))
    image[72:80] = (1 << 2).to_bytes(8, "big")  # incompatible feature: external data file
    assert code_of(make_ova(tmp_path / "a.ova", {"d1.vmdk": bytes(image)})) == "E-IMG-EXTENT"


@pytest.mark.rows("1-T144")
def test_an_empty_disk_is_made_anew(tmp_path: Path) -> None:
    warnings: list[str] = []
    disk = '<Disk ovf:diskId="k1" ovf:capacity="3" ovf:capacityAllocationUnits="byte * 2^30"/>'
    path = make_ova(tmp_path / "a.ova", {}, ovf=make_ovf(references="", disk_section=disk))
    [made] = read(path, warnings).disks
    assert (made.virtual_size_bytes, made.format) == (3 << 30, "raw")
    assert Path(made.path).stat().st_blocks == 0
    assert len([w for w in warnings if "empty" in w]) == 1
