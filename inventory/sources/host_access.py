"""How a host is reached: its address and what it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

from inventory.sources.ssh import checked_ssh_uri
from inventory.sources.uris import checked_uri

VMWARE = ("esx", "vpx")
# Of a folder of VMX files.
SSH = "ssh"
# KVM hosts whose disks can be read by the way their domains are.
OVER_SSH = ("qemu+ssh", "qemu+libssh", "qemu+libssh2")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAccess:
    """An address, the password there, "" for none, and the thumbprint of the server's certificate.

    With a thumbprint, which only VMware's servers take, the certificate counts and not who signed
    it.  `over_ssh` says that disks are read by the way that leads there.  The address is checked
    by who connects.
    """

    uri: str
    password: str = field(default="", repr=False)
    thumbprint: str = ""
    over_ssh: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, which holds the password."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HostAccess:
        """Build one from `to_dict()`'s form; other keys are passed over.  Raises KeyError."""
        return cls(**{name: data[name] for name in ("uri", "password", "thumbprint", "over_ssh")})


def scheme_of(uri: str) -> str:
    """Return the driver of an address, with how it is reached: "qemu+ssh"; "" for no address."""
    try:
        return urlsplit(uri).scheme
    except ValueError:
        return ""


def checked_address(uri: str) -> str:
    """Return the address of a host as it is when it may be used: libvirt's, or that of a folder.

    Raises SourceError.
    """
    return checked_ssh_uri(uri) if uri.startswith(f"{SSH}:") else checked_uri(uri)
