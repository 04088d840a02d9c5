"""The story of a conversion as text: `[  19.0] Inspecting the guest` and what belongs to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import IO, Any

from conversions.pipeline.report import Level
from conversions.pipeline.sizes import human

_ALWAYS = (Level.ERROR, Level.WARNING)


def text_lines(
    out: IO[str], err: IO[str], *, quiet: bool, verbose: bool, trace: bool
) -> Callable[[Mapping[str, Any]], None]:
    """Return an emitter for people at a terminal.

    Steps, info lines and progress go to `out` (not when quiet), warnings and errors to `err`;
    debug lines need `verbose`, libguestfs' own messages `trace`.
    """
    begun = time.monotonic()

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
        elif kind == "progress" and not quiet and out.isatty():
            done, total = event["done_bytes"], event["total_bytes"]
            out.write(f"\r{event['disk']}: {human(done)} of {human(total)}   ")
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
