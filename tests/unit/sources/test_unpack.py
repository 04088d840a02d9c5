"""Compressed OVAs, compressed disks, disks in pieces: the same machine, and no bomb goes off."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import stat
import struct
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from inventory.sources import budget, unpack
from inventory.sources.base import disk_uri
from inventory.sources.errors import SourceError
from inventory.sources.follow import OvaFollower
from inventory.sources.ova import OvaReader
from tests.unit.sources.ova_builder import make_ova, make_ovf, manifest, vmdk

NO_LIMIT: Callable[[int], int] = lambda _written: 1 << 60  # noqa: E731
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
    "bzip2": bz2.compress,
}


def reader(path: Path, work: Path, **options: Callable[[], None]) -> OvaReader:
    work.mkdir(exist_ok=True)
    return OvaReader(path, work_dir=work, warn=lambda _text: None, **options)


def guest_bytes(path: Path, work: Path) -> str:
    """Return a digest of what the guest sees of the first disk, after checking the manifest."""
    ova = reader(path, work)
    assert all(d["status"] == "matches" for d in ova.verify(lambda _done, _total: None))
    source = ova.read()
    raw = work / "raw"
    command = ["qemu-img", "convert", "-O", "raw", disk_uri(source.disks[0]), raw]
    subprocess.run(command, check=True)
    assert (source.name, source.disks[0].virtual_size_bytes) == ("demo", 1 << 20)
    return hashlib.sha256(raw.read_bytes()).hexdigest()


@pytest.fixture
def expected(tmp_path: Path) -> str:
    return guest_bytes(make_ova(tmp_path / "plain.ova"), tmp_path / "plain-work")


def zip_of(path: Path, files: dict[str, bytes], **options: int) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def parts(**disks: bytes) -> dict[str, bytes]:
    """Return the files of an OVA."""
    files = {"vm.ovf": make_ovf(), **{n.replace("_", "."): d for n, d in disks.items()}}
    return files | {"vm.mf": manifest(files)}


@pytest.mark.rows("1-T021", "1-T023")
@pytest.mark.parametrize("kind", PACK)
def test_a_compressed_archive_gives_the_same_disk(tmp_path: Path, expected: str, kind: str) -> None:
    data = PACK[kind](make_ova(tmp_path / "a.ova").read_bytes())
    path = tmp_path / "packed.ova"
    path.write_bytes(data)
    assert guest_bytes(path, tmp_path / "work") == expected


@pytest.mark.rows("1-T022")
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_gives_the_same_disk(tmp_path: Path, expected: str, method: int) -> None:
    path = zip_of(tmp_path / "a.zip", parts(d1_vmdk=vmdk()), compression=method)
    assert guest_bytes(path, tmp_path / "work") == expected


@pytest.mark.parametrize(
    ("hrefs", "code"),
    [
        (["disks/d1.vmdk"], None),
        (["disks/d1.vmdk", "disks/d1.vmdk"], None),
        (["disks/d2.vmdk"], "E-OVA-MISSING"),
        (["a/d1.vmdk", "b/d1.vmdk"], "E-OVA-MISSING"),  # which of them is it?
    ],
)
def test_a_zip_without_its_folders(
    tmp_path: Path, expected: str, hrefs: list[str], code: str | None
) -> None:
    files = {"vm.ovf": make_ovf(hrefs=hrefs), "d1.vmdk": vmdk()}
    path, warnings = zip_of(tmp_path / "a.zip", files), list[str]()
    if code is None and len(hrefs) == 1:
        assert guest_bytes(path, tmp_path / "work") == expected
    reader = OvaReader(path, work_dir=tmp_path / "work", warn=warnings.append)
    (tmp_path / "work").mkdir(exist_ok=True)
    if code is None:
        assert {disk.member for disk in reader.read().disks} == {"d1.vmdk"}
        assert "as if its folder had been left out" in warnings[0]
    else:
        with pytest.raises(SourceError) as caught:
            reader.read()
        assert caught.value.code == code


@pytest.mark.rows("1-T076")
@pytest.mark.parametrize("told", [True, False])
def test_a_compressed_disk_gives_the_same_bytes(tmp_path: Path, expected: str, told: bool) -> None:
    ovf = make_ovf(file_attributes=' ovf:compression="gzip"' if told else "")
    path = make_ova(tmp_path / "a.ova", {"d1.vmdk": gzip.compress(vmdk())}, ovf=ovf)
    assert guest_bytes(path, tmp_path / "work") == expected


@pytest.mark.rows("1-T074")
@pytest.mark.parametrize("packed", [False, True])
def test_a_disk_in_pieces_is_put_together(tmp_path: Path, expected: str, packed: bool) -> None:
    data = gzip.compress(vmdk()) if packed else vmdk()
    size = len(data) // 3 + 1
    pieces = {f"d1.vmdk.{n:09d}": data[n * size : (n + 1) * size] for n in range(3)}
    attributes = f' ovf:chunkSize="{size}"' + (' ovf:compression="gzip"' if packed else "")
    path = make_ova(tmp_path / "a.ova", pieces, ovf=make_ovf(file_attributes=attributes))
    assert guest_bytes(path, tmp_path / "work") == expected


@pytest.mark.rows("1-T075")
@pytest.mark.parametrize(
    ("there", "missing"), [((0, 1, 3), "piece 2"), ((0, 2), "piece 1"), ((1, 2), "piece 0")]
)
def test_a_missing_piece_is_named(tmp_path: Path, there: tuple[int, ...], missing: str) -> None:
    pieces = {f"d1.vmdk.{n:09d}": b"x" for n in there}
    ovf = make_ovf(file_attributes=' ovf:chunkSize="1"')
    path = make_ova(tmp_path / "a.ova", pieces, ovf=ovf)
    with pytest.raises(
        SourceError, match=f"{missing} is missing; {len(there)} are there"
    ) as caught:
        reader(path, tmp_path / "work").read()
    assert caught.value.code == "E-OVA-CHUNK-GAP"


@pytest.mark.parametrize("kind", [*PACK, "zip"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.95])
def test_a_cut_or_damaged_archive_is_refused(tmp_path: Path, kind: str, keep: float) -> None:
    if kind == "zip":
        data = zip_of(tmp_path / "z", parts(d1_vmdk=vmdk())).read_bytes()
    else:
        data = PACK[kind](make_ova(tmp_path / "a.ova").read_bytes())
    path = tmp_path / "cut.ova"
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(SourceError) as caught:
        reader(path, tmp_path / "work").read()
    assert caught.value.code in ("E-OVA-UNPACK", "E-OVA-MISSING", "E-OVA-NO-OVF")
    assert "cut.ova" in caught.value.message or caught.value.remedy


def test_zeros_take_no_space_and_what_does_not_fit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    with gzip.open(tmp_path / "zeros.gz", "wb") as stream:
        stream.write(bytes(64 << 20))
    with (tmp_path / "zeros.gz").open("rb") as source:
        unpack.unpack_stream(source, "gzip", target, "zeros", lambda: None, NO_LIMIT)
    assert target.stat().st_size == 64 << 20
    assert target.stat().st_blocks * 512 < 1 << 20
    monkeypatch.setattr(unpack, "_room", lambda _out: 4 << 20)
    (tmp_path / "ones.gz").write_bytes(gzip.compress(b"1" * (8 << 20)))
    with (
        (tmp_path / "ones.gz").open("rb") as source,
        pytest.raises(SourceError, match="4 MiB are free") as caught,
    ):
        unpack.unpack_stream(source, "gzip", tmp_path / "out2", "ones", lambda: None, NO_LIMIT)
    assert caught.value.code == "E-OVA-ROOM"


def bomb(path: Path, *, described: bool) -> Path:
    """Write a gz tar with 640 MiB of zeros in it, 1000 times its own size."""
    zeros = tarfile.TarInfo("zeros")
    zeros.size = 1 << 30
    ovf = tarfile.TarInfo("vm.ovf")
    text = make_ovf()
    ovf.size = len(text)
    head = ovf.tobuf() + text + bytes(-len(text) % 512) if described else b""
    # A gzip file may have several parts, one behind the other.
    part = gzip.compress(bytes(32 << 20))
    path.write_bytes(gzip.compress(head + zeros.tobuf()) + 20 * part)
    return path


@pytest.mark.rows("1-T100")
@pytest.mark.parametrize("described", [True, False])
def test_a_bomb_ends_at_what_its_descriptor_declares(tmp_path: Path, described: bool) -> None:
    path = bomb(tmp_path / "bomb.ova", described=described)
    started = time.process_time()
    with pytest.raises(SourceError) as caught:
        reader(path, tmp_path / "work").read()
    assert time.process_time() - started < 2
    assert caught.value.code == "E-OVA-BOMB"
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.rows("1-T101")
def test_a_disk_larger_than_its_capacity_is_a_bomb(tmp_path: Path) -> None:
    disk = gzip.compress(bytes(300 << 20), compresslevel=1)
    ovf = make_ovf(file_attributes=' ovf:compression="gzip"')
    path = make_ova(tmp_path / "a.ova", {"d1.vmdk": disk}, ovf=ovf)
    with pytest.raises(SourceError, match="more than 257 MiB") as caught:
        reader(path, tmp_path / "work").read()
    assert caught.value.code == "E-OVA-BOMB"


def overlapping(path: Path) -> Path:
    """Return a zip whose table of contents names the bytes of one file several times."""
    zip_of(path, {"vm.ovf": make_ovf(), "d1.vmdk": vmdk()})
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    end = data.index(b"PK\x05\x06")
    entry = bytes(data[start:end])
    tail = bytearray(data[end:])
    tail[8:12] = struct.pack("<HH", 3, 3)
    tail[12:16] = struct.pack("<I", end - data.index(b"PK\x01\x02") + len(entry))
    path.write_bytes(data[:end] + entry.replace(b"d1.vmdk", b"d2.vmdk") + tail)
    return path


@pytest.mark.rows("1-T102")
def test_a_zip_that_names_the_same_bytes_twice_is_a_bomb(tmp_path: Path) -> None:
    path = overlapping(tmp_path / "a.zip")
    with pytest.raises(SourceError, match="the same bytes") as caught:
        reader(path, tmp_path / "work").read()
    assert caught.value.code == "E-OVA-BOMB"


@pytest.mark.rows("1-T102")
def test_a_zip_unpacks_to_no_more_than_its_descriptor_declares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "SPARE_BYTES", 8 << 20)
    files = parts(d1_vmdk=vmdk()) | {"zeros": bytes(20 << 20)}
    path = zip_of(tmp_path / "a.zip", files, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(SourceError) as caught:
        reader(path, tmp_path / "work").read()
    assert caught.value.code == "E-OVA-BOMB"
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.rows("1-T095")
def test_a_zip_cannot_write_elsewhere(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", parts(d1_vmdk=vmdk()) | {"../../evil": b"x"})
    with pytest.raises(SourceError) as caught:
        reader(path, tmp_path / "work").read()
    assert caught.value.code == "E-OVA-BADNAME"
    assert not list(tmp_path.rglob("evil"))


def test_a_file_without_a_name_in_a_zip_is_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", parts(d1_vmdk=vmdk()))
    # In the table of contents; the name is what stands before a zero byte.
    damaged = path.read_bytes()
    at = damaged.rindex(b"d1.vmdk")
    path.write_bytes(damaged[:at] + b"\0" * 7 + damaged[at + 7 :])
    with pytest.raises(SourceError) as caught:
        reader(path, tmp_path / "work").read()
    assert caught.value.code == "E-OVA-NAME"


def test_a_link_in_a_zip_is_not_followed(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"vm.ovf": make_ovf()})
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("d1.vmdk")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(SourceError) as caught:
        reader(path, tmp_path / "work").read()
    assert caught.value.code == "E-OVA-LINK"


def test_two_files_of_one_name_in_a_zip_are_refused(tmp_path: Path) -> None:
    with (
        pytest.warns(UserWarning, match="Duplicate"),
        zipfile.ZipFile(tmp_path / "a.zip", "w") as archive,
    ):
        archive.writestr("vm.ovf", make_ovf())
        for _ in range(2):
            archive.writestr("d1.vmdk", vmdk())
    with pytest.raises(SourceError) as caught:
        reader(tmp_path / "a.zip", tmp_path / "work").read()
    assert caught.value.code == "E-OVA-DUP"


def test_unpacking_can_be_ended(tmp_path: Path) -> None:
    class EndedError(Exception):
        pass

    def look() -> None:
        raise EndedError

    path = tmp_path / "packed.ova"
    path.write_bytes(gzip.compress(make_ova(tmp_path / "a.ova").read_bytes()))
    with pytest.raises(EndedError):
        reader(path, tmp_path / "work", look=look).read()


def test_what_is_unpacked_stays_in_the_work_folder(tmp_path: Path) -> None:
    path = tmp_path / "in" / "packed.ova"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(make_ova(tmp_path / "a.ova").read_bytes()))
    source = reader(path, tmp_path / "work").read()
    assert [p.name for p in path.parent.iterdir()] == ["packed.ova"]
    assert Path(source.disks[0].path).is_relative_to(tmp_path / "work")
    assert source.disks[0].member == "d1.vmdk"


def test_a_packed_upload_is_waited_for(tmp_path: Path) -> None:
    data = gzip.compress(make_ova(tmp_path / "a.ova").read_bytes())
    path = tmp_path / "part"
    path.write_bytes(data[: len(data) // 2])
    follower = OvaFollower(path, len(data), label="packed.ova")
    follower.advance()
    assert "shows up when" in follower.note
    path.write_bytes(data)
    follower.advance()
    follower.finish()
    assert (follower.is_packed, follower.position) == (True, len(data))


@pytest.mark.rows("1-T095")
def test_a_tar_inside_is_judged_like_any_other(tmp_path: Path) -> None:
    info = tarfile.TarInfo("../../evil")
    path = make_ova(tmp_path / "a.ova", special=[info])
    packed = tmp_path / "packed.ova"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(SourceError) as caught:
        reader(packed, tmp_path / "work").read()
    assert caught.value.code == "E-OVA-BADNAME"
