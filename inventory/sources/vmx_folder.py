"""The machines whose VMX files lie in a folder of a host that is reached over ssh.

Also a program, which host_listing.py describes: a host that does not answer is given up.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from inventory.sources.errors import SourceError
from inventory.sources.host_access import HostAccess
from inventory.sources.host_listing import HostListing, ListedDomain, answer
from inventory.sources.ova import name_from_file
from inventory.sources.sftp import Entry, Sftp, SftpError, sizes_of
from inventory.sources.ssh import SshHost, checked_ssh_uri, ssh_path
from inventory.sources.ssh_errors import SshError
from inventory.sources.vmx import machine_of
from inventory.sources.vmx_beside import power_beside
from inventory.sources.vmx_ssh import flat_disks, no_flat_disk
from inventory.sources.vmx_text import MAX_BYTES

_MAX_WARNINGS = 20
_SUFFIX = ".vmx"


def list_folder(access: HostAccess, *, with_domains: bool = True) -> HostListing:
    """Return the machines in a folder and in the folders in it, or the one of a VMX file.

    Raises SourceError; may never return.
    """
    uri = checked_ssh_uri(access.uri)
    path = ssh_path(uri.removesuffix("/"))
    host = SshHost.from_parts(uri, password=None, options={})
    with Sftp(host) as sftp:
        found = list(find_machines(sftp, path))
        domains = [read_machine(sftp, host.host, *place) for place in found if with_domains]
    return HostListing(
        description=f"VMX files of {path} on {host.host}",
        count=len(found),
        domains=tuple(sorted(domains, key=lambda domain: (domain.name, domain.uuid))),
    )


def find_machines(sftp: Sftp, path: str) -> Iterator[tuple[str, Mapping[str, int]]]:
    """Yield the path of each VMX file and the bytes of what lies beside it, by name.

    Folders that this user cannot read are passed over.  Raises SshError, SftpError.
    """
    if path.endswith(_SUFFIX):
        folder, name = posixpath.split(path)
        sizes = sizes_of(sftp.entries(folder))
        if name not in sizes:
            raise SftpError("E-SSH-NOFILE", f"There is no {path}.", remedy="Check the path.")
        yield path, sizes
        return
    top = sftp.entries(path)
    yield from _machines(path, top)
    for entry in top:
        if entry.is_folder:
            folder = posixpath.join(path, entry.name)
            with suppress(SftpError):
                yield from _machines(folder, sftp.entries(folder))


def _machines(folder: str, entries: Sequence[Entry]) -> Iterator[tuple[str, Mapping[str, int]]]:
    sizes = sizes_of(entries)
    for entry in entries:
        if entry.name.endswith(_SUFFIX) and entry.name != _SUFFIX and not entry.is_folder:
            yield posixpath.join(folder, entry.name), sizes


def read_machine(sftp: Sftp, host: str, path: str, beside: Mapping[str, int]) -> ListedDomain:
    """Return the machine of a VMX file, or why it cannot be used.  Raises SshError."""
    name = posixpath.basename(path)
    warnings: list[str] = []
    listed = ListedDomain(
        uuid=path,
        name=name_from_file(name),
        power=power_beside(name, beside)[0],
        memory_bytes=0,
        vcpus=0,
    )
    try:
        data = sftp.read(path, max_bytes=MAX_BYTES)
        source = machine_of(data, name, flat_disks(path), warnings.append)
    except SshError:
        raise
    except SourceError as error:
        return _unusable(listed, error)
    disks = tuple(
        replace(disk, declared_capacity_bytes=beside.get(posixpath.basename(disk.path)))
        for disk in source.disks
    )
    listed = replace(
        listed,
        name=source.name,
        memory_bytes=source.memory_bytes,
        vcpus=source.vcpus,
        source=replace(source, disks=disks),
        warnings=tuple(warnings[:_MAX_WARNINGS]),
    )
    missing = [disk.path for disk in disks if disk.declared_capacity_bytes is None]
    return _unusable(listed, no_flat_disk(host, missing[0])) if missing else listed


def _unusable(listed: ListedDomain, error: SourceError) -> ListedDomain:
    return replace(listed, code=error.code, problem=f"{error.message} {error.remedy}".strip())


if __name__ == "__main__":
    answer(list_folder)
