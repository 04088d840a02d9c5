"""virt-v2v's output options (-o, -oa, -oc, -of, -on, -oo, -op, -os) and the Target they make."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from conversions.pipeline.errors import JobError
from conversions.pipeline.job import CopyOptions, Target
from conversions.pipeline.output_kinds import BOOLEANS, OutputKind, check_target, kind_of

DEFAULT_KIND = "libvirt"
_MIB = 1 << 20


class Once(argparse.Action):
    """An option that means one thing: giving it twice is refused."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Store the value; a second ends the program."""
        seen = vars(namespace).setdefault("seen", set())
        if self.dest in seen:
            parser.error(f"{option_string} was given twice")
        seen.add(self.dest)
        setattr(namespace, self.dest, values)


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """Add the output options to a parser."""
    add = parser.add_argument
    add("-o", action=Once, metavar="KIND", help="kind of target; libvirt when not given")
    add("-os", action=Once, metavar="PLACE", help="target folder, pool or storage")
    add("-oc", action=Once, metavar="URI", help="connection to the target")
    add("-op", action=Once, metavar="FILE", help="file that holds the target's password")
    add("-of", action=Once, metavar="FORMAT", help="format of the target disks: qcow2 or raw")
    add("-oa", action=Once, metavar="ALLOCATION", help="their allocation: sparse or preallocated")
    add("-on", action=Once, metavar="NAME", help="name of the machine on the target")
    add("-oo", metavar="KEY[=VALUE]", action="append", default=[], help="-oo '?' lists the keys")
    add("--overwrite", action="store_true", help="replace existing target files")
    add("--parallel", type=int, default=1, metavar="N", help="copy so many disks at once")
    add("--rate-limit", type=int, metavar="MIB", help="copy at most so many MiB per second")
    add(
        "--verify",
        choices=["none", "quick", "full"],
        default="none",
        help="check the copy: its structure (quick) or every byte (full)",
    )
    add(
        "--overlap",
        choices=["auto", "always", "never"],
        default="auto",
        help="copy the disks while the guest is being converted; auto: when they are large",
    )
    add(
        "--keep-converted",
        action="store_true",
        help="keep the converted disks when the copy fails or is stopped, for --resume",
    )
    add("--digests", action="store_true", help="put the SHA-256 of every file into the report")


def wants_option_help(options: argparse.Namespace) -> bool:
    """Tell whether -oo '?' asks for the keys of the output."""
    return "?" in options.oo


def option_help(options: argparse.Namespace) -> str:
    """Return the keys of the output.  Raises JobError."""
    return kind_of(options.o or DEFAULT_KIND).help()


def target_from(options: argparse.Namespace) -> Target:
    """Build the target.  Raises JobError."""
    kind = kind_of(options.o or DEFAULT_KIND)
    pairs = _pairs(options.oo, kind)
    flags = {key: _flag(pairs.pop(key)) for key in ("compressed", "keep-display") if key in pairs}
    secrets = _take_secrets(pairs, kind)
    # Other words are refused by name in the target's own check.
    format_: Any = options.of or kind.formats[0]
    storage = options.os if kind.place != "directory" else None
    return Target(
        kind=kind.name,
        directory=(options.os or "") if kind.place == "directory" else "",
        storage=storage or kind.storage,
        uri=options.oc or "",
        password_file=options.op or "",
        format=format_,
        allocation=options.oa or "sparse",
        compressed=flags.get("compressed", False),
        overwrite=options.overwrite,
        keep_display=flags.get("keep-display", False),
        options={key: tuple(values) for key, values in pairs.items()},
        secrets=secrets,
    )


def signing_in(target: Target, options: argparse.Namespace) -> Target:
    """Return a target that was noted with what the options say of signing in to it now.

    A password that is given stands for any that was in a file.  Raises JobError.
    """
    kind = kind_of(target.kind)
    pairs = _pairs(options.oo, kind)
    secrets = _take_secrets(pairs, kind)
    completed = replace(
        target,
        uri=options.oc or target.uri,
        password_file=options.op or ("" if secrets else target.password_file),
        options={**target.options, **{key: tuple(values) for key, values in pairs.items()}},
        secrets=secrets,
    )
    check_target(completed)
    return completed


def copy_options_from(options: argparse.Namespace) -> CopyOptions:
    """Build the options of the copy.  Raises JobError."""
    rate = options.rate_limit
    return CopyOptions(
        parallel=options.parallel,
        rate_bytes=None if rate is None else rate * _MIB,
        verify=options.verify,
        digests=options.digests,
        overlap=options.overlap,
        keep_converted=options.keep_converted,
    )


def _pairs(values: Sequence[str], kind: OutputKind) -> dict[str, list[str]]:
    """Split -oo at the first `=`; a key may come several times, also in an older spelling."""
    pairs: dict[str, list[str]] = {}
    for value in values:
        key, _, text = value.partition("=")
        pairs.setdefault(kind.spelling(key), []).append(text)
    return pairs


def _take_secrets(pairs: dict[str, list[str]], kind: OutputKind) -> dict[str, tuple[str, ...]]:
    """Take those out of the pairs that no file may hold."""
    return {key: tuple(pairs.pop(key)) for key in kind.secrets if key in pairs}


def _flag(values: Sequence[str]) -> bool:
    if len(values) > 1 or values[0] not in BOOLEANS:
        raise JobError(f"{', '.join(values)!r} is neither true nor false (-oo).")
    return BOOLEANS[values[0]]
