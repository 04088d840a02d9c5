"""Machines as VMX files in a folder over ssh, from a real sshd on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from inventory.sources.errors import SourceError
from inventory.sources.host_access import HostAccess, checked_address
from inventory.sources.host_listing import HostListing, ListedDomain
from inventory.sources.libvirt_child import read_host
from inventory.sources.power import Power
from inventory.sources.ssh import ssh_path, ssh_uri
from inventory.sources.types import Controller
from inventory.sources.vmx_beside import power_beside
from tests.sshd import Sshd

VMX = """displayName = "{name}"
memSize = "512"
numvcpus = "2"
guestOS = "debian10-64"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "{disk}"
"""


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("sshd")) as daemon:
        yield daemon


@pytest.fixture(autouse=True)
def _home(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(sshd.home()))


def add(folder: Path, name: str, *, disk: str = "disk.vmdk", flat_bytes: int = 4096) -> Path:
    """Put a machine with one flat disk into a folder of its own."""
    place = folder / name
    place.mkdir(parents=True)
    (place / f"{name}.vmx").write_text(VMX.format(name=name, disk=disk))
    if flat_bytes:
        (place / "disk-flat.vmdk").write_bytes(bytes(flat_bytes))
    return place


def read(sshd: Sshd, path: Path | str, *, seconds: int = 20) -> HostListing:
    uri = ssh_uri(sshd.uri(), str(path))
    return read_host(HostAccess(uri=uri), with_domains=True, seconds=seconds)


def refused(sshd: Sshd, path: Path | str, *, seconds: int = 20) -> SourceError:
    with pytest.raises(SourceError) as caught:
        read(sshd, path, seconds=seconds)
    return caught.value


def by_name(listing: HostListing) -> dict[str, ListedDomain]:
    return {domain.name: domain for domain in listing.domains}


def test_the_machines_of_a_datastore_are_listed(sshd: Sshd, tmp_path: Path) -> None:
    store = tmp_path / "data store 1"
    for name in ("web 01", "db [50%]", "größe"):
        add(store, name)
    (store / "notes.txt").touch()
    (store / ".sdd.sf").mkdir()
    listing = read(sshd, store)
    assert (listing.description, listing.count) == (f"VMX files of {store} on localhost", 3)
    found = by_name(listing)
    assert list(found) == ["db [50%]", "größe", "web 01"]
    web = found["web 01"]
    assert (web.uuid, web.power, web.problem) == (
        str(store / "web 01/web 01.vmx"), Power.SHUT_OFF, "",
    )  # fmt: skip
    assert web.source is not None
    (disk,) = web.source.disks
    assert (disk.path, disk.format, disk.remote, disk.controller, disk.declared_capacity_bytes) == (
        str(store / "web 01/disk-flat.vmdk"), "raw", True, Controller.SCSI, 4096,
    )  # fmt: skip
    assert (web.memory_bytes, web.vcpus) == (512 << 20, 2)
    asked = HostAccess(uri=f"{ssh_uri(sshd.uri(), str(store))}/")
    assert read_host(asked, with_domains=False, seconds=20) == HostListing(
        description=listing.description, count=3
    )


def test_one_machine_is_named_by_its_file(sshd: Sshd, tmp_path: Path) -> None:
    place = add(tmp_path, "web01")
    add(tmp_path, "web02")
    (place / "web01.vmx.lck").touch()
    assert by_name(read(sshd, place / "web01.vmx"))["web01"].power is Power.RUNNING
    assert refused(sshd, place / "web03.vmx").code == "E-SSH-NOFILE"


def test_what_cannot_be_used_says_why_and_holds_up_no_other(sshd: Sshd, tmp_path: Path) -> None:
    add(tmp_path, "good")
    add(tmp_path, "snapshots", flat_bytes=0)
    add(tmp_path, "elsewhere", disk="../other/disk.vmdk")
    (add(tmp_path, "broken") / "broken.vmx").write_text("nothing of it\n")
    with (add(tmp_path, "large") / "large.vmx").open("ab") as stream:
        stream.truncate(2 << 20)
    (tmp_path / "gone").symlink_to("/nonexistent")
    found = by_name(read(sshd, tmp_path))
    codes = {name: domain.code for name, domain in found.items()}
    assert codes == {
        "good": "", "snapshots": "E-VMX-SNAPSHOT", "elsewhere": "E-VMX-OUTSIDE",
        "broken": "E-VMX-EMPTY", "large": "E-SSH-SIZE",
    }  # fmt: skip
    # What is known of it is still told.
    assert (found["snapshots"].vcpus, found["broken"].vcpus) == (2, 0)


@pytest.mark.parametrize(
    ("files", "power"),
    [
        ({}, Power.SHUT_OFF),
        ({"web.vmx.lck": 0}, Power.RUNNING),
        ({"web.vmx.lck": 0, "web-1a.vmss": 9}, Power.RUNNING),
        ({"web-1a2b.vmem": 9}, Power.SUSPENDED),
        ({"web-1a.vmss": 9}, Power.SUSPENDED),
        ({"web-1a.vmss": 0}, Power.SHUT_OFF),
        ({"web2.vmx.lck": 0, "other.vmem": 9}, Power.SHUT_OFF),
    ],
)
def test_the_files_beside_tell_whether_it_runs(files: dict[str, int], power: Power) -> None:
    assert power_beside("web.vmx", {"web.vmx": 100, **files})[0] is power


@pytest.mark.parametrize(
    ("key", "known", "code"),
    [("client", "unknown", "E-LV-HOSTKEY"), ("other", "known", "E-LV-AUTH")],
)
def test_strangers_are_not_trusted(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, known: str, code: str
) -> None:
    monkeypatch.setenv("HOME", str(sshd.home(key=key, known=known)))
    error = refused(sshd, tmp_path)
    assert (error.code, "runs the workers" in error.remedy) == (code, True)


def test_a_folder_that_is_not_there_is_told_from_a_host_that_is_not(
    sshd: Sshd, tmp_path: Path
) -> None:
    error = refused(sshd, tmp_path / "none")
    assert (error.code, f"{tmp_path}/none of localhost" in error.message) == ("E-SSH-NOFILE", True)
    with pytest.raises(SourceError) as caught:
        read_host(HostAccess(uri="ssh://root@127.0.0.1:1/x"), with_domains=True, seconds=20)
    assert caught.value.code == "E-SSH-CONNECT"
    assert "Connection refused" in caught.value.message


@pytest.mark.parametrize(
    "uri", ["ssh://root@esx1/vmfs/volumes/ds1", "ssh://esx1/a/", "ssh://esx1:2222/my%20vm/a.vmx",
            "ssh://DOMAIN%5Cada@[fe80::1]/a"],
)  # fmt: skip
def test_addresses_that_may_be_used(uri: str) -> None:
    assert checked_address(uri) == uri


@pytest.mark.parametrize(
    "uri",
    ["ssh://h", "ssh://h/", "ssh:///a", "ssh:a", "ssh://-oProxyCommand=id/a", "ssh://u@-h/a",
     "ssh://-oProxyCommand=id@h/a", "ssh://u:secret@h/a", "ssh://h:99999/a", "ssh://h/a%0ab",
     "ssh://h/a?x=y", "ssh://h/a#b", "ssh://h/../a", "ssh://h/a/%2e%2e/b", "ssh://h/a//b",
     "ssh://h//a", "ssh://h/a b", "ssh://h/a%00", "ssh://h/\u00e9", "ssh://h/" + 500 * "a",
     "ssh://h/a?-oProxyCommand=id", "SSH://h/a"],
)  # fmt: skip
def test_addresses_that_are_refused_start_no_process(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inventory.sources.libvirt_child._ask", None)
    with pytest.raises(SourceError) as caught:
        read_host(HostAccess(uri=uri), with_domains=True, seconds=1)
    assert caught.value.code in ("E-SSH-URI", "E-LV-URI")


def test_the_address_of_another_path_on_the_same_host() -> None:
    uri = ssh_uri("ssh://root@esx1:2222/vmfs/volumes/ds1", "/vmfs/volumes/ds1/my vm/größe?.vmx")
    assert uri == "ssh://root@esx1:2222/vmfs/volumes/ds1/my%20vm/gr%C3%B6%C3%9Fe%3F.vmx"
    assert ssh_path(uri) == "/vmfs/volumes/ds1/my vm/größe?.vmx"
