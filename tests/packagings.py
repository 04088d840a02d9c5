"""One machine in every packaging that OVAs come in, and whether all its conversions end alike.

    python -m tests.packagings OVA

Packs the OVA's files anew in each way, converts each and prints a digest of what the guest then
sees: the start of its disk, and each file's content, permissions and owner.  The status is 1 when
they are not all the same.  Needs room for a handful of copies.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import zstandard

from tests.differential import Files

# What two conversions of the very same file do not have in common either: the seed of the random
# number generator, and what tools of the guest that ran stamp with the time.
NEVER_ALIKE = re.compile(
    r".*/random-seed|/boot/(initrd|initramfs).*|/var/(log|cache)/.*|/run/.*|/etc/lvm/.*"
)
# Boot sector and partition table, before any file system: those note when they were mounted.
_START_BYTES = 32 << 10
_PIECES = 3
# Longer than the 100 bytes that a plain tar header has for a name.
_FAR_BELOW = f"exports/{'v' * 90}/{'m' * 90}/"

# Quick rather than small.
_COMPRESS: Mapping[str, Callable[..., Any]] = {
    "gz": partial(gzip.open, compresslevel=1),
    "bz2": partial(bz2.open, compresslevel=1),
    "xz": partial(lzma.open, preset=0),
    "zst": zstandard.open,
}

Members = Mapping[str, Path]
"""Names in the OVA and the files that hold their content, descriptor first."""


def members_of(ova: Path, folder: Path) -> Members:
    """Unpack a plain OVA into a folder."""
    with tarfile.open(ova) as tar:
        tar.extractall(folder)  # noqa: S202  an OVA of our own
        names = tar.getnames()
    return {name: folder / name for name in names}


def as_tar(
    members: Members, out: Path, *, form: int = tarfile.USTAR_FORMAT, below: str = ""
) -> Path:
    """Pack members as an OVA; `below` is the folder that all of them lie in."""
    with tarfile.open(out, "w", format=form) as tar:
        for name, file in members.items():
            tar.add(file, below + name)
    return out


def as_zip(members: Members, out: Path, method: int) -> Path:
    """Pack members as a zip."""
    with zipfile.ZipFile(out, "w", method, strict_timestamps=False) as archive:
        for name, file in members.items():
            archive.write(file, name)
    return out


def compress(file: Path, out: Path, how: str) -> Path:
    """Compress a file."""
    with file.open("rb") as source, _COMPRESS[how](out, mode="wb") as stream:
        shutil.copyfileobj(source, stream, 1 << 20)
    return out


def with_disks(members: Members, folder: Path, attributes: str, disks: Members) -> Members:
    """Return members with other files for the disks, described by these attributes of each File.

    Writes the new descriptor and a manifest of it all into the folder.
    """
    name = next(name for name in members if name.endswith(".ovf"))
    text = members[name].read_text()
    descriptor = folder / name
    descriptor.write_text(text.replace("<File ", f"<File {attributes} ") if attributes else text)
    described = {name: descriptor, **disks}
    manifest = descriptor.with_suffix(".mf")
    lines = [f"SHA256({n})= {_sha256(file)}\n" for n, file in described.items()]
    manifest.write_text("".join(lines))
    return {name: descriptor, manifest.name: manifest, **disks}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _disks(members: Members) -> Members:
    return {name: file for name, file in members.items() if name.endswith(".vmdk")}


def _in_pieces(members: Members, folder: Path) -> Members:
    (name, file), *others = _disks(members).items()
    assert not others, "only an OVA with one disk is packed in pieces"
    size = file.stat().st_size // _PIECES + 1
    pieces = {}
    with file.open("rb") as stream:
        for number in range(_PIECES):
            piece = folder / f"{name}.{number:09d}"
            piece.write_bytes(stream.read(size))
            pieces[piece.name] = piece
    return with_disks(members, folder, f'ovf:chunkSize="{size}"', pieces)


def _packed_disks(members: Members, folder: Path) -> Members:
    disks = {name: compress(file, folder / name, "gz") for name, file in _disks(members).items()}
    return with_disks(members, folder, 'ovf:compression="gzip"', disks)


def _growing_disks(members: Members, folder: Path) -> Members:
    disks = {}
    for name, file in _disks(members).items():
        disks[name] = folder / name
        command = ["qemu-img", "convert", "-O", "vmdk", "-o", "subformat=monolithicSparse"]
        subprocess.run([*command, file, folder / name], check=True)
    return with_disks(members, folder, "", disks)


def _as_folder(members: Members, out: Path) -> Path:
    for name, file in members.items():
        (out / name).hardlink_to(file)
    return out


def _descriptor_of(folder: Path) -> Path:
    return next(folder.glob("*.ovf"))


Packer = Callable[[Members, Path], Path]
"""Packs members; may leave files in the empty folder it is given.  Returns what to convert."""

PACKAGINGS: Mapping[str, Packer] = {
    "tar": lambda m, out: as_tar(m, out / "vm.ova"),
    "tar.gz": lambda m, out: compress(as_tar(m, out / "vm.tar"), out / "vm.ova", "gz"),
    "tar.bz2": lambda m, out: compress(as_tar(m, out / "vm.tar"), out / "vm.ova", "bz2"),
    "tar.xz": lambda m, out: compress(as_tar(m, out / "vm.tar"), out / "vm.ova", "xz"),
    "tar.zst": lambda m, out: compress(as_tar(m, out / "vm.tar"), out / "vm.ova", "zst"),
    "zip": lambda m, out: as_zip(m, out / "vm.zip", zipfile.ZIP_DEFLATED),
    "zip, stored": lambda m, out: as_zip(m, out / "vm.zip", zipfile.ZIP_STORED),
    "folder": _as_folder,
    "descriptor": lambda m, out: _descriptor_of(_as_folder(m, out)),
    "gnu names": lambda m, out: as_tar(
        m, out / "vm.ova", form=tarfile.GNU_FORMAT, below=_FAR_BELOW
    ),
    "pax names": lambda m, out: as_tar(
        m, out / "vm.ova", form=tarfile.PAX_FORMAT, below=_FAR_BELOW
    ),
    "packed disks": lambda m, out: as_tar(_packed_disks(m, out), out / "vm.ova"),
    "disks in pieces": lambda m, out: as_tar(_in_pieces(m, out), out / "vm.ova"),
    "growing disks": lambda m, out: as_tar(_growing_disks(m, out), out / "vm.ova"),
}


def convert(source: Path, folder: Path) -> None:
    """Convert a machine into a folder with this engine."""
    engine: list[str | Path] = [sys.executable, "-m", "conversions.pipeline"]
    engine += ["-i", "ova", source, "-o", "local", "-os", folder, "-on", "vm"]
    subprocess.run(engine, check=True, capture_output=True)


def what_the_guest_sees(folder: Path) -> dict[str, str]:
    """Return a digest by file, and those of the starts of disks, of a conversion's result."""
    disks = sorted(folder.glob("vm-sd?"))
    seen = {
        path: repr(entry)
        for path, entry in Files(disks).entries.items()
        if not NEVER_ALIKE.fullmatch(path)
    }
    for disk in disks:
        start = folder / "start"
        command = ["qemu-img", "dd", "-O", "raw", f"bs={_START_BYTES}", "count=1"]
        subprocess.run([*command, f"if={disk}", f"of={start}"], check=True, capture_output=True)
        seen[f"start of {disk.name}"] = _sha256(start)
    xml = (folder / "vm.xml").read_text()
    seen["vm.xml"] = xml.replace(str(folder), "")
    return seen


