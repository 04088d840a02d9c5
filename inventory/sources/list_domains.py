"""List the domains of a libvirt host as lines of JSON; runs as a program of its own.

A connection can hang for minutes inside libvirt; a program can be given up and killed.

    python -m inventory.sources.list_domains URI

The first line is {"host": ..., "version": ..., "domains": N}, then one line for each domain:
{"uuid", "name", "power", "source" (a Source as JSON, or null), "problem", "warnings"}.  Ends with 1
and one line {"error", "message", "remedy"} when the host cannot be read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import libvirt

from inventory.sources.domain_xml import Volume, parse_domain
from inventory.sources.errors import SourceError
from inventory.sources.libvirt_host import connection, volume_of

POWER = {
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_BLOCKED: "running",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_SHUTDOWN: "being shut down",
    libvirt.VIR_DOMAIN_SHUTOFF: "shut off",
    # Its processes are gone: the disks do not change any more.
    libvirt.VIR_DOMAIN_CRASHED: "shut off",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "suspended",
}


def list_domains(uri: str) -> Iterator[dict[str, Any]]:
    """Yield the host's line and one for each domain.  Raises SourceError."""
    with connection(uri) as link:
        domains = link.listAllDomains(0)
        yield {"host": link.getHostname(), "version": link.getLibVersion(),
               "domains": len(domains)}  # fmt: skip
        for domain in domains:
            yield describe(link, domain)


def describe(link: libvirt.virConnect, domain: libvirt.virDomain) -> dict[str, Any]:
    """Return what is known of a domain; what cannot be read is its problem, not the host's."""
    warnings: list[str] = []
    found: dict[str, Any] = {
        "uuid": domain.UUIDString(), "name": domain.name(), "power": "", "source": None,
        "problem": "", "warnings": warnings,
    }  # fmt: skip

    def find_volume(pool: str, volume: str) -> Volume | None:
        return volume_of(link, pool, volume)

    try:
        found["power"] = POWER.get(domain.state()[0], "unknown")
        if found["power"] == "shut off" and domain.hasManagedSaveImage(0):
            found["power"] = "saved with its memory"
        xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        found["source"] = parse_domain(xml.encode(), warnings.append, find_volume).to_dict()
    except SourceError as error:
        found["problem"] = f"{error.message} {error.remedy}".strip()
    except libvirt.libvirtError as error:
        found["problem"] = f"libvirt cannot describe it: {error}."
    return found


def main(argv: list[str]) -> int:
    """Print the lines."""
    try:
        for line in list_domains(argv[0]):
            print(json.dumps(line), flush=True)
    except (SourceError, libvirt.libvirtError) as error:
        known = isinstance(error, SourceError)
        print(json.dumps({
            "error": error.code if known else "E-LV-LIST",
            "message": error.message if known else f"libvirt cannot list its domains: {error}.",
            "remedy": error.remedy if known else "",
        }))  # fmt: skip
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
