"""Follow an OVA that is still arriving: the descriptor early, digests as bytes come."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from inventory.sources.errors import PackageError, SourceError
from inventory.sources.manifest import MAX_BYTES as MAX_MANIFEST_BYTES
from inventory.sources.manifest import Record, parse_manifest
from inventory.sources.ova import refuse_unsupported, source_from
from inventory.sources.ovf import MAX_BYTES as MAX_OVF_BYTES
from inventory.sources.ovf import parse_ovf
from inventory.sources.package import refuse_kind
from inventory.sources.tar import BLOCK, Member, Read, TarWalker, is_tar
from inventory.sources.types import Source, SourceDisk

_CHUNK = 4 << 20
# Until the manifest is known these two are computed; they are what exporters use.
_USUAL = ("SHA1", "SHA256")


class OvaFollower:
    """Reads a growing tar file from where it stopped last time; memory stays flat.

    After each `advance()`: `source` is the machine once its descriptor has arrived (its disks
    without virtual sizes), `digests` the state of every manifest record, `note` a sentence about
    what is waited for, or "".  A new follower on a partly arrived file catches up by reading it.
    Every method raises SourceError as soon as the file cannot be a good OVA.
    """

    def __init__(self, path: Path, total_bytes: int, *, label: str) -> None:
        self._path = path
        self._label = label
        self.total_bytes = total_bytes
        self.position = 0
        self.source: Source | None = None
        self.note = ""
        self.warnings: list[str] = []
        self._members: dict[str, Member] = {}
        self._hashes: dict[str, dict[str, str]] = {}
        self._running: dict[str, hashlib._Hash] = {}
        self._records: list[tuple[str, Record]] = []
        self._checked: set[tuple[str, str]] = set()
        self._current: Member | None = None
        self._walker: TarWalker | None = None

    @property
    def digests(self) -> list[dict[str, str]]:
        """Return [{"file", "algorithm", "status": waiting | matches | missing}]."""
        complete = self._walker is not None and self._walker.is_complete
        return [
            {
                "file": record.file,
                "algorithm": record.algorithm,
                "status": "matches"
                if (name, record.algorithm) in self._checked
                else "missing"
                if complete and name not in self._members
                else "waiting",
            }
            for name, record in self._records
        ]

    def advance(self, limit_bytes: int | None = None) -> None:
        """Read what has arrived since, at most `limit_bytes` of it."""
        with self._path.open("rb") as stream:
            available = min(os.fstat(stream.fileno()).st_size, self.total_bytes)
            if limit_bytes is not None:
                available = min(available, self.position + limit_bytes)
            self._advance(stream, available)

    def finish(self) -> None:
        """Demand a complete archive whose every digest has been checked."""
        self.advance()
        assert self._walker is not None  # noqa: S101  advance made it
        if not self._walker.is_complete or self._current is not None:
            raise PackageError(
                "E-OVA-UNPACK",
                f"{self._label} is truncated: it ends in the middle of its files.",
                remedy="The file was cut off before it was sent; export the machine again.",
            )
        if self.source is None:
            raise PackageError(
                "E-OVA-NO-OVF",
                f"{self._label} holds no .ovf descriptor, so it is not an OVA.",
                remedy="Export the machine as an OVA and try that file.",
            )
        missing = [disk.path for disk in self.source.disks if disk.path not in self._members]
        if missing:
            raise PackageError(
                "E-OVA-MISSING",
                f"The descriptor names {', '.join(missing)}, which is not in {self._label}.",
                remedy="The package is incomplete; export the machine again.",
            )
        self._check_records()

    def _advance(self, stream: BinaryIO, available: int) -> None:
        descriptor = stream.fileno()

        def read(offset: int, length: int) -> bytes:
            return os.pread(descriptor, length, offset)

        if self._walker is None:
            if available < min(BLOCK, self.total_bytes):
                return
            head = read(0, BLOCK)
            if not is_tar(head):
                raise refuse_kind(head, self._label)
            self._walker = TarWalker(read, self.total_bytes)
        self._walker.read_from(read)
        while True:
            if self._current is not None:
                if not self._hash_current(read, available):
                    return
                self._completed(self._current, read)
                self.position = max(self.position, min(self._current.end, available))
                self._current = None
            member = self._walker.next_member(available)
            if member is None:
                if self._walker.is_complete:
                    self.position = max(self.position, available)
                return
            if not member.is_regular:
                continue
            if member.name in self._members and member.name.lower().endswith(
                (".ovf", ".mf", ".vmdk")
            ):
                raise PackageError(
                    "E-OVA-DUP", f"The archive holds two files named {member.name!r}."
                )
            self._members[member.name] = member
            self._current = member
            self.position = member.offset
            self._running = {
                name: hashlib.new(name.lower(), usedforsecurity=False)
                for name in self._algorithms(member.name)
            }
            if self.source is None and not member.name.lower().endswith((".ovf", ".mf")):
                self.note = (
                    f"The descriptor is not at the head of this file but behind {member.name}; "
                    "the machine shows up when it has arrived."
                )

    def _algorithms(self, name: str) -> set[str]:
        known = {r.algorithm for n, r in self._records if n == name}
        return known if self._records else set(_USUAL)

    def _hash_current(self, read: Read, available: int) -> bool:
        """Hash the current member as far as it is there; tell whether that is all of it."""
        member = self._current
        assert member is not None  # noqa: S101  for the type checker
        end = member.offset + member.size
        while self.position < min(end, available):
            chunk = read(self.position, min(_CHUNK, min(end, available) - self.position))
            if not chunk:
                return False
            for running in self._running.values():
                running.update(chunk)
            self.position += len(chunk)
        return self.position >= end

    def _completed(self, member: Member, read: Read) -> None:
        self._hashes[member.name] = {n: h.hexdigest() for n, h in self._running.items()}
        name = PurePosixPath(member.name)
        if name.name.startswith("._"):
            return
        if name.suffix.lower() == ".ovf":
            if self.source is not None:
                raise PackageError("E-OVA-MANY-OVF", f"{self._label} holds several descriptors.")
            self._describe(read(member.offset, min(member.size, MAX_OVF_BYTES + 1)), name)
        elif name.suffix.lower() == ".mf":
            data = read(member.offset, min(member.size, MAX_MANIFEST_BYTES + 1))
            for record in parse_manifest(data, self.warnings.append):
                folder = "" if str(name.parent) == "." else f"{name.parent}/"
                self._records.append((folder + record.file.removeprefix("./"), record))
        self._check_records(rehash=False)

    def _describe(self, data: bytes, name: PurePosixPath) -> None:
        ovf = parse_ovf(data, self.warnings.append)
        folder = "" if str(name.parent) == "." else f"{name.parent}/"
        for disk in ovf.disks:
            refuse_unsupported(disk)
        disks = tuple(
            SourceDisk(
                id=number,
                controller=disk.controller,
                path=folder + (disk.href or "").removeprefix("./"),
                format="vmdk",
                member=folder + (disk.href or ""),
                declared_capacity_bytes=disk.capacity_bytes,
            )
            for number, disk in enumerate(ovf.disks)
        )
        self.source = source_from(ovf, self._label, disks, self.warnings.append)
        self.note = ""

    def _check_records(self, *, rehash: bool = True) -> None:
        """Compare digests of complete members; with `rehash` read again those not computed."""
        for name, record in self._records:
            found = self._hashes.get(name)
            if found is None or (name, record.algorithm) in self._checked:
                continue
            actual = found.get(record.algorithm)
            if actual is None:
                if not rehash:
                    continue
                actual = self._rehash(self._members[name], record)
            record.check(actual)
            self._checked.add((name, record.algorithm))

    def _rehash(self, member: Member, record: Record) -> str:
        hasher = record.hasher()
        left = member.size
        with self._path.open("rb") as stream:
            stream.seek(member.offset)
            while left:
                chunk = stream.read(min(_CHUNK, left))
                if not chunk:
                    raise SourceError("E-OVA-UNPACK", f"{member.name} ends early.")
                hasher.update(chunk)
                left -= len(chunk)
        return hasher.hexdigest()
