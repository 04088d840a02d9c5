"""Libvirt hosts: adding, reading, their machines, removing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import libvirt
import pytest
from auditlog.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from conversions.inputs import input_of
from conversions.models import Conversion, KeptWork
from conversions.pipeline.errors import JobError
from inventory import hosts, tasks
from inventory.following import store_news
from inventory.host_store import store_domains
from inventory.models import LibvirtHost, SourceDisk, SourceNic, SourceVM
from inventory.sources.errors import SourceError
from inventory.sources.host_access import HostAccess
from inventory.sources.host_listing import HostListing
from inventory.sources.libvirt_listing import list_domains
from tests.demo import make_conversion, make_source, make_user, make_vm
from tests.libvirt_samples import domain, host_file

pytestmark = pytest.mark.django_db

Serve = Callable[..., LibvirtHost]
Read = Callable[..., HostListing]


@pytest.fixture
def administrator(client: Client) -> Client:
    client.force_login(make_user("root", "Administrators"))
    return client


@pytest.fixture
def operator() -> Client:
    client = Client()
    client.force_login(make_user("ada", "Operators"))
    return client


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Serve:
    """Let the hosts have these domains, and read kvm1 once more (or another by `name`)."""

    def serve_domains(*domains: str, name: str = "kvm1") -> LibvirtHost:
        address = host_file(tmp_path / "host.xml", domains)

        def read(_access: HostAccess, *, with_domains: bool, seconds: int) -> HostListing:
            link = libvirt.open(address)
            found = list_domains(link)
            link.close()
            return HostListing(description="TEST on vm", count=len(found), domains=found)

        monkeypatch.setattr(hosts, "read_host", read)
        host, _created = LibvirtHost.objects.get_or_create(
            name=name, defaults={"uri": f"qemu+ssh://{name}/system", "shares_disks": True}
        )
        return read_now(host)

    return serve_domains


def read_now(host: LibvirtHost) -> LibvirtHost:
    """Read a host whether it is due or not, as after somebody's click."""
    hosts.request_refresh(host)
    assert hosts.refresh(host)
    host.refresh_from_db()
    return host


def refuse(code: str, message: str) -> Callable[..., HostListing]:
    """Return a stand-in for a host that cannot be read."""

    def read(*_arguments: object, **_options: object) -> HostListing:
        raise SourceError(code, message, remedy="Look there.")

    return read


# --- Adding -----------------------------------------------------------------------------------


def test_without_hosts_the_page_teaches_the_next_step(
    administrator: Client, operator: Client
) -> None:
    page = administrator.get("/sources/").content.decode()
    assert "No hosts yet. Add one by its address" in page
    page = operator.get("/sources/").content.decode()
    assert "Adding one needs the role Administrators" in page
    assert "/sources/hosts/add/" not in page


@pytest.mark.parametrize(
    ("uri", "ticked", "transport", "in_place"),
    [
        ("qemu+ssh://root@kvm1/system", False, "ssh", False),
        ("qemu+ssh://root@kvm1/system", True, None, True),
        ("qemu+libssh2://root@kvm1/system", False, "ssh", False),
        ("qemu+tls://kvm1/system", False, None, True),
        ("qemu:///system", False, None, True),
        ("xen+ssh://root@xen1/", False, None, False),
    ],
)
def test_how_the_disks_of_a_host_are_read(
    administrator: Client, uri: str, ticked: bool, transport: str | None, in_place: bool
) -> None:
    form = {"uri": uri, "name": "h", "action": "save"} | ({"shares_disks": "on"} if ticked else {})
    page = administrator.post("/sources/hosts/add/", form, follow=True).content.decode()
    host = LibvirtHost.objects.get()
    vm = SourceVM(kind="libvirt", location="x", name="x", host=host)
    assert (input_of(vm).transport, input_of(vm).connection) == (transport, uri)
    assert vm.may_change_in_place is in_place
    vm.record = make_source("x").to_dict()
    assert bool(vm.local_disks) is in_place
    assert ("<dd>ssh</dd>" in page) is (transport == "ssh" or "xen" in uri)
    assert ("storage that this server shares" in page) is ticked
    # The form of the host shows what was chosen.
    form_page = administrator.get(f"{host.get_absolute_url()}change/").content.decode()
    assert bool(re.search(r'name="shares_disks"[^>]* checked', form_page)) is ticked


