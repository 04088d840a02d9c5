"""Digests of the content of a domain's disks: `checksum` elements in domain XML, for -i libvirtxml.

    <disk ...><checksum method="sha256" fail="error">0123...</checksum></disk>

They are over what the guest sees, whatever container the disk lies in.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO

from lxml import etree

from inventory.sources.base import Warn
from inventory.sources.errors import DescriptorError, ManifestError
from inventory.sources.programs import WITH_US
from inventory.sources.types import SourceDisk

_METHODS = ("md5", "sha256", "sha512")
_CHUNK = 1 << 20


class Fail(StrEnum):
    """What a wrong digest does; print computes and tells one without comparing."""

    ERROR = "error"
    WARN = "warn"
    PRINT = "print"
    IGNORE = "ignore"


_WORDS = {"": Fail.WARN, "err": Fail.ERROR, "warning": Fail.WARN} | {str(f): f for f in Fail}


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentDigest:
    """What a `checksum` element says; `expected` is lower case, "" only for print."""

    method: str
    fail: Fail
    expected: str


def content_digest(element: etree._Element, warn: Warn) -> ContentDigest | None:
    """Return what a disk's `checksum` says; None without one that is to be computed.

    Raises DescriptorError E-LV-CHECKSUM for a method that is not known.
    """
    checksum = element.find("checksum")
    if checksum is None:
        return None
    method, word = checksum.get("method", ""), checksum.get("fail", "")
    expected = (checksum.text or "").strip().lower()
    if word not in _WORDS:
        warn(f"The checksum of a disk is not looked at: fail={word[:40]!r} is not known.")
        return None
    fail = _WORDS[word]
    if fail is Fail.IGNORE:
        return None
    if not method:
        warn("The checksum of a disk is not looked at: it says no method.")
        return None
    if method not in _METHODS:
        raise DescriptorError(
            "E-LV-CHECKSUM",
            f"The checksum of a disk is of the method {method[:40]!r}; {', '.join(_METHODS)} can "
            "be computed.",
        )
    if not expected and fail is not Fail.PRINT:
        warn("The checksum of a disk is empty; it is not looked at.")
        return None
    return ContentDigest(method=method, fail=fail, expected=expected)


def check_content(
    disk: SourceDisk,
    digest: ContentDigest,
    progress: Callable[[int], None],
    warn: Warn,
) -> dict[str, str]:
    """Compute the digest of a disk of this host and compare it; progress gets bytes just read.

    Returns {"file", "algorithm", "status": matches | differs | computed, "digest"}.  Raises
    ManifestError for one that differs and must not.
    """
    hasher = hashlib.new(digest.method, usedforsecurity=False)
    with _content(disk) as stream:
        while chunk := stream.read(_CHUNK):
            hasher.update(chunk)
            progress(len(chunk))
    found = hasher.hexdigest()
    status = "matches" if found == digest.expected else "differs"
    if digest.fail is Fail.PRINT:
        status = "computed"
    elif status == "differs":
        text = (
            f"The {digest.method} of the content of {disk.path} is {found}; its domain says "
            f"{digest.expected}."
        )
        if digest.fail is Fail.ERROR:
            raise ManifestError(
                "E-LV-CHECKSUM", text, remedy="The disk was changed or damaged; copy it again."
            )
        warn(text)
    return {"file": disk.path, "algorithm": digest.method, "status": status, "digest": found}


@contextmanager
def _content(disk: SourceDisk) -> Iterator[IO[bytes]]:
    """Give what the guest sees of a disk.  Raises ManifestError when it cannot be read whole."""
    if disk.format == "raw":
        with Path(disk.path).open("rb") as stream:
            yield stream
        return
    # nbdcopy starts the server and is its only client, with which it ends.
    server = ["qemu-nbd", "--read-only", f"--format={disk.format}", disk.path]
    command = [*WITH_US, "nbdcopy", "--", "[", *server, "]", "-"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stderr  # noqa: S101  they are pipes
        try:
            yield process.stdout
        except BaseException:
            process.kill()
            raise
        words = process.stderr.read().decode(errors="replace").strip().splitlines()
    if process.returncode:
        raise ManifestError(
            "E-LV-CHECKSUM",
            f"The content of {disk.path} cannot be read for its digest: "
            f"{(words or ['no reason given'])[-1][:300]}.",
        )
