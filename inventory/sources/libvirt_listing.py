"""Everything a libvirt host has, read at once; also a program, since libvirt may hang."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import libvirt

from inventory.sources.domain_ssh import refuse_unreadable
from inventory.sources.domain_xml import parse_domain
from inventory.sources.errors import SourceError
from inventory.sources.host_access import HostAccess
from inventory.sources.host_listing import HostListing, ListedDomain, answer
from inventory.sources.libvirt_host import (
    LibvirtError,
    connection,
    has_saved_memory,
    power_of,
    volume_of,
)
from inventory.sources.network_disks import Place, refuse_places
from inventory.sources.power import Power
from inventory.sources.types import Source, SourceDisk

_VMWARE = "ESX"  # what libvirt calls the driver for all of their servers
# Raises SourceError for a machine that cannot be read from here.
Check = Callable[[Source], None]
# Gives the pool and the capacity in bytes of the volume with that path.
_FindVolume = Callable[[str], tuple[str, int] | None]
_LISTS = {
    Power.RUNNING: libvirt.VIR_CONNECT_LIST_DOMAINS_RUNNING,
    Power.PAUSED: libvirt.VIR_CONNECT_LIST_DOMAINS_PAUSED,
    Power.SHUT_OFF: libvirt.VIR_CONNECT_LIST_DOMAINS_SHUTOFF,
}


def list_host(access: HostAccess, *, with_domains: bool = True) -> HostListing:
    """Connect to a host and return what it has.  Raises SourceError; may never return."""
    password = access.password or None
    try:
        with connection(access.uri, password=password, thumbprint=access.thumbprint) as link:
            count = link.numOfDomains() + link.numOfDefinedDomains()
            domains = list_domains(link, check_of(access)) if with_domains else ()
            return HostListing(description=_describe(link), count=count, domains=domains)
    except libvirt.libvirtError as error:
        raise LibvirtError(
            "E-LV-READ",
            f"The host {access.uri} stopped answering: {error}.",
            remedy="Check that libvirt runs there; its own log says more.",
        ) from error


def check_of(access: HostAccess) -> Check:
    """Return what refuses the machines of a host that cannot be read from here."""
    if access.over_ssh:
        return lambda source: refuse_unreadable(source, access.uri)
    if access.uri.startswith("qemu"):
        return lambda source: refuse_places(source, access.uri)
    return lambda _source: None


def list_domains(
    link: libvirt.virConnect, check: Check = lambda _source: None
) -> tuple[ListedDomain, ...]:
    """Return every domain, active or not, by name.  Raises libvirtError when the host fails.

    One call lists them all, a few more sort them by state, and one per domain gets its XML: a
    thousand of them must not mean thousands of questions to a host far away.
    """
    domains = link.listAllDomains()
    power = {
        uuid: state for state, flag in _LISTS.items() for uuid in _uuids(link.listAllDomains(flag))
    }
    with_snapshots = _listed(link, libvirt.VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT)
    saved = _listed(link, libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE)
    # VMware would search every datastore for them, which takes minutes.
    volumes = {} if link.getType() == _VMWARE else _volumes(link)
    found = []
    for domain in domains:
        uuid = domain.UUIDString()
        try:
            listed = ListedDomain(
                uuid=uuid,
                name=domain.name(),
                # What moved from one list to another between two calls is asked by itself.
                power=power[uuid] if uuid in power else power_of(domain),
                memory_bytes=0,
                vcpus=0,
                snapshots=_snapshots(domain) if uuid in with_snapshots else (),
                has_saved_memory=uuid in saved,
            )
            found.append(_read(link, domain, listed, volumes.get, check))
        except libvirt.libvirtError as error:
            # Undefined since the list was made.
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
    return tuple(sorted(found, key=lambda d: d.name))


def list_domain(
    link: libvirt.virConnect, uuid: str, check: Check = lambda _source: None
) -> ListedDomain | None:
    """Return one domain, None when the host does not have it.  Raises libvirtError."""

    def find_by_path(path: str) -> tuple[str, int] | None:
        try:
            volume = link.storageVolLookupByPath(path)
            return volume.storagePoolLookupByVolume().name(), volume.info()[1]
        except libvirt.libvirtError:
            return None

    try:
        domain = link.lookupByUUIDString(uuid)
        listed = ListedDomain(
            uuid=uuid,
            name=domain.name(),
            power=power_of(domain),
            memory_bytes=0,
            vcpus=0,
            snapshots=_snapshots(domain),
            has_saved_memory=has_saved_memory(domain),
        )
        return _read(link, domain, listed, find_by_path, check)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return None


def _read(
    link: libvirt.virConnect,
    domain: libvirt.virDomain,
    listed: ListedDomain,
    find: _FindVolume,
    check: Check,
) -> ListedDomain:
    """Add what the domain's XML says, or why it says nothing that can be used."""
    warnings: list[str] = []

    def find_volume(pool: str, volume: str) -> Place | None:
        return volume_of(link, pool, volume)

    try:
        xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        source = parse_domain(xml.encode(), warnings.append, find_volume)
    except (SourceError, ValueError) as error:
        code = error.code if isinstance(error, SourceError) else "E-LV-XML"
        text = f"{error} {error.remedy}" if isinstance(error, SourceError) else str(error)
        info = domain.info()
        return replace(
            listed, code=code, problem=text.strip(), memory_bytes=info[1] << 10, vcpus=info[3]
        )
    volumes = {disk.path: found for disk in source.disks if (found := find(disk.path))}
    disks = tuple(_with_capacity(disk, volumes) for disk in source.disks)
    try:
        check(source)
    except SourceError as error:
        listed = replace(listed, code=error.code, problem=f"{error} {error.remedy}".strip())
    return replace(
        listed,
        source=replace(source, disks=disks),
        memory_bytes=source.memory_bytes,
        vcpus=source.vcpus,
        pools=tuple(sorted({pool for pool, _capacity in volumes.values()})),
        warnings=tuple(warnings[:20]),
    )


