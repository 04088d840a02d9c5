"""Run a daemon in the foreground and take in the processes it leaves behind.

In a container the first process may never do that; libvirtd waits for seconds until a probe that
it has killed is really gone.  TERM ends the daemon.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys

_PR_SET_CHILD_SUBREAPER = 36


def main(argv: list[str]) -> None:
    """Run the program until it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    daemon = subprocess.Popen(argv)
    signal.signal(signal.SIGTERM, lambda _number, _frame: daemon.terminate())
    while os.wait()[0] != daemon.pid:
        pass


if __name__ == "__main__":
    main(sys.argv[1:])
