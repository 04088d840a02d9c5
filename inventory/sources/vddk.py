"""Disks of VMware through its own library, VDDK, which nbdkit's vddk plugin loads.

The library may not be distributed, so nothing of it is here; what is missing is said before any
disk is asked for.
"""

from __future__ import annotations

import hashlib
import os
import re
import ssl
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from inventory.sources.base import Warn
from inventory.sources.errors import SourceError
from inventory.sources.https_disk import RETRY
from inventory.sources.input_options import VDDK_AFTER, VDDK_BEFORE, VDDK_OPTIONS
from inventory.sources.nbdkit import NbdServer, ServerError, Servers
from inventory.sources.nbdkit import installed_filters as nbdkit_filters
from inventory.sources.programs import clean_environment
from inventory.sources.types import Source
from inventory.sources.vmware import FetchXml, VmwareServer, parse_vmware_domain

# From this version on one nbdkit serves all disks that a pattern allows, by their names.
_EXPORTS_SINCE = (1, 45, 11)
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_SPECIAL = re.compile(r"([\[\]?*])")
_SECONDS = 60
_USE_HTTPS = "Without -it vddk the disks are read over https, more slowly."


class VddkError(SourceError):
    """VDDK is missing, or an option for it cannot be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VddkOptions:
    """The -io options without their prefix; `files` are the disks' names, () for those of libvirt.

    `values` holds those that were given, once each.
    """

    values: Mapping[str, str]
    files: tuple[str, ...] = ()

    @classmethod
    def from_pairs(cls, options: Mapping[str, Sequence[str]]) -> VddkOptions:
        """Check the options.  Raises VddkError."""
        unknown = sorted(set(options) - set(VDDK_OPTIONS))
        if unknown:
            raise VddkError(
                "E-VDDK-OPTION",
                f"-io {unknown[0][:100]} is not known with VDDK.",
                remedy=f"Known are {', '.join(VDDK_OPTIONS)}.",
            )
        single = {k.removeprefix("vddk-"): v for k, v in options.items() if k != "vddk-file"}
        for name, given in single.items():
            if len(given) > 1:
                raise VddkError("E-VDDK-OPTION", f"-io vddk-{name} was given more than once.")
        values = {name: given[0] for name, given in single.items()}
        libdir = values.get("libdir")
        if libdir is not None and not Path(libdir).is_dir():
            raise VddkError(
                "E-VDDK-LIBDIR",
                f"-io vddk-libdir={libdir} is no folder.",
                remedy="Name the folder that holds lib64/libvixDiskLib.so.",
            )
        return cls(values=values, files=tuple(options.get("vddk-file", ())))


def escaped(text: str) -> str:
    """Return a name as a pattern that matches it alone."""
    return _SPECIAL.sub(r"\\\1", text)


def export_pattern(names: Sequence[str]) -> str:
    """Return the pattern of exports for these disks.  Raises VddkError.

    One is matched exactly, several by what their names begin with.
    """
    if len(names) == 1:
        return escaped(names[0])
    if bad := next((name for name in names if not name.endswith(".vmdk")), None):
        raise VddkError("E-VC-PATH", f"The disk {bad[:200]!r} is no VMDK.")
    # Names, not paths: the disks of a machine differ in the middle of a name.
    common = os.path.commonprefix(list(names))  # noqa: RUF071
    return f"{escaped(common)}*.vmdk"


def vddk_filters(installed: frozenset[str], *, verbose: bool = False) -> tuple[str, ...]:
    """Return the filters, the client's end first: those of them that are there."""
    wanted = ["multi-conn", "cow", "blocksize", *(["count"] if verbose else []), "retry"]
    return tuple(name for name in wanted if name in installed)


def vddk_server(
    server: VmwareServer,
    moref: str,
    options: VddkOptions,
    *,
    thumbprint: str,
    password_file: Path,
    disks: tuple[str, str],
    filters: Sequence[str],
) -> NbdServer:
    """Return the server; `disks` is the parameter that says which, file or export, and its value.

    The password is in a file since the plugin starts itself anew and reads it again.
    """
    parameters = [
        ("server", server.host),
        ("vm", f"moref={moref}"),
        ("user", server.user or "root"),
        ("password", f"+{password_file}"),
        *((name, options.values[name]) for name in VDDK_BEFORE if name in options.values),
        ("thumbprint", thumbprint),
        *((name, options.values[name]) for name in VDDK_AFTER if name in options.values),
        disks,
    ]
    # Several handles get into each other's way; VMware's servers run out of memory on large reads.
    of_filters = {
        "multi-conn": [("multi-conn-mode", "disable")],
        "cow": [("cow-block-size", "4096")],
        "blocksize": [("minblock", "512"), ("maxdata", "2M")],
        "retry": list(RETRY),
    }
    for name in filters:
        parameters += of_filters.get(name, [])
    return NbdServer(
        plugin="vddk",
        parameters=parameters,
        filters=filters,
        debug=("nbdkit.backend.datapath=0", "vddk.datapath=0", "vddk.stats=1"),
    )