def _with_capacity(disk: SourceDisk, volumes: Mapping[str, tuple[str, int]]) -> SourceDisk:
    if disk.path not in volumes:
        return disk
    return replace(disk, declared_capacity_bytes=volumes[disk.path][1])


def _uuids(domains: list[libvirt.virDomain]) -> set[str]:
    return {domain.UUIDString() for domain in domains}


def _listed(link: libvirt.virConnect, flag: int) -> set[str]:
    """Return the domains of a list that some hypervisors' drivers do not offer."""
    try:
        return _uuids(link.listAllDomains(flag))
    except libvirt.libvirtError:
        return set()


def _snapshots(domain: libvirt.virDomain) -> tuple[str, ...]:
    try:
        return tuple(domain.snapshotListNames())
    except libvirt.libvirtError:
        return ()


def _volumes(link: libvirt.virConnect) -> dict[str, tuple[str, int]]:
    """Return the pool and the capacity in bytes of every volume, by its path.

    They only tell more about disks, so a pool that cannot be listed is passed over.
    """
    found: dict[str, tuple[str, int]] = {}
    try:
        pools = link.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE)
    except libvirt.libvirtError:
        return found
    for pool in pools:
        try:
            for volume in pool.listAllVolumes():
                found[volume.path()] = (pool.name(), volume.info()[1])
        except libvirt.libvirtError:
            continue
    return found


def _describe(link: libvirt.virConnect) -> str:
    """Return the hypervisor, its version and the host's own name: "QEMU 7.2.22 on kvm1"."""
    try:
        number = link.getVersion()
        version = f" {number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
    except libvirt.libvirtError:
        version = ""
    try:
        return f"{link.getType()}{version} on {link.getHostname()}"
    except libvirt.libvirtError:
        return f"{link.getType()}{version}"


def main() -> None:
    """Answer one request."""
    answer(list_host)


if __name__ == "__main__":
    main()
