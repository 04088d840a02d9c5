"""Reading domains of a libvirt host."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import unquote, urlsplit

import libvirt
from lxml import etree

from inventory.sources.base import Warn
from inventory.sources.domain_xml import parse_domain
from inventory.sources.errors import MAY_READ, SourceError
from inventory.sources.libvirt_errors import why_no_connection
from inventory.sources.nbdkit import Servers
from inventory.sources.network_disks import Place, rbd_volume, refuse_places, serve_network_disks
from inventory.sources.pinned import pinned_address
from inventory.sources.power import BUSY, Power
from inventory.sources.types import Source, SourceDisk
from inventory.sources.uris import checked_uri

_POWER = {
    libvirt.VIR_DOMAIN_RUNNING: Power.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: Power.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: Power.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: Power.SHUTTING_DOWN,
    libvirt.VIR_DOMAIN_SHUTOFF: Power.SHUT_OFF,
    libvirt.VIR_DOMAIN_CRASHED: Power.CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: Power.SUSPENDED,
}


class LibvirtError(SourceError):
    """A libvirt host or a domain of it cannot be used."""


@contextmanager
def connection(
    uri: str, *, read_only: bool = True, password: str | None = None, thumbprint: str = ""
) -> Iterator[libvirt.virConnect]:
    """Connect to a host; a password answers what asks for one.

    With a thumbprint only the VMware server with that certificate is spoken with.  Raises
    LibvirtError for a refused address and for a host without answer, SessionError for another
    certificate.
    """
    plain = checked_uri(uri)
    with ExitStack() as stack:
        address = plain
        if thumbprint:
            address = stack.enter_context(pinned_address(plain, thumbprint))
        link = _open(plain, address, read_only=read_only, password=password)
        stack.callback(link.close)
        yield link


def _open(plain: str, address: str, *, read_only: bool, password: str | None) -> libvirt.virConnect:
    """Connect to a checked address, by the way that leads there.  Raises LibvirtError."""
    # The library prints every error by itself otherwise.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        if password is None:
            return (libvirt.openReadOnly if read_only else libvirt.open)(address)
        flags = libvirt.VIR_CONNECT_RO if read_only else 0
        return libvirt.openAuth(address, _answers(address, password), flags)
    except libvirt.libvirtError as error:
        reason = why_no_connection(plain, error)
        raise LibvirtError(reason.code, reason.message, remedy=reason.remedy) from error


def _answers(uri: str, password: str) -> list[object]:
    """Return what libvirt asks for credentials: the password and the address's own user."""
    user = unquote(urlsplit(uri).username or "")
    secret = (libvirt.VIR_CRED_PASSPHRASE, libvirt.VIR_CRED_NOECHOPROMPT)

    def answer(asked: list[list[object]], _data: object) -> int:
        for question in asked:
            # The kind comes first, the answer goes last.
            if question[0] in secret:
                question[4] = password
            elif question[0] == libvirt.VIR_CRED_AUTHNAME and user:
                question[4] = user
            else:
                return -1
        return 0

    return [[*secret, libvirt.VIR_CRED_AUTHNAME], answer, None]


def domain_xml(
    uri: str,
    domain: str,
    password: str | None,
    *,
    running: Warn | None = None,
    thumbprint: str = "",
) -> bytes:
    """Return the XML of a domain that is shut off.  Raises SourceError.

    With `running` a busy one is taken as well, with that warning.  `thumbprint` as in `connection`.
    """
    with connection(uri, password=password, thumbprint=thumbprint) as link:
        found = find_domain(link, domain)
        check_idle(found, running)
        try:
            xml: str = found.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
            return xml.encode()
        except libvirt.libvirtError as error:
            raise LibvirtError(
                "E-LV-XML", f"{uri} cannot describe the domain {domain}: {error}."
            ) from error


def find_domain(link: libvirt.virConnect, name: str) -> libvirt.virDomain:
    """Return a domain by its UUID or its name.  Raises LibvirtError."""
    for look_up in (link.lookupByUUIDString, link.lookupByName):
        try:
            return look_up(name)
        except libvirt.libvirtError:
            continue
    raise LibvirtError(
        "E-LV-NODOM",
        f"The host {link.getURI()} has no domain {name!r}.",
        remedy="Check the spelling; virsh list --all on the host shows them.",
    )


def refuse_busy(domain: libvirt.virDomain) -> None:
    """Raise LibvirtError unless the domain is shut off, with nothing of it left in memory."""
    power = power_of(domain)
    if power in BUSY:
        raise LibvirtError(
            "E-LV-RUNNING",
            f"The domain {domain.name()} is {power}; its disks change while they are read.",
            remedy="Shut it down from inside, and try again.",
        )
    if has_saved_memory(domain):
        raise LibvirtError(
            "E-LV-SAVED",
            f"The memory of the domain {domain.name()} was saved while it ran; what it had not "
            "written yet is missing on its disks.",
            remedy="Start it, shut it down from inside, and try again.",
        )


def power_of(domain: libvirt.virDomain) -> Power:
    """Return whether a domain runs.  Raises libvirtError."""
    return _POWER.get(domain.state()[0], Power.UNKNOWN)


def has_saved_memory(domain: libvirt.virDomain) -> bool:
    """Tell whether a domain's memory was saved to a file (virsh managedsave).

    Hosts that cannot do that say so.  Raises LibvirtError.
    """
    try:
        return bool(domain.hasManagedSaveImage(0))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return False
        raise LibvirtError(
            "E-LV-STATE", f"The state of the domain {domain.name()} cannot be read: {error}."
        ) from error


