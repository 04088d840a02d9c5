"""Disks of libvirt domains behind a network protocol: real servers on loopback."""

from __future__ import annotations

import getpass
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from inventory.sources import network_disks
from inventory.sources.base import disk_uri
from inventory.sources.domain_xml import parse_domain
from inventory.sources.errors import SourceError
from inventory.sources.nbdkit import Servers, quoted
from inventory.sources.network_disks import rbd_volume, refuse_places, serve_network_disks
from inventory.sources.ssh import SshHost
from inventory.sources.types import Source, SourceDisk
from tests.ceph import POOL, Ceph, ceph_cluster
from tests.iscsi import TARGET, iscsi_server
from tests.sshd import Sshd
from tests.unit.sources.conftest import SIZE, read_through


def network_domain(*sources: str) -> tuple[Source, list[str]]:
    warnings: list[str] = []
    disks = "".join(f"<disk type='network' device='disk'>{s}</disk>" for s in sources)
    xml = (
        "<domain type='kvm'><name>n</name><devices>"
        f"<disk type='file' device='disk'><source file='/a'/></disk>{disks}</devices></domain>"
    )
    return parse_domain(xml.encode(), warnings.append, lambda _p, _v: None), warnings


def https(name: str, port: str = "", host: str = "h.example.org") -> str:
    at = f" port='{port}'" if port else ""
    return f"<source protocol='https' name='{name}'><host name='{host}'{at}/></source>"


@pytest.fixture
def nbd_port(image: Path, tmp_path: Path) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pid_file = tmp_path / "tcp.pid"
    command = ["nbdkit", "-f", "--exit-with-parent", "-i", "localhost", "-p", str(port), "-r"]
    process = subprocess.Popen([*command, "-P", str(pid_file), "-e", "e", "file", str(image)])
    end = time.monotonic() + 10
    while not pid_file.exists() and time.monotonic() < end:
        time.sleep(0.02)
    yield port
    process.terminate()
    process.wait()


@pytest.mark.rows("1-T209")
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])  # as another host's address
def test_a_disk_of_an_nbd_server_is_read(
    nbd_port: int, image: Path, tmp_path: Path, host: str
) -> None:
    source, warnings = network_domain(
        f"<source protocol='nbd' name='e'><host name='{host}' port='{nbd_port}'/></source>"
    )
    assert warnings == []
    assert read_through(source.disks[1], tmp_path) == image.read_bytes()
    assert Source.from_dict(source.to_dict()) == source


@pytest.mark.rows("1-T209")
@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("<source protocol='gluster' name='v/i'><host name='h'/></source>", "'gluster'"),
        ("<source protocol='rbd' name='i'><host name='mon'/></source>", "no image"),
        ("<source protocol='rbd' name='p/i@s'><host name='mon'/></source>", "no image"),
        ("<source protocol='rbd' name='p/i:conf=/x'><host name='mon'/></source>", "no image"),
        ("<source protocol='rbd' name='p/-i'><host name='mon'/></source>", "no image"),
        ("<source protocol='rbd' name='p/i'><host name='h'/><auth username='a:b'/></source>",
         "no image"),
        ("<source protocol='rbd' name='p/i'><config file='/etc/x'/></source>", "configuration"),
        ("<source protocol='rbd' name='p/i'><host name='-x'/></source>", "its host"),
        ("<source protocol='iscsi' name='iqn:x/1'><host name='h'/></source>", "no iSCSI target"),
        ("<source protocol='iscsi' name='iqn.x:y/a'><host name='h'/></source>", "number of a LUN"),
        ("<source protocol='iscsi' name='iqn.x:y/1/2'><host name='h'/></source>", "of a LUN"),
        ("<source protocol='iscsi' name='iqn.x:y'/>", "no host"),
        ("<source protocol='iscsi' name='iqn.x:y'><host name='h'/>"
         "<auth type='chap' username='u'/></source>", "password"),
        ("<auth username='u'/><source protocol='iscsi' name='iqn.x:y'><host name='h'/></source>",
         "password"),
        ("<source protocol='iscsi' name='iqn.x:y'><host name='h'/>"
         "<initiator><iqn name='a b'/></initiator></source>", "initiator"),
        ("<source protocol='nbd' name='e'><host name=':::1'/></source>", "its host"),
        ("<source protocol='ssh' name='d'><host name='h'/></source>", "no path"),
        ("<source protocol='ssh' name='/a/../d'><host name='h'/></source>", "no path"),
        ("<source protocol='ssh' name='/d'><host name='-oX'/></source>", "its host"),
        ("<source protocol='ssh' name='/d'><host name='h'/><identity username='-x'/></source>",
         "ssh user"),
        ("<source protocol='http' name='d'><host name='h'/></source>", "'http'"),
        ("<source protocol='nbd'><host name='h,file=x' port='10809'/></source>", "its host"),
        ("<source protocol='nbd'><host transport='unix' socket='/s'/></source>", "TCP"),
        ("<source protocol='nbd' tls='yes'><host name='localhost'/></source>", "TLS"),
        ("<source protocol='nbd' name='e'/>", "no host"),
        ("<source protocol='https' name='d'><host name='-oX'/></source>", "its host"),
        ("<source protocol='https' name='d'><host name='h/x@y'/></source>", "its host"),
        ("<source protocol='https' name='../d'><host name='h'/></source>", r"\.\."),
        ("<source protocol='https' name='d' query='a=b'><host name='h'/></source>", "query"),
        ("<driver type='vmdk'/><source protocol='https' name='d'><host name='h'/></source>",
         "vmdk"),
        ("", "''"),
    ],
)  # fmt: skip
def test_network_disks_that_cannot_be_read_say_why(source: str, why: str) -> None:
    with pytest.raises(SourceError, match=why) as caught:
        network_domain(source)
    assert caught.value.code == "E-LV-DISK"


