"""The kinds of output and what each understands; whatever else is set is refused, never ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from conversions.pipeline.errors import JobError

if TYPE_CHECKING:
    from conversions.pipeline.job import Target

BOOLEANS = {"": True, "true": True, "false": False}
_COMPRESSED = {"compressed": "[=true|false]  compress the qcow2 disks"}
_KEEP_DISPLAY = {"keep-display": "[=true|false]  keep address and password of the display"}
_OPENSTACK = {
    "server-id": "=ID  the server that this program runs on; it takes the volumes meanwhile",
    "guest-id": "=ID  kept with every volume as virt_v2v_guest_id",
    "verify-server-certificate": "[=true|false]  false: trust whatever answers at the address",
    "dev-disk-by-id": "=FOLDER  where attached volumes appear; /dev/disk/by-id",
}
# What signing in takes, as --os-... of the openstack client; what is not given comes from OS_* of
# the environment or from clouds.yaml, where everything else can be said too.
_SIGN_IN = {
    "os-cloud": "=NAME  an entry of clouds.yaml",
    "os-auth-type": "=NAME  password, token, v3applicationcredential",
    "os-username": "=NAME",
    "os-user-id": "=ID",
    "os-user-domain-name": "=NAME",
    "os-user-domain-id": "=ID",
    "os-password": "=TEXT  others see it among the processes; -op and clouds.yaml hide it",
    "os-project-name": "=NAME",
    "os-project-id": "=ID",
    "os-project-domain-name": "=NAME",
    "os-project-domain-id": "=ID",
    "os-domain-name": "=NAME",
    "os-domain-id": "=ID",
    "os-system-scope": "=all",
    "os-token": "=TEXT",
    "os-application-credential-id": "=ID",
    "os-application-credential-name": "=NAME",
    "os-application-credential-secret": "=TEXT",
    "os-region-name": "=NAME",
    "os-interface": "=public|internal|admin",
    "os-identity-api-version": "=3",
    "os-cacert": "=FILE  certificates to trust",
    "os-cert": "=FILE  certificate to show",
    "os-key": "=FILE  its key",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputKind:
    """One kind: which parts of a Target it takes.

    `place` says what -os is: "directory", "storage" or "" for nothing; `storage` is its default.
    `options` maps the keys of -oo to their help; a key that ends in `*` stands for all that begin
    so.  `repeated` may be given several times, `required` must be given; the values of `secrets`
    are shown and kept nowhere; -op names a file with that of `op_key`.  Keys that begin with
    `old_prefix` are the older spelling of those with the prefix it stands for.  `serial_console`
    says whether machines there have one: without it logins on it are removed from the guest.
    """

    name: str
    aliases: tuple[str, ...] = ()
    title: str
    place: str = "directory"
    place_required: bool = True
    storage: str = ""
    uri: bool = False
    uri_required: bool = False
    password: bool = False
    password_required: bool = False
    op_key: str = ""
    formats: tuple[str, ...] = ("qcow2", "raw")
    allocations: tuple[str, ...] = ("sparse", "preallocated")
    options: Mapping[str, str] = field(default_factory=dict)
    booleans: frozenset[str] = frozenset()
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    repeated: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    secrets: frozenset[str] = frozenset()
    old_prefix: tuple[str, str] = ("", "")
    serial_console: bool = True

    @property
    def takes_password(self) -> bool:
        """Tell whether -op may be given."""
        return self.password or self.password_required

    def spelling(self, key: str) -> str:
        """Return a key of -oo in its current spelling."""
        old, current = self.old_prefix
        return current + key.removeprefix(old) if old and key.startswith(old) else key

    def knows(self, key: str) -> bool:
        """Tell whether -oo takes the key."""
        prefixes = tuple(k[:-1] for k in self.options if k.endswith("*"))
        return key in self.options or bool(prefixes and key.startswith(prefixes))

    def help(self) -> str:
        """Return the text of -oo '?'."""
        if not self.options:
            return f"Output {self.name} has no options (-oo)."
        lines = [f"  -oo {key}{text}" for key, text in self.options.items()]
        return "\n".join([f"Options of output {self.name} ({self.title}):", *lines])


KINDS: dict[str, OutputKind] = {
    kind.name: kind
    for kind in (
        OutputKind(
            name="local",
            aliases=("disk",),
            title="files and libvirt XML in a folder",
            options=_COMPRESSED | _KEEP_DISPLAY,
            booleans=frozenset({"compressed", "keep-display"}),
        ),
        OutputKind(
            name="kubevirt",
            title="files and a manifest for KubeVirt in a folder",
            # KubeVirt takes the files of its nodes for raw; qcow2 is for importing them.
            formats=("raw", "qcow2"),
            options=_COMPRESSED
            | {
                "create": "[=true|false]  false: the disks exist and get new content",
                "disk": "=PATH  where a disk goes; given once for each disk, in their order",
            },
            booleans=frozenset({"compressed", "create"}),
            repeated=frozenset({"disk"}),
        ),
        OutputKind(
            name="libvirt",
            title="volumes in a pool, the machine defined",
            place="storage",
            place_required=False,
            storage="default",
            uri=True,
            options=_COMPRESSED
            | _KEEP_DISPLAY
            | {"domain-type": "=kvm|qemu  how the machine runs; kvm where the host has it"},
            booleans=frozenset({"compressed", "keep-display"}),
            choices={"domain-type": ("kvm", "qemu")},
        ),
        OutputKind(
            name="null",
            title="nothing: the copy runs, its result is discarded",
            place="",
            place_required=False,
            formats=("raw",),
            allocations=("sparse",),
        ),
        OutputKind(
            name="qemu",
            title="files and a script that starts them",
            options=_COMPRESSED
            | {"qemu-boot": "[=true|false]  start the machine when everything is written"},
            booleans=frozenset({"compressed", "qemu-boot"}),
        ),
        OutputKind(
            name="openstack",
            aliases=("osp", "rhosp"),
            title="Cinder volumes, filled by way of the server this runs on",
            place="storage",
            place_required=False,
            uri=True,
            password=True,
            formats=("raw",),
            allocations=("sparse",),
            options=_OPENSTACK | _SIGN_IN,
            booleans=frozenset({"verify-server-certificate"}),
            required=frozenset({"server-id"}),
            secrets=frozenset({"os-password", "os-token", "os-application-credential-secret"}),
            op_key="os-password",
        ),
        OutputKind(
            name="glance",
            title="Glance images; signs in with OS_* of the environment, or clouds.yaml",
            place="",
            place_required=False,
            allocations=("sparse",),
        ),
        OutputKind(
            name="ovirt",
            aliases=("rhv", "rhev"),
            title="an export storage domain of oVirt: -os FOLDER or HOST:/PATH",
            serial_console=False,
        ),
        OutputKind(
            name="ovirt-upload",
            aliases=("ovirt_upload", "rhv-upload", "rhv_upload"),
            title="a machine of oVirt, made through its engine",
            place="storage",
            uri=True,
            uri_required=True,
            password_required=True,
            allocations=("sparse",),
            options={
                "ovirt-cafile": "=FILE  certificates to trust instead of the system's",
                "ovirt-cluster": "=NAME  cluster of the machine; Default when not given",
                "ovirt-direct": "[=true|false]  send the disks to a host, not through the engine",
                "ovirt-disk-uuid": "=UUID  identity of a disk; once for each, in order",
                "ovirt-password": "=TEXT  others see it among the processes; -op hides it",
                "ovirt-proxy": "[=true|false]  send the disks through the engine",
                "ovirt-verifypeer": "[=true|false]  check certificates; true when not given",
            },
            booleans=frozenset({"ovirt-direct", "ovirt-proxy", "ovirt-verifypeer"}),
            repeated=frozenset({"ovirt-disk-uuid"}),
            secrets=frozenset({"ovirt-password"}),
            op_key="ovirt-password",
            old_prefix=("rhv-", "ovirt-"),
        ),
        OutputKind(
            name="vdsm",
            title="volumes that VDSM, oVirt's agent, has prepared",
            options={
                "vdsm-compat": "=0.10|1.1  compatibility of qcow2 disks; 1.1 when not given",
                "vdsm-image-uuid": "=UUID  image of a disk; once for each, in order",
                "vdsm-vol-uuid": "=UUID  volume of a disk; once for each, in order",
                "vdsm-vm-uuid": "=UUID  identity of the machine",
                "vdsm-ovf-output": "=FOLDER  where the OVF goes; the current folder",
                "vdsm-ovf-flavour": "=ovirt|ovirtexp  its flavour; ovirtexp when not given",
            },
            choices={
                "vdsm-compat": ("0.10", "1.1"),
                "vdsm-ovf-flavour": ("ovirt", "ovirtexp"),
            },
            repeated=frozenset({"vdsm-image-uuid", "vdsm-vol-uuid"}),
            required=frozenset({"vdsm-image-uuid", "vdsm-vol-uuid", "vdsm-vm-uuid"}),
            serial_console=False,
        ),
    )
}


def kind_of(name: str) -> OutputKind:
    """Return the kind of a name or an alias.  Raises JobError naming the kinds there are."""
    for kind in KINDS.values():
        if name == kind.name or name in kind.aliases:
            return kind
    raise JobError(
        f"Output {name!r} is not known.", remedy=f"Choose one of {', '.join(sorted(KINDS))}."
    )


def has_serial_console(target: Target | None) -> bool:
    """Tell whether the converted machine will have one; wherever nothing is said, it will."""
    return target is None or kind_of(target.kind).serial_console


def check_target(target: Target) -> None:
    """Refuse a target that its kind cannot be, or whose parts contradict.  Raises JobError."""
    kind = kind_of(target.kind)
    _check_options(target, kind)
    if target.compressed and target.format != "qcow2":
        raise JobError("Compression needs format qcow2; raw was asked for.")
    if target.compressed and target.allocation == "preallocated":
        raise JobError("Compression and preallocation exclude each other.")
    for what, value, allowed in (
        ("format", target.format, kind.formats),
        ("allocation", target.allocation, kind.allocations),
    ):
        if value not in allowed:
            raise JobError(
                f"Output {kind.name} cannot have {what} {value}.",
                remedy=f"Choose {' or '.join(allowed)}.",
            )
    _check_places(target, kind)


def _check_places(target: Target, kind: OutputKind) -> None:
    given = {"directory": target.directory, "storage": target.storage}
    for place, value in given.items():
        if value and place != kind.place:
            raise JobError(f"Output {kind.name} takes no {place}; {value!r} was given (-os).")
    if kind.place_required and not given[kind.place]:
        raise JobError(f"Output {kind.name} needs a target {kind.place}.", remedy="Add -os.")
    if target.uri and not kind.uri:
        raise JobError(f"Output {kind.name} takes no connection; {target.uri!r} was given (-oc).")
    if kind.uri_required and not target.uri:
        raise JobError(f"Output {kind.name} needs the address of its server.", remedy="Add -oc.")
    if target.password_file and not kind.takes_password:
        raise JobError(f"Output {kind.name} takes no password (-op).")
    has_password = bool(target.option(kind.op_key))
    if target.password_file and has_password:
        raise JobError(f"The password was given twice: with -op and -oo {kind.op_key}.")
    if kind.password_required and not target.password_file and not has_password:
        raise JobError(
            f"Output {kind.name} needs a password.", remedy="Add -op with the file that holds it."
        )


def _check_options(target: Target, kind: OutputKind) -> None:
    flags = (("compressed", target.compressed), ("keep-display", target.keep_display))
    given: dict[str, tuple[str, ...]] = {key: () for key, is_set in flags if is_set}
    given |= target.options
    if shown := sorted(kind.secrets & given.keys()):
        raise JobError(
            f"{', '.join(shown)} of output {kind.name} is secret.",
            remedy="In a job it belongs to the target's secrets, not to its options.",
        )
    given |= target.secrets
    for key, values in given.items():
        if not kind.knows(key):
            known = ", ".join(kind.options) or "none"
            raise JobError(
                f"{key} is not an option of output {kind.name} (-oo).", remedy=f"It has: {known}."
            )
        if len(values) > 1 and key not in kind.repeated:
            raise JobError(f"Option {key} of output {kind.name} was given {len(values)} times.")
        if key in kind.booleans and any(value not in BOOLEANS for value in values):
            raise JobError(f"-oo {key}={values[0]} is neither true nor false.")
        if key in kind.choices and values[0] not in kind.choices[key]:
            raise JobError(f"-oo {key}={values[0]} is none of {', '.join(kind.choices[key])}.")
    missing = sorted(key for key in kind.required if not any(given.get(key, ())))
    if missing:
        raise JobError(f"Output {kind.name} needs the option {', '.join(missing)} (-oo).")
