"""Folders of VMX files that ssh leads to as hosts of the inventory, on a real sshd on loopback."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from django.test import Client

from conversions.actions import job_of
from conversions.inputs import input_of
from conversions.models import Conversion
from conversions.pipeline.errors import JobError
from conversions.pipeline.source import reader_of
from inventory import hosts, tasks
from inventory.following import Follower
from inventory.models import LibvirtHost, SourceVM
from inventory.sources.base import disk_uri
from inventory.sources.nbdkit import Servers
from inventory.sources.remote import RemoteReader
from tests.demo import make_conversion, make_user
from tests.sshd import Sshd

pytestmark = pytest.mark.django_db
ADD = "/sources/hosts/add/"
VMX = """displayName = "{name}"
memSize = "{memory}"
guestOS = "debian10-64"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "disk.vmdk"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
ethernet0.networkName = "VM Network"
"""


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("sshd")) as daemon:
        yield daemon


@pytest.fixture(autouse=True)
def _home(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(sshd.home()))


@pytest.fixture
def administrator(client: Client) -> Client:
    client.force_login(make_user("root", "Administrators"))
    return client


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A datastore with one machine."""
    folder = tmp_path / "ds1"
    (folder / "web 01").mkdir(parents=True)
    write_vmx(folder)
    (folder / "web 01/disk-flat.vmdk").write_bytes(random.Random(7).randbytes(1 << 20))
    return folder


@pytest.fixture
def host(sshd: Sshd, store: Path) -> LibvirtHost:
    """Its host, read once."""
    host = LibvirtHost.objects.create(name="esx1", uri=sshd.uri(str(store)))
    return read_again(host)


def write_vmx(store: Path, *, name: str = "web 01", memory: int = 512) -> Path:
    path = store / name / f"{name}.vmx"
    path.write_text(VMX.format(name=name, memory=memory))
    return path


def read_again(host: LibvirtHost) -> LibvirtHost:
    hosts.request_refresh(host)
    assert hosts.refresh(host)
    host.refresh_from_db()
    return host


def test_a_datastore_is_tested_added_listed_and_its_machine_converted(
    administrator: Client, sshd: Sshd, store: Path, tmp_path: Path
) -> None:
    form = {"uri": sshd.uri(str(store)), "name": "esx1", "action": "test"}
    page = administrator.post(ADD, form).content.decode()
    assert f"VMX files of {store} on localhost: 1 machine. Nothing was added yet." in page
    assert not LibvirtHost.objects.exists()
    administrator.post(ADD, form | {"action": "save"})
    host = LibvirtHost.objects.get()
    tasks.refresh_host(str(host.uuid))
    assert "web 01" in administrator.get(host.get_absolute_url()).content.decode()
    vm = SourceVM.objects.get()
    assert (vm.name, vm.power, vm.refusal) == ("web 01", "shut off", "")
    assert (vm.memory_bytes, vm.disk_bytes, vm.os_hint) == (512 << 20, 1 << 20, "debian10-64")
    page = administrator.get(vm.get_absolute_url()).content.decode()
    assert str(store / "web 01/web 01.vmx") in page
    assert "UUID" not in page
    assert "Storage pools" not in page
    address = f"{vm.get_absolute_url()}convert/"
    detected = administrator.get(address).context["form"].detected()
    values = {name: value for name, value in detected.items() if value not in (None, False)}
    administrator.post(address, values | {"action": "start"})
    source = job_of(Conversion.objects.get()).source
    assert (source.kind, source.transport, source.password) == ("vmx", "ssh", "")
    assert source.location == sshd.uri(f"{store}/web%2001/web%2001.vmx")
    # As the engine does it, but for the keys, which are not those of this user.
    files = {"ssh-identity": "client", "ssh-known-hosts": "known"}
    keys = {key: (f"{sshd.folder}/{name}",) for key, name in files.items()}
    reader = reader_of(replace(source, options=keys), tmp_path, print)
    assert isinstance(reader, RemoteReader)
    with Servers(tmp_path) as servers:
        (disk,) = reader.serve(reader.read(), servers).disks
        subprocess.run(
            ["qemu-img", "convert", "-O", "raw", disk_uri(disk), tmp_path / "out"], check=True
        )
    assert (tmp_path / "out").read_bytes() == (store / "web 01/disk-flat.vmdk").read_bytes()


def test_what_changed_shows_after_the_next_reading(
    administrator: Client, host: LibvirtHost, store: Path
) -> None:
    vm = SourceVM.objects.get()
    write_vmx(store, memory=1024)
    (store / "web 01/web 01.vmx.lck").touch()
    read_again(host)
    vm.refresh_from_db()
    assert [change["what"] for change in vm.changes] == ["power", "memory"]
    assert "web 01 is running on esx1" in vm.refusal
    assert "512.0 MiB → 1.0 GiB" in administrator.get(vm.get_absolute_url()).content.decode()
    assert not SourceVM.objects.available()
    (store / "web 01/web 01.vmx.lck").unlink()
    shutil.copytree(store / "web 01", store / "web 02")
    (store / "web 02/web 01.vmx").unlink()
    write_vmx(store, name="web 02")
    (store / "web 01/disk-flat.vmdk").unlink()
    read_again(host)
    first, second = SourceVM.objects.order_by("name")
    assert "the machine has snapshots" in first.refusal
    assert (second.name, second.refusal) == ("web 02", "")


