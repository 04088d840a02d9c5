"""The files of an OVA, wherever they are: members of a tar in place, or files of a folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from inventory.sources.base import Warn
from inventory.sources.errors import PackageError
from inventory.sources.manifest import Record
from inventory.sources.tar import BLOCK, MAX_MEMBERS, TarWalker, is_tar, normal_name

_CHUNK = 4 << 20
MAX_DEPTH = 8
_OTHER_KINDS = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\x00": "xz",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageFile:
    """One file of a package: a byte range of a file on this host."""

    name: str
    path: Path
    offset: int
    size: int
    in_tar: bool

    def read(self, limit: int) -> bytes:
        """Return at most `limit` bytes from its beginning."""
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            return stream.read(min(limit, self.size))

    def chunks(self) -> Iterator[bytes]:
        """Yield its bytes.  Raises PackageError when the file ends early."""
        left = self.size
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            while left:
                chunk = stream.read(min(_CHUNK, left))
                if not chunk:
                    raise PackageError("E-OVA-UNPACK", f"{self.name} ends {left} bytes early.")
                left -= len(chunk)
                yield chunk


def refuse_kind(head: bytes, label: str) -> PackageError:
    """Return the error for a file that is not a plain tar."""
    for magic, kind in _OTHER_KINDS.items():
        if head.startswith(magic):
            return PackageError(
                "E-OVA-PACKAGING",
                f"{label} is packed with {kind}; only plain tar archives can be read yet.",
                remedy="Unpack it and give the folder, or pack its files as a tar.",
            )
    return PackageError(
        "E-OVA-FORMAT",
        f"{label} is not an OVA: it is neither a tar archive nor an OVF descriptor.",
        remedy="Export the machine as an OVA and try that file.",
    )


def tar_files(path: Path, warn: Warn) -> dict[str, PackageFile]:
    """List a tar archive.  Raises PackageError; links and devices are left out with a warning."""
    size = path.stat().st_size
    found: dict[str, PackageFile] = {}
    with path.open("rb") as stream:

        def read(offset: int, length: int) -> bytes:
            return os.pread(stream.fileno(), length, offset)

        head = read(0, BLOCK)
        if not is_tar(head):
            raise refuse_kind(head, path.name)
        walker = TarWalker(read, size)
        while member := walker.next_member(size):
            if not member.is_regular:
                if not member.name or member.size == 0:
                    continue
                warn(f"{member.name} in the archive is not a regular file; it is ignored.")
                continue
            if member.name in found:
                _refuse_duplicate(member.name, warn)
            found[member.name] = PackageFile(
                name=member.name, path=path, offset=member.offset, size=member.size, in_tar=True
            )
    return found


def _refuse_duplicate(name: str, warn: Warn) -> None:
    if name.lower().endswith((".ovf", ".mf", ".vmdk", ".img", ".qcow2", ".raw")):
        raise PackageError(
            "E-OVA-DUP",
            f"The archive holds two files named {name!r}; it is not clear which one is meant.",
        )
    warn(f"The archive holds two files named {name}; the last one counts.")


def folder_files(top: Path, warn: Warn) -> dict[str, PackageFile]:
    """List a folder, without following links to folders or out of it.  Raises PackageError."""
    real_top = top.resolve()
    found: dict[str, PackageFile] = {}
    for folder, subfolders, names in os.walk(top, followlinks=False):
        here = Path(folder)
        if len(here.relative_to(top).parts) >= MAX_DEPTH:
            subfolders.clear()
        for name in names:
            path = here / name
            relative = normal_name(str(path.relative_to(top)))
            try:
                state = path.stat()
            except OSError:
                continue  # a dangling link that nothing names
            if not stat.S_ISREG(state.st_mode):
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(real_top):
                if name.lower().endswith((".ovf", ".mf")):
                    warn(f"{relative} is a link out of the folder; it is ignored.")
                continue
            found[relative] = PackageFile(
                name=relative, path=path.resolve(), offset=0, size=state.st_size, in_tar=False
            )
            if len(found) > MAX_MEMBERS:
                raise PackageError("E-OVA-MEMBERS", f"{top} holds more than {MAX_MEMBERS} files.")
    return found


def find_one(files: Mapping[str, PackageFile], suffix: str) -> list[PackageFile]:
    """Return the files with that suffix in any case; companions of macOS (._x) are left out."""
    return [
        f
        for name, f in sorted(files.items())
        if name.lower().endswith(suffix) and not any(p.startswith("._") for p in name.split("/"))
    ]


def resolve(files: Mapping[str, PackageFile], folder: str, href: str) -> PackageFile:
    """Return the file an href of the descriptor means, relative to the descriptor's folder.

    Verbatim first, then percent-decoded.  Raises PackageError.
    """
    if "://" in href:
        raise PackageError(
            "E-OVF-REMOTE-HREF",
            f"The descriptor names its disk as {href[:100]!r}; remote files are never fetched.",
            remedy="Export the machine as one OVA.",
        )
    for candidate in (href, unquote(href)):
        if ".." in candidate.split("/") or candidate.startswith("/"):
            raise PackageError(
                "E-OVA-ESCAPE",
                f"The descriptor names a file outside of the package: {href[:100]!r}.",
            )
        name = normal_name(f"{folder}/{candidate}" if folder else candidate)
        if name in files:
            return files[name]
    raise PackageError(
        "E-OVA-MISSING",
        f"The descriptor names the disk {href[:200]!r}, which is not in the package.",
        remedy="The package is incomplete; export the machine again.",
    )


def verify_records(
    records: list[tuple[str, Record]],
    files: Mapping[str, PackageFile],
    progress: Callable[[int, int], None],
    warn: Warn,
) -> list[dict[str, str]]:
    """Hash every file a manifest names; `records` are (folder of the manifest, record).

    Returns [{"file", "algorithm", "status": matches | missing}].  Raises ManifestError.
    """
    wanted: list[tuple[Record, PackageFile | None]] = []
    for folder, record in records:
        parts = [p for p in f"{folder}/{record.file}".split("/") if p not in ("", ".")]
        if ".." in parts:
            warn(f"The manifest names {record.file!r}, outside of the package; it is skipped.")
            continue
        wanted.append((record, files.get("/".join(parts))))
    total = sum(f.size for _r, f in wanted if f)
    done = 0
    result = []
    for record, file in wanted:
        status = "missing"
        if file is None:
            warn(f"The manifest names {record.file!r}, which is not in the package (ignored).")
        else:
            hasher = record.hasher()
            for chunk in file.chunks():
                hasher.update(chunk)
                done += len(chunk)
                progress(done, total)
            record.check(hasher.hexdigest())
            status = "matches"
        result.append({"file": record.file, "algorithm": record.algorithm, "status": status})
    return result
