"""A VMX file on an ESXi host that is reached over ssh, with the flat disks beside it."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from inventory.sources.base import Warn
from inventory.sources.errors import ImageError, SourceError
from inventory.sources.nbdkit import ServerError, Servers
from inventory.sources.power import BUSY
from inventory.sources.sftp import Sftp, sizes_of
from inventory.sources.ssh import SshHost, read_file, ssh_path
from inventory.sources.tar import printable
from inventory.sources.types import Source, SourceDisk
from inventory.sources.vmx import machine_of
from inventory.sources.vmx_beside import power_beside
from inventory.sources.vmx_devices import VmxDisk
from inventory.sources.vmx_text import MAX_BYTES, VmxText


class VmxSshReader:
    """Reads the machine of an address like ssh://root@esx/vmfs/volumes/ds/vm/vm.vmx.

    With `running` one that VMware has locked is taken as well, with that warning.
    """

    def __init__(
        self,
        uri: str,
        host: SshHost,
        *,
        work_dir: Path,
        warn: Warn,
        anywhere: bool = False,
        running: Warn | None = None,
    ) -> None:
        self._path = ssh_path(uri)
        self._host = host
        self._work_dir = work_dir
        self._warn = warn
        self._anywhere = anywhere
        self._running = running

    def describe(self) -> str:
        """Return one line for messages."""
        return f"VMX {self._path} of {self._host.host}"

    def read(self) -> Source:
        """Fetch the file and return the machine.  Raises SourceError."""
        self._check_idle()
        data = read_file(self._host, self._path, self._work_dir, max_bytes=MAX_BYTES)
        locate = flat_disks(self._path, anywhere=self._anywhere)
        return machine_of(data, posixpath.basename(self._path), locate, self._warn)

    def _check_idle(self) -> None:
        """Refuse a machine that VMware has locked, as far as that can be seen."""
        folder, name = posixpath.split(self._path)
        try:
            with Sftp(self._host) as sftp:
                sizes = sizes_of(sftp.entries(folder))
        except SourceError as error:
            self._warn(f"Whether the machine is shut off is not known: {error.message}")
            return
        power, trace = power_beside(name, sizes)
        if power not in BUSY:
            return
        message = (
            f"{printable(trace)} lies beside {name} on {self._host.host}: the machine seems to be "
            f"{power}, and its disks change while they are read."
        )
        if self._running is None:
            raise SourceError("E-VMX-RUNNING", message, remedy="Shut it down from inside.")
        self._running(message)

    def verify(self, progress: Callable[[int, int], None]) -> list[dict[str, str]]:
        """Return nothing: a VMX file carries no digests."""
        del progress
        return []

    def serve(self, source: Source, servers: Servers) -> Source:
        """Serve every disk.  Raises SourceError, E-VMX-SNAPSHOT for one that is not there."""
        disks = []
        for disk in source.disks:
            try:
                disks.append(servers.serve(disk, self._host.server(disk.path)))
            except ServerError as error:
                if "No such file" not in error.message:
                    raise
                raise no_flat_disk(self._host.host, disk.path) from error
        return replace(source, disks=tuple(disks))


def flat_disks(
    vmx_path: str, *, anywhere: bool = False
) -> Callable[[int, VmxDisk, VmxText], SourceDisk]:
    """Return what says where the flat file of a disk of that VMX file lies.  It raises ImageError.

    Disks lie in the folder of the file unless they may lie `anywhere`.
    """
    folder, name = posixpath.split(vmx_path)

    def locate(number: int, disk: VmxDisk, vmx: VmxText) -> SourceDisk:
        path = posixpath.normpath(posixpath.join(folder, vmx.decoded(disk.file_name)))
        if not anywhere and posixpath.dirname(path) != folder:
            raise ImageError(
                "E-VMX-OUTSIDE",
                f"The disk {disk.unit} is {printable(path)}, outside of the folder of {name}.",
                remedy="On the command line, --disks-anywhere takes it as it is.",
            )
        if path.endswith(".vmdk"):
            path = f"{path.removesuffix('.vmdk')}-flat.vmdk"
        return SourceDisk(
            id=number, controller=disk.controller, path=path, format="raw", remote=True
        )

    return locate


def no_flat_disk(host: str, path: str) -> ImageError:
    """Return the error of a disk whose flat file is not there."""
    return ImageError(
        "E-VMX-SNAPSHOT",
        f"{host} has no file {path}: the machine has snapshots, or its disks are not flat.",
        remedy="Delete its snapshots (their changes are merged), and try again.",
    )