def digest_of(seen: Mapping[str, str]) -> str:
    """Return one digest of it all."""
    lines = "".join(f"{name}\0{value}\n" for name, value in sorted(seen.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def convert_packed(ova: Path, packaging: str, scratch: Path) -> dict[str, str]:
    """Pack a plain OVA's files in one way, convert that, and return what the guest then sees."""
    unpacked, packed, result = (scratch / name for name in ("unpacked", "packed", "result"))
    for folder in (unpacked, packed, result):
        folder.mkdir()
    convert(PACKAGINGS[packaging](members_of(ova, unpacked), packed), result)
    return what_the_guest_sees(result)


def main() -> None:
    """Convert the OVA of the command line in every packaging, and compare."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    first: dict[str, str] = {}
    alike = True
    for packaging in PACKAGINGS:
        with tempfile.TemporaryDirectory(prefix="packagings.", dir="/var/tmp") as scratch:
            seen = convert_packed(Path(sys.argv[1]), packaging, Path(scratch))
        first = first or seen
        print(f"{digest_of(seen)}  {packaging}: {len(seen)} files and parts", flush=True)
        for name in sorted(n for n in {*first, *seen} if first.get(n) != seen.get(n)):
            alike = False
            print(f"    {name} differs from that of {next(iter(PACKAGINGS))}")
    sys.exit(0 if alike else 1)


if __name__ == "__main__":
    main()
