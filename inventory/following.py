"""Following the libvirt hosts: what changes on them becomes rows as it happens.

One process for each host tells (sources/libvirt_events.py) and this one listens to all of them, so
a host that hangs, floods or breaks its process holds up no other.  What was missed while a host
was not followed comes from the reading that is asked for as soon as it is.  Without a database all
of it ends, and script/keep starts it again.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import IO, Any, cast

from django.db import transaction
from django.utils import timezone

from inventory.host_store import store_change, store_end
from inventory.hosts import request_refresh
from inventory.models import LibvirtHost
from inventory.sources.errors import SourceError
from inventory.sources.host_access import HostAccess
from inventory.sources.host_listing import ListedDomain
from inventory.sources.libvirt_child import follow_host
from inventory.sources.libvirt_events import BEAT_SECONDS

logger = logging.getLogger(__name__)

# A connection over ssh to a busy host, and three beats.
CONNECT_SECONDS = 45.0
SILENT_SECONDS = 3.0 * BEAT_SECONDS
LONGEST_PAUSE_SECONDS = 60.0
# How long a host has to be followed well for its next loss to be followed by a short pause.
STEADY_SECONDS = 20.0
# For hosts that cannot tell what changes; a newer libvirt may run there some day.
NO_EVENTS_PAUSE_SECONDS = 3600.0
HOSTS_EVERY_SECONDS = 2.0
NOTE_EVERY_SECONDS = 30.0
_TURN_SECONDS = 0.5
# Starting a process takes a moment of a processor; fifty at once would take all of it.
_STARTS_A_TURN = 2
# The XML of a domain is shorter; what is longer comes from no libvirt.
_MAX_LINE_BYTES = 16 << 20

Start = Callable[[HostAccess], "subprocess.Popen[bytes]"]


class Followed:
    """One host and the process that tells of it; times are of the monotonic clock, in seconds."""

    def __init__(self, row: LibvirtHost) -> None:
        self.pk = row.pk
        self.uri = row.uri
        self.row = row
        self.process: subprocess.Popen[bytes] | None = None
        self.rest = b""
        self.ready_since: float | None = None
        self.silent_at = 0.0
        self.start_at = 0.0
        self.pause = 1.0
        self.is_told = False

    def is_due(self) -> bool:
        """Tell whether its process is to be started."""
        return self.process is None and time.monotonic() >= self.start_at

    def is_reached_as(self, row: LibvirtHost) -> bool:
        """Tell whether what is known of how to reach it is what it was."""
        before = self.row
        names = ("uri", "sealed_password", "shares_disks")
        return all(getattr(before, name) == getattr(row, name) for name in names)

    def is_silent(self) -> bool:
        """Tell whether its process has said nothing for too long."""
        return self.process is not None and time.monotonic() >= self.silent_at


class Follower:
    """Follows every host of the inventory until told to stop."""

    def __init__(self, start: Start = follow_host) -> None:
        self._start = start
        self._hosts: dict[int, Followed] = {}
        self._selector = selectors.DefaultSelector()
        self._match_at = 0.0
        self._note_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Follow the hosts; end all that was started when `stop` is set or something breaks."""
        try:
            while not stop.is_set():
                self.turn()
        finally:
            for host in self._hosts.values():
                self._end(host)
            self._selector.close()

    def turn(self) -> None:
        """Do what is due, then wait a moment for news and store it."""
        now = time.monotonic()
        if now >= self._match_at:
            self._match_at = now + HOSTS_EVERY_SECONDS
            self._match()
        for host in [h for h in self._hosts.values() if h.is_due()][:_STARTS_A_TURN]:
            self._begin(host)
        for key, _events in self._selector.select(_TURN_SECONDS):
            self._hear(key.data, os.read(key.fd, 1 << 20))
        for host in self._hosts.values():
            if host.is_silent():
                self._lose(host, "it said nothing for too long")
        if now >= self._note_at:
            self._note_at = now + NOTE_EVERY_SECONDS
            ready = [h.pk for h in self._hosts.values() if h.ready_since is not None]
            LibvirtHost.objects.filter(pk__in=ready).update(followed_at=timezone.now())

    def _match(self) -> None:
        """Follow what is in the inventory and can be, and nothing else."""
        rows = LibvirtHost.objects.only(
            "pk", "name", "uri", "sealed_password", "thumbprint", "shares_disks"
        )
        wanted = {row.pk: row for row in rows if row.tells_changes}
        for host in list(self._hosts.values()):
            row = wanted.get(host.pk)
            if row is None or not host.is_reached_as(row):
                self._end(host)
                del self._hosts[host.pk]
        for pk, row in wanted.items():
            self._hosts.setdefault(pk, Followed(row))

    def _begin(self, host: Followed) -> None:
        try:
            host.process = self._start(host.row.access())
        except (SourceError, OSError) as error:
            self._lose(host, str(error))
            return
        output = cast(IO[bytes], host.process.stdout)
        os.set_blocking(output.fileno(), False)
        self._selector.register(output, selectors.EVENT_READ, host)
        host.rest = b""
        host.silent_at = time.monotonic() + CONNECT_SECONDS

    def _hear(self, host: Followed, said: bytes) -> None:
        """Take what a process has said; one that has ended or broken is lost."""
        if not said:
            self._lose(host, "its process ended")
            return
        *lines, host.rest = (host.rest + said).split(b"\n")
        try:
            if len(host.rest) > _MAX_LINE_BYTES:
                raise ValueError("a line without end")
            for line in lines:
                self._take(host, json.loads(line))
        except Exception as error:
            # One host must not end the following of all others; this one is read anew.
            logger.exception("What %s told could not be taken.", host.uri)
            self._lose(host, str(error))

    def _take(self, host: Followed, line: dict[str, Any]) -> None:
        host.silent_at = time.monotonic() + SILENT_SECONDS
        if "ready" in line:
            self._be_ready(host)
        elif "domain" in line or "gone" in line:
            store_news(host.pk, line)
        elif "error" in line:
            error = line["error"]
            if error["code"] == "E-LV-NOEVENTS":
                host.pause = NO_EVENTS_PAUSE_SECONDS
            self._lose(host, error["message"])

    def _be_ready(self, host: Followed) -> None:
        logger.info("What changes on %s shows at once.", host.uri)
        host.ready_since = time.monotonic()
        host.is_told = False
        row = LibvirtHost.objects.filter(pk=host.pk).first()
        if row is not None:
            LibvirtHost.objects.filter(pk=host.pk).update(followed_at=timezone.now())
            request_refresh(row)

    def _lose(self, host: Followed, why: str) -> None:
        """End a host's process and try again after a pause that grows."""
        if not host.is_told:  # once, not with every attempt
            logger.warning("Changes on %s do not show at once: %s", host.uri, why)
            host.is_told = True
        since = host.ready_since
        if since is not None and time.monotonic() - since > STEADY_SECONDS:
            host.pause = 1.0
        self._end(host)
        host.start_at = time.monotonic() + host.pause
        host.pause = max(host.pause, min(2 * host.pause, LONGEST_PAUSE_SECONDS))

    def _end(self, host: Followed) -> None:
        """End a host's process with all that it has started."""
        if host.ready_since is not None:
            LibvirtHost.objects.filter(pk=host.pk).update(followed_at=None)
            host.ready_since = None
        process, host.process = host.process, None
        if process is None:
            return
        output = cast(IO[bytes], process.stdout)
        self._selector.unregister(output)
        output.close()
        # Not waited for yet, so that the group is still its own.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def store_news(pk: int, line: dict[str, Any]) -> None:
    """Store one line about a domain of a host, unless the host was removed."""
    now = timezone.now()
    with transaction.atomic():
        host = LibvirtHost.objects.select_for_update().filter(pk=pk).first()
        if host is None:
            return
        if "gone" in line:
            store_end(host, line["gone"], now=now)
        else:
            store_change(host, ListedDomain.from_dict(line["domain"]), now=now)
