"""What names what inside a package: descriptors, hrefs of disks, records of manifests."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Protocol, TypeVar
from urllib.parse import unquote

from inventory.sources.base import Warn
from inventory.sources.errors import PackageError
from inventory.sources.manifest import Record
from inventory.sources.package import ESCAPE, PackageFile, leads_outside
from inventory.sources.tar import normal_name, printable, storable


class Named(Protocol):
    """What has a name inside a package."""

    @property
    def name(self) -> str:
        """The name."""
        ...


File = TypeVar("File", bound=Named)


def find_one(files: Mapping[str, PackageFile], suffix: str) -> list[PackageFile]:
    """Return the files with that suffix in any case; companions of macOS (._x) are left out."""
    return [f for n, f in sorted(files.items()) if has_suffix(n, suffix)]


def has_suffix(name: str, suffix: str) -> bool:
    """Tell whether a file is of a kind, told by its name; companions of macOS (._x) are not."""
    return name.lower().endswith(suffix) and not any(p.startswith("._") for p in name.split("/"))


def folder_of(name: str) -> str:
    """Return the folder of a file inside its package, "" for the top."""
    return name.rpartition("/")[0]


def href_names(folder: str, href: str) -> list[str]:
    """Return the member names an href of a descriptor in `folder` may mean, the likeliest first.

    Verbatim first, then percent-decoded.  Raises PackageError for one that leads elsewhere.
    """
    if "://" in href:
        raise PackageError(
            "E-OVF-REMOTE-HREF",
            f"The descriptor names its disk as {printable(href)}; remote files are never fetched.",
            remedy="Export the machine as one OVA.",
        )
    names = []
    for candidate in (href, unquote(href, errors="surrogateescape")):
        if ".." in candidate.split("/") or candidate.startswith("/"):
            raise leads_outside(href)
        names.append(normal_name(f"{folder}/{candidate}" if folder else candidate))
    return names


def missing_disk(href: str) -> PackageError:
    """Return the error for a disk that the package does not hold."""
    hint = " It has backslashes; folders are separated by / in an OVF." if "\\" in href else ""
    return PackageError(
        "E-OVA-MISSING",
        f"The descriptor names the disk {printable(href)}, which is not in the package.{hint}",
        remedy="The package is incomplete; export the machine again.",
    )


def find(files: Mapping[str, File], folder: str, href: str) -> File | None:
    """Return the file an href of the descriptor means, None when there is none of that name.

    Raises PackageError for an href that leads elsewhere.
    """
    return next((files[name] for name in href_names(folder, href) if name in files), None)


def newest_of(files: Mapping[str, File], folder: str, href: str) -> File | None:
    """Return the file HREF.NUMBER of the highest number: some exports number states of a disk."""
    for name in href_names(folder, href):
        if numbered := _numbered(files, name):
            return max(numbered, key=lambda pair: pair[0])[1]
    return None


def _numbered(files: Mapping[str, File], name: str) -> list[tuple[int, File]]:
    """Return the files NAME.NUMBER with their numbers, in the order of the listing."""
    found = []
    for other, file in files.items():
        start, _, digits = other.rpartition(".")
        if start == name and re.fullmatch("[0-9]{1,18}", digits):
            found.append((int(digits), file))
    return found


def resolve(
    files: Mapping[str, PackageFile], folder: str, href: str, warn: Warn, hrefs: Collection[str]
) -> PackageFile:
    """Return the file of an uncut disk; `hrefs` are those of all disks.  Raises PackageError."""
    if (file := find(files, folder, href)) is not None:
        return file
    if (file := newest_of(files, folder, href)) is not None:
        warn(
            f"The descriptor names the disk {printable(href)}, which is not in the package; of its "
            f"numbered files the newest is taken, {printable(file.name)}."
        )
        return file
    # Some programs pack a zip without its folders.
    base = href.rpartition("/")[2]
    is_alone = sum(other.rpartition("/")[2] == base for other in hrefs) == 1
    if is_alone and (file := find(files, folder, base)) is not None:
        warn(
            f"The descriptor names the disk {printable(href)}, which is not in the package; "
            f"{printable(file.name)} is taken, as if its folder had been left out."
        )
        return file
    raise missing_disk(href)


def chunks_of(
    files: Mapping[str, PackageFile], folder: str, href: str, chunk_bytes: int, size: int | None
) -> list[PackageFile]:
    """Return the pieces of a disk, HREF.000000000 and on, in order; [] when it is in one file.

    Each but the last must have `chunk_bytes`, all together `size` if that is known.
    Raises PackageError.  Source: DSP0243, 7.1 (ovf:chunkSize).
    """
    if find(files, folder, href) is not None:
        return []
    for name in href_names(folder, href):
        numbered = sorted(_numbered(files, name), key=lambda pair: pair[0])
        if not numbered:
            continue
        for expected, (number, _piece) in enumerate(numbered):
            if number != expected:
                what = f"piece {expected} is missing" if number > expected else "one is there twice"
                raise PackageError(
                    "E-OVA-CHUNK-GAP",
                    f"The disk {printable(href)} is cut into pieces, and {what}; "
                    f"{len(numbered)} are there.",
                    remedy="The package is incomplete; export the machine again.",
                )
        pieces = [piece for _number, piece in numbered]
        _check_pieces(pieces, href, chunk_bytes, size)
        return pieces
    raise missing_disk(f"{href}.000000000")


def _check_pieces(pieces: list[PackageFile], href: str, chunk_bytes: int, size: int | None) -> None:
    odd = next((p for p in pieces[:-1] if p.size != chunk_bytes), None)
    if odd is None and pieces[-1].size > chunk_bytes:
        odd = pieces[-1]
    total = sum(piece.size for piece in pieces)
    if odd is not None:
        problem = f"{printable(odd.name)} has {odd.size} bytes, the descriptor says {chunk_bytes}"
    elif size is not None and total != size:
        problem = f"together they have {total} bytes, the descriptor says {size}"
    else:
        return
    raise PackageError(
        "E-OVA-CHUNK-SIZE",
        f"The pieces of the disk {printable(href)} do not fit: {problem}.",
        remedy="A piece was cut off or exchanged; export the machine again.",
    )


def record_name(folder: str, record: Record, warn: Warn) -> str | None:
    """Return the member a record of a manifest in `folder` names; None, with a warning, outside."""
    parts = [p for p in f"{folder}/{record.file}".split("/") if p not in ("", ".")]
    if ".." in parts:
        warn(f"The manifest names {printable(record.file)}, outside of the package (skipped).")
        return None
    return "/".join(parts)


def verify_records(
    records: list[tuple[str, Record]],
    files: Mapping[str, PackageFile],
    progress: Callable[[int, int], None],
    warn: Warn,
) -> list[dict[str, str]]:
    """Hash every file a manifest names; `records` are (folder of the manifest, record).

    Returns [{"file", "algorithm", "status": matches | missing}].  Raises ManifestError.
    """
    named = [(record, record_name(folder, record, warn)) for folder, record in records]
    wanted = [(record, files.get(name)) for record, name in named if name is not None]
    total = sum(f.size for _r, f in wanted if f)
    done = 0
    result = []
    for record, file in wanted:
        status = "missing"
        if file is None:
            warn(f"The manifest names {printable(record.file)}, which is not in the package.")
        elif file.flaw and file.flaw.code == ESCAPE:
            # A disk that needs it is refused when it is read.
            shown = printable(record.file)
            warn(f"The manifest names {shown}, a link out of the package (skipped).")
            continue
        else:
            hasher = record.hasher()
            for chunk in file.chunks():
                hasher.update(chunk)
                done += len(chunk)
                progress(done, total)
            record.check(hasher.hexdigest())
            status = "matches"
        result.append(
            {"file": storable(record.file), "algorithm": record.algorithm, "status": status}
        )
    return result
