"""Whole machines whose disks lie behind servers: iSCSI and Ceph, and a libvirt host over ssh."""

from __future__ import annotations

import getpass
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import guestfs
import pytest

from conversions.pipeline.accelerator import choose_accelerator
from tests.appliance.phony import DEBIAN, write_tar
from tests.ceph import ceph_cluster
from tests.guests.layouts import make_plain
from tests.iscsi import iscsi_server
from tests.libvirt_daemon import running_libvirtd
from tests.sshd import Sshd

MIB = 1 << 20
DOMAIN = (
    "<domain type='qemu'><name>{}</name><memory>1048576</memory>"
    "<os><type arch='x86_64' machine='pc'>hvm</type></os><devices>{}</devices></domain>"
)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The disk of a guest."""
    folder = tmp_path_factory.mktemp("guest")
    write_tar(folder / "tree.tar", DEBIAN)
    path = folder / "system.raw"
    with path.open("wb") as stream:
        stream.truncate(400 * MIB)
    g = guestfs.GuestFS(python_return_dict=False, close_on_exit=False)
    g.set_backend("direct")
    g.set_backend_settings([] if choose_accelerator().kvm else ["force_tcg"])
    g.add_drive_opts(str(path), format="raw", cachemode="unsafe")
    g.launch()
    make_plain(g, "/dev/sda", folder / "tree.tar")
    g.shutdown()
    g.close()
    return path


@pytest.fixture
def converted(repository: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Convert a machine into the folder `out` with the command line; return what was reported."""

    def run(*arguments: str, **environment: str) -> dict[str, Any]:
        (tmp_path / "out").mkdir()
        target = ["-o", "local", "-os", str(tmp_path / "out"), "-of", "raw"]
        done = subprocess.run(
            [sys.executable, "-m", "conversions.pipeline", "--events", *arguments, *target],
            cwd=repository, env=os.environ | environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        events = [json.loads(line) for line in done.stdout.splitlines()]
        assert done.returncode == 0, events[-1]
        return {e["name"]: e["data"] for e in events if e["type"] == "report"}

    return run


def test_a_machine_with_disks_on_iscsi_and_in_ceph(
    system: Path, converted: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    data = tmp_path / "data.raw"
    data.write_bytes(random.Random(3).randbytes(8 * MIB))
    (tmp_path / "ceph").mkdir()
    before = system.read_bytes()
    with iscsi_server(system) as iscsi, ceph_cluster(tmp_path / "ceph") as ceph:
        ceph.add_image(data, "data")
        disk = "<disk type='network' device='disk'>{}</disk>"
        disks = disk.format(iscsi.source()) + disk.format(ceph.source("data"))
        xml = tmp_path / "web.xml"
        xml.write_text(DOMAIN.format("web", disks))
        report = converted("-i", "libvirtxml", str(xml), CEPH_CONF=str(ceph.client_config))
    assert report["inspection"]["distro"] == "debian"
    assert [o["source"].partition(":")[0] for o in report["overlays"]] == ["iscsi", "rbd"]
    assert (tmp_path / "out/web-sdb").read_bytes() == data.read_bytes()
    assert (tmp_path / "out/web-sda").stat().st_size == len(before)
    assert system.read_bytes() == before


def test_a_machine_of_a_libvirt_host_is_read_over_ssh_with_its_layers(
    system: Path, converted: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(system, folder / "base.raw")
    top = folder / "top.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", str(top)]
    subprocess.run(command, check=True)
    before = [(p.name, p.stat().st_mtime_ns) for p in sorted(folder.iterdir())]
    name = f"ssh-{os.getpid()}"
    disk = (
        f"<disk type='file'><driver type='qcow2'/><source file='{top}'/><target dev='sda'/></disk>"
    )
    try:
        with running_libvirtd(tmp_path) as link, Sshd(tmp_path) as sshd:
            domain = link.defineXML(DOMAIN.format(name, disk))
            try:
                uri = f"qemu+libssh://{getpass.getuser()}@localhost:{sshd.port}/system"
                home = sshd.home()
                # libvirt's libssh looks there, nbdkit's in the home of the user alone.
                (home / ".config/libvirt").mkdir(parents=True)
                shutil.copy(home / ".ssh/known_hosts", home / ".config/libvirt/known_hosts")
                options = ["-io", f"ssh-identity={home}/.ssh/id_ed25519"]
                options += ["-io", f"ssh-known-hosts={home}/.ssh/known_hosts"]
                report = converted(
                    "-i", "libvirt", "-ic", uri, "-it", "ssh", *options, name, HOME=str(home)
                )  # fmt: skip
            finally:
                domain.undefine()
    except PermissionError as error:
        pytest.skip(str(error))
    assert report["inspection"]["distro"] == "debian"
    assert report["overlays"][0]["source"] == str(top)
    assert (tmp_path / f"out/{name}-sda").stat().st_size == system.stat().st_size
    assert [(p.name, p.stat().st_mtime_ns) for p in sorted(folder.iterdir())] == before
