"""The manifest of an OVA: lines such as SHA256(disk1.vmdk)= 0123..., and their verification."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from inventory.sources.errors import ManifestError
from inventory.sources.tar import printable

MAX_BYTES = 4 << 20
MAX_LINES = 10_000
MAX_LINE_BYTES = 8192
ALGORITHMS = {"SHA1": 40, "SHA224": 56, "SHA256": 64, "SHA384": 96, "SHA512": 128}
_LINE = re.compile(r"([A-Za-z0-9-]+)[ \t]*\((.+)\)[ \t]*=[ \t]*([0-9A-Fa-f]+)[ \t]*\r?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One digest: the file as the manifest names it, algorithm such as SHA256, lower-case hex."""

    file: str
    algorithm: str
    digest: str

    def hasher(self) -> hashlib._Hash:
        """Return a new hash object of the algorithm."""
        return hashlib.new(self.algorithm.lower(), usedforsecurity=False)

    def check(self, actual: str) -> None:
        """Compare with the digest of the file as it is.  Raises ManifestError E-MF-MISMATCH."""
        if actual != self.digest:
            raise ManifestError(
                "E-MF-MISMATCH",
                f"{printable(self.file)} is not what the manifest says: its {self.algorithm} "
                f"digest is {actual}, expected {self.digest}.",
                remedy="The file was damaged or changed after the export; fetch the OVA again.",
            )


def parse_manifest(data: bytes, warn: Callable[[str], None]) -> list[Record]:
    """Return the records of a manifest; lines that are none are warned about and skipped.

    Spellings such as SHA-256 and SHA2-256, any spaces and any case are accepted.  Raises
    ManifestError for one that is too large, or that contradicts itself.
    """
    lines = data.split(b"\n")
    if len(data) > MAX_BYTES or len(lines) > MAX_LINES or max(map(len, lines)) > MAX_LINE_BYTES:
        raise ManifestError(
            "E-MF-SIZE",
            f"The manifest has {len(data)} bytes in {len(lines)} lines; at most {MAX_BYTES} bytes, "
            f"{MAX_LINES} lines and {MAX_LINE_BYTES} bytes in a line are accepted.",
            remedy="Export the machine again; a manifest has one short line for each file.",
        )
    records: dict[tuple[str, str], Record] = {}
    for raw in lines:
        text = raw.decode("utf-8", "surrogateescape")
        if not text.strip():
            continue
        record = _parse_line(text)
        if record is None:
            warn(f"A line of the manifest is not understood (ignored): {printable(text[:80])}")
            continue
        earlier = records.setdefault((record.file, record.algorithm), record)
        if earlier.digest != record.digest:
            raise ManifestError(
                "E-MF-CONTRADICTION",
                f"The manifest has two different {record.algorithm} digests of "
                f"{printable(record.file)}: {earlier.digest} and {record.digest}.",
                remedy="The manifest was changed after the export; export the machine again.",
            )
    return list(records.values())


def _parse_line(text: str) -> Record | None:
    match = _LINE.fullmatch(text)
    if match is None:
        return None
    algorithm = match[1].upper().replace("SHA2-", "SHA").replace("-", "")
    if ALGORITHMS.get(algorithm) != len(match[3]):
        return None
    return Record(file=match[2], algorithm=algorithm, digest=match[3].lower())
