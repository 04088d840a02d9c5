"""Spec rows T051 to T124 on packages that are odd, incomplete or made to do harm."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from inventory.sources.errors import SourceError
from inventory.sources.follow import OvaFollower
from inventory.sources.ova import OvaReader
from inventory.sources.types import Source
from tests.unit.sources.ova_builder import make_ova, make_ovf, manifest, vmdk

Change = Callable[[dict[str, bytes]], None]


def read(path: Path, warnings: list[str] | None = None) -> tuple[Source, list[str]]:
    """Return the machine and the states of the digests; the work folder is work/ beside it."""
    work = path.parent / "work"
    work.mkdir(exist_ok=True)
    told: list[str] = warnings if warnings is not None else []
    reader = OvaReader(path, work_dir=work, warn=told.append)
    source = reader.read()
    return source, [d["status"] for d in reader.verify(lambda _done, _total: None)]


def refused(path: Path) -> SourceError:
    with pytest.raises(SourceError) as caught:
        read(path)
    return caught.value


def folder(tmp_path: Path, files: dict[str, bytes], ovf: bytes | None = None) -> Path:
    top = tmp_path / "ova.a"
    for name, data in ({"vm.ovf": ovf or make_ovf()} | files).items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(data)
    return top


class _Watch:
    """Notes what is opened and started; an audit hook stays for the life of the process."""

    def __init__(self) -> None:
        self.is_on = False
        self.opened: list[str] = []
        self.started: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        if event == "open" and not isinstance(arguments[0], int):
            self.opened.append(os.path.normpath(os.fsdecode(arguments[0])))
        elif event in ("subprocess.Popen", "os.exec", "os.system", "socket.connect"):
            self.started.append(repr(arguments[:2]))

    def opened_outside(self, top: Path) -> list[str]:
        """Return what was opened outside of a folder, but for Python's own modules."""
        own = (str(top), sys.prefix, sys.base_prefix, str(Path(__file__).parents[3]), "/usr/lib")
        return [name for name in self.opened if not name.startswith(own)]


_WATCH = _Watch()


@contextmanager
def watched() -> Iterator[_Watch]:
    """Note what is opened and started inside."""
    _WATCH.opened, _WATCH.started, _WATCH.is_on = [], [], True
    try:
        yield _WATCH
    finally:
        _WATCH.is_on = False


# Manifests.


@pytest.mark.rows("1-T051", "1-T057")
@pytest.mark.parametrize("algorithm", ["SHA1", "SHA256", "SHA512"])
def test_one_wrong_digit_is_a_mismatch(tmp_path: Path, algorithm: str) -> None:
    def change(files: dict[str, bytes]) -> None:
        text = files["vm.mf"].rstrip(b"\n")
        files["vm.mf"] = text[:-1] + (b"0" if text[-1:] != b"0" else b"1") + b"\n"

    path = make_ova(tmp_path / "a.ova", algorithm=algorithm, change=change)
    assert refused(path).code == "E-MF-MISMATCH"


@pytest.mark.rows("1-T050", "1-T061")
@pytest.mark.parametrize(
    ("change", "states"),
    [
        (lambda files: None, ["matches", "matches"]),
        (lambda files: files.pop("vm.mf"), []),
        (lambda files: files.update({"vm.mf": manifest({"vm.ovf": files["vm.ovf"]})}), ["matches"]),
    ],
    ids=["all", "none", "one"],
)
def test_files_without_a_digest_are_no_concern(
    tmp_path: Path, change: Change, states: list[str]
) -> None:
    warnings: list[str] = []
    path = make_ova(tmp_path / "a.ova", change=change)
    assert read(path, warnings)[1] == states
    assert warnings == []


@pytest.mark.rows("1-T060")
def test_a_digest_of_a_missing_file_is_a_warning(tmp_path: Path) -> None:
    warnings: list[str] = []
    text = manifest({"gone": b"x", "d1.vmdk": vmdk()})
    path = make_ova(tmp_path / "a.ova", change=lambda files: files.update({"vm.mf": text}))
    assert sorted(read(path, warnings)[1]) == ["matches", "missing"]
    assert len(warnings) == 1


@pytest.mark.rows("1-T062")
def test_every_manifest_counts(tmp_path: Path) -> None:
    def change(files: dict[str, bytes]) -> None:
        files["vm.mf"] = manifest({"vm.ovf": files["vm.ovf"]})
        files["other.mf"] = manifest({"d1.vmdk": second})

    second = vmdk()
    assert read(make_ova(tmp_path / "a.ova", change=change))[1] == ["matches", "matches"]
    second = b"x"
    assert refused(make_ova(tmp_path / "b.ova", change=change)).code == "E-MF-MISMATCH"