@pytest.mark.rows("1-T210")
def test_addresses_of_https_disks() -> None:
    source, _ = network_domain(
        https("/a b_c", "443"), https("d", "8443"), https("d"), https("d;$(x)?#", host="::1")
    )
    assert [disk.path for disk in source.disks[1:]] == [
        "https://h.example.org/a%20b%5fc", "https://h.example.org:8443/d",
        "https://h.example.org/d", "https://[::1]/d%3b%24%28x%29%3f%23",
    ]  # fmt: skip
    assert all(disk.remote and disk.node is None for disk in source.disks[1:])
    with pytest.raises(SourceError) as caught:
        network_domain(https("d", "0"))
    assert caught.value.code == "E-LV-PORT"


def test_what_qemu_is_told_of_iscsi_and_of_ceph() -> None:
    source, _ = network_domain(
        "<source protocol='iscsi' name='iqn.2013-07.com.example:a/2'><host name='::1'/>"
        "<initiator><iqn name='iqn.2013-07.com.example:me'/></initiator></source>",
        "<source protocol='iscsi' name='iqn.2013-07.com.example:a'><host name='h' port='1'/>"
        "</source>",
        "<source protocol='rbd' name='p/ns/i'><host name='m1' port='3300'/><host name='m2'/>"
        "<snapshot name='s'/></source><auth username='libvirt'><secret type='ceph'/></auth>",
        "<source protocol='rbd' name='p/i'/>",
    )
    assert [disk.path for disk in source.disks[1:]] == [
        "iscsi://[::1]:3260/iqn.2013-07.com.example:a/2", "iscsi://h:1/iqn.2013-07.com.example:a/0",
        "rbd://m1:3300/p/ns/i@s", "rbd:///p/i",
    ]  # fmt: skip
    assert [disk.node for disk in source.disks[1:]] == [
        {"driver": "iscsi", "transport": "tcp", "portal": "[::1]:3260", "lun": 2, "timeout": 120,
         "target": "iqn.2013-07.com.example:a", "initiator-name": "iqn.2013-07.com.example:me"},
        {"driver": "iscsi", "transport": "tcp", "portal": "h:1", "lun": 0, "timeout": 120,
         "target": "iqn.2013-07.com.example:a"},
        {"driver": "rbd", "pool": "p", "namespace": "ns", "image": "i", "snapshot": "s",
         "user": "libvirt", "server": [{"host": "m1", "port": "3300"},
                                       {"host": "m2", "port": "6789"}]},
        {"driver": "rbd", "pool": "p", "image": "i"},
    ]  # fmt: skip


def test_a_volume_of_a_pool_of_ceph() -> None:
    pool = etree.fromstring(
        "<pool type='rbd'><name>x</name><source><host name='m1' port='3300'/><name>vms</name>"
        "<auth type='ceph' username='libvirt'><secret uuid='u'/></auth></source></pool>"
    )
    place = rbd_volume(pool, "web01")
    assert (place.path, place.format, place.remote) == ("rbd://m1:3300/vms/web01", "raw", True)
    assert place.node is not None
    assert (place.node["user"], place.node["pool"]) == ("libvirt", "vms")


