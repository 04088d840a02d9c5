"""Files as the user that oVirt reads its storage as."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

# User vdsm and group kvm, the same numbers on every host of oVirt.
VDSM_UID = VDSM_GID = 36
_libc = ctypes.CDLL(None)


@contextmanager
def as_vdsm() -> Iterator[None]:
    """Let root do what this thread does with files as vdsm does; nobody else can, or has to.

    Root itself has no rights on most NFS servers (root_squash).  setfsuid(2) concerns this thread
    alone, whatever the others do meanwhile; the group has to go first, as long as it may.
    """
    if os.geteuid() != 0:
        yield
        return
    _libc.setfsgid(VDSM_GID)
    _libc.setfsuid(VDSM_UID)
    try:
        yield
    finally:
        _libc.setfsuid(0)
        _libc.setfsgid(0)
