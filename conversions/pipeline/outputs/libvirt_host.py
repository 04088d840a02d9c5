"""A libvirt host as a target: its connection, its pools, and what it can run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import libvirt
from lxml import etree

from conversions.pipeline.errors import JobError, TargetError
from conversions.pipeline.outputs.domain_host import DomainHost
from conversions.pipeline.types import Machine
from inventory.sources.errors import SourceError
from inventory.sources.uris import checked_uri

# What can be given a machine; libvirt reads more kinds of host than it can define on.
_DRIVERS = ("qemu", "test")
# Pools whose volumes are plain files in a folder.
_POOL_TYPES = ("dir", "fs", "netfs")
_ARCH = re.compile(r"[A-Za-z0-9_-]+")
_MACHINES = {Machine.I440FX: "pc", Machine.Q35: "q35", Machine.VIRT: "virt"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A pool of file volumes; `path` is its folder on the host that libvirt runs on."""

    name: str
    path: Path
    free_bytes: int


def check_uri(uri: str) -> None:
    """Refuse addresses that could run programs or read files here.  Raises JobError."""
    try:
        checked_uri(uri)
    except SourceError as error:
        raise JobError(error.message, remedy=error.remedy) from error
    if uri.partition(":")[0].partition("+")[0] not in _DRIVERS:
        raise JobError(
            f"The address {uri!r} is refused: it is not that of a {' or '.join(_DRIVERS)} host.",
            remedy="Use one like qemu:///system or qemu+ssh://user@host/system.",
        )


@contextmanager
def libvirt_errors(doing: str) -> Iterator[None]:
    """Turn libvirt's errors into ours.  Raises TargetError."""
    try:
        yield
    except libvirt.libvirtError as error:
        raise TargetError(f"{doing}: {error}.", code="E-LIBVIRT") from error


class LibvirtHost:
    """One connection; every method raises TargetError with libvirt's own words."""

    def __init__(self, uri: str) -> None:
        if uri:
            check_uri(uri)
        # Without a handler the library writes every error to standard error itself.
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        with libvirt_errors(f"No connection to libvirt ({uri or 'its default'})"):
            self.connection = libvirt.open(uri or None)
            self.uri = self.connection.getURI()
            self._capabilities = etree.fromstring(self.connection.getCapabilities())

    @property
    def is_local(self) -> bool:
        """Tell whether libvirt runs on this very host, so that its folders are ours."""
        parts = urlsplit(self.uri)
        return not parts.hostname and parts.scheme != "test"

    def close(self) -> None:
        """End the connection."""
        self.connection.close()

    def refuse_taken_name(self, name: str) -> None:
        """Refuse a name that a domain has already."""
        with libvirt_errors("The domains could not be listed"):
            taken = any(d.name() == name for d in self.connection.listAllDomains())
        if taken:
            raise TargetError(
                f"libvirt ({self.uri}) has a machine named {name} already.",
                remedy="Give the converted machine another name.",
            )

    def find_pool(self, wanted: str) -> Pool:
        """Return the pool of a UUID or a name.  Raises TargetError for one of other kinds."""
        pool = self._lookup_pool(wanted)
        with libvirt_errors(f"Pool {wanted} could not be asked"):
            root = etree.fromstring(pool.XMLDesc())
            if not pool.isActive():
                raise TargetError(
                    f"Pool {pool.name()} is not active.", remedy="Start it: virsh pool-start."
                )
            free = int(pool.info()[3])
            name = pool.name()
        kind, path = root.get("type", ""), root.findtext("target/path") or ""
        if kind not in _POOL_TYPES:
            raise TargetError(
                f"Pool {name} is of type {kind}; disks can only go to a pool of files "
                f"({', '.join(_POOL_TYPES)}).",
                remedy="Choose another pool.",
            )
        if not path or (self.is_local and not Path(path).is_dir()):
            raise TargetError(
                f"The folder of pool {name} does not exist: {path or 'it has none'}.",
                remedy="Create it, or choose another pool.",
            )
        return Pool(name=name, path=Path(path), free_bytes=free)

    def _lookup_pool(self, wanted: str) -> libvirt.virStoragePool:
        for lookup in (
            self.connection.storagePoolLookupByUUIDString,
            self.connection.storagePoolLookupByName,
        ):
            try:
                return lookup(wanted)
            except libvirt.libvirtError:
                continue
        raise TargetError(
            f"libvirt ({self.uri}) has no pool {wanted}.",
            remedy="Choose one of those it has: virsh pool-list.",
        )

    def domain_type(self, arch: str) -> str | None:
        """Return "kvm", "qemu" when that is all there is, None for an unknown architecture."""
        types = {
            str(domain.get("type"))
            for guest in self._capabilities.iterfind("guest/arch")
            if guest.get("name") == arch
            for domain in guest.iterfind("domain")
        }
        return next((t for t in ("kvm", "qemu") if t in types), None)

    def facts(
        self, arch: str, machine: Machine, type_: str, volumes: Mapping[str, tuple[str, str]]
    ) -> DomainHost:
        """Return what this host offers a domain of that type."""
        if not _ARCH.fullmatch(arch):
            raise TargetError(f"{arch!r} is not the name of an architecture.")
        features = {
            str(feature.tag)
            for guest in self._capabilities.iterfind("guest")
            if (a := guest.find("arch")) is not None and a.get("name") == arch
            if type_ in [d.get("type") for d in a.iterfind("domain")]
            for feature in guest.iterfind("features/*")
        }
        root = self._domain_capabilities(arch, machine, type_)
        devices = root.iterfind("devices/disk/enum[@name='diskDevice']/value")
        firmwares = root.iterfind("os/enum[@name='firmware']/value")
        return DomainHost(
            features=frozenset(features),
            floppy="floppy" in [e.text for e in devices],
            domain_type=type_,
            uefi="efi" in [e.text for e in firmwares],
            # libvirt does not tell; a machine with such a device would not start without it.
            vsock=not self.is_local or Path("/dev/vhost-vsock").exists(),
            secure_boot=root.find("os/loader/enum[@name='secure'][value='yes']") is not None,
            volumes=volumes,
        )

    def _domain_capabilities(self, arch: str, machine: Machine, type_: str) -> etree._Element:
        with libvirt_errors(f"libvirt cannot run {machine} machines of {arch} with {type_}"):
            text = self.connection.getDomainCapabilities(None, arch, _MACHINES[machine], type_, 0)
        return etree.fromstring(text)

    def networks(self) -> set[str]:
        """Return the names of the virtual networks."""
        with libvirt_errors("The networks could not be listed"):
            return {n.name() for n in self.connection.listAllNetworks()}
