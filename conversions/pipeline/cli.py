"""The engine's command line: virt-v2v's spelling for people and scripts, JSON for the console.

Exit status: 0 after result ok, 1 after an error, 143 after a stop.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from conversions.pipeline import stop
from conversions.pipeline.errors import ConversionError, JobError
from conversions.pipeline.job import Input, Job, Mode
from conversions.pipeline.networks import parse_map
from conversions.pipeline.output_kinds import KINDS
from conversions.pipeline.report import EventReporter, Level, json_lines
from conversions.pipeline.target_options import (
    add_target_options,
    copy_options_from,
    option_help,
    target_from,
    wants_option_help,
)
from conversions.pipeline.text_log import text_lines
from inventory.sources.errors import SourceError

EXIT_ERROR = 1
EXIT_STOPPED = 143
_CAPABILITIES = (
    "v2vweb", "libguestfs-rewrite", "io/oo", "mac-option", "parallel-option", "input:ova",
    *(f"output:{name}" for kind in KINDS.values() for name in (kind.name, *kind.aliases)),
    "convert:linux",
)  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Run the command line and return the exit status."""
    options = _parser().parse_args(argv)
    if options.machine_readable and not options.source and not options.job:
        print("\n".join(_CAPABILITIES))
        return 0
    events = _event_stream() if options.events else None
    emit = (
        json_lines(events)
        if events
        else text_lines(
            sys.stdout,
            sys.stderr,
            quiet=options.quiet,
            verbose=options.verbose,
            trace=options.trace,
        )
    )
    reporter = EventReporter(emit)
    try:
        if wants_option_help(options):
            print(option_help(options))
            return 0
        job = _job(options)
        if options.print_source:
            return _print_source(job, options.print_source)
    except (ConversionError, SourceError) as error:
        return _failed(reporter, error.code, error.message, error.remedy)
    return run_job(job, reporter, lifeline=options.job == "-")


def run_job(job: Job, reporter: EventReporter, *, lifeline: bool) -> int:
    """Run a job in a thread, stoppable at any moment; return the exit status."""
    status = EXIT_ERROR

    def work() -> None:
        nonlocal status
        status = _converted(job, reporter)

    stop.on_signals()
    if lifeline:
        stop.on_end_of(sys.stdin)
    thread = threading.Thread(target=work, name="pipeline")
    thread.start()
    stop.join_or_stop(thread)
    return status


def _converted(job: Job, reporter: EventReporter) -> int:
    """Run the pipeline and tell its result."""
    # The appliance's library is loaded only now: --help and refusals need none.
    from conversions.pipeline.run import convert

    try:
        convert(job, reporter)
    except (ConversionError, SourceError) as error:
        if not stop.is_stopping():
            return _failed(reporter, error.code, error.message, error.remedy)
    except Exception as error:
        if not stop.is_stopping():
            reporter.log(Level.DEBUG, traceback.format_exc())
            return _failed(
                reporter,
                "E-INTERNAL",
                f"Unexpected {type(error).__name__}: {error}",
                "This is a defect of the engine; the log has the details. The source is unchanged.",
            )
    else:
        reporter.event("result", status="ok", code="", message="", remedy="", step="")
        return 0
    try:
        stop.check_stop()
    except ConversionError as stopped:
        reporter.event(
            "result",
            status="stopped",
            code=stopped.code,
            message=stopped.message,
            remedy="",
            step=reporter.current or "",
        )
    return EXIT_STOPPED


def _failed(reporter: EventReporter, code: str, message: str, remedy: str) -> int:
    step = reporter.current or ""
    reporter.event("result", status="error", code=code, message=message, remedy=remedy, step=step)
    return EXIT_ERROR


def _event_stream() -> Any:
    """Keep standard output for events alone: whatever else writes to it goes to stderr."""
    events = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    return events


def _job(options: argparse.Namespace) -> Job:
    """Build the job from `--job` or from the options.  Raises JobError."""
    if options.job:
        try:
            text = sys.stdin.readline() if options.job == "-" else Path(options.job).read_text()
        except OSError as error:
            raise JobError(f"The job file {options.job} cannot be read: {error}.") from error
        return Job.from_json(text)
    if not options.source:
        raise JobError("No source was given.", remedy="Write: -i ova FILE -o local -os FOLDER")
    if len(options.source) != 1:
        raise JobError(f"-i ova takes one file or folder; {len(options.source)} were given.")
    mode = Mode.INSPECT if options.inspect else Mode.REHEARSE if options.rehearse else Mode.COPY
    copying = mode is Mode.COPY and not options.print_source
    return Job(
        mode=Mode.INSPECT if options.print_source else mode,
        source=Input(kind=options.i, location=options.source[0]),
        target=target_from(options) if copying else None,
        copy=copy_options_from(options),
        name=options.on,
        root=options.root,
        network_map=parse_map(options.network, options.bridge, options.mac),
        trim=not options.no_fstrim,
        memory_mib=options.memsize,
        vcpus=options.smp,
        trace=options.trace,
    )


def _print_source(job: Job, layout: str) -> int:
    """Print the source in one of the three layouts."""
    import tempfile

    from inventory.sources import text
    from inventory.sources.base import reader_for

    with tempfile.TemporaryDirectory(prefix="v2v.") as folder:
        source = reader_for(
            job.source.kind,
            job.source.location,
            work_dir=Path(folder),
            warn=lambda line: print(f"v2vweb: warning: {line}", file=sys.stderr),
        ).read()
    layouts: Mapping[str, Callable[[], str]] = {
        "current": lambda: (
            "Source guest information (--print-source):\n\n" + text.current(source) + "\n"
        ),
        "legacy": lambda: text.legacy(source),
        "json": lambda: json.dumps(source.to_dict(), indent=2),
    }
    print(layouts[layout]())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m conversions.pipeline",
        description="Convert a virtual machine to run on KVM.  The source is only ever read.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("source", nargs="*", help="the OVA: a file, a folder or an .ovf")
    add("-i", choices=["ova"], default="ova", help="kind of source")
    add_target_options(parser)
    add("-n", "--network", metavar="IN:OUT", action="append", default=[], help="map a network")
    add("-b", "--bridge", metavar="IN:OUT", action="append", default=[], help="map a bridge")
    add("--mac", metavar="MAC:network|bridge:NAME", action="append", default=[], help="map a NIC")
    add("--root", default="single", metavar="single|first|/dev/...", help="which system to take")
    add("--no-fstrim", action="store_true", help="copy unused blocks too")
    add("-m", "--memsize", type=int, metavar="MIB", help="memory of the appliance")
    add("--smp", type=int, metavar="N", help="vCPUs of the appliance")
    add("--inspect", action="store_true", help="only look inside the guest")
    add("--rehearse", action="store_true", help="convert, then throw the result away")
    add(
        "--print-source",
        nargs="?",
        const="current",
        choices=["current", "legacy", "json"],
        help="print what the source is and stop",
    )
    add("--job", metavar="FILE", help="read the job as JSON from a file, - for standard input")
    add("--events", action="store_true", help="write events as JSON lines")
    add("--machine-readable", action="store_true", help="print the capabilities")
    add("-q", "--quiet", action="store_true", help="only warnings and errors")
    add("-v", "--verbose", action="store_true", help="also debug messages")
    add("-x", dest="trace", action="store_true", help="also libguestfs' calls and messages")
    return parser
