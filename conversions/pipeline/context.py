"""What a converter works with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.job import Job
from conversions.pipeline.report import Reporter
from conversions.pipeline.types import Inspection
from inventory.sources.types import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A mounted guest and what is known and wanted of it.

    With `change` false a converter only looks and says what would be.  `work` is the job's private
    folder on this host; `closed` are the encrypted devices that no key was given for.
    """

    g: GuestFS
    guest: Inspection
    source: Source
    job: Job
    report: Reporter
    work: Path
    change: bool
    closed: tuple[str, ...] = ()
