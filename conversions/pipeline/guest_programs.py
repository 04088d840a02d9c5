"""Programs of the guest: given so much time, and nothing of them is left running."""

from __future__ import annotations

import time

from conversions.pipeline.appliance import GuestFS
from conversions.pipeline.appliance_shell import run_in_appliance
from conversions.pipeline.report import Level, Reporter

MINUTES = 5
INITRAMFS_MINUTES = 15
# Of software emulation: dracut takes half a minute with KVM, 150 s without.
_EMULATED = 4
# Ends what has the guest as its root folder, and names it; the daemon of libguestfs, whose child
# this is, goes there and back.
_KILL = (
    "for p in /proc/[0-9]*; do [ $p/root -ef /sysroot ] && [ ${p#/proc/} != $PPID ] && "
    "cat $p/comm && kill -9 ${p#/proc/}; done 2>/dev/null"
)


def run_in_guest(g: GuestFS, command: str, report: Reporter, *, minutes: float = MINUTES) -> str:
    """Run a line of shell in the guest, log it, and return what it wrote.

    It is ended from outside when its time is up: not every guest has timeout(1), and a service that
    the program left behind with its output open would be waited for without end.  One that closed
    it is ended as well, as it keeps the filesystems busy.  Raises RuntimeError.
    """
    report.log(Level.INFO, f"In the guest: {command}")
    minutes *= _EMULATED if "force_tcg" in g.get_backend_settings() else 1
    _, clock = run_in_appliance(
        g, f"{{ sleep {minutes * 60:g}; {_KILL}; }} >/dev/null 2>&1 & echo $!"
    )
    begun = time.monotonic()
    try:
        text = str(g.sh(f"{command} 2>&1"))
    except RuntimeError as error:
        if time.monotonic() - begun < minutes * 60:
            raise
        raise RuntimeError(f"it was ended after {minutes:g} minutes") from error
    finally:
        _, left = run_in_appliance(g, f"kill {clock.strip()}; {_KILL}")
        if left.strip():
            names = ", ".join(left.split())
            report.log(Level.DEBUG, f"Left running in the guest, and ended: {names}.")
    report.log(Level.DEBUG, text)
    return text
