"""Keep the machines of libvirt hosts current while the console runs."""

from __future__ import annotations

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand

from inventory.following import Follower


class Command(BaseCommand):
    """A part of the console, started by script/server; ends on SIGTERM or SIGINT."""

    help = "Listen to the libvirt hosts and store what changes on them, until told to stop."

    def handle(self, *args: Any, **options: Any) -> None:
        """Follow the hosts."""
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_what: stop.set())
        Follower().run(stop)
