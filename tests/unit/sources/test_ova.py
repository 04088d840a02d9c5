"""OVAs good, damaged and hostile."""

from __future__ import annotations

import os
import random
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inventory.sources.base import disk_uri
from inventory.sources.errors import SourceError
from inventory.sources.follow import OvaFollower
from inventory.sources.ova import OvaReader, name_from_file
from inventory.sources.types import Source
from tests.unit.sources.ova_builder import make_ova, make_ovf, manifest, vmdk

CREATE = ("qemu-img", "create", "-q", "-f", "qcow2", "-u")


def reader(path: Path, warnings: list[str] | None = None) -> OvaReader:
    """Return a reader that collects warnings."""
    return OvaReader(path, work_dir=path.parent, warn=(warnings or []).append)


def code_of(work: Callable[[], object]) -> str:
    """Return the code of the error that `work` raises."""
    with pytest.raises(SourceError) as caught:
        work()
    assert caught.value.message.endswith((".", ":")) or caught.value.remedy
    return caught.value.code


def verify(path: Path, warnings: list[str] | None = None) -> list[str]:
    """Return the states of the digests."""
    found: list[str] = warnings if warnings is not None else []
    ova = OvaReader(path, work_dir=path.parent, warn=found.append)
    return [d["status"] for d in ova.verify(lambda _done, _total: None)]


@pytest.mark.rows("1-T020")
def test_a_disk_in_a_tar_is_served_in_place_with_the_right_bytes(tmp_path: Path) -> None:
    path = make_ova(tmp_path / "a.ova")
    [disk] = reader(path).read().disks
    assert (disk.format, disk.member, disk.virtual_size_bytes) == ("vmdk", "d1.vmdk", 1 << 20)
    out = tmp_path / "out.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", disk_uri(disk), str(out)], check=True)
    assert out.read_bytes()[:30_000] == b"v2v" * 10_000


@pytest.mark.rows("1-T034", "1-T035")
@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_give_the_right_offset(tmp_path: Path, tar_format: int) -> None:
    name = "d" * 120 + ".vmdk"
    path = make_ova(
        tmp_path / "a.ova", {name: vmdk()}, ovf=make_ovf(href=name), tar_format=tar_format
    )
    assert reader(path).read().disks[0].virtual_size_bytes == 1 << 20
    assert verify(path) == ["matches", "matches"]


@pytest.mark.rows("1-T025", "1-T098", "1-T121")
def test_a_folder_and_a_descriptor_read_like_the_tar(tmp_path: Path) -> None:
    folder = tmp_path / "vm"
    folder.mkdir()
    (folder / "vm.ovf").write_bytes(make_ovf())
    (folder / "d1.vmdk").write_bytes(vmdk())
    (folder / "vm.mf").write_bytes(manifest({"d1.vmdk": vmdk()}))
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to(".")
    for path in (folder, folder / "vm.ovf"):
        source = reader(path).read()
        assert (source.name, source.disks[0].path) == ("demo", str(folder / "d1.vmdk"))
        assert verify(path) == ["matches"]


@pytest.mark.rows("1-T050")
@pytest.mark.parametrize("algorithm", ["SHA1", "SHA256", "SHA512"])
def test_digests_are_verified(tmp_path: Path, algorithm: str) -> None:
    assert verify(make_ova(tmp_path / "a.ova", algorithm=algorithm)) == ["matches", "matches"]


def spoil(text: bytes, replacement: bytes) -> Callable[[dict[str, bytes]], None]:
    """Return a change of the manifest."""

    def change(files: dict[str, bytes]) -> None:
        assert text in files["vm.mf"]
        files["vm.mf"] = files["vm.mf"].replace(text, replacement)

    return change


@pytest.mark.rows("1-T052", "1-T053", "1-T054", "1-T055", "1-T056", "1-T059", "1-T060", "1-T064")
@pytest.mark.parametrize(
    ("text", "replacement", "warns"),
    [
        (b")= ", b")=", False),
        (b"(d1", b" (d1", False),
        (b"\n", b"\r\n", False),
        (b"\n", b"\n\n", False),
        (b"SHA256(", b"SHA2-256(", False),
        (b"SHA256(vm", b"garbage\nSHA256(vm", True),
        (b"SHA256(d1.vmdk)", b"SHA256(../../../etc/hostname)", True),
        (b"SHA256(d1.vmdk)", b"SHA256(missing)", True),
        (b"SHA256(d1.vmdk)", b"MD5(d1.vmdk)", True),
    ],
)
def test_odd_manifests_are_read(
    tmp_path: Path, text: bytes, replacement: bytes, warns: bool
) -> None:
    warnings: list[str] = []
    states = verify(make_ova(tmp_path / "a.ova", change=spoil(text, replacement)), warnings)
    assert "matches" in states
    assert bool(warnings) == warns


