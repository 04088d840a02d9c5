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
from conversions.pipeline.job import Customize, Input, Job, Key, Mode, WindowsOptions
from conversions.pipeline.networks import parse_map
from conversions.pipeline.output_kinds import KINDS
from conversions.pipeline.passwords import crypted
from conversions.pipeline.report import EventReporter, Level, json_lines
from conversions.pipeline.source import reader_of
from conversions.pipeline.target_options import (
    add_target_options,
    copy_options_from,
    option_help,
    target_from,
    wants_option_help,
)
from conversions.pipeline.text_log import text_lines
from conversions.pipeline.windows.static_ip import parse_static_ip
from conversions.pipeline.work import work_folder
from inventory.sources.errors import SourceError
from inventory.sources.input_options import HTTPS_OPTIONS, SSH_OPTIONS, TRANSPORTS, VDDK_OPTIONS

EXIT_ERROR = 1
EXIT_STOPPED = 143
_CAPABILITIES = (
    "v2vweb", "libguestfs-rewrite", "io/oo", "mac-option", "parallel-option", "in-place",
    "input:ova", "input:vmx", "input:disk", "input:libvirt", "input:libvirtxml",
    *(f"input-transport:{name}" for name in ("https", *TRANSPORTS)),
    *(f"output:{name}" for kind in KINDS.values() for name in (kind.name, *kind.aliases)),
    "convert:linux", "convert:windows", "block-driver-option",
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
        if "?" in options.io:
            print("\n".join((*HTTPS_OPTIONS, *SSH_OPTIONS, *VDDK_OPTIONS)))
            return 0
        if wants_option_help(options):
            print(option_help(options))
            return 0
        job = _job(options)
        if options.print_source:
            return _print_source(job, options.print_source, reporter)
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
    if not options.source and options.i == "disk":
        raise JobError(
            "No disk image was given.", remedy="Name one: -i disk web01.qcow2", code="E-DISK-NONE"
        )
    if not options.source:
        raise JobError("No source was given.", remedy="Write: -i ova FILE -o local -os FOLDER")
    if len(options.source) != 1 and options.i != "disk":
        raise JobError(f"-i {options.i} takes one source; {len(options.source)} were given.")
    options.in_place |= options.direct
    mode = next(
        (m for m in (Mode.INSPECT, Mode.REHEARSE, Mode.IN_PLACE) if getattr(options, m)), Mode.COPY
    )
    copying = mode is Mode.COPY and not options.print_source
    return Job(
        mode=Mode.INSPECT if options.print_source else mode,
        source=Input(
            kind=options.i,
            location=options.source[0],
            more=tuple(options.source[1:]),
            format=getattr(options, "if"),
            connection=options.ic,
            disks_anywhere=options.disks_anywhere,
            allow_running=options.allow_running,
            transport=options.it,
            password_file=options.ip or "",
            options=_pairs(options.io),
        ),
        target=target_from(options) if copying else None,
        copy=copy_options_from(options),
        name=options.on,
        root=options.root,
        network_map=parse_map(
            options.network, options.bridge, [m for m in options.mac if m[17:21] != ":ip:"]
        ),
        windows=_windows(options),
        customize=_customize(options),
        keys=tuple(_key(value) for value in options.key),
        fsck=not options.no_fsck,
        guest_agent=not options.no_guest_agent,
        keep_nic_names=not options.no_keep_nic_names,
        define=options.define,
        direct=options.direct,
        trim=not options.no_fstrim,
        memory_mib=options.memsize,
        vcpus=options.smp,
        trace=options.trace,
    )


def _pairs(values: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the values of KEY=VALUE words by key, in order; without = the value is empty."""
    pairs: dict[str, tuple[str, ...]] = {}
    for value in values:
        key, _, text = value.partition("=")
        pairs[key] = (*pairs.get(key, ()), text)
    return pairs


def _customize(options: argparse.Namespace) -> Customize:
    """Read the wishes for the guest; files are read here, passwords made unreadable."""
    try:
        keys = tuple(_ssh_key(value) for value in options.ssh_inject)
        scripts = tuple(Path(path).read_text() for path in options.firstboot)
        password = _password_hash(options.root_password) if options.root_password else ""
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"A file with wishes for the guest cannot be read: {error}.") from error
    return Customize(
        hostname=options.hostname or "",
        timezone=options.timezone or "",
        root_password_hash=password,
        ssh_keys=keys,
        install=tuple(name for value in options.install for name in value.split(",")),
        uninstall=tuple(name for value in options.uninstall for name in value.split(",")),
        firstboot=(*scripts, *options.firstboot_command),
    )


def _key(value: str) -> Key:
    """Read ID:key:PASSPHRASE or ID:file:PATH, of which the first line counts."""
    fields = value.split(":")
    if len(fields) != 3 or fields[1] not in ("key", "file") or not fields[0]:
        raise JobError(
            "--key takes ID:key:PASSPHRASE or ID:file:PATH, where ID is all, a device or a UUID.",
            remedy="A passphrase with a colon has to be in a file."
            + (" Clevis is not available with this libguestfs." if "clevis" in fields else ""),
        )
    if fields[1] == "key":
        return Key(selector=fields[0], passphrase=fields[2])
    try:
        text = Path(fields[2]).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"The key file {fields[2]} cannot be read: {error}.") from error
    return Key(selector=fields[0], passphrase=text.split("\n")[0])


def _ssh_key(value: str) -> str:
    user, _, rest = value.partition(":")
    kind, _, text = rest.partition(":")
    if user != "root" or kind not in ("file", "string"):
        raise JobError(f"--ssh-inject {value}: write root:file:PATH or root:string:KEY.")
    return (Path(text).read_text() if kind == "file" else text).strip()


def _password_hash(value: str) -> str:
    """Return what goes into /etc/shadow for password:TEXT, file:PATH, locked or disabled."""
    kind, _, text = value.partition(":")
    if kind in ("locked", "disabled"):
        return "!" if kind == "locked" else "*"
    if kind not in ("password", "file"):
        raise JobError("--root-password takes password:TEXT, file:PATH, locked or disabled.")
    plain = text if kind == "password" else Path(text).read_text().split("\n")[0]
    return crypted(plain)


def _windows(options: argparse.Namespace) -> WindowsOptions:
    """Collect the options for Windows guests.  Raises JobError."""
    if len(options.block_driver) > 1:
        raise JobError("--block-driver was given more than once.")
    return WindowsOptions(
        virtio_win=options.virtio_win or "",
        virt_tools=options.virt_tools or "",
        block_driver=options.block_driver[0] if options.block_driver else "virtio-blk",
        emulated_devices=options.emulated_devices,
        sibling_drivers=options.sibling_drivers,
        disable_vmware=options.disable_vmware,
        remove_boot_keys=options.remove_boot_keys,
        static_ips=tuple(parse_static_ip(m) for m in options.mac if m[17:21] == ":ip:"),
    )


def _print_source(job: Job, layout: str, reporter: EventReporter) -> int:
    """Print the source in one of the three layouts."""
    from inventory.sources import text

    def warn(line: str) -> None:
        print(f"v2vweb: warning: {line}", file=sys.stderr)

    with work_folder(job, reporter) as folder:
        source = reader_of(job.source, folder, warn).read()
    if not source.disks:
        warn(f"{source.name} has no disks.")
    layouts: Mapping[str, Callable[[], str]] = {
        "current": lambda: "Source guest information (--print-source):\n\n" + text.current(source),
        "legacy": lambda: text.legacy(source),
        "json": lambda: json.dumps(source.to_dict(), indent=2),
    }
    print(layouts[layout]())
    return 0


class _Once(argparse.Action):
    """An option of which two would contradict each other."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Store the value of the first and refuse a second."""
        seen = vars(namespace).setdefault("seen", set())
        if self.dest in seen:
            parser.error(f"{option_string} was given more than once")
        seen.add(self.dest)
        setattr(namespace, self.dest, values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m conversions.pipeline",
        description="Convert a virtual machine to run on KVM.  The source is only ever read.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("source", nargs="*", help="the OVA, VMX file, domain XML, disk images or the domain")
    add(
        "-i",
        action=_Once,
        type=lambda kind: {"local": "disk"}.get(kind, kind),
        choices=["ova", "vmx", "disk", "libvirt", "libvirtxml"],
        default="ova",
        help="kind of source",
    )
    add("-ic", action=_Once, metavar="URI", help="libvirt host of the domain (qemu:///system)")
    add("-if", action=_Once, metavar="FORMAT", help="format of the disks of -i disk; else detected")
    add(
        "-it",
        action=_Once,
        choices=TRANSPORTS,
        help="ssh: a VMX file by its address ssh://user@host/path; vddk: VMware's own library",
    )
    add("-ip", action=_Once, metavar="FILE", help="holds the source's password")
    add(
        "-io",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help=f"{', '.join((*HTTPS_OPTIONS, *SSH_OPTIONS, *VDDK_OPTIONS))}",
    )
    add(
        "--allow-running",
        action="store_true",
        help="take a domain that is not shut off: for a copy of disks that nothing writes to",
    )
    add(
        "--disks-anywhere",
        action="store_true",
        help="trust what a VMX or an image names: disks in other folders, layers below",
    )
    add_target_options(parser)
    add("-n", "--network", metavar="IN:OUT", action="append", default=[], help="map a network")
    add("-b", "--bridge", metavar="IN:OUT", action="append", default=[], help="map a bridge")
    add(
        "--mac",
        metavar="MAC:network|bridge:NAME",
        action="append",
        default=[],
        help="map a NIC; MAC:ip:ADDRESS[,GATEWAY[,PREFIX[,DNS...]]] fixes a Windows address",
    )
    add("--virtio-win", metavar="PATH", help="ISO or folder with drivers for Windows guests")
    add("--virt-tools", metavar="FOLDER", help="rhsrvany.exe and other tools for Windows guests")
    add(
        "--block-driver",
        choices=["virtio-blk", "virtio-scsi"],
        action="append",
        default=[],
        help="what Windows guests find their disks with",
    )
    add(
        "--emulated-devices",
        action="store_true",
        help="let a Windows guest without drivers run on IDE, slowly",
    )
    add(
        "--sibling-drivers",
        action="store_true",
        help="take drivers of an older Windows where there are none of its own",
    )
    add("--disable-vmware", action="store_true", help="turn off VMware's services in Windows")
    add(
        "--remove-boot-keys",
        action="store_true",
        help="let Windows delete the boot driver's temporary entries at its first start",
    )
    add("--root", default="single", metavar="single|first|/dev/...", help="which system to take")
    add("--no-fstrim", action="store_true", help="copy unused blocks too")
    add("-m", "--memsize", type=int, metavar="MIB", help="memory of the appliance")
    add("--smp", type=int, metavar="N", help="vCPUs of the appliance")
    add("--inspect", action="store_true", help="only look inside the guest")
    add("--rehearse", action="store_true", help="convert, then throw the result away")
    # Whole options, so that neither takes the source that follows for its value.
    add("--in-place", action="store_true", help="convert the source's own disks")
    add(
        "--in-place=direct",
        dest="direct",
        action="store_true",
        help="the same without an overlay, where there is no room for one: nothing can undo it",
    )
    add("--define", action="store_true", help="with --in-place: define the domain anew as well")
    add(
        "--key",
        metavar="ID:key:TEXT|ID:file:PATH",
        action="append",
        default=[],
        help="opens an encrypted device; ID is all, /dev/sda2 or a UUID",
    )
    add("--no-fsck", action="store_true", help="check no filesystem before and after")
    add("--no-guest-agent", action="store_true", help="arrange no QEMU guest agent")
    add("--no-keep-nic-names", action="store_true", help="let names of network cards change")
    _add_wishes(parser)
    for layout in ("current", "legacy", "json"):
        add(
            f"--print-source={layout}",
            *(["--print-source"] if layout == "current" else []),
            dest="print_source",
            action="store_const",
            const=layout,
            help="print what the source is and stop",
        )
    add("--job", metavar="FILE", help="read the job as JSON from a file, - for standard input")
    add("--events", action="store_true", help="write events as JSON lines")
    add("--machine-readable", action="store_true", help="print the capabilities")
    add("-q", "--quiet", action="store_true", help="only warnings and errors")
    add("-v", "--verbose", action="store_true", help="also debug messages")
    add("-x", dest="trace", action="store_true", help="also libguestfs' calls and messages")
    return parser


def _add_wishes(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("wishes for the guest").add_argument
    add("--hostname", help="its host name")
    add("--timezone", metavar="AREA/PLACE", help="its time zone")
    add("--root-password", metavar="password:TEXT|file:PATH|locked|disabled", help="of root")
    for option, metavar, text in (
        ("--ssh-inject", "root:file:PATH|root:string:KEY", "a key that lets root in"),
        ("--install", "PACKAGE,...", "install at the first start"),
        ("--uninstall", "PACKAGE,...", "remove at once"),
        ("--firstboot", "FILE", "a script of the first start"),
        ("--firstboot-command", "LINE", "a line of shell of the first start"),
    ):
        add(option, metavar=metavar, action="append", default=[], help=text)