def test_a_disk_of_an_iscsi_target_is_read(image: Path, tmp_path: Path) -> None:
    with iscsi_server(image) as server:
        source, _ = network_domain(server.source(), server.source(lun="/7"))
        good, bad = source.disks[1:]
        with Servers(tmp_path) as servers:
            (disk,) = serve_network_disks(replace(source, disks=(good,)), servers).disks
            assert disk.virtual_size_bytes == SIZE
            assert read_through(disk, tmp_path) == image.read_bytes()
            with pytest.raises(SourceError, match=f"{TARGET}/7 .*LOGICAL_UNIT_NOT_SUPP") as caught:
                serve_network_disks(replace(source, disks=(bad,)), servers)
    assert "reaches the portal" in caught.value.remedy
    with Servers(tmp_path) as servers, pytest.raises(SourceError, match="Failed to connect"):
        serve_network_disks(replace(source, disks=(good,)), servers)


@pytest.fixture(scope="module")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    with ceph_cluster(tmp_path_factory.mktemp("ceph")) as cluster:
        yield cluster


def test_an_image_of_a_ceph_cluster_is_read(
    ceph: Ceph, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ceph.add_image(image, "web01")
    monkeypatch.setenv("CEPH_CONF", str(ceph.client_config))
    source, _ = network_domain(
        ceph.source("web01"), ceph.source("web02"), ceph.source("web01", user="nobody")
    )
    good, missing, stranger = source.disks[1:]
    with Servers(tmp_path) as servers:
        (disk,) = serve_network_disks(replace(source, disks=(good,)), servers).disks
        assert disk.virtual_size_bytes == SIZE
        assert read_through(disk, tmp_path) == image.read_bytes()
        with pytest.raises(SourceError, match=f"{POOL}/web02 .*No such file"):
            serve_network_disks(replace(source, disks=(missing,)), servers)
        with pytest.raises(SourceError, match="error connecting") as caught:
            serve_network_disks(replace(source, disks=(stranger,)), servers)
    assert "a key of the user" in caught.value.remedy
    # A snapshot is read as it was, whatever the image is by now.
    ceph.ask("rbd", "snap", "create", "--no-progress", f"{POOL}/web01@before")
    ceph.ask("rbd", "resize", "--no-progress", "--allow-shrink", "--size", "0", f"{POOL}/web01")
    snapshot, _ = network_domain(ceph.source("web01", more="<snapshot name='before'/>"))
    assert read_through(snapshot.disks[1], tmp_path) == image.read_bytes()


def test_a_file_of_an_ssh_server_is_read(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sshd(tmp_path) as sshd, Servers(tmp_path) as servers:
        # libssh looks for keys and known hosts in the user's own home, wherever $HOME is.
        own, real = sshd.host(), network_disks.SshHost.from_parts

        def from_parts(uri: str, **words: Any) -> SshHost:
            host = real(uri, **words)
            return replace(host, identity=own.identity, known_hosts=own.known_hosts)

        monkeypatch.setattr(network_disks.SshHost, "from_parts", from_parts)
        user = getpass.getuser()
        source, _ = network_domain(
            f"<source protocol='ssh' name='{image}'><host name='localhost' port='{sshd.port}'/>"
            f"<identity username='{user}' keyfile='/there/id'/></source>"
        )
        (_, disk) = source.disks
        assert disk.path == f"ssh://{user}@localhost:{sshd.port}{quoted(str(image))}"
        (disk,) = serve_network_disks(replace(source, disks=(disk,)), servers).disks
        assert read_through(disk, tmp_path) == image.read_bytes()


@pytest.mark.parametrize(
    ("option", "code"),
    [("backing_file=/etc/hostname,backing_fmt=raw", "E-IMG-BACKING"),
     ("data_file=data.raw", "E-IMG-EXTENT")],
)  # fmt: skip
def test_qemu_opens_no_file_that_the_image_of_a_server_names(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, code: str
) -> None:
    layer = tmp_path / "layer.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-o"]
    subprocess.run([*command, option, str(layer), str(SIZE)], check=True, cwd=tmp_path)
    source, _ = network_domain(
        "<driver type='qcow2'/><source protocol='nbd' name='e'><host name='n'/></source>"
    )
    disk = replace(source.disks[1], node={"driver": "file", "filename": str(layer)})
    # What would open it must not even be asked to.
    monkeypatch.setattr("inventory.sources.nbdkit.virtual_size", None)
    with Servers(tmp_path) as servers, pytest.raises(SourceError) as caught:
        serve_network_disks(replace(source, disks=(disk,)), servers)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("<source protocol='nbd' name='e'><host name='localhost'/></source>", "another place"),
        ("<source protocol='iscsi' name='iqn.x:y'><host name='127.1.2.3'/></source>", "another"),
        ("<source protocol='rbd' name='p/i'/>", "another place"),
        ("<source protocol='rbd' name='p/i'><host name='m'/><host name='localhost'/>"
         "<auth username='u'/></source>", "another place"),
        ("<source protocol='rbd' name='p/i'><host name='m'/></source>", "names no user of Ceph"),
        ("<source protocol='nbd' name='e'><host name='ip6-localhost'/></source>", "another place"),
        ("<source protocol='nbd' name='e'><host name='a.localhost.'/></source>", "another place"),
        ("<source protocol='nbd' name='e'><host name='0.0.0.0'/></source>", "another place"),
        ("<source protocol='nbd' name='e'><host name='::'/></source>", "another place"),
        ("<source protocol='nbd' name='e'><host name='0:0:0:0:0:0:0:1'/></source>", "another"),
        ("<source protocol='nbd' name='e'><host name='::ffff:127.0.0.1'/></source>", "another"),
        ("<source protocol='nbd' name='e'><host name='2130706433'/></source>", "another place"),
        ("<source protocol='nbd' name='e'><host name='0x7f.1'/></source>", "another place"),
        ("<source protocol='nbd' name='e'><host name='0177.0.0.1'/></source>", "another place"),
        ("<source protocol='https' name='x'><host name='169.254.169.254'/></source>", "another"),
        ("<source protocol='ssh' name='/d'><host name='kvm1' port='2222'/>"
         "<identity username='root'/></source>", "on another host"),
        ("<source protocol='https' name='x'><host name='::1'/></source>", "another place"),
        ("<source protocol='ssh' name='/d'><host name='kvm2'/><identity username='root'/>"
         "</source>", "on another host"),
        ("<source protocol='ssh' name='/d'><host name='kvm1'/></source>", "another user"),
    ],
)  # fmt: skip
def test_places_that_mean_something_else_here_are_not_opened(source: str, why: str) -> None:
    machine, _ = network_domain(source)
    refuse_places(machine, "qemu:///system")
    with pytest.raises(SourceError, match=why) as caught:
        refuse_places(machine, "qemu+ssh://root@kvm1/system")
    assert caught.value.code == "E-LV-DISK"


