"""What names what inside a package: descriptors, hrefs of disks, records of manifests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import unquote

from inventory.sources.base import Warn
from inventory.sources.errors import PackageError
from inventory.sources.manifest import Record
from inventory.sources.package import PackageFile, leads_outside
from inventory.sources.tar import normal_name, printable, storable


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


def resolve(files: Mapping[str, PackageFile], folder: str, href: str) -> PackageFile:
    """Return the file an href of the descriptor means.  Raises PackageError."""
    for name in href_names(folder, href):
        if name in files:
            return files[name]
    raise missing_disk(href)


def chunks_of(files: Mapping[str, PackageFile], folder: str, href: str) -> list[PackageFile]:
    """Return the pieces of a disk, HREF.000000000 and on, in order.  Raises PackageError.

    Source: DSP0243, 7.1 (ovf:chunkSize).
    """
    for name in href_names(folder, href):
        pieces: list[PackageFile] = []
        while (piece := files.get(f"{name}.{len(pieces):09d}")) is not None:
            pieces.append(piece)
        if pieces:
            beyond = [
                n for n in files if n.startswith(f"{name}.") and n[len(name) + 1 :].isdecimal()
            ]
            if len(beyond) != len(pieces):
                raise PackageError(
                    "E-OVA-CHUNKS",
                    f"The disk {printable(href)} is cut into pieces, and piece {len(pieces)} is "
                    f"missing; {len(beyond)} are there.",
                    remedy="The package is incomplete; export the machine again.",
                )
            return pieces
    raise missing_disk(f"{href}.000000000")


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
