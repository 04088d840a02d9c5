"""Step 10: trim every filesystem, so that deleted data is not copied."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.sizes import whole

_TRIMMED = re.compile(r"\((\d+) bytes\) trimmed")
_SKIPPED_TYPES = ("swap", "unknown", "crypto_LUKS")


def trim_filesystems(g: GuestFS, filesystems: Sequence[tuple[str, str]], report: Reporter) -> None:
    """Unmount all, then mount each filesystem with discard and trim it.

    One that cannot be mounted is left out; one that cannot be trimmed is a warning.
    """
    results: list[dict[str, Any]] = []
    for device, kind in filesystems:
        if kind in _SKIPPED_TYPES:
            continue
        g.umount_all()
        try:
            g.mount_options("discard", device, "/")
        except RuntimeError as error:
            report.log(Level.DEBUG, f"{device} was not mounted for trimming: {error}")
            continue
        result: dict[str, Any] = {"filesystem": device, "trimmed_bytes": None, "error": None}
        try:
            result["trimmed_bytes"] = _trim(g)
            size = result["trimmed_bytes"]
            report.log(Level.INFO, f"{device}: {whole(size)} ({size} bytes) trimmed")
        except RuntimeError as error:
            result["error"] = str(error)
            report.log(
                Level.WARNING,
                f"{device} ({kind}) could not be trimmed: {error}. "
                "Its unused blocks are copied (ignored).",
            )
        results.append(result)
    g.umount_all()
    report.report("trim", results)


def _trim(g: GuestFS) -> int:
    """Trim what is mounted on `/` and return the bytes; the API call itself gives none."""
    text = g.debug("sh", ["fstrim", "-v", "/sysroot"])
    match = _TRIMMED.search(text)
    if match is None:
        raise RuntimeError(text.strip())
    return int(match[1])