@pytest.mark.rows("1-T058")
def test_a_digest_in_upper_case_counts(tmp_path: Path) -> None:
    def change(files: dict[str, bytes]) -> None:
        head, _, digest = files["vm.mf"].strip().rpartition(b" ")
        files["vm.mf"] = head + b" " + digest.upper()

    assert verify(make_ova(tmp_path / "a.ova", change=change)) == ["matches", "matches"]


@pytest.mark.rows("1-T065")
def test_a_changed_disk_is_a_mismatch_with_both_digests(tmp_path: Path) -> None:
    def change(files: dict[str, bytes]) -> None:
        files["d1.vmdk"] = files["d1.vmdk"][:-1] + b"x"

    path = make_ova(tmp_path / "a.ova", change=change)
    with pytest.raises(SourceError, match=r"digest is [0-9a-f]{64}, expected [0-9a-f]{64}"):
        verify(path)


def test_contradicting_digests_are_refused(tmp_path: Path) -> None:
    line = b"SHA256(d1.vmdk)= " + b"0" * 64 + b"\n"
    path = make_ova(tmp_path / "a.ova", change=spoil(b"SHA256(vm", line + b"SHA256(vm"))
    assert code_of(lambda: verify(path)) == "E-MF-CONTRADICTION"


def info(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    """Return a member without data."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.rows("1-T095", "1-T115")
@pytest.mark.parametrize("name", ["../../evil", "/abs/evil", "a/../../b", "a\nb", "esc\x1b"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    path = make_ova(tmp_path / "a.ova", special=[info(name)])
    assert code_of(reader(path).read) == "E-OVA-BADNAME"


@pytest.mark.rows("1-T097")
def test_a_descriptor_that_is_a_link_is_never_followed(tmp_path: Path) -> None:
    path = tmp_path / "a.ova"
    with tarfile.open(path, "w") as archive:
        archive.addfile(info("vm.ovf", tarfile.SYMTYPE, "/etc/passwd"))
    assert code_of(reader(path).read) == "E-OVA-LINK"


def test_devices_and_links_are_ignored(tmp_path: Path) -> None:
    special = [info("fifo", tarfile.FIFOTYPE), info("l", tarfile.SYMTYPE, "/")]
    assert reader(make_ova(tmp_path / "a.ova", special=special)).read().name == "demo"


@pytest.mark.rows("1-T109", "1-T110")
@pytest.mark.parametrize("name", ["d1.vmdk", "./d1.vmdk", "vm.ovf"])
def test_two_files_of_one_name_are_refused(tmp_path: Path, name: str) -> None:
    path = make_ova(tmp_path / "a.ova", special=[info(name)])
    assert code_of(reader(path).read) == "E-OVA-DUP"


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_a_truncated_archive_is_refused(tmp_path: Path, keep: float) -> None:
    path = make_ova(tmp_path / "a.ova")
    os.truncate(path, int(path.stat().st_size * keep))
    assert code_of(reader(path).read) in ("E-OVA-UNPACK", "E-OVA-MISSING", "E-OVA-NO-OVF")


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"\x1f\x8b\x08", "E-OVA-UNPACK"),
        (b"\xfd7zXZ\x00", "E-OVA-UNPACK"),
        (b"PK\x03\x04", "E-OVA-UNPACK"),
        (b"\x28\xb5\x2f\xfd", "E-OVA-UNPACK"),
        (b"KDMV", "E-OVA-FORMAT"),
        (b"", "E-OVA-FORMAT"),
    ],
)
def test_other_files_are_refused_by_their_content(tmp_path: Path, head: bytes, code: str) -> None:
    path = tmp_path / "x.ova"
    path.write_bytes(head + b"x" * 2000 if head else b"")
    assert code_of(reader(path).read) == code


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"href": "../../../etc/passwd"}, "E-OVA-ESCAPE"),
        ({"href": "/etc/passwd"}, "E-OVA-ESCAPE"),
        pytest.param(
            {"href": "https://host/d.vmdk"}, "E-OVF-REMOTE-HREF", marks=pytest.mark.rows("1-T080")
        ),
        ({"href": "--help"}, "E-OVA-MISSING"),
        ({"file_attributes": ' ovf:compression="gzip"'}, "E-OVA-UNPACK"),
        ({"file_attributes": ' ovf:compression="lzh"'}, "E-OVF-COMPRESSION"),
        ({"href": "gone", "file_attributes": ' ovf:chunkSize="7"'}, "E-OVA-MISSING"),
        ({"file_attributes": ' ovf:chunkSize="0"'}, "E-OVF-INT"),
        ({"host_resource": "nonsense"}, "E-OVF-HOSTRES"),
        ({"host_resource": "ovf:/disk/k'1"}, "E-OVF-FILEREF"),
        ({"vcpus": 0}, "E-OVF-INT"),
        ({"vcpus": "1.5"}, "E-OVF-INT"),
        ({"firmware": '<vmw:Config vmw:key="firmware" vmw:value="x"/>'}, "E-OVF-FIRMWARE"),
        ({"doctype": '<!DOCTYPE x [<!ENTITY a "b">]>'}, "E-XML-DTD"),
        ({"doctype": '<!DOCTYPE x SYSTEM "http://host/x.dtd">'}, "E-XML-DTD"),
        ({"name": "<Name>"}, "E-XML-PARSE"),
        ({"more": "<x>" * 400 + "</x>" * 400}, "E-XML-DEPTH"),
    ],
)
def test_descriptors_are_refused(tmp_path: Path, options: dict[str, str], code: str) -> None:
    path = make_ova(tmp_path / "a.ova", ovf=make_ovf(**options))
    assert code_of(reader(path).read) == code


@pytest.mark.rows("1-T112")
def test_a_disk_over_another_file_is_refused(tmp_path: Path) -> None:
    image = tmp_path / "d.qcow2"
    subprocess.run(
        [
            "qemu-img",
            "create",
            "-q",
            "-f",
            "qcow2",
            "-u",
            "-F",
            "raw",
            "-b",
            "/etc/shadow",
            str(image),
            "1M",
        ],
        check=True,
    )
    path = make_ova(tmp_path / "a.ova", {"d1.vmdk": image.read_bytes()})
    assert code_of(reader(path).read) == "E-IMG-BACKING"


@pytest.mark.rows("1-T113")
def test_a_vmdk_that_names_other_files_is_refused(tmp_path: Path) -> None:
    text = b'# Disk DescriptorFile\nversion=1\nRW 2048 FLAT "/dev/sda" 0\n'
    path = make_ova(tmp_path / "a.ova", {"d1.vmdk": text})
    assert code_of(reader(path).read) == "E-IMG-EXTENT"


@pytest.mark.rows("1-T081")
def test_names_with_dots_percents_and_folders_are_found(tmp_path: Path) -> None:
    for href, name in (("./d1.vmdk", "d1.vmdk"), ("my%20disk.vmdk", "my disk.vmdk")):
        path = make_ova(tmp_path / "a.ova", {name: vmdk()}, ovf=make_ovf(href=href))
        assert reader(path).read().disks[0].member == name


@pytest.mark.parametrize(
    ("name", "expected"), [("a-sda", "a"), ("b.tar.gz", "b.tar.gz"), ("a.ova.vmdk", "a.ova")]
)
def test_a_name_is_taken_from_the_file(name: str, expected: str) -> None:
    assert name_from_file(name) == expected


def test_a_follower_shows_the_machine_before_the_rest_has_arrived(tmp_path: Path) -> None:
    whole = make_ova(tmp_path / "whole.ova").read_bytes()
    path = tmp_path / "part.ova"
    follower = OvaFollower(path, len(whole), label="part.ova")
    shown_at = None
    for end in range(0, len(whole) + 700, 700):
        path.write_bytes(whole[:end])
        follower.advance()
        if follower.source and shown_at is None:
            shown_at = end
    follower.finish()
    assert shown_at is not None and shown_at < 6000
    assert [d["status"] for d in follower.digests] == ["matches", "matches"]
    late = OvaFollower(path, len(whole), label="part.ova")
    late.finish()
    assert late.digests == follower.digests


def test_a_follower_refuses_a_wrong_digest_and_a_cut_file(tmp_path: Path) -> None:
    def change(files: dict[str, bytes]) -> None:
        files["d1.vmdk"] = files["d1.vmdk"][:-1] + b"x"

    path = make_ova(tmp_path / "a.ova", change=change)
    bad = OvaFollower(path, path.stat().st_size, label="a.ova")
    assert code_of(bad.advance) == "E-MF-MISMATCH"
    good = make_ova(tmp_path / "b.ova")
    size = good.stat().st_size
    os.truncate(good, size // 2)
    assert code_of(OvaFollower(good, size, label="b.ova").finish) == "E-OVA-UNPACK"


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 1 << 32), where=st.sampled_from(["head", "anywhere"]))
def test_mutated_packages_end_in_a_clear_error_or_a_source(
    tmp_path: Path, seed: int, where: str
) -> None:
    chance = random.Random(seed)
    data = bytearray(make_ova(tmp_path / "a.ova").read_bytes())
    reach = 6000 if where == "head" else len(data)
    for _ in range(chance.randint(1, 8)):
        data[chance.randrange(reach)] = chance.randrange(256)
    path = tmp_path / "mutated.ova"
    path.write_bytes(data)
    try:
        assert isinstance(reader(path).read(), Source)
        verify(path)
    except SourceError as error:
        assert error.code.startswith("E-")
