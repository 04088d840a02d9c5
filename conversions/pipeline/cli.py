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
from conversions.pipeline.capabilities import capabilities
from conversions.pipeline.cli_job import job_from
from conversions.pipeline.cli_options import options_parser
from conversions.pipeline.errors import ConversionError, JobError
from conversions.pipeline.job import Job, Mode, Target
from conversions.pipeline.leftovers import clean_up
from conversions.pipeline.report import EventReporter, Level, json_lines
from conversions.pipeline.source import reader_of
from conversions.pipeline.target_options import option_help, signing_in, wants_option_help
from conversions.pipeline.text_log import text_lines
from conversions.pipeline.work import work_folder
from inventory.sources.errors import SourceError
from inventory.sources.input_options import HTTPS_OPTIONS, SSH_OPTIONS, VDDK_OPTIONS

EXIT_ERROR = 1
EXIT_STOPPED = 143


def main(argv: Sequence[str]) -> int:
    """Run the command line and return the exit status."""
    options = options_parser().parse_args(argv)
    if options.machine_readable and not options.source and not options.job:
        print(capabilities())
        return 0
    events = _event_stream() if options.events else None
    reports: dict[str, Any] = {}
    emit = (
        json_lines(events)
        if events
        else text_lines(
            sys.stderr if options.O == "-" else sys.stdout,
            sys.stderr,
            quiet=options.quiet,
            verbose=options.verbose,
            trace=options.trace,
            machine_readable=options.machine_readable,
        )
    )
    reporter = EventReporter(emit if options.O is None else _keeping(reports, emit))
    try:
        if "?" in options.io:
            print("\n".join((*HTTPS_OPTIONS, *SSH_OPTIONS, *VDDK_OPTIONS)))
            return 0
        if wants_option_help(options):
            print(option_help(options))
            return 0
        if options.clean_up:
            work = Path(options.clean_up).absolute()
            clean_up(work, reporter, lambda noted: _signing_in(noted, options))
            return _succeeded(reporter)
        job = job_from(options)
        if options.print_source:
            return _print_source(job, options.print_source, reporter)
        if options.O is not None:
            _check_document(job, options)
    except (ConversionError, SourceError) as error:
        return _failed(reporter, error.code, error.message, error.remedy)
    status = run_job(job, reporter, lifeline=options.job == "-")
    if status == 0 and options.O is not None:
        return _write_document(reports, options.O)
    return status


def _signing_in(noted: Target, options: argparse.Namespace) -> Target:
    """Return a target that was noted with what signing in takes: of the job, or of the options.

    Raises JobError.
    """
    if not options.job:
        return signing_in(noted, options)
    target = job_from(options).target
    return target if target and target.kind == noted.kind else noted


def _keeping(
    reports: dict[str, Any], emit: Callable[[dict[str, Any]], None]
) -> Callable[[dict[str, Any]], None]:
    """Return an emitter that keeps the reports besides."""

    def keep(event: dict[str, Any]) -> None:
        if event["type"] == "report":
            reports[event["name"]] = event["data"]
        emit(event)

    return keep


def _check_document(job: Job, options: argparse.Namespace) -> None:
    """Refuse -O where nothing would be written, or could not be.  Raises JobError."""
    if job.mode is Mode.COPY:
        raise JobError(
            "-O writes what was found in a guest; a copy has its own files.",
            remedy="Use it with --inspect, --rehearse or --in-place.",
        )
    if options.O == "-" and options.events:
        raise JobError("Events and the document of -O cannot both go to standard output.")
    if options.O != "-" and not Path(options.O).absolute().parent.is_dir():
        raise JobError(f"The folder of {options.O} (-O) does not exist.")


def _write_document(reports: Mapping[str, Any], where: str) -> int:
    """Write the XML of the inspection to a file, or to standard output for "-"."""
    from conversions.pipeline.inspector_xml import inspector_xml

    text = inspector_xml(reports)
    if where == "-":
        sys.stdout.write(text)
        return 0
    try:
        Path(where).write_text(text, encoding="utf-8")
    except OSError as error:
        print(f"v2vweb: error: {where} could not be written: {error}.", file=sys.stderr)
        return EXIT_ERROR
    return 0


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
        return _succeeded(reporter)
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


def _succeeded(reporter: EventReporter) -> int:
    reporter.event("result", status="ok", code="", message="", remedy="", step="")
    return 0


def _failed(reporter: EventReporter, code: str, message: str, remedy: str) -> int:
    step = reporter.current or ""
    reporter.event("result", status="error", code=code, message=message, remedy=remedy, step=step)
    return EXIT_ERROR


def _event_stream() -> Any:
    """Keep standard output for events alone: whatever else writes to it goes to stderr."""
    events = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    return events


def _print_source(job: Job, layout: str, reporter: EventReporter) -> int:
    """Print the source in one of the three layouts.  Raises ConversionError, SourceError."""
    from inventory.sources import text

    def warn(line: str) -> None:
        print(f"v2vweb: warning: {line}", file=sys.stderr)

    with work_folder(job, reporter) as folder:
        try:
            source = reader_of(job.source, folder, warn).read()
        except OSError as error:
            raise SourceError("E-IMG-READ", f"The source cannot be read: {error}.") from error
    if not source.disks:
        warn(f"{source.name} has no disks.")
    if layout == "json":
        print(json.dumps(source.to_dict(), indent=2))
    else:
        block = text.legacy_block if layout == "legacy" else text.current
        print(f"Source guest information (--print-source):\n\n{block(source)}")
    return 0
