"""ESXi hosts and vCenters in the inventory: what is asked for, and where their passwords go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from auditlog.models import LogEntry
from django.core import serializers
from django.test import Client
from pytest_django import Settings

from conversions.actions import job_of, retry_conversion
from conversions.inputs import input_of
from conversions.models import Conversion
from inventory import hosts, tasks
from inventory.following import Follower
from inventory.models import LibvirtHost, SourceVM
from inventory.sealing import seal
from inventory.sources.host_listing import HostListing
from tests.demo import make_conversion, make_user, make_vm
from tests.vsphere import PASSWORD, VSphere

pytestmark = pytest.mark.django_db
ADD = "/sources/hosts/add/"
ESX = "esx://root@esx1.example.org/"
THUMBPRINT = ":".join(["AB"] * 20)


@pytest.fixture
def administrator(client: Client) -> Client:
    client.force_login(make_user("root", "Administrators"))
    return client


@pytest.fixture
def esx(tmp_path: Path) -> Iterator[VSphere]:
    with VSphere(tmp_path, "my vm", "web01", running=("web01",)) as server:
        yield server


@pytest.fixture
def host() -> LibvirtHost:
    return LibvirtHost.objects.create(
        name="esx1", uri=ESX, sealed_password=seal(PASSWORD), thumbprint=THUMBPRINT
    )


def fields(uri: str = ESX, **more: str) -> dict[str, str]:
    return {"uri": uri, "name": "esx1", "password": PASSWORD, "action": "save", **more}


def said(client: Client, path: str, form: dict[str, str]) -> str:
    """Send a form and return the page, which must not give the password away."""
    page = client.post(path, form, follow=True).content.decode()
    assert "pass:word" not in page
    return page


# --- From the form to the job -------------------------------------------------------------------


def test_an_esxi_host_is_tested_added_listed_and_its_machine_converted(
    administrator: Client, esx: VSphere, settings: Settings
) -> None:
    form = fields(esx.uri(), thumbprint=esx.thumbprint)
    page = said(administrator, ADD, form | {"action": "test"})
    assert "ESX 7.0.3 on esx1.example.org: 2 machines. Nothing was added yet." in page
    assert 'value="sealed:' in page  # what was typed goes on with the next button
    assert not LibvirtHost.objects.exists()
    said(administrator, ADD, form)
    host = LibvirtHost.objects.get()
    tasks.refresh_host(str(host.uuid))
    page = administrator.get(host.get_absolute_url()).content.decode()
    assert "my vm" in page
    assert "kept sealed since" in page
    vm = SourceVM.objects.get(name="my vm")
    assert (vm.hypervisor, vm.power, vm.refusal) == ("vmware", "shut off", "")
    assert "is running on esx1" in SourceVM.objects.get(name="web01").refusal
    address = f"{vm.get_absolute_url()}convert/"
    detected = administrator.get(address).context["form"].detected()
    values = {name: value for name, value in detected.items() if value not in (None, False)}
    response = administrator.post(address, values | {"action": "start"}, follow=True)
    run = Conversion.objects.get()
    for text in (response.content.decode(), json.dumps(run.job), run.sealed_secrets):
        assert "pass:word" not in text
    source = job_of(run).source
    assert (source.connection, source.location) == (host.uri, vm.location)
    assert (source.transport, source.password) == (None, PASSWORD)
    assert source.options == {"https-thumbprint": (esx.thumbprint,)}


def test_the_password_that_was_tested_is_added_as_it_was_typed(administrator: Client) -> None:
    typed = seal(PASSWORD)  # as the page gives it back after a test
    administrator.post(ADD, fields(password=typed))
    assert LibvirtHost.objects.get().access().password == PASSWORD


def test_a_host_that_refuses_the_password_is_told_at_the_form_and_on_its_page(
    administrator: Client, esx: VSphere
) -> None:
    form = fields(esx.uri("?no_verify=1"), password="wrong")
    page = said(administrator, ADD, form | {"action": "test"})
    assert "refuses the user root or the password" in page
    assert "E-LV-AUTH" in page
    administrator.post(ADD, form)
    host = LibvirtHost.objects.get()
    tasks.refresh_host(str(host.uuid))
    assert "E-LV-AUTH" in administrator.get(host.get_absolute_url()).content.decode()


def test_a_retry_takes_the_password_of_now(host: LibvirtHost) -> None:
    vm = make_vm("my vm")
    SourceVM.objects.filter(pk=vm.pk).update(kind="libvirt", host=host, upload=None)
    run = make_conversion(SourceVM.objects.get(), status="failed")
    hosts.change_host(host, {}, "another")
    run.refresh_from_db()
    assert job_of(retry_conversion(run, user=None)).source.password == "another"


@pytest.mark.parametrize("folder", ["", "vix-8"])
def test_vddk_and_its_folder_reach_the_engine(
    administrator: Client, settings: Settings, folder: str
) -> None:
    library = settings.VDDK_DIR / "vix-8/lib64/libvixDiskLib.so.8"
    library.parent.mkdir(parents=True)
    library.touch()
    form = fields(transport="vddk", vddk_folder=folder, thumbprint="ab" * 20)
    administrator.post(ADD, form)
    host = LibvirtHost.objects.get()
    source = input_of(SourceVM(kind="libvirt", location="x", host=host))
    wanted = {"vddk-thumbprint": (THUMBPRINT,)}
    if folder:
        wanted["vddk-libdir"] = (str(settings.VDDK_DIR / "vix-8"),)
    assert (source.transport, source.options) == ("vddk", wanted)


@pytest.mark.parametrize("folder", ["/tmp", "..", "../x", "empty", "vix-8/../..", "-x"])
def test_no_other_folder_gives_a_library(
    administrator: Client, settings: Settings, folder: str
) -> None:
    (settings.VDDK_DIR / "empty").mkdir()
    page = said(administrator, ADD, fields(transport="vddk", vddk_folder=folder))
    assert "is not one of the available choices" in page
    assert not LibvirtHost.objects.exists()


# --- What does not fit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"password": ""}, "This host is read with a password."),
        ({"uri": "esx://esx1/"}, "Put the user into the address"),
        ({"uri": "esx://root:pass:word@esx1/"}, "it holds a password"),
        ({"uri": "esx://root@esx1/?transport=http"}, "could read the password"),
        ({"uri": "vpx://u@vc/../etc"}, "its path is not that of a datacenter"),
        ({"uri": "esx+ssh://root@esx1/"}, "is refused"),
        ({"uri": "gsx://root@esx1/"}, "is refused"),
        ({"uri": "qemu:///system"}, "take no password from here"),
        ({"uri": "qemu+ssh://root@kvm1/system"}, "over ssh a key is needed"),
        ({"uri": "xen+ssh://root@xen1/", "thumbprint": THUMBPRINT}, "Only for ESXi hosts"),
        ({"uri": "xen+ssh://root@xen1/", "transport": "vddk"}, "Only for ESXi hosts"),
        ({"shares_disks": "on"}, "Only for qemu+ssh://"),
        ({"uri": "qemu:///system", "shares_disks": "on"}, "Only for qemu+ssh://"),
        ({"thumbprint": "12:34"}, "is no thumbprint"),
        ({"thumbprint": "ab" * 32, "transport": "vddk"}, "VDDK takes the SHA-1 thumbprint"),
        ({"transport": "nfs"}, "is not one of the available choices"),
    ],
)
@pytest.mark.parametrize("action", ["test", "save"])
def test_what_does_not_fit_is_said_at_its_field(
    administrator: Client, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], sentence: str,
    action: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("inventory.host_pages.read_host", None)
    form = fields() | {"action": action} | change
    page = administrator.post(ADD, form).content.decode()
    assert sentence in page
    assert "&quot;pass:word&lt;" not in page
    assert not LibvirtHost.objects.exists()


@pytest.mark.parametrize(
    ("uri", "password"),
    [
        ("xen+ssh://root@xen1/", ""),
        ("xen+ssh://root@xen1/", "p"),
        ("qemu+tls://u@kvm1/system", "p"),
        ("qemu+libssh2://u@kvm1/system", "p"),
        ("vpx://DOMAIN%5Cadmin@vc/DC%201/cluster/esx1", "p"),
    ],
)
def test_other_hosts_that_may_have_a_password(
    administrator: Client, uri: str, password: str
) -> None:
    administrator.post(ADD, fields(uri, password=password))
    host = LibvirtHost.objects.get()
    assert (host.access().uri, host.access().password) == (uri, password)


# --- Changing -------------------------------------------------------------------------------------


def test_an_empty_password_keeps_the_one_that_is_known(
    administrator: Client, host: LibvirtHost
) -> None:
    address = f"{host.get_absolute_url()}change/"
    page = administrator.get(address).content.decode()
    assert "pass:word" not in page
    assert "sealed:" not in page
    assert ESX in page
    said(administrator, address, fields(name="renamed", password="", thumbprint=THUMBPRINT))
    before = host.sealed_password
    host.refresh_from_db()
    assert (host.name, host.sealed_password) == ("renamed", before)
    assert host.wanted_at
    said(administrator, address, fields(password="another", thumbprint=THUMBPRINT))
    host.refresh_from_db()
    assert host.access().password == "another"


@pytest.mark.parametrize(
    "change", [{"uri": "esx://root@evil.example.org/"}, {"uri": f"{ESX}?no_verify=1"},
               {"thumbprint": ""}, {"thumbprint": "cd" * 20}],
)  # fmt: skip
@pytest.mark.parametrize("action", ["test", "save"])
def test_a_password_goes_to_no_place_that_it_was_not_typed_for(
    administrator: Client, host: LibvirtHost, monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str], action: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("inventory.host_pages.read_host", None)
    form = fields(password="", thumbprint=THUMBPRINT) | {"action": action} | change
    page = said(administrator, f"{host.get_absolute_url()}change/", form)
    assert "This host is read with a password. Type it." in page
    host.refresh_from_db()
    assert host.uri == ESX


def test_a_host_that_becomes_another_loses_its_password(
    administrator: Client, host: LibvirtHost
) -> None:
    form = fields("qemu+ssh://root@kvm1/system", password="")
    said(administrator, f"{host.get_absolute_url()}change/", form)
    host.refresh_from_db()
    assert (host.sealed_password, host.password_set_at) == ("", None)


def test_the_kept_password_is_tested(administrator: Client, esx: VSphere) -> None:
    host = LibvirtHost.objects.create(
        name="esx1", uri=esx.uri("?no_verify=1"), sealed_password=seal(PASSWORD)
    )
    form = fields(host.uri, password="", action="test")
    page = said(administrator, f"{host.get_absolute_url()}change/", form)
    assert "The host answers" in page
    assert "Nothing was changed yet." in page


def test_only_administrators_change_hosts(host: LibvirtHost) -> None:
    address = f"{host.get_absolute_url()}change/"
    for role in ("Viewers", "Operators"):
        client = Client()
        client.force_login(make_user(role, role))
        assert client.get(address).status_code == 403
        assert client.post(address, fields()).status_code == 403
        assert address not in client.get(host.get_absolute_url()).content.decode()
    assert Client().get(address).status_code == 302
    host.refresh_from_db()
    assert host.name == "esx1"


def test_a_reading_that_was_under_way_does_not_count_after_a_change(
    host: LibvirtHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_words: object, **_more: object) -> HostListing:
        hosts.change_host(LibvirtHost.objects.get(), {"uri": "esx://root@other/"}, "x")
        return HostListing(description="of before", count=0)

    monkeypatch.setattr(hosts, "read_host", read)
    hosts.request_refresh(host)
    assert hosts.refresh(host)
    host.refresh_from_db()
    assert (host.description, host.state) == ("", "never")
    assert host.wanted_at


# --- Where the password is not ----------------------------------------------------------------


def test_the_trail_tells_of_a_password_only_that_it_was_set(
    administrator: Client, host: LibvirtHost
) -> None:
    administrator.post(ADD, fields("esx://root@esx2/", name="esx2"))
    administrator.post(
        f"{host.get_absolute_url()}change/", fields(password="an0ther", thumbprint=THUMBPRINT)
    )
    entries = LogEntry.objects.filter(content_type__model="libvirthost")
    text = serializers.serialize("json", entries)
    assert "password_set_at" in text
    for secret in ("pass:word", "an0ther", "sealed:"):
        assert secret not in text


def test_the_admin_site_does_not_show_it(client: Client, host: LibvirtHost) -> None:
    user = make_user("boss", "Administrators")
    user.is_staff = user.is_superuser = True
    user.save()
    client.force_login(user)
    for path in ("", f"{host.pk}/change/"):
        page = client.get(f"/admin/inventory/libvirthost/{path}").content.decode()
        assert "esx1" in page
        assert "sealed:" not in page


def test_a_password_of_another_secret_key_is_asked_for_again(
    administrator: Client, host: LibvirtHost, settings: Settings
) -> None:
    settings.SECRET_KEY = "another"
    hosts.request_refresh(host)
    assert hosts.refresh(host)
    host.refresh_from_db()
    assert (host.state, host.code) == ("failed", "E-LV-SEALED")
    vm = SourceVM.objects.create(
        name="vm", kind="libvirt", location="x", host=host, status="ready", power="shut off",
        memory_bytes=0, vcpus=1, record={},
    )  # fmt: skip
    assert "can type it again on the page of the host" in vm.refusal


# --- What else is different with them -------------------------------------------------------------


def test_vmwares_hosts_are_only_read_never_followed(host: LibvirtHost) -> None:
    asked: list[object] = []

    def start(access: object) -> None:
        asked.append(access)
        raise OSError

    LibvirtHost.objects.create(
        name="kvm1", uri="qemu+tls://u@kvm1/system", sealed_password=seal("p")
    )
    follower = Follower(start)  # type: ignore[arg-type]  # it starts nothing
    follower.turn()
    assert [repr(access) for access in asked] == [
        "HostAccess(uri='qemu+tls://u@kvm1/system', thumbprint='', over_ssh=False)"
    ]


@pytest.mark.parametrize("uri", [ESX, "vpx://u@vc/DC/host", "xen+ssh://root@xen1/"])
def test_disks_elsewhere_are_not_offered_for_changes(administrator: Client, uri: str) -> None:
    vm = make_vm("my vm")
    host = LibvirtHost.objects.create(name="far", uri=uri, sealed_password=seal("p"))
    SourceVM.objects.filter(pk=vm.pk).update(kind="libvirt", host=host, upload=None)
    assert not administrator.get(vm.get_absolute_url()).context["may_change_disks"]
    assert administrator.get(f"{vm.get_absolute_url()}convert-in-place/").status_code == 404
