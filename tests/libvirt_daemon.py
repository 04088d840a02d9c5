"""A libvirtd for as long as something needs one."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import libvirt

from conversions.pipeline.accelerator import choose_accelerator
from tests.guests.cache import cache_folder

URI = "qemu:///system"
ROOT = Path(__file__).resolve().parents[1]
# libvirtd would try a KVM that does not work every time it is asked; its private mounts for each
# machine would not stand the one that hides it.
_HIDE = (
    'cd "$0" && touch kvm && chmod 0 kvm && mount --bind kvm /dev/kvm && '
    "echo 'namespaces = []' >qemu.conf && mount --bind qemu.conf /etc/libvirt/qemu.conf; "
    'cd "$OLDPWD"; exec "$@"'
)


@contextmanager
def running_libvirtd(folder: Path) -> Iterator[libvirt.virConnect]:
    """Connect to the host's libvirtd, started when it does not run; `folder` is for its files.

    One at a time, for whoever has started the daemon ends it.  Raises PermissionError when it would
    have to be started by another user than root.
    """
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    with (cache_folder() / "libvirtd.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        connection, started = _connect_or_start(folder)
        try:
            yield connection
        finally:
            connection.close()
            for process in reversed(started):
                process.terminate()
                process.wait(60)


def _connect_or_start(folder: Path) -> tuple[libvirt.virConnect, list[subprocess.Popen[bytes]]]:
    try:
        return libvirt.open(URI), []
    except libvirt.libvirtError as error:
        if os.getuid():
            raise PermissionError("libvirtd does not run, and only root can start it") from error
    started = []
    for program in ("virtlogd", "libvirtd"):
        command = [*_without_kvm(folder), sys.executable, "-m", "tests.reaper", program]
        started.append(
            subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
            )
        )
    return _connected(time.monotonic() + 60), started


def _without_kvm(folder: Path) -> list[str]:
    """Return the words before a command that let it see no KVM, where that does not work.

    None where a process may not have mounts of its own: libvirtd is only slower then.
    """
    may_mount = subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
    if choose_accelerator().kvm or not may_mount:
        return []
    return ["unshare", "-m", "sh", "-c", _HIDE, str(folder)]


def _connected(deadline: float) -> libvirt.virConnect:
    while True:
        try:
            return libvirt.open(URI)
        except libvirt.libvirtError:
            assert time.monotonic() < deadline, "libvirtd did not come up"
            time.sleep(0.1)
