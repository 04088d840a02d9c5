"""Where drivers come from, and what an ISO holds: rows T19, T20, T48 and bad ISOs."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest

from conversions.pipeline.windows.collection import (
    DriverCollectionError,
    find_tools,
    locate,
    open_collection,
    service_program,
)
from conversions.pipeline.windows.iso9660 import SECTOR, IsoError, IsoImage
from tests.guests import virtio_win


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the ISO."""
    return virtio_win.driver_iso_tree(tmp_path_factory.mktemp("vi"))


@pytest.fixture(scope="session")
def iso(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ISO."""
    return virtio_win.make_iso(tree, tmp_path_factory.mktemp("iso") / "virtio-win.iso")


@pytest.mark.rows("3-T19")
@pytest.mark.parametrize(
    ("environ", "with_iso", "expected"),
    [
        ({"VIRTIO_WIN": "/a", "VIRTIO_WIN_DIR": "/b"}, True, "/a"),
        ({"VIRTIO_WIN_DIR": "/b"}, True, "/b"),
        ({}, True, "virtio-win/virtio-win.iso"),
        ({}, False, "virtio-win"),
    ],
    ids=["variable", "old variable", "iso", "folder"],
)
def test_t19_where_drivers_are_expected(
    tmp_path: Path, environ: dict[str, str], with_iso: bool, expected: str
) -> None:
    if with_iso:
        virtio_win.put(tmp_path / "virtio-win/virtio-win.iso")
    place, named = locate("", environ, data_dir=tmp_path)
    assert place == (Path(expected) if environ else tmp_path / expected)
    assert named is bool(environ)
    assert locate("/c", environ, data_dir=tmp_path) == (Path("/c"), True)


@pytest.mark.rows("3-T20")
def test_t20_a_named_place_must_exist(tmp_path: Path) -> None:
    with pytest.raises(DriverCollectionError, match="not there"):
        open_collection(tmp_path / "no.iso", named=True)
    assert open_collection(tmp_path / "no.iso", named=False) is None


@pytest.mark.parametrize("options", [(), ("-no-pad",)], ids=["plain", "no padding"])
def test_an_iso_holds_what_was_packed(tree: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    image = IsoImage(virtio_win.make_iso(tree, tmp_path / "x.iso", *options))
    expected = sorted(str(p.relative_to(tree)) for p in tree.rglob("*") if p.is_file())
    assert image.paths() == expected
    assert image.label == "virtio-win-0.1.285"
    path = "NetKVM/2k12R2/amd64/netkvmco.dll"
    assert image.read(path) == b"netkvmco.dll\n"
    assert image.size_bytes(path) == 13


def test_without_joliet_rock_ridge_names_are_read(tree: Path, iso: Path, tmp_path: Path) -> None:
    data = bytearray(iso.read_bytes())
    for number in range(16, 24):
        if data[number * SECTOR : number * SECTOR + 6] == b"\2CD001":
            data[number * SECTOR] = 3
    plain = tmp_path / "x.iso"
    plain.write_bytes(data)
    assert IsoImage(plain).paths() == IsoImage(iso).paths()


def test_something_else_is_no_iso(tmp_path: Path) -> None:
    for name, content in {"empty": b"", "text": b"hello\n" * 9000, "zeros": bytes(70000)}.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(IsoError, match="not an ISO image"):
            open_collection(path, named=True)


def test_a_truncated_iso_says_so(iso: Path, tmp_path: Path) -> None:
    data = iso.read_bytes()
    for size in (18 * SECTOR, len(data) // 4, len(data) // 2, len(data) - 400_000):
        cut = tmp_path / f"{size}.iso"
        cut.write_bytes(data[:size])
        with pytest.raises(IsoError):
            image = IsoImage(cut)
            for path in image.paths():
                image.read(path)


def test_an_iso_whose_folder_holds_itself_ends(iso: Path, tmp_path: Path) -> None:
    data = bytearray(iso.read_bytes())
    joliet = (
        next(n for n in range(16, 24) if data[n * SECTOR : n * SECTOR + 6] == b"\2CD001") * SECTOR
    )
    start, size = struct.unpack_from("<I4xI", data, joliet + 158)
    at = start * SECTOR
    at += data[at]
    at += data[at]  # the first entry after . and ..
    assert data[at + 25] & 2
    struct.pack_into("<I4xI", data, at + 2, start, size)
    looped = tmp_path / "x.iso"
    looped.write_bytes(data)
    with pytest.raises(IsoError, match="appears twice"):
        IsoImage(looped)


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_iso_ends_in_a_listing_or_an_error(iso: Path, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(iso.read_bytes())
    for _ in range(60):
        data[chance.randrange(16 * SECTOR, 200 * SECTOR)] = chance.randrange(256)
    damaged = tmp_path / "x.iso"
    damaged.write_bytes(data)
    try:
        image = IsoImage(damaged)
        assert all(len(image.read(path)) == image.size_bytes(path) for path in image.paths())
    except IsoError:
        pass


def test_a_folder_is_listed_through_links_once(tmp_path: Path) -> None:
    virtio_win.put(tmp_path / "real/w10/amd64/viostor.sys")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real/back").symlink_to(folder)
    (folder / "dangling.sys").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "pipe.sys")
    collection = open_collection(folder, named=True)
    assert collection is not None
    assert "link/w10/amd64/viostor.sys" in collection.paths()
    assert not [p for p in collection.paths() if "dangling" in p or "pipe" in p]
    assert len(collection.paths()) < 5


@pytest.mark.rows("3-T48")
def test_t48_the_tools_of_the_first_start(tmp_path: Path) -> None:
    empty = virtio_win.tools_folder(tmp_path / "empty", ())
    assert find_tools(str(empty), {}, tmp_path) == {}
    old = virtio_win.tools_folder(tmp_path / "old", ("pvvxsvc.exe",))
    assert service_program(find_tools("", {"VIRT_TOOLS_DATA_DIR": str(old)}, tmp_path)) == (
        "pvvxsvc.exe"
    )
    both = virtio_win.tools_folder(tmp_path / "both", ("pvvxsvc.exe", "rhsrvany.exe"))
    assert service_program(find_tools(str(both), {}, tmp_path)) == "rhsrvany.exe"
    dangling = virtio_win.tools_folder(tmp_path / "dangling", ())
    (dangling / "rhsrvany.exe").symlink_to(tmp_path / "nowhere")
    assert service_program(find_tools(str(dangling), {}, tmp_path)) is None
    with pytest.raises(DriverCollectionError, match="not there"):
        find_tools(str(tmp_path / "no"), {}, tmp_path)


def test_tools_are_found_beside_the_drivers(tmp_path: Path) -> None:
    iso = tmp_path / "virtio-win.iso"
    virtio_win.put(iso)
    assert find_tools("", {}, iso, data_dir=tmp_path / "share") == {}
    virtio_win.tools_folder(tmp_path / "virt-tools")
    assert set(find_tools("", {}, iso, data_dir=tmp_path / "share")) == set(virtio_win.TOOLS)