def check_idle(domain: libvirt.virDomain, running: Warn | None) -> None:
    """Refuse a busy domain, or warn when it may be: its owner may know that nothing writes."""
    try:
        refuse_busy(domain)
    except LibvirtError as error:
        if running is None:
            raise
        running(error.message)


def with_screen_password(xml: str, uri: str, domain: str, password: str | None, warn: Warn) -> str:
    """Return a domain's XML with the password of its screen, told to who may change it alone."""
    if etree.fromstring(xml.encode()).find("devices/graphics") is None:
        return xml
    flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
    try:
        with connection(uri, read_only=False, password=password) as link:
            secure: str = find_domain(link, domain).XMLDesc(flags)
            return secure
    except (LibvirtError, libvirt.libvirtError) as error:
        warn(
            "Whether the display has a password is told to those who may change the machine "
            f"alone; the target gets none: {error}"
        )
        return xml


class LibvirtReader:
    """Reads one domain of a host whose disks can be opened on this machine."""

    def __init__(
        self,
        uri: str,
        domain: str,
        *,
        warn: Warn,
        password: str | None = None,
        running: Warn | None = None,
        keep_display: bool = False,
    ) -> None:
        self._keep_display = keep_display
        self._uri = uri
        self._domain = domain
        self._password = password
        self._warn = warn
        self._running = running

    def describe(self) -> str:
        """Return one line for messages."""
        return f"domain {self._domain} of {self._uri}"

    def read(self) -> Source:
        """Return the domain as a source; it has to be shut off.  Raises SourceError."""
        with connection(self._uri, password=self._password) as link:
            domain = find_domain(link, self._domain)
            # Machines of libvirt's test driver have no disks that anything would write to.
            if not self._uri.startswith("test:"):
                check_idle(domain, self._running)

            def find_volume(pool: str, volume: str) -> Place | None:
                return volume_of(link, pool, volume)

            xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
            if self._keep_display:
                xml = with_screen_password(xml, self._uri, self._domain, self._password, self._warn)
            source = parse_domain(xml.encode(), self._warn, find_volume)
        refuse_places(source, self._uri)
        for disk in source.disks:
            if not disk.remote:
                _check_readable(disk, source)
        return source

    def serve(self, source: Source, servers: Servers) -> Source:
        """Serve the disks that other servers have.  Raises SourceError."""
        return serve_network_disks(source, servers)

    def verify(self, progress: Callable[[int, int], None]) -> list[dict[str, str]]:
        """Return nothing: a domain carries no digests."""
        del progress
        return []


def _check_readable(disk: SourceDisk, source: Source) -> None:
    """Refuse a disk that this process may not read, as libvirt's own often are (mode 0600)."""
    try:
        os.close(os.open(disk.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except FileNotFoundError as error:
        raise _not_here(disk, source) from error
    except OSError as error:
        raise LibvirtError(
            "E-LV-DISK",
            f"Disk {disk.path} of {source.name} cannot be read: {error.strerror}.",
            remedy=MAY_READ,
        ) from error


def _not_here(disk: SourceDisk, source: Source) -> LibvirtError:
    return LibvirtError(
        "E-LV-DISK",
        f"Disk {disk.path} of {source.name} cannot be opened on this machine.",
        remedy="Domains whose disks lie on this machine or on storage that it shares can be read. "
        "Those of a host at qemu+ssh:// can also be read over ssh: on the command line with "
        "-it ssh, in the console when the host is not said to share its disks.",
    )


def volume_of(link: libvirt.virConnect, pool: str, volume: str) -> Place | None:
    """Return where a volume lies; None when it cannot be read.  Raises SourceError."""
    try:
        holder = _pool(link, pool)
        found = holder.storageVolLookupByName(volume)
        root = etree.fromstring(found.XMLDesc().encode())
        source = etree.fromstring(holder.XMLDesc().encode())
    except libvirt.libvirtError as error:
        raise LibvirtError(
            "E-LV-VOLUME", f"Volume {volume!r} of pool {pool!r} cannot be read: {error}."
        ) from error
    if source.get("type") == "rbd":
        return rbd_volume(source, volume)
    if root.get("type", "file") not in ("file", "block"):
        return None
    fmt = root.find("target/format")
    return Place(path=found.path(), format=fmt.get("type", "raw") if fmt is not None else "raw")


def volume_of_host(uri: str, password: str | None, pool: str, volume: str) -> Place | None:
    """Return where a volume of a host lies, over a connection of its own.  Raises SourceError."""
    with connection(uri, password=password) as link:
        return volume_of(link, pool, volume)


def _pool(link: libvirt.virConnect, name: str) -> libvirt.virStoragePool:
    """Return a pool by its UUID or its name.  Raises libvirtError."""
    try:
        return link.storagePoolLookupByUUIDString(name)
    except libvirt.libvirtError:
        return link.storagePoolLookupByName(name)


def define_domain(uri: str, xml: str, *, replacing: str) -> None:
    """Give a domain another definition; it keeps its UUID.  Raises LibvirtError."""
    with connection(uri, read_only=False) as link:
        old = find_domain(link, replacing)
        refuse_busy(old)
        root = etree.fromstring(xml.encode())
        name = root.find("name")
        if name is None or name.text != old.name():
            raise LibvirtError("E-LV-DEFINE", f"The new definition of {old.name()} renames it.")
        uuid = etree.Element("uuid")
        uuid.text = old.UUIDString()
        name.addnext(uuid)
        try:
            link.defineXML(etree.tostring(root, encoding="unicode"))
        except libvirt.libvirtError as error:
            raise LibvirtError(
                "E-LV-DEFINE",
                f"{uri} refuses the new definition: {error}.",
                remedy="The disks are converted; the XML is in the report: adapt it and define it "
                "by hand.",
            ) from error
