"""What one engine process is asked to do; JSON in, JSON out, strict both ways."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Literal

from conversions.pipeline.errors import JobError
from conversions.pipeline.output_kinds import BOOLEANS, check_target


class Mode(StrEnum):
    """copy makes a converted VM; inspect only looks; rehearse converts and throws away."""

    COPY = "copy"
    INSPECT = "inspect"
    REHEARSE = "rehearse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """Where the source is: kind "ova" and the path of an OVA file, directory or .ovf."""

    kind: str
    location: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkMap:
    """Where source networks and bridges lead on the target; None means unchanged.

    `macs` maps a lower-case MAC to ("network" or "bridge", name) and wins over the others.
    """

    networks: Mapping[str, str] = field(default_factory=dict)
    default_network: str | None = None
    bridges: Mapping[str, str] = field(default_factory=dict)
    default_bridge: str | None = None
    macs: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the result goes; which parts a kind takes is said in output_kinds.py.

    `directory` is a folder that exists, `storage` a pool, a storage domain or a volume type,
    `uri` the server, `password_file` names a file, `options` are the pairs of -oo.
    """

    kind: str = "local"
    directory: str = ""
    storage: str = ""
    uri: str = ""
    password_file: str = ""
    format: Literal["qcow2", "raw"] = "qcow2"
    allocation: Literal["sparse", "preallocated"] = "sparse"
    compressed: bool = False
    overwrite: bool = False
    keep_display: bool = False
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def option(self, key: str, default: str = "") -> str:
        """Return the value of an option that is given once."""
        return self.options.get(key, (default,))[-1]

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Return a yes-or-no option."""
        return BOOLEANS[self.option(key)] if key in self.options else default


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    """How the disks are copied.

    At most `parallel` at once, at `rate_bytes` a second together.  `verify` checks the structure
    of each result (quick) or every byte of it (full); `digests` adds the SHA-256 of every file.
    """

    parallel: int = 1
    rate_bytes: int | None = None
    verify: Literal["none", "quick", "full"] = "none"
    digests: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be.  Raises JobError."""
        if self.parallel < 1:
            raise JobError(f"--parallel {self.parallel}: at least one disk must be copied at once.")
        if self.rate_bytes is not None and self.rate_bytes < 1:
            raise JobError("The rate limit of the copy must be above zero.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One conversion, rehearsal or inspection.

    `work_dir` is private to this job and is removed at the end; None means a new one under
    VIRT_V2V_TMPDIR, LIBGUESTFS_CACHEDIR, TMPDIR or /var/tmp, in that order.  `root` is "single",
    "first" or a device of the guest such as /dev/sda2.  `name` renames the VM.
    """

    mode: Mode
    source: Input
    target: Target | None = None
    name: str | None = None
    root: str = "single"
    network_map: NetworkMap = field(default_factory=NetworkMap)
    copy: CopyOptions = field(default_factory=CopyOptions)
    trim: bool = True
    verify_digests: bool = True
    memory_mib: int | None = None
    vcpus: int | None = None
    work_dir: str | None = None
    trace: bool = False

    def __post_init__(self) -> None:
        """Refuse what can be refused without looking at anything.  Raises JobError."""
        if self.mode is Mode.COPY and self.target is None:
            raise JobError("Copy mode needs a target.", remedy="Give one with -o and -os.")
        if self.root not in ("single", "first") and not self.root.startswith("/dev/"):
            raise JobError(
                f"Root choice {self.root!r} is not known.",
                remedy="Use single, first or a device of the guest such as /dev/sda2.",
            )
        if self.target is not None:
            check_target(self.target)

    def to_dict(self) -> dict[str, Any]:
        """Return the job as plain JSON values."""
        data: dict[str, Any] = json.loads(self.to_json())
        return data

    def to_json(self) -> str:
        """Return the job as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read a job.  Raises JobError for bad JSON, unknown keys, wrong types or values."""
        try:
            data = json.loads(text)
        except ValueError as error:
            raise JobError(f"The job is not JSON: {error}.") from error
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: Any) -> Job:
        """Build a job from parsed JSON.  Raises JobError."""
        values = _strict(cls, data, "job")
        try:
            values["mode"] = Mode(values.get("mode", ""))
        except ValueError as error:
            raise JobError(f"Mode {values.get('mode')!r} is not known.") from error
        values["source"] = Input(**_strict(Input, values.get("source"), "source"))
        if values.get("target") is not None:
            target = _strict(Target, values["target"], "target")
            target["options"] = {k: tuple(v) for k, v in target.get("options", {}).items()}
            values["target"] = Target(**target)
        if "copy" in values:
            values["copy"] = CopyOptions(**_strict(CopyOptions, values["copy"], "copy"))
        if "network_map" in values:
            mapping = _strict(NetworkMap, values["network_map"], "network_map")
            macs = mapping.get("macs", {})
            mapping["macs"] = {mac: (kind, name) for mac, (kind, name) in macs.items()}
            values["network_map"] = NetworkMap(**mapping)
        try:
            return cls(**values)
        except TypeError as error:
            raise JobError(f"The job is incomplete: {error}.") from error


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "str | None": (str, type(None)),
    "int | None": (int, type(None)),
    "bool": (bool,),
    "Mapping[str, str]": (dict,),
    "Mapping[str, tuple[str, str]]": (dict,),
    "Mapping[str, tuple[str, ...]]": (dict,),
    'Literal["qcow2", "raw"]': (str,),
    'Literal["sparse", "preallocated"]': (str,),
    'Literal["none", "quick", "full"]': (str,),
    "int": (int,),
}
_VALUES = {
    "format": ("qcow2", "raw"),
    "allocation": ("sparse", "preallocated"),
    "verify": ("none", "quick", "full"),
}


def _strict(cls: type, data: Any, where: str) -> dict[str, Any]:
    """Return a copy of `data` whose keys and simple values fit the dataclass.  Raises JobError."""
    if not isinstance(data, dict):
        raise JobError(f"{where} must be a JSON object.")
    known = {f.name: str(f.type) for f in fields(cls)}
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise JobError(f"{where} has keys that are not known: {', '.join(unknown)}.")
    for key, value in data.items():
        allowed = _TYPES.get(known[key])
        if allowed and (
            not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed)
        ):
            raise JobError(f"{where}.{key} must be {known[key]}, not {value!r}.")
        if key in _VALUES and value not in _VALUES[key]:
            raise JobError(f"{where}.{key} must be one of {', '.join(_VALUES[key])}.")
    return dict(data)
