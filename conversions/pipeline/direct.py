"""Converting the source's own disks without an overlay, for hosts without room for one.

Nothing can undo it, so nothing stops it either, and a failure says what the disks have become.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from conversions.pipeline import stop
from conversions.pipeline.errors import ConversionError
from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import Overlay


@contextmanager
def changing_disks(overlays: Sequence[Overlay], report: Reporter) -> Iterator[None]:
    """Surround the steps that write into the disks themselves.

    Raises Stopped when a stop was asked for before, and ConversionError for whatever fails inside,
    naming the disks whose state is unknown.
    """
    names = ", ".join(overlay.source_label for overlay in overlays)
    stop.no_return()
    report.report("commit", {"state": "direct"})
    report.log(
        Level.WARNING,
        f"{names}: changed directly from here on, without an overlay; nothing stops it.",
    )
    try:
        yield
    except Exception as error:
        known = isinstance(error, ConversionError)
        code = error.code if isinstance(error, ConversionError) else "E-INTERNAL"
        message = str(error) if known else f"Unexpected {type(error).__name__}: {error}"
        raise ConversionError(
            f"{message} The state of {names} is unknown, possibly corrupt: the disks were being "
            "changed directly.",
            remedy="Put the disks back from a backup before anything starts from them.",
            code=code,
        ) from error
    report.report("commit", {"state": "finished"})