def test_places_that_are_the_same_everywhere_are_opened() -> None:
    machine, _ = network_domain(
        "<source protocol='nbd' name='e'><host name='nbd.example'/></source>",
        "<source protocol='ssh' name='/d'><host name='KVM1'/><identity username='DOM\\joe_'/>"
        "</source>",
        "<source protocol='rbd' name='p/i'><host name='2001:db8::1'/><auth username='u'/></source>",
        "<source protocol='https' name='x'><host name='10.0.0.1'/></source>",
    )
    refuse_places(machine, "qemu+ssh://DOM%5Cjoe_@kvm1/system")


def test_a_machine_of_vmware_has_no_disk_to_open_here(tmp_path: Path) -> None:
    xml = b"<domain type='vmware'><name>n</name><devices><disk type='file' device='disk'>"
    xml += b"<source file='[ds] a/a.vmdk'/></disk></devices></domain>"
    source = parse_domain(xml, pytest.fail, lambda _p, _v: None)
    with Servers(tmp_path) as servers, pytest.raises(SourceError, match="on another host") as got:
        serve_network_disks(source, servers)
    assert "-ic esx://" in got.value.remedy


def test_a_header_that_changes_after_the_look_leads_nowhere(image: Path, tmp_path: Path) -> None:
    layer = tmp_path / "layer.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", str(layer), str(SIZE)]
    subprocess.run(command, check=True)
    disk = SourceDisk(
        id=0, controller=None, path="nbd://n:1/e", format="qcow2", remote=True,
        node={"driver": "file", "filename": str(layer)},
    )  # fmt: skip
    with Servers(tmp_path) as servers:
        checked = servers.checked(disk)
    rebase = ["qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-b", str(image), "-F", "raw"]
    subprocess.run([*rebase, str(layer)], check=True)
    assert read_through(checked, tmp_path) == bytes(SIZE)
    overlay = tmp_path / "overlay.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", disk_uri(checked), "-F", "qcow2"]
    subprocess.run([*create, str(overlay)], check=True)
    convert = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(overlay)]
    subprocess.run([*convert, str(tmp_path / "out")], check=True)
    assert (tmp_path / "out").read_bytes() == bytes(SIZE)