def test_testing_a_connection_really_connects_and_adds_nothing(administrator: Client) -> None:
    form = {"uri": "test:///default", "name": "lab", "action": "test"}
    page = administrator.post("/sources/hosts/add/", form).content.decode()
    assert "The host answers" in page
    assert "1 machine." in page
    assert not LibvirtHost.objects.exists()


def test_a_host_without_answer_is_reported_at_the_form(administrator: Client) -> None:
    form = {"uri": "qemu+tls://127.0.0.1:1/system", "name": "lab", "action": "test"}
    page = administrator.post("/sources/hosts/add/", form).content.decode()
    assert "There is no connection to qemu+tls://127.0.0.1:1/system" in page
    assert "E-LV-CONNECT" in page
    assert 'value="qemu+tls://127.0.0.1:1/system"' in page


def test_a_host_that_is_added_is_read_and_its_machines_listed(administrator: Client) -> None:
    form = {"uri": "test:///default", "name": "lab", "action": "add"}
    response = administrator.post("/sources/hosts/add/", form, follow=True)
    host = LibvirtHost.objects.get()
    assert response.redirect_chain[0][0] == host.get_absolute_url()
    assert "Waits for a worker" in response.content.decode()
    tasks.refresh_host(str(host.uuid))
    page = administrator.get(host.get_absolute_url()).content.decode()
    assert "Read just now" in " ".join(re.sub("<[^>]+>", " ", page).split())
    assert "just now" in page
    vm = SourceVM.objects.get()
    assert (vm.name, vm.power, vm.kind, vm.host) == ("test", "running", "libvirt", host)
    assert vm.location == "6695eb01-f6a4-8304-79aa-97f2502e193f"
    assert vm.get_absolute_url() in page


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+ext:///system?command=/bin/sh",
        "qemu+ssh://-oProxyCommand=id@h/system",
        "qemu+ssh://h/system?keyfile=/root/.ssh/id_rsa",
        "test:///tmp/evil.xml",
        "qemu+ssh://u:secret@h/system",
        "<script>alert(1)</script>",
    ],
)
@pytest.mark.parametrize("action", ["test", "add"])
def test_hostile_addresses_are_refused_with_a_sentence(
    administrator: Client, monkeypatch: pytest.MonkeyPatch, uri: str, action: str
) -> None:
    monkeypatch.setattr("inventory.host_pages.read_host", None)
    form = {"uri": uri, "name": "lab", "action": action}
    page = administrator.post("/sources/hosts/add/", form).content.decode()
    assert "is refused:" in page
    assert "Write it like qemu:///system" in page
    assert "<script>alert" not in page
    assert not LibvirtHost.objects.exists()


def test_an_address_and_a_name_are_taken_once(administrator: Client) -> None:
    LibvirtHost.objects.create(name="lab", uri="test:///default")
    form = {"uri": "test:///default", "name": "lab", "action": "add"}
    page = administrator.post("/sources/hosts/add/", form).content.decode()
    assert "test:///default is in the inventory already, as lab." in page
    assert "Another host is called that" in page


