"""From a command line's options to the job they ask for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from stat import S_IMODE

from conversions.pipeline.errors import JobError
from conversions.pipeline.job import (
    Customize,
    GuestFile,
    Input,
    Job,
    Key,
    Mode,
    NetworkMap,
    WindowsOptions,
)
from conversions.pipeline.kept import read_kept
from conversions.pipeline.networks import parse_map
from conversions.pipeline.passwords import crypted
from conversions.pipeline.target_options import copy_options_from, target_from
from conversions.pipeline.windows.static_ip import parse_static_ip


def job_from(options: argparse.Namespace) -> Job:
    """Build the job from `--job` or from the options.  Raises JobError."""
    if options.job:
        try:
            text = sys.stdin.readline() if options.job == "-" else Path(options.job).read_text()
        except OSError as error:
            raise JobError(f"The job file {options.job} cannot be read: {error}.") from error
        return Job.from_json(text)
    if options.resume:
        return _resumed(options)
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
        network_map=_network_map(options),
        windows=_windows(options),
        customize=_customize(options),
        keys=tuple(_key(value) for value in options.key),
        collect=tuple(options.collect),
        collect_output=options.collect_output or "",
        fsck=not options.no_fsck,
        guest_agent=not options.no_guest_agent,
        keep_nic_names=not options.no_keep_nic_names,
        selinux_relabel=not options.no_selinux_relabel,
        define=options.define,
        direct=options.direct,
        trim=not options.no_fstrim,
        memory_mib=options.memsize,
        vcpus=options.smp,
        trace=options.trace,
    )


def _resumed(options: argparse.Namespace) -> Job:
    """Build the job that continues a kept folder: its source, and the target of the options.

    What is asked for inside the guest was done by the run before, or not at all.  Raises JobError,
    KeptError.
    """
    if options.source or options.in_place or options.direct or options.inspect or options.rehearse:
        raise JobError("--resume takes a folder and a target; its source is on record there.")
    kept = read_kept(Path(options.resume).absolute())
    source = replace(
        kept.input,
        password_file=options.ip or kept.input.password_file,
        options={**kept.input.options, **_pairs(options.io)},
    )
    return Job(
        mode=Mode.COPY,
        source=source,
        target=target_from(options),
        copy=copy_options_from(options),
        name=options.on,
        network_map=_network_map(options),
        resume=options.resume,
        trace=options.trace,
    )


def _network_map(options: argparse.Namespace) -> NetworkMap:
    macs = [m for m in options.mac if m[17:21] != ":ip:"]
    return parse_map(options.network, options.bridge, macs)


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
        scripts = tuple(_script(Path(path)) for path in options.firstboot)
        files = tuple(_upload(value) for value in options.upload)
        password = _password_hash(options.root_password) if options.root_password else ""
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"A file with wishes for the guest cannot be read: {error}.") from error
    return Customize(
        hostname=options.hostname or "",
        timezone=options.timezone or "",
        root_password_hash=password,
        ssh_keys=keys,
        update=options.update,
        install=tuple(name for value in options.install for name in value.split(",")),
        uninstall=tuple(name for value in options.uninstall for name in value.split(",")),
        files=files,
        firstboot=(*scripts, *options.firstboot_command),
    )


def _script(path: Path) -> str:
    """Read a script for the first start.  Raises JobError, OSError."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise JobError(
            f"The script {path} is not in UTF-8: {error}.",
            remedy="Save it as UTF-8; the guest gets it in an encoding that it reads.",
        ) from error


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


def _upload(value: str) -> GuestFile:
    """Read FILE:GUESTPATH."""
    name, _, path = value.rpartition(":")
    if not name:
        raise JobError(f"--upload {value}: write FILE:GUESTPATH, such as motd:/etc/motd.")
    content = Path(name).read_bytes().decode("utf-8", "surrogateescape")
    return GuestFile(path=path, content=content, mode=S_IMODE(Path(name).stat().st_mode))


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
