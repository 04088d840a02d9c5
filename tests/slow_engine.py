"""The engine, but each step lasts a second or more: so that a kill can fall into any of them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conversions.pipeline import cli
from conversions.pipeline.report import EventReporter
from conversions.pipeline.steps import Step

# How long a step lasts at least; the drill writes it.
FILE = Path(os.environ["V2VWEB_VAR"]) / "step-seconds"
_step = EventReporter.step


@contextmanager
def slow_step(reporter: EventReporter, step: Step) -> Iterator[None]:
    """Announce the step, wait, then do it."""
    with _step(reporter, step):
        time.sleep(float(FILE.read_text()))
        yield


if __name__ == "__main__":
    EventReporter.step = slow_step  # type: ignore[method-assign]
    sys.exit(cli.main(sys.argv[1:]))
