"""A real Ceph cluster on loopback, as small as there is one: a monitor and a store in memory."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from inventory.sources.programs import WITH_US

POOL = "vms"
USER = "v2v"
_CONFIG = """[global]
fsid = {fsid}
mon host = {monitors}
public network = 127.0.0.0/8
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
osd objectstore = memstore
memstore device bytes = 4294967296
keyring = {folder}/keyring
run dir = {folder}
admin socket =
log file = {folder}/$name.log
mon data = {folder}/mon
osd data = {folder}/osd
"""
_CLIENT = """[global]
mon host = {monitors}
keyring = {folder}/client.keyring
admin socket =
client mount timeout = 5
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceph:
    """A cluster with one pool; `client_config` is what a client's CEPH_CONF names."""

    folder: Path
    port: int

    @property
    def client_config(self) -> Path:
        return self.folder / "client.conf"

    def add_image(self, disk: Path, name: str) -> None:
        """Write a raw disk into the pool."""
        self.ask("rbd", "import", "--no-progress", str(disk), f"{POOL}/{name}")

    def ask(self, program: str, *words: str, sent: str = "") -> str:
        """Run one of Ceph's programs as its administrator."""
        command = [program, "-c", str(self.folder / "ceph.conf"), *words]
        done = subprocess.run(command, input=sent, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def source(self, image: str, *, user: str = USER, more: str = "") -> str:
        """Return the source of a libvirt disk."""
        return (
            f"<source protocol='rbd' name='{POOL}/{image}'>"
            f"<host name='127.0.0.1' port='{self.port}'/><auth username='{user}'>"
            f"<secret type='ceph' uuid='{uuid.uuid4()}'/></auth>{more}</source>"
        )


@contextmanager
def ceph_cluster(folder: Path) -> Iterator[Ceph]:
    """Run a cluster until the block ends; it needs some seconds to come up."""
    if shutil.which("ceph-mon") is None or shutil.which("ceph-osd") is None:
        pytest.skip("Ceph is not installed (script/setup --with-tests installs it)")
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        port, port_2 = one.getsockname()[1], two.getsockname()[1]
    monitors = f"[v2:127.0.0.1:{port_2},v1:127.0.0.1:{port}]"
    ceph = Ceph(folder=folder, port=port)
    fsid, keyring = str(uuid.uuid4()), str(folder / "keyring")
    texts = {"fsid": fsid, "monitors": monitors, "folder": folder}
    (folder / "ceph.conf").write_text(_CONFIG.format(**texts))
    ceph.client_config.write_text(_CLIENT.format(**texts))
    for name in ("mon", "osd"):
        (folder / name).mkdir()
    new_key = ["--gen-key", "--cap", "mon", "allow *"]
    _run("ceph-authtool", "--create-keyring", keyring, "-n", "mon.", *new_key)
    _run("ceph-authtool", keyring, "-n", "client.admin", *new_key, "--cap", "osd", "allow *")
    monmap = str(folder / "monmap")
    _run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", monitors, monmap)
    ceph.ask("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
    started = [_start(ceph, "ceph-mon", "a")]
    try:
        osd, secret = str(uuid.uuid4()), _run("ceph-authtool", "--gen-print-key").strip()
        ceph.ask("ceph", "osd", "new", osd, "-i", "-", sent=json.dumps({"cephx_secret": secret}))
        _run("ceph-authtool", keyring, "-n", "osd.0", "--add-key", secret)
        ceph.ask("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd, "--keyring", keyring)
        started.append(_start(ceph, "ceph-osd", "0"))
        end = time.monotonic() + 60
        while not json.loads(ceph.ask("ceph", "osd", "stat", "-f", "json"))["num_up_osds"]:
            assert time.monotonic() < end, "the store of Ceph did not come up"
            time.sleep(0.2)
        ceph.ask("ceph", "osd", "pool", "create", POOL, "1")
        may = ("mon", "profile rbd", "osd", f"profile rbd pool={POOL}")
        made = ceph.ask("ceph", "auth", "get-or-create", f"client.{USER}", *may)
        (folder / "client.keyring").write_text(made)
        yield ceph
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()


def _start(ceph: Ceph, program: str, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*WITH_US, program, "-c", str(ceph.folder / "ceph.conf"), "-f", "-i", name],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