def test_who_may_do_what_with_hosts(administrator: Client, operator: Client) -> None:
    host = LibvirtHost.objects.create(name="lab", uri="test:///default")
    viewer = Client()
    viewer.force_login(make_user("eve", "Viewers"))
    address = host.get_absolute_url()
    for path in ("/sources/hosts/add/", f"{address}remove/"):
        assert administrator.get(path).status_code == 200
        response = operator.get(path)
        assert response.status_code == 403
        assert "needs the role Administrators" in response.content.decode()
    assert viewer.get(address).status_code == 200
    assert f"{address}refresh/" not in viewer.get(address).content.decode()
    assert viewer.post(f"{address}refresh/").status_code == 403
    assert operator.post(f"{address}refresh/").status_code == 302
    assert operator.get(f"{address}refresh/").status_code == 405
    host.refresh_from_db()
    assert host.wanted_at
    assert Client().get(address).status_code == 302
    unknown = "/sources/hosts/00000000-0000-0000-0000-000000000000/"
    assert viewer.get(unknown).status_code == 404


def test_adding_and_removing_leave_a_trail(administrator: Client) -> None:
    form = {"uri": "test:///default", "name": "lab", "action": "add"}
    administrator.post("/sources/hosts/add/", form)
    host = LibvirtHost.objects.get()
    read_now(host)
    administrator.post(f"{host.get_absolute_url()}remove/")
    entries = LogEntry.objects.filter(content_type__model="libvirthost").order_by("pk")
    assert [(e.action, str(e.actor)) for e in entries] == [
        (LogEntry.Action.CREATE, "root"),
        (LogEntry.Action.DELETE, "root"),
    ]


# --- Reading ----------------------------------------------------------------------------------


def test_a_reading_stores_machines_disks_and_cards(serve: Serve) -> None:
    host = serve(domain(0), domain(1, shut_off=False, disks=2))
    assert host.state == LibvirtHost.State.FRESH
    off, on = SourceVM.objects.all()
    assert (off.power, on.power) == ("shut off", "running")
    assert off.memory_bytes == 1 << 30
    assert (off.disk_bytes, off.pools) == (20 << 30, ["images"])
    assert [disk.file for disk in on.disks.all()] == ["vm1.qcow2", "vm1-1.qcow2"]
    assert [nic.mac for nic in on.nics.all()] == ["52:54:00:00:00:01"]
    assert off.seen_at


def test_a_reading_that_finds_nothing_new_writes_no_rows_and_no_changes(serve: Serve) -> None:
    host = serve(domain(0), domain(1))
    before = list(SourceDisk.objects.values_list("pk", flat=True))
    read_now(host)
    assert list(SourceDisk.objects.values_list("pk", flat=True)) == before
    assert [vm.changes for vm in SourceVM.objects.all()] == [[], []]


def test_what_changed_since_is_kept_and_shown(serve: Serve, operator: Client) -> None:
    serve(domain(0, memory_mib=2048))
    serve(domain(0, memory_mib=4096, disks=2, name="renamed"))
    vm = SourceVM.objects.get()
    assert (vm.name, vm.disks.count()) == ("renamed", 2)
    page = " ".join(operator.get(vm.get_absolute_url()).content.decode().split())
    assert "Memory: 2.0 GiB → 4.0 GiB" in page
    assert "Name: vm0 → renamed" in page
    assert "/images/vm0-1.qcow2</span>: added (qcow2, virtio-blk)" in page
    serve(domain(0, memory_mib=4096, name="renamed"))
    vm.refresh_from_db()
    assert vm.changes[0]["subject"] == "/images/vm0-1.qcow2"
    assert vm.changes[0]["after"] == ""
    assert len(vm.changes) == 4


def test_a_machine_that_vanishes_is_gone_and_comes_back(serve: Serve, operator: Client) -> None:
    serve(domain(0), domain(1))
    serve(domain(1))
    gone = SourceVM.objects.get(name="vm0")
    assert gone.status == SourceVM.Status.GONE
    page = operator.get(gone.get_absolute_url()).content.decode()
    assert "vm0 is no longer on the host kvm1" in page
    assert "No longer on its host" in page
    seen = gone.seen_at
    serve(domain(1))
    gone.refresh_from_db()
    assert gone.seen_at == seen
    serve(domain(0), domain(1))
    gone.refresh_from_db()
    assert gone.status == SourceVM.Status.READY