@pytest.mark.rows("1-T063")
def test_a_name_in_a_manifest_may_hold_brackets(tmp_path: Path) -> None:
    path = make_ova(tmp_path / "a.ova", {"a)b.vmdk": vmdk()}, ovf=make_ovf(href="a)b.vmdk"))
    assert read(path)[1] == ["matches", "matches"]


@pytest.mark.rows("1-T064")
def test_a_manifest_does_not_reach_out_of_the_package(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    top = folder(tmp_path, {"d1.vmdk": vmdk(), "vm.mf": b"SHA1(../secret)= " + b"0" * 40})
    warnings: list[str] = []
    with watched() as watch:
        assert read(top, warnings)[1] == []
    assert len(warnings) == 1
    assert watch.opened_outside(top) == []


@pytest.mark.rows("1-T064")
def test_a_link_out_of_the_package_is_hashed_for_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    top = folder(tmp_path, {"d1.vmdk": vmdk(), "vm.mf": b"SHA1(notes.txt)= " + b"0" * 40})
    (top / "notes.txt").symlink_to("../secret")
    warnings: list[str] = []
    with watched() as watch:
        assert read(top, warnings)[1] == []
    assert [line.partition("a link out")[1] for line in warnings] == ["a link out"]
    assert watch.opened_outside(top) == []


@pytest.mark.rows("1-T122")
@pytest.mark.parametrize("data", [b"\n" * 20_000, b"x" * (10 << 20), b"garbage\n" * (7 << 20)])
def test_a_manifest_beyond_the_limits_is_refused(tmp_path: Path, data: bytes) -> None:
    path = make_ova(tmp_path / "a.ova", change=lambda files: files.update({"vm.mf": data}))
    assert refused(path).code == "E-MF-SIZE"


@pytest.mark.rows("1-T124")
def test_a_manifest_that_is_a_link_is_never_opened(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret words\n")
    top = folder(tmp_path, {"d1.vmdk": vmdk()})
    (top / "vm.mf").symlink_to("../secret")
    warnings: list[str] = []
    with watched() as watch:
        read(top, warnings)
    assert len(warnings) == 1
    assert "secret words" not in warnings[0]
    assert watch.opened_outside(top) == []


# What an href means.


@pytest.mark.rows("1-T070", "1-T071")
@pytest.mark.parametrize(
    ("numbers", "taken"),
    [(["000000000", "000000001", "000000002"], "000000002"), (["9", "10"], "10")],
)
def test_of_numbered_files_the_newest_is_taken(
    tmp_path: Path, numbers: list[str], taken: str
) -> None:
    disks = {f"d1.vmdk.{n}": vmdk() if n == taken else b"old" for n in numbers}
    warnings: list[str] = []
    path = make_ova(tmp_path / "a.ova", disks)
    assert read(path, warnings)[0].disks[0].member == f"d1.vmdk.{taken}"
    assert len(warnings) == 1
    follower = OvaFollower(path, path.stat().st_size, label="a.ova")
    follower.finish()


@pytest.mark.rows("1-T072")
def test_numbered_files_of_another_name_do_not_count(tmp_path: Path) -> None:
    path = make_ova(tmp_path / "a.ova", {"xd1.vmdk.000000001": vmdk()})
    assert refused(path).code == "E-OVA-MISSING"


@pytest.mark.parametrize(
    ("sizes", "attributes"),
    [((512, 511, 9), ""), ((512, 513), ""), ((512, 512, 8), ' ovf:size="1000"')],
)
def test_pieces_of_other_sizes_than_described_are_refused(
    tmp_path: Path, sizes: tuple[int, ...], attributes: str
) -> None:
    pieces = {f"d1.vmdk.{n:09d}": b"x" * size for n, size in enumerate(sizes)}
    ovf = make_ovf(file_attributes=f' ovf:chunkSize="512"{attributes}')
    assert refused(make_ova(tmp_path / "a.ova", pieces, ovf=ovf)).code == "E-OVA-CHUNK-SIZE"


def test_a_disk_that_may_be_in_pieces_may_be_whole(tmp_path: Path) -> None:
    ovf = make_ovf(file_attributes=' ovf:chunkSize="1000000000"')
    assert read(make_ova(tmp_path / "a.ova", ovf=ovf))[0].disks[0].member == "d1.vmdk"


@pytest.mark.rows("1-T077")
@pytest.mark.parametrize(
    ("compression", "code"),
    [("identity", None), ("", None), ("bzip2", "E-OVF-COMPRESSION"), ("GZIP", "E-OVF-COMPRESSION")],
)
def test_the_compressions_of_a_disk(tmp_path: Path, compression: str, code: str | None) -> None:
    ovf = make_ovf(file_attributes=f' ovf:compression="{compression}"')
    path = make_ova(tmp_path / "a.ova", ovf=ovf)
    if code is None:
        assert read(path)[0].name == "demo"
    else:
        assert refused(path).code == code


@pytest.mark.rows("1-T079")
def test_a_disk_that_is_not_compressed_as_it_says_is_refused(tmp_path: Path) -> None:
    ovf = make_ovf(file_attributes=' ovf:compression="gzip"')
    assert refused(make_ova(tmp_path / "a.ova", ovf=ovf)).code == "E-OVA-UNPACK"


@pytest.mark.rows("1-T082")
@pytest.mark.parametrize(
    "name", ["my disk.vmdk", "é ü.vmdk", "it's.vmdk", "a;b.vmdk", "$(touch x).vmdk", 'q".vmdk']
)
def test_odd_names_are_names(tmp_path: Path, name: str) -> None:
    ovf = make_ovf(href=name.replace('"', "&quot;"))
    path = make_ova(tmp_path / "a.ova", {name: vmdk()}, ovf=ovf, tar_format=tarfile.PAX_FORMAT)
    assert read(path)[0].disks[0].member == name


@pytest.mark.rows("1-T090", "1-T091", "1-T094")
@pytest.mark.parametrize(
    "href", ["../../../../../../../etc/passwd", "/etc/passwd", "../ova.ab/secret"]
)
def test_an_href_does_not_lead_out_of_a_folder(tmp_path: Path, href: str) -> None:
    (tmp_path / "ova.ab").mkdir()
    (tmp_path / "ova.ab/secret").write_bytes(vmdk())
    top = folder(tmp_path, {}, make_ovf(href=href))
    with watched() as watch:
        assert refused(top).code == "E-OVA-ESCAPE"
    assert watch.opened_outside(top) == []


@pytest.mark.rows("1-T092", "1-T093")
@pytest.mark.parametrize(
    ("target", "code"), [("/etc/passwd", "E-OVA-ESCAPE"), ("sub/real.vmdk", None)]
)
def test_a_link_may_lead_to_a_file_inside(tmp_path: Path, target: str, code: str | None) -> None:
    top = folder(tmp_path, {"sub/real.vmdk": vmdk()})
    (top / "d1.vmdk").symlink_to(target)
    if code is None:
        assert read(top)[0].disks[0].path == str(top / "sub/real.vmdk")
    else:
        assert refused(top).code == code


@pytest.mark.rows("1-T099")
def test_names_that_look_like_options_are_names(tmp_path: Path) -> None:
    files = {"--help": vmdk(), "-x": vmdk(), "--use-compress-program=touch x": b"x"}
    path = make_ova(tmp_path / "a.ova", files, ovf=make_ovf(hrefs=["--help", "-x"]))
    with watched() as watch:
        source, states = read(path)
    assert [disk.member for disk in source.disks] == ["--help", "-x"]
    assert states == ["matches"] * 4
    assert all("qemu-img" in command for command in watch.started)


@pytest.mark.rows("1-T123")
@pytest.mark.parametrize(("href", "code"), [("sub", "E-OVA-MISSING"), ("", "E-OVF-HREF")])
def test_an_href_names_a_file(tmp_path: Path, href: str, code: str) -> None:
    top = folder(tmp_path, {"sub/x": b"x"}, make_ovf(href=href))
    assert refused(top).code == code


# Archives.


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.rows("1-T096")
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_below_a_link_is_refused(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    target = tmp_path / "out"
    target.mkdir()
    special = [member("dir", tarfile.SYMTYPE, str(target)), member("dir/x")]
    path = make_ova(tmp_path / "a.ova", special=special)
    path.write_bytes(pack(path.read_bytes()))
    assert refused(path).code == "E-OVA-BADNAME"
    assert list(target.iterdir()) == []


@pytest.mark.rows("1-T107", "1-T108")
@pytest.mark.parametrize("where", ["in the disk", "in the header behind the descriptor"])
def test_an_archive_that_is_cut_off_is_refused(tmp_path: Path, where: str) -> None:
    path = make_ova(tmp_path / "a.ova", order="ovf disks", algorithm=None)
    with tarfile.open(path) as archive:
        disk = archive.getmember("d1.vmdk")
    cut = disk.offset_data + disk.size // 2 if where == "in the disk" else disk.offset + 100
    os.truncate(path, cut)
    assert refused(path).code == "E-OVA-UNPACK"


@pytest.mark.rows("1-T115")
def test_a_name_of_bytes_that_are_no_text_is_read_and_shown_escaped(tmp_path: Path) -> None:
    name = "caf\udce9.vmdk"
    path = tmp_path / "a.ova"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as archive:
        for file, data in (("vm.ovf", make_ovf()), ("d1.vmdk", vmdk()), (name, b""), (name, b"")):
            info = member(file)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    warnings: list[str] = []
    assert read(path, warnings)[0].name == "demo"
    assert [w for w in warnings if "caf\\\\xe9" in w]
    assert all(w.isprintable() for w in warnings)


@pytest.mark.rows("1-T116")
@pytest.mark.parametrize(
    "size", [b"\xff" * 12, b"\x80" + b"\x7f" * 11, b"77777777777\0"], ids=["-1", "2^87", "8 GiB"]
)
def test_an_impossible_size_is_refused(tmp_path: Path, size: bytes) -> None:
    path = make_ova(tmp_path / "a.ova")
    with tarfile.open(path) as archive:
        head = archive.getmember("d1.vmdk").offset
    data = bytearray(path.read_bytes())
    data[head + 124 : head + 136] = size
    data[head + 148 : head + 156] = b" " * 8
    data[head + 148 : head + 156] = b"%06o\0 " % sum(data[head : head + 512])
    path.write_bytes(data)
    assert refused(path).code == "E-OVA-UNPACK"


@pytest.mark.rows("1-T117")
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_devices_are_passed_over_and_modes_ignored(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    setuid = member("setuid")
    setuid.mode = 0o4777
    special = [member("fifo", tarfile.FIFOTYPE), member("sda", tarfile.BLKTYPE), setuid]
    path = make_ova(tmp_path / "a.ova", special=special)
    path.write_bytes(pack(path.read_bytes()))
    warnings: list[str] = []
    assert read(path, warnings)[0].name == "demo"
    assert len(warnings) == 2
    made = list((tmp_path / "work").rglob("*"))
    assert all(p.is_dir() or p.is_file() for p in made)
    assert not [p for p in made if p.stat().st_mode & 0o6077 and p.is_dir()]


@pytest.mark.rows("1-T118")
def test_ten_thousand_files_are_too_many(tmp_path: Path) -> None:
    path = tmp_path / "a.ova"
    with path.open("wb") as stream:
        for number in range(10_002):
            stream.write(member(f"f{number}").tobuf(tarfile.USTAR_FORMAT))
        stream.write(bytes(1024))
    assert refused(path).code == "E-OVA-MEMBERS"


@pytest.mark.rows("1-T111")
@pytest.mark.parametrize("tar_format", ["gnu", "posix"])
@pytest.mark.parametrize("extents", [3, 60])
def test_a_file_stored_without_its_holes_has_all_its_bytes(
    tmp_path: Path, tar_format: str, extents: int
) -> None:
    disk = tmp_path / "d1.vmdk"
    with disk.open("wb") as stream:
        stream.truncate(8 << 20)
        for number in range(extents):
            stream.seek(number << 17)
            stream.write(b"x%d" % number)
    (tmp_path / "vm.ovf").write_bytes(make_ovf())
    (tmp_path / "vm.mf").write_bytes(manifest({"d1.vmdk": disk.read_bytes()}))
    path = tmp_path / "a.ova"
    command = ["tar", "--sparse", f"--format={tar_format}", "-C", tmp_path, "-cf", path]
    subprocess.run([*command, "vm.ovf", "vm.mf", "d1.vmdk"], check=True)
    assert path.stat().st_size < 1 << 20
    source, states = read(path)
    assert Path(source.disks[0].path).read_bytes() == disk.read_bytes()
    assert states == ["matches"]
    with pytest.raises(SourceError) as caught:
        OvaFollower(path, path.stat().st_size, label="a.ova").finish()
    assert caught.value.code == "E-OVA-SPARSE"
