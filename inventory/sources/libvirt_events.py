"""Telling what changes on a libvirt host, as it happens; runs as a program of its own.

It takes a HostAccess as JSON on its input and prints lines of JSON: {"ready": true} as soon as
changes are told, {"domain": ...} (a ListedDomain) after each change of a domain, {"gone": UUID}
when the host no longer has it, {"beat": true} when there was nothing to say for a while.  The last
line before it ends with 1 is {"error": {"code", "message", "remedy"}}.  libvirt_child.py starts it.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

import libvirt

from inventory.sources.errors import SourceError
from inventory.sources.host_access import HostAccess
from inventory.sources.host_listing import MAX_MEMORY_BYTES
from inventory.sources.libvirt_host import LibvirtError, connection
from inventory.sources.libvirt_listing import Check, check_of, list_domain

BEAT_SECONDS = 10
# A start or an end is several events; what they leave behind is looked at once.
_SETTLE_SECONDS = 0.2
# The connection counts as lost when the host has not answered that often in a row.
_KEEP_ALIVE = (5, 3)
# What comes through the queue when the connection is lost.
_LOST = ""

Say = Callable[[dict[str, Any]], None]


def follow(access: HostAccess, say: Say) -> None:
    """Tell what changes on a host until the connection is lost.

    Raises LibvirtError then, or when there is none, or when the host tells no changes.
    """
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=_run_events, daemon=True).start()
    changed: SimpleQueue[str] = SimpleQueue()
    password = access.password or None
    with connection(access.uri, password=password, thumbprint=access.thumbprint) as link:
        listen(link, changed)
        say({"ready": True})
        tell_changes(link, changed, say, check_of(access))


def _run_events() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def listen(link: libvirt.virConnect, changed: SimpleQueue[str]) -> None:
    """Let the UUIDs of domains that change come through the queue, and "" when all is lost.

    Nothing is asked of the host here: the thread that hears of events must not wait for answers.
    """

    def hear(_link: object, domain: libvirt.virDomain, *_what: object) -> None:
        changed.put(domain.UUIDString())

    def hear_end(*_what: object) -> None:
        changed.put(_LOST)

    with suppress(libvirt.libvirtError):  # drivers without a connection do not know these
        link.setKeepAlive(*_KEEP_ALIVE)
    with suppress(libvirt.libvirtError):
        link.registerCloseCallback(hear_end, None)
    try:
        link.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, hear, None)
    except libvirt.libvirtError as error:
        raise LibvirtError(
            "E-LV-NOEVENTS",
            f"The host {link.getURI()} does not tell what changes: {error}.",
            remedy="It is read again every few minutes instead.",
        ) from error


def tell_changes(
    link: libvirt.virConnect,
    changed: SimpleQueue[str],
    say: Say,
    check: Check = lambda _source: None,
) -> None:
    """Look at each domain that changes and tell what it is now, until all is lost."""
    while True:
        try:
            uuids = [changed.get(timeout=BEAT_SECONDS)]
        except Empty:
            say({"beat": True})
            continue
        time.sleep(_SETTLE_SECONDS)
        while not changed.empty():
            uuids.append(changed.get())
        if _LOST in uuids:
            raise LibvirtError("E-LV-LOST", "The connection to the host was lost.")
        for uuid in dict.fromkeys(uuids):
            listed = list_domain(link, uuid, check)
            say({"domain": listed.to_dict()} if listed else {"gone": uuid})


def main() -> int:
    """Print the lines."""
    access = HostAccess.from_dict(json.load(sys.stdin))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))

    def say(line: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    error: SourceError
    try:
        follow(access, say)
    except SourceError as caught:
        error = caught
    except libvirt.libvirtError as caught:
        error = LibvirtError("E-LV-LOST", f"The host {access.uri} stopped answering: {caught}.")
    said = {"code": error.code, "message": error.message, "remedy": error.remedy}
    say({"error": said})
    return 1


if __name__ == "__main__":
    sys.exit(main())
