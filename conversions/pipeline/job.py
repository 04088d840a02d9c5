"""What one engine process is asked to do; JSON in, JSON out, strict both ways."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from ipaddress import ip_address
from typing import Any, Literal

from conversions.pipeline.collect import check_collection
from conversions.pipeline.errors import JobError
from conversions.pipeline.output_kinds import BOOLEANS, check_target


class Mode(StrEnum):
    """copy makes a converted VM; inspect only looks; rehearse converts and throws away.

    in_place changes the source's own disks, at once, after everything has succeeded in overlays.
    """

    COPY = "copy"
    INSPECT = "inspect"
    REHEARSE = "rehearse"
    IN_PLACE = "in_place"


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """Where the source is.

    Kind "ova": the path of an OVA file, directory or .ovf.  Kind "vmx": the path of a VMX file.
    Kind "disk": the path of an image, or the address of an NBD server, and others in `more`;
    `format` is that of all files, or None.  Kind "libvirtxml": the path of a file of domain XML.
    Kind "libvirt": the name or UUID of a domain on the host `connection`.  With `disks_anywhere`
    the names of files in a VMX and in images are trusted: they may lie in other folders.

    For sources on other hosts: `transport` is "ssh" (`location` is the address of a VMX file then,
    or a domain of `connection`) or "vddk", `options` are the pairs of -io, and the password there
    is `password` or the first line of `password_file`.  A password belongs in no file of ours and
    in no log.
    `allow_running` takes a machine there that is not shut off, with a warning.
    """

    kind: str
    location: str
    more: tuple[str, ...] = ()
    format: str | None = None
    connection: str | None = None
    disks_anywhere: bool = False
    allow_running: bool = False
    transport: str | None = None
    password: str = field(default="", repr=False)
    password_file: str = ""
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


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
    `uri` the server, `password_file` names a file, `options` are the pairs of -oo.  Those whose
    values are secret are in `secrets` instead; they belong in no file of ours and in no log.
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
    secrets: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def option(self, key: str, default: str = "") -> str:
        """Return the value of an option that is given once, secret or not."""
        return (self.secrets.get(key) or self.options.get(key, (default,)))[-1]

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Return a yes-or-no option."""
        return BOOLEANS[self.option(key)] if key in self.options else default

    def public(self) -> dict[str, Any]:
        """Return all but the secrets, which a file may hold, as plain JSON values."""
        return {key: value for key, value in asdict(self).items() if key != "secrets"}

    @property
    def place(self) -> str:
        """Where it is, in a few words."""
        parts = (self.directory, self.uri, self.option("os-cloud"), self.storage)
        return ", ".join(filter(None, parts))

    @classmethod
    def from_dict(cls, data: Any) -> Target:
        """Build a target from parsed JSON, unchecked but for names and types.  Raises JobError."""
        values = _strict(cls, data, "target")
        for pairs in ("options", "secrets"):
            values[pairs] = {k: tuple(v) for k, v in values.get(pairs, {}).items()}
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    """How the disks are copied.

    At most `parallel` at once, at `rate_bytes` a second together.  `verify` checks the structure
    of each result (quick) or every byte of it (full); `digests` adds the SHA-256 of every file.
    What libvirt stores for us was checked so before it was sent; quick compares its size then, full
    reads it back.
    `overlap` says whether the disks are copied while the guest is being converted: where that is
    exact and large enough to be worth it (auto), wherever it is exact (always), never.
    With `keep_converted` the converted overlays stay when the copy fails or is stopped.
    """

    parallel: int = 1
    rate_bytes: int | None = None
    verify: Literal["none", "quick", "full"] = "none"
    digests: bool = False
    overlap: Literal["auto", "always", "never"] = "auto"
    keep_converted: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be.  Raises JobError."""
        if self.parallel < 1:
            raise JobError(f"--parallel {self.parallel}: at least one disk must be copied at once.")
        if self.rate_bytes is not None and self.rate_bytes < 1:
            raise JobError("The rate limit of the copy must be above zero.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A passphrase, and what it opens: "all", a device such as /dev/sda2, or a UUID of LUKS."""

    selector: str
    passphrase: str = field(repr=False)


_HOSTNAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,62}[A-Za-z0-9])?"
                       r"(\.[A-Za-z0-9]([A-Za-z0-9-]{0,62}[A-Za-z0-9])?)*")  # fmt: skip
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}")
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._:@-]{0,127}")
_SSH_KEY = re.compile(r"(ssh|ecdsa|sk)-[\w@.-]+ [A-Za-z0-9+/=]+( [^\n]*)?")
_CRYPTED = re.compile(r"[!*]|\$[0-9a-z]+\$[^:\n]+")


_GUEST_FILE = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[^/\0\n]{1,255})+")
MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestFile:
    """A file for the guest; bytes of `content` that are not UTF-8 are kept by surrogateescape."""

    path: str
    content: str = field(repr=False)
    mode: int = 0o644

    def __post_init__(self) -> None:
        """Refuse what cannot be.  Raises JobError."""
        if not _GUEST_FILE.fullmatch(self.path):
            raise JobError(
                f"This is no path of a file: {self.path[:80]!r}.",
                remedy="Write it in full, such as /etc/motd.",
            )
        if not 0 <= self.mode <= 0o7777:
            raise JobError(f"These are no permissions of {self.path}: {self.mode:o}.")
        if len(self.content.encode("utf-8", "surrogateescape")) > MAX_FILE_BYTES:
            raise JobError(
                f"The file for {self.path} is larger than {MAX_FILE_BYTES >> 20} MiB.",
                remedy="Let a script of the first start fetch it.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Customize:
    """Wishes for the guest: "" and empty mean no change.

    `root_password_hash` is in the form of crypt(3), never the password itself.  `install` and
    `update`, of all packages, happen at the first start, `uninstall` at once.  `files` are written,
    over those that are there.  `firstboot` are scripts of the first start.
    """

    hostname: str = ""
    timezone: str = ""
    root_password_hash: str = ""
    ssh_keys: tuple[str, ...] = ()
    update: bool = False
    install: tuple[str, ...] = ()
    uninstall: tuple[str, ...] = ()
    files: tuple[GuestFile, ...] = ()
    firstboot: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no guest could have.  Raises JobError."""
        rules: list[tuple[str, re.Pattern[str], tuple[str, ...]]] = [
            ("host name", _HOSTNAME, (self.hostname,)),
            ("time zone", _ZONE, (self.timezone,)),
            ("password hash", _CRYPTED, (self.root_password_hash,)),
            ("SSH key", _SSH_KEY, self.ssh_keys),
            ("package name", _PACKAGE, (*self.install, *self.uninstall)),
        ]
        for what, pattern, values in rules:
            for value in values:
                if value and not pattern.fullmatch(value):
                    shown = "" if what == "password hash" else f": {value[:80]!r}"
                    raise JobError(f"This is no {what}{shown}.")


_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticIp:
    """A fixed address for the network card with this MAC, in lower case with colons.

    `gateway` is "" for none, `prefix` None for what Windows takes by itself.  A card has as many
    addresses as there are entries for it.
    """

    mac: str
    address: str
    gateway: str = ""
    prefix: int | None = None
    name_servers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no address.  Raises JobError."""
        if not _MAC.fullmatch(self.mac):
            raise JobError(
                f"{self.mac[:80]!r} is no MAC address.", remedy="Write it as 00:11:22:33:44:55."
            )
        versions = {}
        for text in (self.address, *filter(None, [self.gateway]), *self.name_servers):
            if "%" in text:  # ipaddress takes any text behind it, which would get into scripts
                raise JobError(
                    f"{text[:80]!r}, given for {self.mac}, is not an address alone.",
                    remedy="Leave out the % and what follows; the MAC tells the network card.",
                )
            try:
                versions[text] = ip_address(text).version
            except ValueError as error:
                raise JobError(
                    f"{text[:80]!r}, given for {self.mac}, is no IP address.",
                    remedy="Write an IPv4 or IPv6 address.",
                ) from error
        version = versions[self.address]
        if self.gateway and versions[self.gateway] != version:
            raise JobError(
                f"{self.address} of {self.mac} and its gateway {self.gateway} are not of one kind.",
                remedy="Give an IPv4 address an IPv4 gateway, and IPv6 one of IPv6.",
            )
        bits = 32 if version == 4 else 128
        if self.prefix is not None and not 0 <= self.prefix <= bits:
            raise JobError(
                f"Prefix length {self.prefix} of {self.address} is not within 0 and {bits}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowsOptions:
    """Wishes for Windows guests; "" means not given.  Linux guests heed `block_driver` as well.

    `virtio_win` is an ISO or a folder with drivers, `virt_tools` a folder with the programs of the
    first start.  `emulated_devices` lets a guest without drivers run on IDE and an emulated network
    card instead of refusing it, `sibling_drivers` lets it take those of an older sibling.
    `disable_vmware` turns the services of VMware Tools off, `remove_boot_keys` deletes the
    temporary entries of the boot driver after the first start.
    """

    virtio_win: str = ""
    virt_tools: str = ""
    block_driver: Literal["virtio-blk", "virtio-scsi"] = "virtio-blk"
    emulated_devices: bool = False
    sibling_drivers: bool = False
    disable_vmware: bool = False
    remove_boot_keys: bool = False
    static_ips: tuple[StaticIp, ...] = ()


# A device, a subvolume of btrfs as libguestfs calls it, or the name of a filesystem.
_ROOTS = ("/dev/", "btrfsvol:/dev/", "UUID=", "LABEL=")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One conversion, rehearsal or inspection.

    `work_dir` is private to this job and is removed at the end; None means a new one under
    VIRT_V2V_TMPDIR, LIBGUESTFS_CACHEDIR, TMPDIR or /var/tmp, in that order.  `root` is "single",
    "first", a device of the guest such as /dev/sda2, UUID=... or LABEL=...  `name` renames the VM.
    `guest_agent` arranges that the QEMU guest agent is installed at the first start;
    `keep_nic_names` that network cards keep the names they are configured by; `selinux_relabel`
    that its files get their labels.  `direct` converts in place without an
    overlay, where there is no room for one: nothing can undo it.  `define` gives a domain converted
    in place its new definition on its host.  `keys` open encrypted devices; they belong in no file
    and no log.  `fsck` checks filesystems before and after.  `collect` are files and folders of the
    guest, GUESTPATH[:DIR], packed into the file `collect_output` before anything is changed.
    `resume` is a folder of converted overlays that an earlier run of the same source has kept: it
    goes on from the copy.
    """

    mode: Mode
    source: Input
    target: Target | None = None
    name: str | None = None
    root: str = "single"
    network_map: NetworkMap = field(default_factory=NetworkMap)
    copy: CopyOptions = field(default_factory=CopyOptions)
    customize: Customize = field(default_factory=Customize)
    windows: WindowsOptions = field(default_factory=WindowsOptions)
    keys: tuple[Key, ...] = field(default=(), repr=False)
    collect: tuple[str, ...] = ()
    collect_output: str = ""
    fsck: bool = True
    define: bool = False
    direct: bool = False
    guest_agent: bool = True
    keep_nic_names: bool = True
    selinux_relabel: bool = True
    trim: bool = True
    verify_digests: bool = True
    memory_mib: int | None = None
    vcpus: int | None = None
    work_dir: str | None = None
    resume: str | None = None
    trace: bool = False

    def __post_init__(self) -> None:
        """Refuse what can be refused without looking at anything.  Raises JobError."""
        if self.mode is Mode.COPY and self.target is None:
            raise JobError("Copy mode needs a target.", remedy="Give one with -o and -os.")
        if self.resume and self.mode is not Mode.COPY:
            raise JobError("Only a conversion into a copy can be continued from the copy.")
        if self.root not in ("single", "first") and not self.root.startswith(_ROOTS):
            raise JobError(
                f"Root choice {self.root!r} is not known.",
                remedy="Use single, first, a device of the guest such as /dev/sda2, UUID=... or "
                "LABEL=...",
            )
        if self.target is not None:
            check_target(self.target)
        check_collection(self.collect, self.collect_output)
        if self.mode is Mode.IN_PLACE:
            self._check_in_place()
        elif self.direct:
            raise JobError("Only a conversion in place can do without an overlay.")

    def _check_in_place(self) -> None:
        if self.source.kind not in ("disk", "libvirt", "libvirtxml"):
            raise JobError(
                f"A source of kind {self.source.kind} cannot be converted in place.",
                remedy="Disks on this host and domains of a libvirt host can; copy the others.",
            )
        if self.source.allow_running:
            raise JobError("The disks of a running machine cannot be changed in place.")
        if self.source.transport is not None:
            raise JobError(
                f"Disks that are read over {self.source.transport} cannot be changed in place.",
                remedy="Convert the machine into a copy.",
            )
        if self.target is not None:
            raise JobError("In place there is no target: the disks stay where they are.")
        if self.define and self.source.kind != "libvirt":
            raise JobError("Only a domain of a libvirt host can be defined again.")

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
        source = _strict(Input, values.get("source"), "source")
        source["more"] = tuple(source.get("more", ()))
        source["options"] = {k: tuple(v) for k, v in source.get("options", {}).items()}
        values["source"] = Input(**source)
        if values.get("target") is not None:
            values["target"] = Target.from_dict(values["target"])
        values["collect"] = tuple(values.get("collect", ()))
        if "copy" in values:
            values["copy"] = CopyOptions(**_strict(CopyOptions, values["copy"], "copy"))
        if "network_map" in values:
            mapping = _strict(NetworkMap, values["network_map"], "network_map")
            macs = mapping.get("macs", {})
            mapping["macs"] = {mac: (kind, name) for mac, (kind, name) in macs.items()}
            values["network_map"] = NetworkMap(**mapping)
        values["keys"] = tuple(Key(**_strict(Key, k, "keys")) for k in values.get("keys", ()))
        if "customize" in values:
            values["customize"] = _wishes(values["customize"])
        if "windows" in values:
            values["windows"] = _windows_options(values["windows"])
        try:
            return cls(**values)
        except TypeError as error:
            raise JobError(f"The job is incomplete: {error}.") from error


def _wishes(data: Any) -> Customize:
    """Build Customize from parsed JSON.  Raises JobError."""
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in _strict(Customize, data, "customize").items()
    }
    found = [_strict(GuestFile, one, "customize.files") for one in values.get("files", ())]
    try:
        values["files"] = tuple(GuestFile(**one) for one in found)
        return Customize(**values)
    except TypeError as error:
        raise JobError(f"An entry of customize.files is incomplete: {error}.") from error


def _windows_options(data: Any) -> WindowsOptions:
    """Build WindowsOptions from parsed JSON.  Raises JobError."""
    values = _strict(WindowsOptions, data, "windows")
    entries = values.get("static_ips", ())
    if not isinstance(entries, list | tuple):
        raise JobError("windows.static_ips must be a list.")
    addresses = []
    for entry in entries:
        one = _strict(StaticIp, entry, "windows.static_ips")
        try:
            addresses.append(StaticIp(**one | {"name_servers": tuple(one.get("name_servers", ()))}))
        except TypeError as error:
            raise JobError(f"An entry of windows.static_ips is incomplete: {error}.") from error
    return WindowsOptions(**values | {"static_ips": tuple(addresses)})


# Types as the compiler writes them.
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "str | None": (str, type(None)),
    "int | None": (int, type(None)),
    "bool": (bool,),
    "tuple[str, ...]": (list, tuple),
    "tuple[GuestFile, ...]": (list, tuple),
    "Mapping[str, str]": (dict,),
    "Mapping[str, tuple[str, str]]": (dict,),
    "Mapping[str, tuple[str, ...]]": (dict,),
    "int": (int,),
    "Literal['none', 'quick', 'full']": (str,),
    "Literal['auto', 'always', 'never']": (str,),
    "Literal['virtio-blk', 'virtio-scsi']": (str,),
    "Literal['qcow2', 'raw']": (str,),
    "Literal['sparse', 'preallocated']": (str,),
}
_VALUES = {
    "Literal['none', 'quick', 'full']": ("none", "quick", "full"),
    "Literal['auto', 'always', 'never']": ("auto", "always", "never"),
    "Literal['virtio-blk', 'virtio-scsi']": ("virtio-blk", "virtio-scsi"),
    "Literal['qcow2', 'raw']": ("qcow2", "raw"),
    "Literal['sparse', 'preallocated']": ("sparse", "preallocated"),
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
        if value not in _VALUES.get(known[key], (value,)):
            raise JobError(f"{where}.{key} must be one of {', '.join(_VALUES[known[key]])}.")
    return dict(data)
