"""What tells the engine where a machine is."""

from __future__ import annotations

from conversions.pipeline.errors import JobError
from conversions.pipeline.job import Input
from inventory.models import LibvirtHost, SourceVM
from inventory.sources.errors import SourceError
from inventory.sources.host_access import OVER_SSH
from inventory.sources.ssh import ssh_uri
from inventory.vddk import vddk_libdir


def input_of(vm: SourceVM) -> Input:
    """Return the job's source for a machine, with the password of its host.

    Raises JobError for a machine whose host was removed, and for a password that cannot be read.
    """
    if vm.is_of_host and vm.host is None:
        # Without an address the engine would look for it on this machine.
        raise JobError(
            f"The host of {vm.name} is no longer in the inventory.",
            remedy="Add the host again; its machines come with it.",
        )
    if vm.host is None:
        return Input(kind=vm.kind, location=vm.location)
    try:
        access = vm.host.access()
    except SourceError as error:
        raise JobError(error.message, remedy=error.remedy) from error
    if vm.host.is_folder:
        return Input(kind="vmx", location=ssh_uri(access.uri, vm.location), transport="ssh")
    transport = None  # https of VMware's servers, xen+ssh, disks that are here
    if vm.host.scheme in OVER_SSH and vm.host.reads_over_ssh:
        transport = "ssh"
    elif vm.host.transport == LibvirtHost.Transport.VDDK:
        transport = "vddk"
    return Input(
        kind=vm.kind,
        location=vm.location,
        connection=access.uri,
        password=access.password,
        transport=transport,
        options=_vddk_options(vm.host) if transport == "vddk" else _https_options(vm.host),
    )


def _https_options(host: LibvirtHost) -> dict[str, tuple[str, ...]]:
    return {"https-thumbprint": (host.thumbprint,)} if host.thumbprint else {}


def _vddk_options(host: LibvirtHost) -> dict[str, tuple[str, ...]]:
    options: dict[str, tuple[str, ...]] = {}
    if host.thumbprint:
        options["vddk-thumbprint"] = (host.thumbprint,)
    if host.vddk_folder:
        options["vddk-libdir"] = (str(vddk_libdir(host.vddk_folder)),)
    return options