def test_one_bad_domain_is_shown_with_its_reason_and_spoils_nothing(
    serve: Serve, operator: Client
) -> None:
    host = serve(domain(0, disks=0), domain(1))
    assert host.state == LibvirtHost.State.FRESH
    bad = SourceVM.objects.get(name="vm0")
    page = operator.get(bad.get_absolute_url()).content.decode()
    assert "The domain has no disk that can be read" in page
    assert "Cannot be used" in page
    assert f"{bad.get_absolute_url()}convert/" not in page
    assert operator.get(f"{bad.get_absolute_url()}source.txt").status_code == 200
    serve(domain(0), domain(1))
    bad.refresh_from_db()
    assert (bad.problem, bad.changes) == ("", [])
    assert bad.disks.count() == 1


def test_numbers_beyond_every_column_are_cut(serve: Serve) -> None:
    host = serve(domain(0))
    read: Read = vars(hosts)["read_host"]  # what `serve` has put there
    found = read(HostAccess(uri=""), with_domains=True, seconds=1).domains[0]
    assert found.source
    huge = replace(found.source, memory_bytes=10**30, vcpus=10**12)
    now = timezone.now()
    store_domains(host, [replace(found, source=huge)], since=now, now=now)
    vm = SourceVM.objects.get()
    assert (vm.memory_bytes, vm.vcpus) == (2**63 - 1, 2**31 - 1)


