"""What a host has, and how a program that reads one is asked (see libvirt_child.py).

It takes one request as JSON on its input, a HostAccess with {"domains", "seconds"}, and prints one
answer: {"listing": ...} or {"error": {"code", "message", "remedy"}}.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from inventory.sources.errors import SourceError
from inventory.sources.host_access import HostAccess
from inventory.sources.power import Power
from inventory.sources.types import Source

MAX_MEMORY_BYTES = 2 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedDomain:
    """One machine of a host; `problem` says why it cannot be used.

    `source` is None when its description cannot be used at all.  `uuid` is what the host knows it
    by; of a VMX file that is the path.  `pools` are the storage pools that its disks lie in, each
    once.
    """

    uuid: str
    name: str
    power: Power
    memory_bytes: int
    vcpus: int
    source: Source | None = None
    code: str = ""
    problem: str = ""
    snapshots: tuple[str, ...] = ()
    has_saved_memory: bool = False
    pools: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self) | {"source": self.source.to_dict() if self.source else None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ListedDomain:
        """Build one from `to_dict()`'s form.  Raises KeyError, TypeError or ValueError."""
        source = data["source"]
        lists = {name: tuple(data[name]) for name in ("snapshots", "pools", "warnings")}
        return cls(
            **{
                **data,
                **lists,
                "power": Power(data["power"]),
                "source": Source.from_dict(source) if source else None,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HostListing:
    """A host, in words for people, and its domains; `count` is also known without reading them."""

    description: str
    count: int
    domains: tuple[ListedDomain, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        domains = [d.to_dict() for d in self.domains]
        return {"description": self.description, "count": self.count, "domains": domains}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HostListing:
        """Build one from `to_dict()`'s form.  Raises KeyError, TypeError or ValueError."""
        domains = tuple(ListedDomain.from_dict(d) for d in data["domains"])
        return cls(description=data["description"], count=data["count"], domains=domains)


def answer(list_host: Callable[..., HostListing]) -> None:
    """Answer the request on the standard input by reading the host that it names."""
    request = json.load(sys.stdin)
    # Whoever asked may be gone; then nobody else ends a call that hangs.
    signal.alarm(int(request["seconds"]) + 5)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    said: dict[str, Any]
    try:
        listing = list_host(HostAccess.from_dict(request), with_domains=request["domains"])
        said = {"listing": listing.to_dict()}
    except SourceError as error:
        said = {"error": {"code": error.code, "message": error.message, "remedy": error.remedy}}
    json.dump(said, sys.stdout)