def test_a_machine_that_is_no_longer_there_is_gone_and_comes_back(
    administrator: Client, host: LibvirtHost, store: Path
) -> None:
    vm = SourceVM.objects.get()
    page = administrator.get(f"{vm.get_absolute_url()}forget/", follow=True).content.decode()
    assert "it leaves the list when it is no longer there" in page
    (store / "web 01").rename(store.parent / "away")
    read_again(host)
    vm.refresh_from_db()
    assert (vm.status, vm.shown_state) == ("gone", "vanished")
    assert "web 01 is no longer on the host esx1" in vm.refusal
    (store.parent / "away").rename(store / "web 01")
    read_again(host)
    vm.refresh_from_db()
    assert (vm.status, vm.refusal) == ("ready", "")


def test_without_its_host_a_machine_is_looked_for_nowhere(
    administrator: Client, host: LibvirtHost
) -> None:
    make_conversion(SourceVM.objects.get(), status="done")
    administrator.post(f"{host.get_absolute_url()}remove/")
    vm = SourceVM.objects.get()
    assert (vm.host, vm.shown_state) == (None, "vanished")
    with pytest.raises(JobError, match="no longer in the inventory"):
        input_of(vm)


def test_another_address_of_the_host_is_where_its_machines_are_read(host: LibvirtHost) -> None:
    vm = SourceVM.objects.get()
    hosts.change_host(host, {"uri": f"ssh://ada@esx1:2222{Path(vm.location).parents[1]}"}, None)
    assert input_of(SourceVM.objects.get()).location == (
        "ssh://ada@esx1:2222" + vm.location.replace(" ", "%20")
    )


@pytest.mark.parametrize(
    ("key", "known", "code"),
    [("client", "unknown", "E-LV-HOSTKEY"), ("other", "known", "E-LV-AUTH")],
)
def test_hosts_that_are_not_known_and_those_that_do_not_know_us_are_refused(
    administrator: Client, sshd: Sshd, store: Path, monkeypatch: pytest.MonkeyPatch,
    key: str, known: str, code: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("HOME", str(sshd.home(key=key, known=known)))
    form = {"uri": sshd.uri(str(store)), "name": "esx1", "action": "test"}
    assert code in administrator.post(ADD, form).content.decode()
    host = LibvirtHost.objects.create(name="esx1", uri=form["uri"])
    assert read_again(host).code == code


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("ssh://root@esx1/", "it names no file"),
        ("ssh://root@esx1/a/../b", "leads straight to a folder or a file"),
        ("ssh://-oProxyCommand=id@esx1/a", "its user name is not one"),
        ("ssh://root@-oProxyCommand=id/a", "it names no host"),
        ("ssh://root:p@esx1/a", "it holds a password"),
        ("ssh://root@esx1/a?identity=/etc/shadow", "it has a query"),
    ],
)
@pytest.mark.parametrize("action", ["test", "save"])
def test_addresses_that_are_not_taken(
    administrator: Client, monkeypatch: pytest.MonkeyPatch, uri: str, sentence: str, action: str
) -> None:
    monkeypatch.setattr("inventory.host_pages.read_host", None)
    page = administrator.post(ADD, {"uri": uri, "name": "esx1", "action": action}).content.decode()
    assert sentence in page
    assert not LibvirtHost.objects.exists()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"password": "p"}, "over ssh a key is needed"),
        ({"thumbprint": "ab" * 20}, "Only for ESXi hosts and vCenters"),
        ({"transport": "vddk"}, "Only for ESXi hosts and vCenters"),
    ],
)
def test_what_does_not_go_with_a_folder(
    administrator: Client, more: dict[str, str], sentence: str
) -> None:
    form = {"uri": "ssh://root@esx1/vmfs/volumes/ds1", "name": "esx1", "action": "save"}
    assert sentence in administrator.post(ADD, form | more).content.decode()
    assert not LibvirtHost.objects.exists()


@pytest.mark.parametrize("role", ["Viewers", "Operators"])
def test_only_administrators_add_folders(client: Client, role: str) -> None:
    client.force_login(make_user(role, role))
    form = {"uri": "ssh://root@esx1/vmfs/volumes/ds1", "name": "esx1", "action": "save"}
    assert client.post(ADD, form).status_code == 403
    assert not LibvirtHost.objects.exists()


def test_a_folder_tells_no_changes_and_its_disks_are_not_changed_in_place(
    administrator: Client, host: LibvirtHost
) -> None:
    Follower(lambda _access: pytest.fail("it was followed")).turn()
    vm = SourceVM.objects.get()
    assert not administrator.get(vm.get_absolute_url()).context["may_change_disks"]
    assert administrator.get(f"{vm.get_absolute_url()}convert-in-place/").status_code == 404
