"""Follow an OVA that is still arriving: the descriptor early, digests as bytes come."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from inventory.sources.errors import DescriptorError, ManifestError, PackageError
from inventory.sources.manifest import MAX_BYTES as MAX_MANIFEST_BYTES
from inventory.sources.manifest import Record, parse_manifest
from inventory.sources.ova import refuse_compression, several_descriptors, source_from
from inventory.sources.ovf import parse_ovf
from inventory.sources.ovf_xml import MAX_BYTES as MAX_OVF_BYTES
from inventory.sources.package import member_flaw, refuse_kind
from inventory.sources.references import (
    find,
    folder_of,
    has_suffix,
    href_names,
    missing_disk,
    newest_of,
    record_name,
)
from inventory.sources.tar import BLOCK, Member, Read, TarWalker, is_tar, printable, storable
from inventory.sources.types import Source, SourceDisk
from inventory.sources.unpack import packing_of

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
        # Nothing of it can be read before all of it is there: who reads it then checks it.
        self.is_packed = False
        self.warnings: list[str] = []
        self._members: dict[str, Member] = {}
        self._flaws: dict[str, PackageError] = {}
        self._descriptor: str | None = None
        self._hrefs: list[str] = []
        self._hashes: dict[str, dict[str, str]] = {}
        self._running: dict[str, hashlib._Hash] = {}
        self._records: list[tuple[str, Record]] = []
        self._checked: set[tuple[str, str]] = set()
        self._current: Member | None = None
        self._walker: TarWalker | None = None

    @property
    def digests(self) -> list[dict[str, str]]:
        """Return [{"file", "algorithm", "status": waiting | matches | missing}]."""
        return [
            {
                "file": storable(record.file),
                "algorithm": record.algorithm,
                "status": self._status(name, record),
            }
            for name, record in self._records
        ]

    def _status(self, name: str, record: Record) -> str:
        if (name, record.algorithm) in self._checked:
            return "matches"
        complete = self._walker is not None and self._walker.is_complete
        return "missing" if complete and name not in self._members else "waiting"

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
        if self.is_packed:
            return
        if self._walker is None or not self._walker.is_complete or self._current is not None:
            raise PackageError(
                "E-OVA-UNPACK",
                f"{printable(self._label)} is truncated: it should have {self.total_bytes} bytes, "
                f"and ends after {self._path.stat().st_size}, in the middle of its files.",
                remedy="The file was cut off before it was sent; export the machine again.",
            )
        if not self._walker.has_end_mark:
            self.warnings.append("The archive has no end mark; it may have been cut off (ignored).")
        if self._descriptor is None:
            raise PackageError(
                "E-OVA-NO-OVF",
                f"{printable(self._label)} holds no .ovf descriptor, so it is not an OVA.",
                remedy="Export the machine as an OVA and try that file.",
            )
        for href in self._hrefs:
            folder = folder_of(self._descriptor)
            member = find(self._members, folder, href) or newest_of(self._members, folder, href)
            if member is None:
                raise missing_disk(href)
            if member.name in self._flaws:
                raise self._flaws[member.name]
        self._check_records(rehash=True)

    def _advance(self, stream: BinaryIO, available: int) -> None:
        descriptor = stream.fileno()

        def read(offset: int, length: int) -> bytes:
            return os.pread(descriptor, length, offset)

        if self._walker is None:
            if available < min(BLOCK, self.total_bytes):
                return
            head = read(0, BLOCK)
            if not is_tar(head) and packing_of(head) is not None:
                self.is_packed = True
                self.note = (
                    f"{printable(self._label)} is compressed; the machine shows up when all of it "
                    "has arrived and is unpacked."
                )
                self.position = available
                return
            if not is_tar(head):
                raise refuse_kind(self._label)
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
            if member is not None:
                self._begin(member)
                continue
            if self._walker.is_complete:
                self.position = max(self.position, available)
            return

    def _begin(self, member: Member) -> None:
        """Look at a member whose header has arrived, and start to hash it."""
        if member.is_folder:
            return
        flaw = member_flaw(member, self._members, self.warnings.append)
        self._members[member.name] = member
        if flaw is not None:
            self._flaws[member.name] = flaw
            if has_suffix(member.name, ".ovf") or has_suffix(member.name, ".mf"):
                raise flaw
        if not member.is_regular:
            return
        if has_suffix(member.name, ".ovf"):
            self._begin_descriptor(member)
        elif has_suffix(member.name, ".mf"):
            if member.size > MAX_MANIFEST_BYTES:
                raise ManifestError(
                    "E-MF-SIZE",
                    f"The manifest has {member.size} bytes; at most {MAX_MANIFEST_BYTES} are "
                    "accepted.",
                )
        elif self._descriptor is None and not self.note:
            self.note = (
                "The descriptor is not at the head of this file but behind "
                f"{printable(member.name)}; the machine shows up when it has arrived."
            )
        self._current = member
        self.position = member.offset
        known = {r.algorithm for n, r in self._records if n == member.name}
        self._running = {
            name: hashlib.new(name.lower(), usedforsecurity=False)
            for name in (known if self._records else _USUAL)
        }

    def _begin_descriptor(self, member: Member) -> None:
        if self._descriptor is not None:
            raise several_descriptors([self._descriptor, member.name])
        if member.size > MAX_OVF_BYTES:
            raise DescriptorError(
                "E-OVF-SIZE",
                f"The descriptor has {member.size} bytes; at most {MAX_OVF_BYTES} are accepted.",
            )
        self._descriptor = member.name

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
        if has_suffix(member.name, ".ovf"):
            self._describe(read(member.offset, member.size), folder_of(member.name))
        elif has_suffix(member.name, ".mf"):
            folder = folder_of(member.name)
            for record in parse_manifest(read(member.offset, member.size), self.warnings.append):
                name = record_name(folder, record, self.warnings.append)
                if name is not None:
                    self._records.append((name, record))
        self._check_records(rehash=False)

    def _describe(self, data: bytes, folder: str) -> None:
        ovf = parse_ovf(data, self.warnings.append)
        disks = []
        for number, disk in enumerate(ovf.disks):
            refuse_compression(disk)
            name = href_names(folder, disk.href)[0] if disk.href else "an empty disk"
            self._hrefs += [disk.href] if disk.href else []
            disks.append(
                SourceDisk(
                    id=number,
                    controller=disk.controller,
                    path=name,
                    format="vmdk",
                    member=name,
                    declared_capacity_bytes=disk.capacity_bytes,
                )
            )
        self.source = source_from(ovf, self._label, tuple(disks), self.warnings.append)
        self.note = ""

    def _check_records(self, *, rehash: bool) -> None:
        """Compare digests of complete members; with `rehash` read again those not computed."""
        for name, record in self._records:
            if rehash and name in self._flaws:
                raise self._flaws[name]
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
        """Read a member again for an algorithm that was not expected when it passed."""
        hasher = record.hasher()
        left = member.size
        with self._path.open("rb") as stream:
            stream.seek(member.offset)
            while left:
                chunk = stream.read(min(_CHUNK, left))
                if not chunk:
                    raise PackageError(
                        "E-OVA-UNPACK", f"{printable(member.name)} ends {left} bytes early."
                    )
                hasher.update(chunk)
                left -= len(chunk)
        return hasher.hexdigest()
