"""The OVA reader: container, descriptor, manifest and disks put together."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from inventory.sources.base import Warn, disk_uri
from inventory.sources.budget import MAX_BYTES, TarBudget, disk_budget, package_budget
from inventory.sources.errors import DescriptorError, PackageError, SourceError
from inventory.sources.images import HEAD_BYTES, image_format, virtual_size
from inventory.sources.manifest import MAX_BYTES as MAX_MANIFEST_BYTES
from inventory.sources.manifest import Record, parse_manifest
from inventory.sources.ovf import Ovf, OvfDisk, parse_ovf
from inventory.sources.ovf_xml import MAX_BYTES as MAX_OVF_BYTES
from inventory.sources.package import SPARSE, PackageFile, folder_files, tar_files, unreadable
from inventory.sources.references import chunks_of, find_one, folder_of, resolve, verify_records
from inventory.sources.tar import BLOCK, is_tar, printable
from inventory.sources.types import Source, SourceDisk
from inventory.sources.unpack import (
    Look,
    join,
    packing_of,
    unpack_sparse,
    unpack_stream,
    unpack_zip,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_SUFFIXES = (".img", ".ova", ".qcow2", ".raw", ".vmdk", ".vmx", "-sda")


def name_from_file(name: str) -> str:
    """Return a VM name from a file name: one known suffix removed.  Raises SourceError."""
    stem = next((name.removesuffix(s) for s in _SUFFIXES if name.endswith(s)), name)
    if not stem:
        raise SourceError(
            "E-NAME",
            f"No name for the machine can be taken from {printable(name)}.",
            remedy="Rename the file after the machine and try again.",
        )
    return stem


def single_descriptor(files: Mapping[str, PackageFile]) -> PackageFile:
    """Return the one .ovf of a package.  Raises PackageError for none or several."""
    descriptors = find_one(files, ".ovf")
    if not descriptors:
        raise PackageError(
            "E-OVA-NO-OVF",
            "The package holds no .ovf descriptor, so it is not an OVA.",
            remedy="Export the machine as an OVA and try that file.",
        )
    if len(descriptors) > 1:
        raise several_descriptors([d.name for d in descriptors])
    return descriptors[0]


def several_descriptors(names: Sequence[str]) -> PackageError:
    """Return the error for a package of several machines."""
    shown = ", ".join(printable(name) for name in names[:5])
    return PackageError(
        "E-OVA-MANY-OVF",
        f"The package holds {len(names)} descriptors ({shown}); it is not clear which one counts.",
        remedy="Pack each machine as an OVA of its own.",
    )


def source_from(ovf: Ovf, label: str, disks: tuple[SourceDisk, ...], warn: Warn) -> Source:
    """Put a Source together from the descriptor and the located disks."""
    if ovf.name is None:
        warn("The descriptor gives the machine no name; the file's name is taken.")
    name = ovf.name or name_from_file(label)
    return Source(
        name=name,
        original_name=name,
        hypervisor="vmware",
        memory_bytes=ovf.memory_bytes,
        vcpus=ovf.vcpus,
        disks=disks,
        removables=ovf.removables,
        nics=ovf.nics,
        firmware=ovf.firmware,
        uefi_secureboot=ovf.secureboot,
        cpu_topology=ovf.topology,
        os_hint=ovf.os_hint,
    )


def refuse_compression(disk: OvfDisk) -> None:
    """Refuse disks compressed with anything but gzip, the one the standard names.

    Raises DescriptorError.
    """
    if disk.compression not in ("identity", "", "gzip"):
        raise DescriptorError(
            "E-OVF-COMPRESSION",
            f"The disk {printable(disk.href)} is compressed with {printable(disk.compression)}; "
            "gzip can be read.",
            remedy="Export the machine without compression.",
        )


class _Chunks(io.RawIOBase):
    """Bytes that come in pieces, as a file to read once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill a buffer; 0 at the end."""
        self._rest = self._rest or next(self._chunks, b"")
        view = memoryview(buffer)
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class OvaReader:
    """Reads an OVA: a tar file, a folder, or an .ovf with its files beside it.

    These are read in place.  A compressed archive, a zip, a compressed disk or one in pieces is
    unpacked into a new folder in `work_dir`, once; `look` is called meanwhile, and may raise.
    """

    def __init__(
        self, path: Path, *, work_dir: Path, warn: Warn, look: Look = lambda: None
    ) -> None:
        self._path = path.absolute()
        self._warn = warn
        self._look = look
        self._work_dir = work_dir
        self._unpacked: Path | None = None
        self._disks: dict[str, Path] = {}
        self._listing: dict[str, PackageFile] | None = None

    def describe(self) -> str:
        """Return one line for messages."""
        return f"OVA {self._path.name}"

    def _files(self) -> dict[str, PackageFile]:
        if self._listing is None:
            try:
                self._listing = self._list()
            except BaseException:
                self._remove_unpacked()
                raise
        return self._listing

    def _list(self) -> dict[str, PackageFile]:
        try:
            if self._path.is_dir():
                return folder_files(self._path, self._warn)
            if self._path.name.lower().endswith(".ovf") and not self._looks_like_tar():
                return self._beside()
            return self._archive()
        except OSError as error:
            raise unreadable(self._path.name, error) from error

    def _archive(self) -> dict[str, PackageFile]:
        with self._path.open("rb") as stream:
            kind = packing_of(stream.read(HEAD_BYTES))
            stream.seek(0)
            if kind == "zip":
                return unpack_zip(self._path, self._folder(), self._warn, self._look)
            if kind is not None:
                target = self._folder() / "package.tar"
                budget = TarBudget(target, self._path.name, stream.tell)
                unpack_stream(stream, kind, target, self._path.name, self._look, budget)
                return self._tar(target)
        return self._tar(self._path)

    def _tar(self, archive: Path) -> dict[str, PackageFile]:
        """List a tar; files stored without their holes are unpacked."""
        files = tar_files(archive, self._warn, label=self._path.name)
        sparse = {n for n, file in files.items() if file.flaw and file.flaw.code == SPARSE}
        if not sparse:
            return files
        data = single_descriptor(files).read(MAX_OVF_BYTES + 1)
        limit = package_budget(parse_ovf(data, lambda _text: None))
        return files | unpack_sparse(archive, sparse, self._folder(), self._look, limit)

    def _folder(self) -> Path:
        """Return a folder for what is unpacked, made when it is first needed."""
        if self._unpacked is None:
            self._unpacked = Path(tempfile.mkdtemp(prefix="ova-", dir=self._work_dir))
        return self._unpacked

    def _remove_unpacked(self) -> None:
        """Give the space back that half an archive takes."""
        if self._unpacked is not None:
            shutil.rmtree(self._unpacked, ignore_errors=True)
            self._unpacked = None

    def _beside(self) -> dict[str, PackageFile]:
        """List the files beside an .ovf, without the descriptors and manifests of others."""
        files = folder_files(self._path.parent, self._warn)
        own = (self._path.name, f"{self._path.name[:-4]}.mf")
        return {
            name: file
            for name, file in files.items()
            if name in own or not name.lower().endswith((".ovf", ".mf"))
        }

    def _looks_like_tar(self) -> bool:
        with self._path.open("rb") as stream:
            return is_tar(stream.read(BLOCK))

    def read(self) -> Source:
        """Return the VM with its disks located and looked at.  Raises SourceError."""
        files = self._files()
        descriptor = single_descriptor(files)
        ovf = parse_ovf(descriptor.read(MAX_OVF_BYTES + 1), self._warn)
        for disk in ovf.disks:
            refuse_compression(disk)
        folder = folder_of(descriptor.name)
        hrefs = {disk.href for disk in ovf.disks}
        located = [self._located(files, folder, disk, hrefs) for disk in ovf.disks]
        for file in {f.name: f for f in located if located.count(f) > 1}.values():
            self._warn(f"Several disks are the same file {printable(file.name)}.")
        disks = tuple(
            self._disk(number, disk, file)
            for number, (disk, file) in enumerate(zip(ovf.disks, located, strict=True))
        )
        return source_from(ovf, self._path.name, disks, self._warn)

    def _located(
        self, files: Mapping[str, PackageFile], folder: str, disk: OvfDisk, hrefs: Set[str]
    ) -> PackageFile:
        """Return a disk's file, put together and decompressed where it has to be."""
        if not disk.href:
            return self._blank(disk)
        pieces = []
        if disk.chunk_bytes is not None:
            pieces = chunks_of(files, folder, disk.href, disk.chunk_bytes, disk.size_bytes)
        file = pieces[0] if pieces else resolve(files, folder, disk.href, self._warn, hrefs)
        is_packed = disk.compression == "gzip" or packing_of(file.read(HEAD_BYTES)) == "gzip"
        if not pieces and not is_packed:
            return file
        label = printable(disk.href)
        done = self._disks.get(file.name)
        if done is None:
            done = self._folder() / f"disk-{len(self._disks)}"
            joined = done.with_suffix(".joined") if is_packed else done
            if pieces:
                join(pieces, joined, label, self._look)
            if is_packed:
                with self._packed_disk(joined if pieces else None, file) as stream:
                    limit = disk_budget(disk.capacity_bytes)
                    unpack_stream(stream, "gzip", done, label, self._look, lambda _n: limit)
                joined.unlink(missing_ok=True)
            self._disks[file.name] = done
        return PackageFile(
            name=disk.href, path=done, offset=0, size=done.stat().st_size, in_tar=False
        )

    def _blank(self, disk: OvfDisk) -> PackageFile:
        """Make an empty disk, which takes no space."""
        path = Path(tempfile.mkstemp(prefix="empty-", dir=self._folder())[1])
        size = min(-(-(disk.capacity_bytes or 0) // BLOCK) * BLOCK, MAX_BYTES)
        os.truncate(path, size)
        return PackageFile(name="an empty disk", path=path, offset=0, size=size, in_tar=False)

    @contextmanager
    def _packed_disk(self, joined: Path | None, file: PackageFile) -> Iterator[IO[bytes]]:
        if joined is not None:
            with joined.open("rb") as stream:
                yield stream
        else:
            yield io.BufferedReader(_Chunks(file.chunks()))

    def _disk(self, number: int, disk: OvfDisk, file: PackageFile) -> SourceDisk:
        label = printable(file.name)
        fmt = image_format(file.read(HEAD_BYTES), label)
        if fmt == "raw" and file.name.lower().endswith(".vmdk"):
            self._warn(f"{label} does not begin as a VMDK does; it is read as a raw image.")
        located = SourceDisk(
            id=number,
            controller=disk.controller,
            path=str(file.path),
            format=fmt,
            member=file.name if file.in_tar or self._unpacked in file.path.parents else None,
            offset_bytes=file.offset if file.in_tar else None,
            length_bytes=-(-file.size // BLOCK) * BLOCK if file.in_tar else None,
            declared_capacity_bytes=disk.capacity_bytes,
        )
        size = virtual_size(disk_uri(located), fmt, label)
        if disk.capacity_bytes is not None and size != disk.capacity_bytes:
            self._warn(
                f"{label} has {size} bytes; the descriptor says {disk.capacity_bytes}. "
                "The image's own size is taken."
            )
        return replace(located, virtual_size_bytes=size)

    def manifest(self) -> list[tuple[str, Record]]:
        """Return every record of every manifest, with the folder it counts from."""
        records = []
        for file in find_one(self._files(), ".mf"):
            data = file.read(MAX_MANIFEST_BYTES + 1)
            records += [(folder_of(file.name), r) for r in parse_manifest(data, self._warn)]
        return records

    def verify(self, progress: Callable[[int, int], None]) -> list[dict[str, str]]:
        """Check every digest of the manifest.  Raises ManifestError."""
        return verify_records(self.manifest(), self._files(), progress, self._warn)
