"""The story of a conversion as text: `[  19.0] Inspecting the guest` and what belongs to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import IO, Any

from conversions.pipeline.report import Level
from conversions.pipeline.sizes import human

_ALWAYS = (Level.ERROR, Level.WARNING)


class Percent:
    """How much of all disks together is copied, in whole percent that never fall."""

    def __init__(self) -> None:
        self._totals: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._last = -1

    def plan(self, totals: Mapping[str, int]) -> None:
        """Take how much there is to copy of each disk."""
        self._totals |= totals

    def risen(self, event: Mapping[str, Any]) -> int | None:
        """Take a progress event; return the percentage when it has risen."""
        self._totals[event["disk"]] = event["total_bytes"]
        self._done[event["disk"]] = event["done_bytes"]
        percent = 100 * sum(self._done.values()) // max(1, sum(self._totals.values()))
        if percent <= self._last:
            return None
        self._last = percent
        return percent


def text_lines(
    out: IO[str],
    err: IO[str],
    *,
    quiet: bool,
    verbose: bool,
    trace: bool,
    machine_readable: bool = False,
) -> Callable[[Mapping[str, Any]], None]:
    """Return an emitter for people at a terminal.

    Steps, info lines and progress go to `out` (not when quiet), warnings and errors to `err`;
    debug lines need `verbose`, libguestfs' own messages `trace`.  `machine_readable` makes
    progress lines of their own, N/100, for all disks together.
    """
    begun = time.monotonic()
    percent = Percent()

    def emit(event: Mapping[str, Any]) -> None:
        kind = event["type"]
        if kind == "log":
            level = event["level"]
            if level in _ALWAYS:
                err.write(f"v2vweb: {level}: {event['text']}\n")
            elif (
                (level == Level.INFO and not quiet)
                or (level == Level.DEBUG and verbose)
                or (level == Level.TRACE and trace)
            ):
                out.write(event["text"] + "\n")
        elif kind == "step" and event["state"] == "started" and not quiet:
            out.write(f"[{time.monotonic() - begun:6.1f}] {event['title']}\n")
        elif kind == "step" and event["state"] == "skipped" and not quiet:
            out.write(
                f"[{time.monotonic() - begun:6.1f}] Skipped: {event['title']} ({event['reason']})\n"
            )
        elif kind == "report" and event["name"] == "copy_plan":
            percent.plan(event["data"])
        elif kind == "progress" and machine_readable:
            if (figure := percent.risen(event)) is not None:
                out.write(f"{figure}/100\n")
        elif kind == "progress" and not quiet and out.isatty():
            done, total = event["done_bytes"], event["total_bytes"]
            rate = f", {human(event['rate'])}/s" if event.get("rate") else ""
            out.write(f"\r{event['disk']}: {human(done)} of {human(total)}{rate}   ")
            if done == total:
                out.write("\n")
        elif kind == "result" and event["status"] == "ok" and not quiet:
            out.write(f"[{time.monotonic() - begun:6.1f}] Done\n")
        elif kind == "result" and event["status"] != "ok":
            err.write(f"v2vweb: error: {event['message']}\n")
            if event["remedy"]:
                err.write(f"v2vweb: {event['remedy']}\n")
        out.flush()

    return emit
