"""VMDKs of several files: real ones of qemu-img, and ones that name other files as theirs."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conversions.pipeline.errors import TargetError
from conversions.pipeline.job import Input, Job, Mode
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.source import fingerprint, open_source
from inventory.sources.disk import DiskReader
from inventory.sources.errors import SourceError
from inventory.sources.nbdkit import Servers
from inventory.sources.vmdk import look_at_vmdk
from tests.unit.sources.test_vmx import create

COMPARE = ("qemu-img", "compare", "-q", "-f", "raw", "-F", "vmdk")
SPLIT = ("monolithicFlat", "twoGbMaxExtentFlat", "twoGbMaxExtentSparse")
PIECES = (
    b"", b"\0", b"\n", b"\r", b" ", b'"', b"=", b"../", b"/etc/hostname", b"nbd://h/", b"\xff",
    b'\nRW 1 FLAT "/etc/hostname" 0\n', b'parentFileNameHint="/etc/hostname"', b"RW", b"SPARSE",
    b"createType=\"custom\"\n", b"99999999999999999999",
)  # fmt: skip
DESCRIPTOR = """# Disk DescriptorFile
version=1
CID=12345678
parentCID=ffffffff
createType="{kind}"
# Extent description
{extents}
#DDB
ddb.adapterType = "ide"
"""


def refused(path: Path, *, folder: Path | None = None) -> str:
    """Return the code with which a VMDK is refused."""
    with pytest.raises(SourceError) as caught:
        look_at_vmdk(path, folder=folder or path.parent)
    assert caught.value.message.endswith(".")
    return caught.value.code


def convert_to_vmdk(raw: Path, path: Path, subformat: str) -> None:
    """Write a raw image as a VMDK."""
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}"]
    subprocess.run([*convert, raw, path], check=True)


def describe(path: Path, extents: str, kind: str = "monolithicFlat") -> Path:
    """Write a descriptor."""
    path.write_text(DESCRIPTOR.format(kind=kind, extents=extents))
    return path


@pytest.mark.parametrize("subformat", [*SPLIT, "monolithicSparse", "streamOptimized"])
def test_every_kind_that_vmware_writes_is_read_whole(tmp_path: Path, subformat: str) -> None:
    raw, path = tmp_path / "d.raw", tmp_path / "d.vmdk"
    raw.write_bytes(os.urandom(1 << 20))
    convert_to_vmdk(raw, path, subformat)
    warnings: list[str] = []
    [disk] = DiskReader([path], format=None, warn=warnings.append).read().disks
    assert (disk.format, disk.virtual_size_bytes, warnings) == ("vmdk", 1 << 20, [])
    parts = {str(p) for p in tmp_path.iterdir()} - {str(raw), str(path)}
    assert set(disk.other_files) == parts
    assert bool(parts) == (subformat in SPLIT)
    subprocess.run([*COMPARE, raw, path], check=True)


def test_a_change_of_an_extent_is_a_change_of_the_source(tmp_path: Path) -> None:
    path = tmp_path / "d.vmdk"
    create(path, subformat="monolithicFlat")
    source = DiskReader([path], format=None, warn=pytest.fail).read()
    before = fingerprint(source, str(path))
    assert set(before) == {str(path), str(tmp_path / "d-flat.vmdk")}
    with (tmp_path / "d-flat.vmdk").open("r+b") as stream:
        stream.write(b"x")
    after = fingerprint(source, str(path))
    assert [name for name in before if before[name] != after[name]] == [
        str(tmp_path / "d-flat.vmdk")
    ]


@pytest.mark.parametrize("base", ["monolithicSparse", "monolithicFlat"])
def test_a_snapshot_is_read_with_what_lies_below_it(tmp_path: Path, base: str) -> None:
    raw = tmp_path / "d.raw"
    raw.write_bytes(os.urandom(1 << 20))
    convert_to_vmdk(raw, tmp_path / "d.vmdk", base)
    layer = tmp_path / "d-000001.vmdk"
    create(layer, "-b", "d.vmdk", "-F", "vmdk")
    warnings: list[str] = []
    [disk] = DiskReader([layer], format=None, warn=warnings.append).read().disks
    assert str(tmp_path / "d.vmdk") in disk.other_files
    assert [w for w in warnings if "top of 2 layers" in w]
    subprocess.run([*COMPARE, raw, layer], check=True)


def test_a_layer_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "vm"
    folder.mkdir()
    create(tmp_path / "d.vmdk")
    create(folder / "e.vmdk", "-b", str(tmp_path / "d.vmdk"), "-F", "vmdk")
    assert refused(folder / "e.vmdk") == "E-IMG-BACKING"
    assert look_at_vmdk(folder / "e.vmdk", folder=None).layers == 2


def test_a_layer_over_another_state_or_over_itself_is_refused(tmp_path: Path) -> None:
    layer = tmp_path / "e.vmdk"
    create(tmp_path / "d.vmdk")
    create(layer, "-b", str(tmp_path / "d.vmdk"), "-F", "vmdk")
    (tmp_path / "d.vmdk").unlink()
    assert refused(layer) == "E-IMG-READ"
    create(tmp_path / "d.vmdk")
    assert refused(layer) == "E-IMG-BACKING"
    (tmp_path / "d.vmdk").unlink()
    (tmp_path / "d.vmdk").symlink_to(layer)
    assert refused(layer) == "E-IMG-BACKING"


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "link", "{tmp}/secret"])
def test_an_extent_outside_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "vm"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(4096))
    (folder / "link").symlink_to(tmp_path / "secret")
    path = describe(folder / "d.vmdk", f'RW 1 FLAT "{name.format(tmp=tmp_path)}" 0')
    assert refused(path) == "E-IMG-EXTENT"
    with pytest.raises(SourceError):
        DiskReader([path], format="vmdk", warn=pytest.fail).read()
    if name != "/etc/hostname":
        assert len(look_at_vmdk(path, folder=None).other_files) == 1
        DiskReader([path], format=None, warn=pytest.fail, anywhere=True).read()


@pytest.mark.parametrize(
    ("extents", "code"),
    [
        ("", "E-IMG-EXTENT"),
        ('RW 2 FLAT "nbd://h/x" 0', "E-IMG-EXTENT"),
        ('RW 2 FLAT "json:{}" 0', "E-IMG-EXTENT"),
        ('RW 2 FLAT "missing" 0', "E-IMG-READ"),
        ('RW 2 FLAT "fifo" 0', "E-IMG-READ"),
        ('RW 9 FLAT "flat" 0', "E-IMG-READ"),
        ('RW 2 FLAT "flat" 8', "E-IMG-READ"),
        ('RDONLY 2 FLAT "flat" 0', "E-IMG-EXTENT"),
        ('RW 2 FLAT "flat" 0\nRW 2 ZERO', "E-IMG-EXTENT"),
        ('RW 2 VMFSRDM "flat"', "E-IMG-EXTENT"),
        ('RW 2 SPARSE "flat"', "E-IMG-READ"),
        ('RW 2 SPARSE "empty.vmdk"', "E-IMG-EXTENT"),
        (' RW 2 FLAT "flat" 0', "E-IMG-EXTENT"),
        ('RW 2 FLAT "flat" 0\n\tRW 2 FLAT "/etc/passwd" 0', "E-IMG-EXTENT"),
        ('RW\n2 FLAT "/etc/passwd" 0', "E-IMG-EXTENT"),
        ('x = 1\rRW 2 FLAT "flat" 0', "E-IMG-EXTENT"),
        ('RW 2 FLAT "flat" 0\nparentFileNameHint="/etc/passwd"', "E-IMG-BACKING"),
        ('RW 2 FLAT "flat" 0\nparentFileNameHint', "E-IMG-EXTENT"),
        ('RW 2 FLAT "flat" 0\n#parentFileNameHint', "E-IMG-BACKING"),
        ("\n" * 11_000, "E-IMG-EXTENT"),
    ],
)
def test_descriptors_that_are_refused(tmp_path: Path, extents: str, code: str) -> None:
    """Among them those that qemu would read otherwise than a person."""
    (tmp_path / "flat").write_bytes(bytes(1024))
    (tmp_path / "empty.vmdk").write_bytes(b"KDMV" + bytes(508))
    os.mkfifo(tmp_path / "fifo")
    assert refused(describe(tmp_path / "d.vmdk", extents)) == code


def test_a_sparse_vmdk_without_data_of_its_own_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.vmdk"
    path.write_bytes(b"KDMV" + bytes(8192))
    assert refused(path) == "E-IMG-EXTENT"


def test_a_vmdk_of_several_files_is_not_changed_in_place(tmp_path: Path) -> None:
    """Only the file that is named would be locked and marked."""
    path = tmp_path / "d.vmdk"
    create(path, subformat="monolithicFlat")
    job = Job(mode=Mode.IN_PLACE, source=Input(kind="disk", location=str(path)))
    with pytest.raises(TargetError):
        open_source(job, tmp_path, RecordingReporter(), Servers(tmp_path))
    report = RecordingReporter()
    open_source(replace(job, mode=Mode.INSPECT), tmp_path, report, Servers(tmp_path))
    assert report.data("source")["disks"][0]["other_files"] == (str(tmp_path / "d-flat.vmdk"),)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_mutated_descriptors_never_lead_out_of_their_folder(
    tmp_path: Path, data: st.DataObject
) -> None:
    folder = tmp_path / "vm"
    folder.mkdir(exist_ok=True)
    (folder / "flat").write_bytes(bytes(1024))
    text = bytearray(
        DESCRIPTOR.format(kind="monolithicFlat", extents='RW 2 FLAT "flat" 0').encode()
    )
    for _count in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text)))
        piece = data.draw(st.sampled_from(PIECES))
        text[place : place + data.draw(st.integers(0, 8))] = piece
    path = folder / "d.vmdk"
    path.write_bytes(text)
    try:
        found = look_at_vmdk(path, folder=folder)
    except SourceError as error:
        assert error.code.startswith("E-IMG-")
        return
    assert all(Path(name).resolve().is_relative_to(folder) for name in found.other_files)