def check_vddk(options: VddkOptions) -> tuple[int, ...]:
    """Return nbdkit's version when its vddk plugin can load the library.  Raises VddkError."""
    command = ["nbdkit", "--dump-plugin", "vddk"]
    if libdir := options.values.get("libdir"):
        command.append(f"libdir={libdir}")
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, env=clean_environment()
        )
    except FileNotFoundError as error:
        raise ServerError(
            "E-NBDKIT",
            "The program nbdkit is not installed on this host.",
            remedy="Install the package nbdkit.",
        ) from error
    words = (done.stderr.strip().splitlines() or ["it gave no reason"])[0]
    # The plugin may be there and describe itself, and yet have no library.
    no_library = done.returncode == 0 and "vddk_library_version" not in done.stdout
    if "libvixDiskLib" in done.stderr or no_library:
        raise VddkError(
            "E-VDDK-LIBRARY",
            f"nbdkit cannot load VMware's library libvixDiskLib: {words}.",
            remedy="Get VDDK from VMware, unpack it, and name its folder with -io vddk-libdir=; "
            f"libraries that it needs itself must be installed. {_USE_HTTPS}",
        )
    if done.returncode:
        raise VddkError(
            "E-VDDK-PLUGIN",
            f"This host's nbdkit has no working vddk plugin: {words}.",
            remedy=f"Install one: it is in the package nbdkit-plugin-vddk or comes with nbdkit's "
            f"sources. {_USE_HTTPS}",
        )
    said = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    version = _VERSION.match(said.get("version", ""))
    return tuple(int(part) for part in version.groups()) if version else (0, 0, 0)


def shown_thumbprint(host: str) -> str:
    """Return the SHA-1 thumbprint that a server shows now, as VDDK writes it.  Raises VddkError."""
    try:
        pem = ssl.get_server_certificate((host, 443), timeout=_SECONDS)
    except OSError as error:
        raise VddkError(
            "E-VDDK-THUMBPRINT",
            f"{host}:443 shows no certificate: {error}.",
            remedy="Give its thumbprint with -io vddk-thumbprint=.",
        ) from error
    digest = hashlib.sha1(ssl.PEM_cert_to_DER_cert(pem), usedforsecurity=False).hexdigest()
    return ":".join(re.findall("..", digest.upper()))


class VddkReader:
    """Reads one machine of an ESXi host or vCenter; `fetch_xml` asks libvirt for its XML."""

    def __init__(
        self,
        uri: str,
        domain: str,
        *,
        password: str | None,
        fetch_xml: FetchXml,
        warn: Warn,
        options: Mapping[str, Sequence[str]],
    ) -> None:
        if password is None:
            raise VddkError(
                "E-VC-PASSWORD",
                f"{uri} is read with a password, and none was given.",
                remedy="Give a file that holds it, with -ip.",
            )
        self._server = VmwareServer.from_uri(uri)
        self._options = VddkOptions.from_pairs(options)
        self._describe = f"machine {domain} of {uri}"
        self._password = password
        self._fetch_xml = fetch_xml
        self._warn = warn
        self._moref = ""

    def describe(self) -> str:
        """Return one line for messages."""
        return self._describe

    def read(self) -> Source:
        """Return the machine, its disks under the names they are asked for.  Raises SourceError."""
        found = parse_vmware_domain(self._fetch_xml(), self._warn)
        if not found.moref:
            raise VddkError(
                "E-VDDK-MOREF",
                f"libvirt does not say under which id the server has {found.source.name}.",
                remedy="libvirt 3.7 or newer does.",
            )
        self._moref = found.moref
        files, disks = self._options.files, found.source.disks
        if files and len(files) != len(disks):
            raise VddkError(
                "E-VDDK-OPTION",
                f"-io vddk-file was given {len(files)} times for {len(disks)} disks.",
                remedy="Give it once for each disk, in their order, or not at all.",
            )
        if files:
            pairs = zip(disks, files, strict=True)
            disks = tuple(replace(disk, path=name) for disk, name in pairs)
        return replace(found.source, disks=disks)

    def verify(self, progress: Callable[[int, int], None]) -> list[dict[str, str]]:
        """Return nothing: a machine carries no digests."""
        del progress
        return []

    def serve(self, source: Source, servers: Servers) -> Source:
        """Serve the disks, all by one nbdkit where it can.  Raises SourceError."""
        version = check_vddk(self._options)
        password_file = servers.folder / "vddk-password"
        password_file.touch(mode=0o600)
        password_file.write_text(f"{self._password}\n")
        thumbprint = self._options.values.get("thumbprint", "")
        if not thumbprint:
            thumbprint = shown_thumbprint(self._server.host)
            self._warn(f"The certificate of {self._server.host} is trusted as it is: {thumbprint}.")

        def server(which: tuple[str, str]) -> NbdServer:
            return vddk_server(
                self._server,
                self._moref,
                self._options,
                thumbprint=thumbprint,
                password_file=password_file,
                disks=which,
                filters=vddk_filters(nbdkit_filters()),
            )

        if version >= _EXPORTS_SINCE:
            names = [disk.path for disk in source.disks]
            socket = servers.start(server(("export", export_pattern(names))))
            disks = [servers.opened(disk, socket, disk.path) for disk in source.disks]
        else:
            disks = [servers.serve(disk, server(("file", disk.path))) for disk in source.disks]
        return replace(source, disks=tuple(disks))
