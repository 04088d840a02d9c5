"""libvirt's own driver for VMware against a server of the test that speaks vSphere's protocol."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from inventory.sources.base import disk_uri
from inventory.sources.errors import SourceError
from inventory.sources.host_access import HostAccess
from inventory.sources.host_listing import HostListing, ListedDomain
from inventory.sources.libvirt_child import read_host
from inventory.sources.libvirt_errors import why_no_connection
from inventory.sources.nbdkit import Servers
from inventory.sources.power import Power
from inventory.sources.readers import reader_for
from inventory.sources.remote import RemoteReader
from inventory.sources.types import Controller
from tests.https_server import make_certificate
from tests.vsphere import PASSWORD, VSphere

DISK_BYTES = 4 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "flat.vmdk"
    path.write_bytes(random.Random(5).randbytes(DISK_BYTES))
    return path


@pytest.fixture
def esx(tmp_path: Path, disk: Path) -> Iterator[VSphere]:
    with VSphere(tmp_path, "my vm", "web01", running=("web01",), disk=disk) as server:
        yield server


@pytest.fixture
def vcenter(tmp_path: Path) -> Iterator[VSphere]:
    with VSphere(tmp_path, "my vm", vcenter=True) as server:
        yield server


def access(server: VSphere, query: str = "?no_verify=1", **more: str) -> HostAccess:
    return HostAccess(uri=server.uri(query), password=PASSWORD, **more)


def read(asked: HostAccess) -> HostListing:
    return read_host(asked, with_domains=True, seconds=20)


def refused(asked: HostAccess) -> SourceError:
    with pytest.raises(SourceError) as caught:
        read(asked)
    assert PASSWORD not in caught.value.message + caught.value.remedy
    return caught.value


def by_name(listing: HostListing) -> dict[str, ListedDomain]:
    return {domain.name: domain for domain in listing.domains}


def test_an_esxi_host_lists_its_machines_with_disks_cards_and_state(esx: VSphere) -> None:
    listing = read(access(esx))
    assert listing.description == "ESX 7.0.3 on esx1.example.org"
    assert listing.count == 2
    found = by_name(listing)
    assert (found["my vm"].power, found["web01"].power) == (Power.SHUT_OFF, Power.RUNNING)
    assert found["my vm"].uuid == "564d0000-0000-0000-0000-000000000001"
    source = found["my vm"].source
    assert source is not None
    assert [(d.path, d.remote, d.controller) for d in source.disks] == [
        ("[ds1] my vm/my vm.vmdk", True, Controller.SCSI)
    ]
    assert [(n.vnet, n.mac, n.model) for n in source.nics] == [
        ("VM Network", "00:0c:29:00:00:01", "vmxnet3")
    ]
    assert (source.hypervisor, source.memory_bytes, source.vcpus) == ("vmware", 1 << 30, 2)


def test_a_vcenter_lists_the_machines_of_the_host_at_the_path(vcenter: VSphere) -> None:
    assert list(by_name(read(access(vcenter)))) == ["my vm"]


@pytest.mark.parametrize(
    ("path", "query", "code"),
    [
        ("DC%209/esx1", "?no_verify=1", "E-LV-VPX-PATH"),
        ("DC%201/esx9", "?no_verify=1", "E-LV-VPX-PATH"),
        ("DC%201", "?no_verify=1", "E-LV-VPX-PATH"),
        (None, "", "E-LV-CERTIFICATE"),
    ],
)
def test_what_a_vcenter_does_not_take_is_said_with_the_remedy(
    vcenter: VSphere, path: str | None, query: str, code: str
) -> None:
    error = refused(HostAccess(uri=vcenter.uri(query, path=path), password=PASSWORD))
    assert error.code == code
    assert "127.0.0.1" in error.message
    assert error.remedy


def test_a_wrong_password_is_named_as_such_and_tried_once(esx: VSphere) -> None:
    error = refused(replace(access(esx), password="wrong"))
    assert error.code == "E-LV-AUTH"
    assert "127.0.0.1 refuses the user root or the password" in error.message
    assert esx.refused == 1


def test_a_vcenter_under_an_esxi_hosts_address_is_told(vcenter: VSphere) -> None:
    uri = vcenter.uri("?no_verify=1", path="").replace("vpx://", "esx://")
    assert refused(HostAccess(uri=uri, password=PASSWORD)).code == "E-LV-VPX-OR-ESX"


def test_an_unknown_certificate_comes_with_the_thumbprint_to_compare(esx: VSphere) -> None:
    error = refused(access(esx, ""))
    assert error.code == "E-LV-CERTIFICATE"
    thumbprint = error.message.split("SHA-256 thumbprint is ")[1].removesuffix(".")
    assert esx.logins == esx.refused == 0
    assert len(by_name(read(access(esx, "", thumbprint=thumbprint)))) == 2


@pytest.mark.parametrize("query", ["", "?no_verify=1"])
def test_a_thumbprint_counts_more_than_who_signed(esx: VSphere, query: str) -> None:
    assert len(by_name(read(access(esx, query, thumbprint=esx.thumbprint)))) == 2


def test_a_vcenter_is_reached_through_its_thumbprint_too(vcenter: VSphere) -> None:
    assert len(by_name(read(access(vcenter, "", thumbprint=vcenter.thumbprint)))) == 1


def test_another_certificate_gets_no_password(esx: VSphere, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    _file, other = make_certificate(folder)
    error = refused(access(esx, "?no_verify=1", thumbprint=other))
    assert error.code == "E-VC-THUMBPRINT"
    assert esx.logins == esx.refused == 0


def test_a_server_without_answer_is_told_from_one_that_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for thumbprint, code in (("", "E-LV-CONNECT"), ("ab" * 20, "E-VC-CONNECT")):
        asked = HostAccess(uri=f"esx://root@127.0.0.1:{port}/", password="x", thumbprint=thumbprint)
        error = refused(asked)
        assert (error.code, "port answers" in error.remedy) == (code, True)


def test_a_driver_that_libvirt_lacks_is_named() -> None:
    with pytest.raises(libvirt.libvirtError) as caught:
        libvirt.openReadOnly("hyperv://127.0.0.1/")
    reason = why_no_connection("hyperv://127.0.0.1/", caught.value)
    assert reason.code == "E-LV-DRIVER"
    assert "cannot speak with hyperv://" in reason.message


def test_the_password_is_in_no_argument_and_no_environment(
    esx: VSphere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "seen"
    spy = (
        f"import pathlib, os, sys; pathlib.Path({str(note)!r}).write_text("
        "pathlib.Path('/proc/self/cmdline').read_text() + str(dict(os.environ)));"
        "from inventory.sources.libvirt_listing import main; main()"
    )
    monkeypatch.setattr("inventory.sources.libvirt_child._PROGRAM", [sys.executable, "-c", spy])
    assert len(read(access(esx)).domains) == 2
    assert note.stat().st_size
    assert PASSWORD not in note.read_text()


@pytest.mark.parametrize("pinned", [True, False])
def test_the_engine_reads_a_machine_whole_by_its_uuid(
    esx: VSphere, disk: Path, tmp_path: Path, pinned: bool
) -> None:
    """From libvirt's description to the last byte of the disk, and nothing of it faked."""
    work = tmp_path / "work"
    work.mkdir()
    options = {"https-thumbprint": (esx.thumbprint,)} if pinned else {}
    reader = reader_for(
        "libvirt",
        "564d0000-0000-0000-0000-000000000001",
        work_dir=work,
        warn=lambda _text: None,
        connection=esx.uri("" if pinned else "?no_verify=1"),
        password=PASSWORD,
        options=options,
    )
    assert isinstance(reader, RemoteReader)
    lines: list[str] = []
    out = tmp_path / "out"
    with Servers(work, lines.append) as servers:
        source = reader.serve(reader.read(), servers)
        subprocess.run(
            ["qemu-img", "convert", "-O", "raw", disk_uri(source.disks[0]), str(out)], check=True
        )
    assert source.name == "my vm"
    assert out.read_bytes() == disk.read_bytes()
    assert PASSWORD not in json.dumps(lines)


def test_a_machine_that_runs_is_refused(esx: VSphere, tmp_path: Path) -> None:
    reader = reader_for(
        "libvirt", "web01", work_dir=tmp_path, warn=lambda _text: None,
        connection=esx.uri("?no_verify=1"), password=PASSWORD,
    )  # fmt: skip
    with pytest.raises(SourceError) as caught:
        reader.read()
    assert caught.value.code == "E-LV-RUNNING"
