"""libvirt hosts in the inventory, against libvirt's own test driver."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from typing import Any

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries, DjangoCaptureOnCommitCallbacks

from conversions.inputs import input_of
from conversions.models import Conversion
from inventory import hosts, tasks
from inventory.models import LibvirtHost, SourceDisk, SourceNic, SourceVM
from inventory.sources.domain_xml import parse_domain
from inventory.sources.errors import SourceError
from tests.demo import make_user, make_vm

pytestmark = pytest.mark.django_db

URI = "test:///default"
DOMAIN = """<domain type='kvm'><name>{name}</name><uuid>{uuid}</uuid>
<memory unit='MiB'>{memory}</memory><vcpu>2</vcpu><os><type arch='x86_64'>hvm</type></os><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/srv/{name}.qcow2'/>
<target dev='vda' bus='virtio'/></disk>
<interface type='network'><mac address='52:54:00:00:{low:02x}:{high:02x}'/>
<source network='default'/><model type='virtio'/></interface></devices></domain>"""


@pytest.fixture
def admin(client: Client) -> Client:
    client.force_login(make_user("root", "Administrators"))
    return client


def line(number: int = 0, *, power: str = "shut off", memory: int = 1024) -> dict[str, Any]:
    """Return what list_domains says of a domain; the number makes it one of its own."""
    identity = str(uuid.UUID(int=number + 1))
    values = {"name": f"vm{number:04}", "memory": memory, "low": number // 256,
              "high": number % 256}  # fmt: skip
    xml = DOMAIN.format(uuid=identity, **values).encode()
    source = parse_domain(xml, lambda _text: None, lambda _pool, _volume: None)
    return {"uuid": identity, "name": source.name, "power": power, "source": source.to_dict(),
            "problem": "", "warnings": []}  # fmt: skip


def make_host(name: str = "one", uri: str = URI) -> LibvirtHost:
    return LibvirtHost.objects.create(name=name, uri=uri)


def test_a_host_is_added_read_and_shown(
    admin: Client, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    assert "No libvirt hosts yet" in admin.get("/sources/").content.decode()
    response = admin.post("/sources/hosts/add/", {"name": "lab", "uri": URI, "action": "add"})
    host = LibvirtHost.objects.get()
    assert response["Location"] == host.get_absolute_url()
    assert "when it has been read" in admin.get(host.get_absolute_url()).content.decode()
    tasks.refresh_host(str(host.uuid))
    host.refresh_from_db()
    assert (host.state, host.message) == ("fresh", "")
    page = admin.get(host.get_absolute_url()).content.decode()
    assert "running" in page
    vm = host.vms.get()
    assert (vm.name, vm.kind, vm.power, vm.memory_bytes) == ("test", "libvirt", "running", 8 << 30)
    assert "lab" in admin.get("/sources/").content.decode()


def test_the_connection_is_tested_without_storing_anything(admin: Client) -> None:
    response = admin.post("/sources/hosts/add/", {"name": "x", "uri": URI, "action": "test"})
    assert "which has 1 machines" in response.content.decode()
    response = admin.post(
        "/sources/hosts/add/",
        {"name": "x", "uri": "qemu+tls://no.such.host.invalid/system", "action": "test"},
    )
    page = response.content.decode()
    assert "no connection to qemu+tls://no.such.host.invalid/system" in page
    assert 'value="qemu+tls://no.such.host.invalid/system"' in page
    assert not LibvirtHost.objects.exists()


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+ext:///system?command=/tmp/evil",
        "qemu+ssh://-oProxyCommand=evil/system",
        "qemu+tls://host/system?pkipath=/etc",
        "test:///etc/passwd",
        "qemu://user:secret@host/system",
    ],
)
def test_an_address_that_could_run_or_read_something_is_refused(admin: Client, uri: str) -> None:
    response = admin.post("/sources/hosts/add/", {"name": "x", "uri": uri, "action": "add"})
    assert "refused" in response.content.decode()
    assert not LibvirtHost.objects.exists()


def test_operators_read_again_but_do_not_add(client: Client) -> None:
    host = make_host()
    client.force_login(make_user("ada", "Operators"))
    assert client.get("/sources/hosts/add/").status_code == 403
    assert client.post(f"{host.get_absolute_url()}remove/").status_code == 403
    assert client.post(f"{host.get_absolute_url()}refresh/").status_code == 302
    client.force_login(make_user("bob", "Viewers"))
    assert client.get(host.get_absolute_url()).status_code == 200
    assert client.post(f"{host.get_absolute_url()}refresh/").status_code == 403


def test_a_host_that_does_not_answer_keeps_its_machines(admin: Client) -> None:
    host = make_host(uri="qemu+tls://no.such.host.invalid/system")
    hosts.store_domains(host, [line()])
    hosts.refresh(host)
    host.refresh_from_db()
    assert host.state == "failed"
    page = admin.get(host.get_absolute_url()).content.decode()
    assert "no.such.host.invalid" in page
    assert host.vms.get().status == "ready"


def test_a_host_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # The program has started another one, as libvirt starts ssh.
    script = "import subprocess; subprocess.run(['sleep', '61.5'])"
    monkeypatch.setattr(hosts, "_PYTHON", [sys.executable, "-c", script])
    begun = time.monotonic()
    with pytest.raises(SourceError, match="did not answer within 1 s"):
        hosts.read_domains("", seconds=1)
    assert time.monotonic() - begun < 10
    left = subprocess.run(["pgrep", "-f", "^sleep 61.5"], capture_output=True, text=True).stdout
    assert left == ""


def test_what_a_host_has_changed_since_is_told() -> None:
    host = make_host()
    hosts.store_domains(host, [line(1), line(2)])
    hosts.store_domains(host, [line(1, memory=2048, power="running")])
    first, second = SourceVM.objects.order_by("name")
    assert first.changes == ["shut off → running", "memory 1.0 GiB → 2.0 GiB"]
    assert (first.memory_bytes, second.status) == (2 << 30, "gone")
    assert SourceDisk.objects.count() == 2
    assert SourceNic.objects.get(vm=first).mac == "52:54:00:00:00:01"
    hosts.store_domains(host, [line(1, memory=2048, power="running"), line(2)])
    second.refresh_from_db()
    assert second.status == "ready"


def test_a_domain_that_cannot_be_read_is_shown_with_its_reason(admin: Client) -> None:
    host = make_host()
    bad = line(1) | {"source": None, "problem": "Its XML is damaged."}
    hosts.store_domains(host, [bad, line(2)])
    assert "Its XML is damaged." in admin.get(host.get_absolute_url()).content.decode()
    vm = SourceVM.objects.get(name="vm0001")
    assert "Its XML is damaged." in admin.get(vm.get_absolute_url()).content.decode()


@pytest.mark.parametrize("verb", ["inspect", "rehearse", "convert", "convert-in-place"])
def test_a_running_machine_is_refused_with_the_reason(admin: Client, verb: str) -> None:
    host = make_host()
    hosts.store_domains(host, [line(1, power="running")])
    vm = SourceVM.objects.get()
    response = admin.post(f"{vm.get_absolute_url()}{verb}/", follow=True)
    assert "Shut it down from inside" in response.content.decode()
    assert not Conversion.objects.exists()


def test_a_machine_that_is_shut_off_is_inspected_by_its_uuid(admin: Client) -> None:
    host = make_host()
    hosts.store_domains(host, [line(1)])
    vm = SourceVM.objects.get()
    admin.post(f"{vm.get_absolute_url()}inspect/")
    source = Conversion.objects.get().job["source"]
    assert (source["kind"], source["location"], source["connection"]) == (
        "libvirt", str(uuid.UUID(int=2)), URI,
    )  # fmt: skip
    assert input_of(make_vm()).connection is None


def test_removing_a_host_keeps_the_history_of_its_machines(admin: Client) -> None:
    host = make_host()
    hosts.store_domains(host, [line(1)])
    vm = SourceVM.objects.get()
    admin.post(f"{vm.get_absolute_url()}inspect/")
    address = f"{host.get_absolute_url()}remove/"
    assert "Stop that first" in admin.post(address).content.decode()
    Conversion.objects.update(status="done")
    admin.post(address)
    assert not LibvirtHost.objects.exists()
    assert not SourceVM.objects.exists()
    assert Conversion.objects.get().vm_name == "vm0001"


def test_stale_hosts_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(tasks.refresh_host, "delay", asked.append)
    host = make_host()
    tasks.refresh_hosts()
    tasks.refresh_hosts()
    assert asked == [str(host.uuid)]


def test_the_list_filters_by_host_in_a_constant_number_of_queries(
    admin: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    host = make_host()
    hosts.store_domains(host, [line(number) for number in range(3)])
    make_vm("other")
    page = admin.get(f"/machines/?host={host.pk}").content.decode()
    assert "vm0001" in page
    assert "other" not in page
    assert "other" not in admin.get("/machines/?q=one").content.decode()
    with django_assert_max_num_queries(14):
        admin.get("/machines/")
    hosts.store_domains(host, [line(number) for number in range(40)])
    with django_assert_max_num_queries(14):
        admin.get("/machines/")


def test_a_thousand_domains_are_stored_in_a_few_queries(
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    host = make_host()
    lines = json.loads(json.dumps([line(number) for number in range(1000)]))
    # SQLite takes some 50 rows of this table at once.
    with django_assert_max_num_queries(60):
        hosts.store_domains(host, lines)
    assert host.vms.count() == 1000
    with django_assert_max_num_queries(10):
        hosts.store_domains(host, lines)