def test_a_reading_that_fails_keeps_the_machines_and_says_why(
    serve: Serve, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = serve(domain(0))
    read_at = host.refreshed_at
    monkeypatch.setattr(hosts, "read_host", refuse("E-LV-TIMEOUT", "No answer in 180 s."))
    read_now(host)
    host.refresh_from_db()
    assert (host.state, host.code, host.refreshed_at) == ("failed", "E-LV-TIMEOUT", read_at)
    assert SourceVM.objects.get().status == SourceVM.Status.READY
    page = operator.get(host.get_absolute_url()).content.decode()
    assert "No answer in 180 s. Look there." in page
    assert "Its machines below are as they were then." in page
    assert "kvm1 could not be read" in operator.get("/machines/").content.decode()
    assert "No answer in 180 s. Look there." in operator.get("/sources/").content.decode()


def test_a_reading_that_cannot_be_stored_lets_the_next_one_try(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = serve(domain(0))

    def fail(*_arguments: object, **_options: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(hosts, "store_domains", fail)
    with pytest.raises(ValueError, match="broken"):
        read_now(host)
    host.refresh_from_db()
    assert (host.state, host.code) == ("failed", "E-LV-STORE")
    assert host.refreshing_since is None


def test_of_two_workers_one_reads_and_a_dead_workers_claim_ends(serve: Serve) -> None:
    host = serve(domain(0))
    LibvirtHost.objects.update(refreshing_since=timezone.now(), wanted_at=timezone.now())
    assert not hosts.refresh(host)
    LibvirtHost.objects.update(refreshing_since=timezone.now() - timedelta(hours=1))
    assert hosts.refresh(host)


def test_only_so_many_hosts_are_read_at_once(serve: Serve, settings: Settings) -> None:
    host = serve(domain(0))
    hosts.request_refresh(host)
    for number in range(settings.HOSTS_AT_ONCE):
        LibvirtHost.objects.create(
            name=f"busy{number}",
            uri=f"qemu+ssh://b{number}/system",
            refreshing_since=timezone.now(),
        )
    assert not hosts.refresh(host)


def test_the_periodic_task_reads_what_is_due_and_nothing_else(
    serve: Serve, settings: Settings
) -> None:
    host = serve(domain(0))
    first = host.refreshed_at
    tasks.refresh_hosts()
    host.refresh_from_db()
    assert host.refreshed_at == first
    late = timezone.now() - timedelta(seconds=settings.HOST_REFRESH_SECONDS + 1)
    LibvirtHost.objects.update(tried_at=late)
    LibvirtHost.objects.create(name="new", uri="qemu:///system")
    tasks.refresh_hosts()
    assert LibvirtHost.objects.filter(state="fresh", refreshed_at__gt=first).count() == 2


def test_a_new_host_comes_before_those_that_were_tried(serve: Serve) -> None:
    serve(domain(0))
    LibvirtHost.objects.update(tried_at="2026-01-01T00:00Z")
    new = LibvirtHost.objects.create(name="new", uri="qemu+ssh://new/system")
    assert hosts.due_hosts().first() == new


def test_a_host_removed_while_it_is_read_leaves_nothing(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = serve(domain(0))
    original: Read = vars(hosts)["read_host"]

    def read(*arguments: HostAccess, **options: bool | int) -> HostListing:
        hosts.remove_host(LibvirtHost.objects.get(), user="root")
        return original(*arguments, **options)

    monkeypatch.setattr(hosts, "read_host", read)
    hosts.request_refresh(host)
    assert hosts.refresh(host)
    assert not SourceVM.objects.exists()


def test_a_host_with_a_thousand_domains_is_stored_in_a_few_queries(serve: Serve) -> None:
    domains = [domain(number) for number in range(1000)]
    with CaptureQueriesContext(connection) as first:
        serve(*domains)
    assert SourceVM.objects.count() == SourceDisk.objects.count() == SourceNic.objects.count()
    domains[7] = domain(7, memory_mib=2048)
    with CaptureQueriesContext(connection) as again:
        serve(*domains)
    # SQLite takes some 50 rows at once.
    assert len(first) < 100
    assert len(again) < 20


# --- Their machines -------------------------------------------------------------------------


def test_a_running_machine_is_shown_and_refused_with_the_reason(
    serve: Serve, administrator: Client
) -> None:
    serve(domain(0, shut_off=False))
    vm = SourceVM.objects.get()
    address = vm.get_absolute_url()
    page = administrator.get(address).content.decode()
    assert "vm0 is running on kvm1; its disks change while they are read." in page
    assert f"{address}convert/" not in page
    for verb in ("convert", "inspect", "rehearse", "convert-in-place"):
        response = administrator.post(f"{address}{verb}/", follow=True)
        assert "Shut it down from inside" in response.content.decode()
    assert not Conversion.objects.exists()


def test_a_display_is_told_in_words(serve: Serve, operator: Client) -> None:
    xml = domain(0).replace(
        "</devices>", "<graphics type='vnc' keymap='de' listen='127.0.0.1'/></devices>"
    )
    serve(xml)
    page = operator.get(SourceVM.objects.get().get_absolute_url()).content.decode()
    assert '<dd class="break">vnc de listening on address 127.0.0.1</dd>' in page


def test_a_machine_with_saved_memory_is_refused(serve: Serve, operator: Client) -> None:
    serve(domain(0))
    SourceVM.objects.update(has_saved_memory=True)
    page = operator.get(SourceVM.objects.get().get_absolute_url()).content.decode()
    assert "The memory of vm0 was saved while it ran" in page


def test_a_shut_off_machine_starts_with_its_hosts_address(serve: Serve, operator: Client) -> None:
    host = serve(domain(0))
    vm = SourceVM.objects.get()
    operator.post(f"{vm.get_absolute_url()}inspect/")
    source = Conversion.objects.get().job["source"]
    assert (source["kind"], source["location"]) == ("libvirt", vm.location)
    assert source["connection"] == host.uri
    page = operator.get(f"{vm.get_absolute_url()}convert/")
    assert page.context["form"].fields["verify_digests"].disabled
    assert not page.context["form"].initial["verify_digests"]


def test_one_place_says_where_a_machine_is_found(serve: Serve) -> None:
    serve(domain(0))
    vm = SourceVM.objects.get()
    assert input_of(make_vm("web01")).connection is None
    vm.host = None
    with pytest.raises(JobError, match="no longer in the inventory"):
        input_of(vm)


def test_a_run_of_a_machine_that_runs_now_is_not_retried(serve: Serve, operator: Client) -> None:
    serve(domain(0, shut_off=False))
    run = make_conversion(SourceVM.objects.get(), status="failed")
    response = operator.post(f"{run.get_absolute_url()}retry/", follow=True)
    assert "vm0 is running" in response.content.decode()
    assert Conversion.objects.count() == 1


def test_a_domain_is_not_forgotten_but_leaves_with_its_host(serve: Serve, operator: Client) -> None:
    serve(domain(0))
    vm = SourceVM.objects.get()
    response = operator.post(f"{vm.get_absolute_url()}forget/", follow=True)
    assert "when the host is removed" in response.content.decode()
    assert SourceVM.objects.get().status == SourceVM.Status.READY


def test_reading_again_is_asked_from_the_machine(serve: Serve, operator: Client) -> None:
    host = serve(domain(0))
    vm = SourceVM.objects.get()
    response = operator.post(f"{vm.get_absolute_url()}refresh/", follow=True)
    assert "is being read again, with all of kvm1" in response.content.decode()
    host.refresh_from_db()
    assert host.wanted_at
    upload = make_vm("web01")
    response = operator.post(f"{upload.get_absolute_url()}refresh/", follow=True)
    assert "web01 is on no host" in response.content.decode()


def listed(client: Client, query: str) -> list[str]:
    response = client.get(f"/machines/{query}")
    return sorted(vm.name for vm in response.context["listing"].page)


def test_machines_are_filtered_by_host_and_state_and_found_by_host(
    serve: Serve, operator: Client
) -> None:
    kvm1 = serve(domain(0), domain(1, shut_off=False), domain(2, disks=0))
    serve(domain(3), name="kvm2")
    make_vm("web01")
    assert listed(operator, f"?host={kvm1.pk}") == ["vm0", "vm1", "vm2"]
    assert listed(operator, "?host=none") == ["web01"]
    assert len(listed(operator, "?host=nonsense")) == 5
    assert listed(operator, "?q=KVM2") == ["vm3"]
    assert listed(operator, "?state=running") == ["vm1"]
    assert listed(operator, f"?state=off&host={kvm1.pk}") == ["vm0", "vm2"]
    assert listed(operator, "?state=unreadable") == ["vm2"]
    assert listed(operator, "?q=52:54:00:00:00:03") == ["vm3"]
    page = operator.get("/machines/").content.decode()
    assert "on kvm1" in page


def test_the_number_of_queries_does_not_grow_with_machines_or_hosts(
    serve: Serve, operator: Client
) -> None:
    host = serve(domain(0))
    make_conversion(SourceVM.objects.get())
    queries = ["", "?q=vm+lan", "?sort=-memory&page=9", "?state=new", "?state=converted",
               f"?host={host.pk}&state=off"]  # fmt: skip
    pages = [f"/machines/{query}" for query in queries]
    pages += [host.get_absolute_url(), "/sources/", "/"]

    def count(path: str) -> int:
        with CaptureQueriesContext(connection) as queries:
            operator.get(path)
        return len(queries)

    operator.get("/machines/")
    few = [count(path) for path in pages]
    serve(*(domain(number) for number in range(40)))
    for number in range(5):
        serve(domain(100 + number), name=f"other{number}")
    assert [count(path) for path in pages] == few


def test_the_overview_offers_only_what_can_be_inspected(serve: Serve, operator: Client) -> None:
    serve(domain(0), domain(1, shut_off=False), domain(2, disks=0))
    assert [vm.name for vm in operator.get("/").context["uninspected"]] == ["vm0"]
    assert [vm.name for vm in SourceVM.objects.available() if vm.refusal] == []


# --- Pages and removing ------------------------------------------------------------------------


def test_a_page_polls_while_a_host_is_read_and_then_reloads_its_list(
    serve: Serve, operator: Client
) -> None:
    host = serve(domain(0))
    state = f"{host.get_absolute_url()}state/"
    shown = f"{state}?since={quote(host.list_version)}"
    # The timer may have it read, and the follower take it up, while the page is open.
    assert 'hx-trigger="every 5s"' in operator.get(state).content.decode()
    hosts.request_refresh(host)
    response = operator.get(shown)
    assert f'hx-get="{shown}"' in response.content.decode()
    assert 'hx-trigger="every 1s"' in response.content.decode()
    assert "HX-Trigger" not in response
    serve(domain(0))  # with nothing new
    assert "HX-Trigger" not in operator.get(shown)
    serve(domain(0), domain(1))
    assert operator.get(shown)["HX-Trigger"] == "host-read"
    hosts.request_refresh(host)
    assert 'hx-trigger="every 2s"' in operator.get("/sources/hosts/").content.decode()


def test_the_page_of_a_host_that_is_followed_goes_on_polling(
    serve: Serve, operator: Client
) -> None:
    host = serve(domain(0))
    shown = f"{host.get_absolute_url()}state/?since={quote(host.list_version)}"
    LibvirtHost.objects.update(followed_at=timezone.now())
    response = operator.get(shown)
    assert "shows here within seconds" in response.content.decode()
    assert 'hx-trigger="every 3s"' in response.content.decode()
    assert "HX-Trigger" not in response
    store_news(host.pk, {"gone": host.vms.get().location})
    assert operator.get(shown)["HX-Trigger"] == "host-read"
    LibvirtHost.objects.update(followed_at=timezone.now() - timedelta(minutes=5))
    assert 'hx-trigger="every 5s"' in operator.get(shown).content.decode()


def test_removing_asks_what_goes_and_what_stays_and_keeps_history(
    serve: Serve, administrator: Client
) -> None:
    host = serve(domain(0), domain(1))
    vm = SourceVM.objects.get(name="vm0")
    run = make_conversion(vm)
    address = f"{host.get_absolute_url()}remove/"
    page = administrator.get(address).content.decode()
    assert "The host and its 2 machines from these pages." in page
    assert "1 machine that was inspected or converted stays" in page
    assert "converted disks" not in page
    for number, left in enumerate([run, make_conversion(vm, status="failed")]):
        until = timezone.now() + timedelta(days=7)
        KeptWork.objects.create(conversion=left, folder=f"/w{number}", bytes=1, keep_until=until)
    page = administrator.get(address).content.decode()
    assert "The converted disks of 2 runs that could be continued." in page
    administrator.post(address)
    vm = SourceVM.objects.get()
    assert (vm.name, vm.status, vm.host) == ("vm0", "gone", None)
    page = administrator.get(vm.get_absolute_url()).content.decode()
    assert "Its host kvm1 was removed by root." in page
    run.refresh_from_db()
    assert run.vm == vm


def test_a_host_whose_machines_are_worked_on_is_not_removed(
    serve: Serve, administrator: Client
) -> None:
    host = serve(domain(0))
    make_conversion(SourceVM.objects.get(), status="running")
    response = administrator.post(f"{host.get_absolute_url()}remove/")
    assert "Stop that first" in response.content.decode()
    assert LibvirtHost.objects.get() == host


def test_names_from_a_host_are_never_markup(serve: Serve, operator: Client) -> None:
    host = serve(domain(0, name="&lt;script&gt;alert(1)&lt;script&gt;"))
    vm = SourceVM.objects.get()
    assert vm.name == "<script>alert(1)<script>"
    for path in ("/machines/", host.get_absolute_url(), vm.get_absolute_url()):
        page = operator.get(path).content.decode()
        assert "<script>alert" not in page
        assert " style=" not in page


def test_the_admin_site_lists_hosts_to_read(serve: Serve, client: Client) -> None:
    host = serve(domain(0))
    user = make_user("boss", "Administrators")
    user.is_staff = user.is_superuser = True
    user.save()
    client.force_login(user)
    page = client.get("/admin/inventory/libvirthost/").content.decode()
    assert host.uri in page
    assert "/admin/inventory/libvirthost/add/" not in page
