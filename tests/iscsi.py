"""A real iSCSI target on loopback, of the package tgt."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from inventory.sources.programs import WITH_US

TARGET = "iqn.2026-01.org.example:disks"


@dataclass(frozen=True, slots=True, kw_only=True)
class IscsiServer:
    """One target with one LUN, the number 1; `control` is how tgtadm finds the daemon."""

    port: int
    control: str

    def source(self, *, lun: str = "/1", more: str = "") -> str:
        """Return the source of a libvirt disk."""
        host = f"<host name='127.0.0.1' port='{self.port}'/>"
        return f"<source protocol='iscsi' name='{TARGET}{lun}'>{host}{more}</source>"


@contextmanager
def iscsi_server(disk: Path) -> Iterator[IscsiServer]:
    """Offer a disk until the block ends."""
    if shutil.which("tgtd") is None or os.geteuid() != 0:
        pytest.skip("tgt is not installed (script/setup --with-tests installs it), or no root")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = IscsiServer(port=port, control=str(random.randrange(100, 30000)))
    portal = f"portal=127.0.0.1:{port}"
    command = [*WITH_US, "tgtd", "-f", "-C", server.control]
    process = subprocess.Popen(
        [*command, "--iscsi", portal], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _ask(server, "target", "new", "-T", TARGET)
        _ask(server, "logicalunit", "new", "--lun", "1", "-b", str(disk))
        _ask(server, "target", "bind", "-I", "ALL")
        yield server
    finally:
        # It takes no other signal while it has targets.
        process.kill()
        process.wait()


def _ask(server: IscsiServer, mode: str, op: str, *words: str) -> None:
    command = ["tgtadm", "-C", server.control, "--lld", "iscsi", "--mode", mode, "--op", op]
    end = time.monotonic() + 20
    while True:
        done = subprocess.run([*command, "--tid", "1", *words], capture_output=True, text=True)
        if done.returncode == 0:
            return
        assert time.monotonic() < end, done.stderr
        time.sleep(0.05)
