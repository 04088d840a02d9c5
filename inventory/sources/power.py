"""Whether a machine runs on its host, and which of these states forbid reading its disks."""

from __future__ import annotations

from enum import StrEnum


class Power(StrEnum):
    """What a host says about a machine; unknown is what it does not say."""

    RUNNING = "running"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    SHUTTING_DOWN = "being shut down"
    SHUT_OFF = "shut off"
    CRASHED = "crashed"
    UNKNOWN = "unknown"


# Whose disks change; a machine being shut down may still write.
BUSY = frozenset({Power.RUNNING, Power.PAUSED, Power.SUSPENDED, Power.SHUTTING_DOWN})
