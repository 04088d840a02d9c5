"""Drivers for Windows guests: adding, refusing, choosing, and what reaches the job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from auditlog.models import LogEntry
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from pytest_django import Settings

from conversions import actions
from conversions.drivers import default_drivers, list_drivers, list_tools
from conversions.forms import ConvertForm
from conversions.models import Conversion
from conversions.pipeline.job import Mode
from inventory.models import SourceVM
from tests.demo import make_conversion, make_inspection, make_user, make_vm
from tests.guests.virtio_win import driver_iso_tree, make_iso, put

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An ISO of drivers."""
    folder = tmp_path_factory.mktemp("virtio-win")
    return make_iso(driver_iso_tree(folder / "tree"), folder / "virtio-win.iso").read_bytes()


@pytest.fixture
def folder(settings: Settings) -> Path:
    """The folder of drivers, which is not there until something is added."""
    return Path(settings.DRIVERS_DIR)


@pytest.fixture
def admin(client: Client) -> Client:
    client.force_login(make_user("root", "Administrators"))
    return client


def windows_vm() -> SourceVM:
    vm = make_vm("win2019")
    vm.os_hint = "Microsoft Windows Server 2019 (64-bit)"
    vm.save()
    return vm


def add(client: Client, name: str, data: bytes) -> str:
    """Send a file and return the page that follows."""
    file = SimpleUploadedFile(name, data)
    response = client.post("/drivers/add/", {"file": file}, follow=True)
    return str(response.content.decode())


def convert(client: Client, vm: SourceVM, action: str, **changes: Any) -> Any:
    sent = ConvertForm(vm=vm).detected() | changes
    values = {name: value for name, value in sent.items() if value not in (None, False)}
    return client.post(f"{vm.get_absolute_url()}convert/", values | {"action": action})


def test_an_iso_is_added_listed_and_removed(admin: Client, iso: bytes, folder: Path) -> None:
    assert "No drivers yet" in admin.get("/drivers/").content.decode()
    page = add(admin, "virtio-win-0.1.262.iso", iso)
    assert "is added" in page
    assert "Windows Server 2019" in page
    [drivers] = list_drivers()
    assert "x86_64" in drivers.covers["2k19"]
    assert "labelled virtio-win-0.1.285" in page
    assert "QEMU guest agent for i386, x86_64" in page
    for _again in range(2):
        admin.post("/drivers/remove/?name=virtio-win-0.1.262.iso")
    assert not [p for p in folder.rglob("*") if p.is_file()]
    assert "No drivers yet" in admin.get("/drivers/").content.decode()
    entries = LogEntry.objects.filter(content_type__model="driverfile").order_by("pk")
    assert [(e.action, e.object_repr, str(e.actor)) for e in entries] == [
        (LogEntry.Action.CREATE, "virtio-win-0.1.262.iso", "root"),
        (LogEntry.Action.DELETE, "virtio-win-0.1.262.iso", "root"),
    ]
    record = admin.get("/admin/auditlog/logentry/").content.decode()
    assert "virtio-win-0.1.262.iso" in record
    assert admin.get(f"/admin/auditlog/logentry/{entries[0].pk}/change/").status_code == 200


@pytest.mark.parametrize(
    ("name", "keep", "words"),
    [("virtio-win.iso", 0.0, "was not kept"), ("virtio-win.iso", 0.3, "was not kept"),
     ("virtio-win.iso", 0.003, "an ISO image has more"),
     ("virtio-win.zip", 1.0, "neither an ISO image"), ("rhsrvany.exe", 1.0, "no Windows program")],
)  # fmt: skip
def test_what_is_no_use_is_refused_and_not_kept(
    admin: Client, iso: bytes, folder: Path, name: str, keep: float, words: str
) -> None:
    data = iso[: int(len(iso) * keep)] or b"not an iso at all" * 5000
    assert words in add(admin, name, data)
    assert not [p for p in folder.rglob("*") if p.is_file()]


def test_an_iso_of_that_name_is_not_replaced(admin: Client, iso: bytes) -> None:
    add(admin, "a.iso", iso)
    assert "is there already" in add(admin, "a.iso", iso)
    assert len(list_drivers()) == 1


def test_a_program_of_the_first_start_is_kept_beside_the_drivers(
    admin: Client, folder: Path
) -> None:
    assert "is added" in add(admin, "RHSRVANY.EXE", b"MZ" + bytes(1000))
    assert (folder / "virt-tools" / "rhsrvany.exe").exists()
    assert "rhsrvany.exe" in admin.get("/drivers/").content.decode()
    assert "is there already" in add(admin, "rhsrvany.exe", b"MZ" + bytes(1000))


def test_a_program_that_is_none_is_marked(admin: Client, folder: Path) -> None:
    (folder / "virt-tools").mkdir(parents=True)
    (folder / "virt-tools/rhsrvany.exe").write_bytes(b"#!/bin/sh")
    page = admin.get("/drivers/").content.decode()
    assert "it is no Windows program" in page
    assert "Cannot be used" in page


@pytest.mark.parametrize("place", ["virt-tools", ""])
def test_the_programs_that_are_listed_reach_the_job_whatever_the_drivers(
    admin: Client, folder: Path, place: str
) -> None:
    (folder / "virt-tools").mkdir(parents=True)
    driver_iso_tree(folder / "unpacked")
    vm = windows_vm()
    admin.post(f"{vm.get_absolute_url()}inspect/")
    assert actions.job_of(Conversion.objects.get()).windows.virt_tools == ""
    Conversion.objects.all().delete()
    (folder / place / "rhsrvany.exe").write_bytes(b"MZ")
    add(admin, "pnp_wait.exe", b"MZ")
    assert [t.name for t in list_tools()] == ["rhsrvany.exe", "pnp_wait.exe"]
    assert [d.name for d in list_drivers()] == ["unpacked"]
    admin.post(f"{vm.get_absolute_url()}inspect/")
    for drivers in ("", str(folder / "unpacked")):
        convert(admin, vm, "start", **{"windows-virtio_win": drivers})
    chosen = [actions.job_of(run).windows.virt_tools for run in Conversion.objects.all()]
    assert chosen == [str(folder / place)] * 3
    admin.post("/drivers/remove/?name=rhsrvany.exe")
    assert not (folder / place / "rhsrvany.exe").exists()


def test_the_block_driver_tells_its_version(admin: Client, folder: Path) -> None:
    inf = "[Version]\r\nDriverVer = 7/21/2023,100.93.104.24000\r\n"
    for name, data in (("viostor.inf", inf.encode("utf-16")), ("viostor.sys", b"x")):
        path = folder / "unpacked/viostor/w10/amd64" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    page = admin.get("/drivers/").content.decode()
    assert "100.93.104.24000 of 2023-07-21" in page
    assert "No QEMU guest agent" in page


def test_a_link_that_leads_nowhere_is_listed_and_harms_nothing_else(
    admin: Client, iso: bytes, folder: Path
) -> None:
    add(admin, "virtio-win.iso", iso)
    (folder / "old.iso").symlink_to(folder / "gone.iso")
    page = admin.get("/drivers/").content.decode()
    assert "It cannot be read: No such file or directory." in page
    assert [(d.name, bool(d.problem)) for d in list_drivers()] == [
        ("virtio-win.iso", False), ("old.iso", True),
    ]  # fmt: skip
    assert default_drivers() == str(folder / "virtio-win.iso")
    admin.post("/drivers/remove/?name=old.iso")
    assert [d.name for d in list_drivers()] == ["virtio-win.iso"]


def test_of_a_linked_folder_only_the_link_is_removed(
    admin: Client, folder: Path, tmp_path: Path
) -> None:
    elsewhere = driver_iso_tree(tmp_path / "elsewhere")
    folder.mkdir(parents=True)
    (folder / "linked").symlink_to(elsewhere)
    assert "is removed" in admin.post("/drivers/remove/?name=linked", follow=True).content.decode()
    assert list_drivers() == []
    assert any(elsewhere.iterdir())


def test_a_folder_seen_while_it_is_copied_is_looked_into_again(folder: Path) -> None:
    fits = folder / "unpacked/viostor/w10/amd64"
    fits.mkdir(parents=True)
    assert [d.covers for d in list_drivers()] == [{}]
    (fits / "viostor.sys").write_bytes(b"x")
    assert [d.covers for d in list_drivers()] == [{"w10": ["x86_64"]}]


def test_operators_look_but_do_not_add(client: Client, iso: bytes, folder: Path) -> None:
    client.force_login(make_user("ada", "Operators"))
    page = client.get("/drivers/").content.decode()
    assert "An administrator can add them" in page
    file = SimpleUploadedFile("a.iso", iso)
    assert client.post("/drivers/add/", {"file": file}).status_code == 403
    assert client.post("/drivers/remove/?name=a.iso").status_code == 403
    assert not folder.exists()


def test_a_name_that_leads_elsewhere_removes_nothing(admin: Client, tmp_path: Path) -> None:
    other = tmp_path / "other.iso"
    other.write_bytes(b"x")
    admin.post("/drivers/remove/?name=../other.iso")
    assert other.exists()


def test_the_newest_drivers_and_the_wishes_reach_the_job(
    admin: Client, iso: bytes, folder: Path
) -> None:
    add(admin, "virtio-win.iso", iso)
    vm = windows_vm()
    mac = vm.source.nics[0].mac
    assert mac
    convert(
        admin, vm, "start",
        **{
            "windows-block_driver": "virtio-scsi",
            "windows-disable_vmware": "on",
            "windows-guest_agent": "",
            "windows-firstboot": "@echo off\r\nnet user ada /active:yes\r\n",
            "windows-addresses0": "192.0.2.10, 192.0.2.1, 24, 192.0.2.53\n2001:db8::10,,64\n",
        },
    )  # fmt: skip
    job = actions.job_of(Conversion.objects.get())
    options = job.windows
    assert options.virtio_win == str(folder / "virtio-win.iso")
    assert not job.guest_agent
    assert job.customize.firstboot == ("@echo off\r\nnet user ada /active:yes\r\n",)
    assert (options.block_driver, options.disable_vmware) == ("virtio-scsi", True)
    first, second = options.static_ips
    assert (first.mac, first.address, first.gateway, first.prefix, first.name_servers) == (
        mac.lower(), "192.0.2.10", "192.0.2.1", 24, ("192.0.2.53",),
    )  # fmt: skip
    assert (second.address, second.gateway) == ("2001:db8::10", "")


def without_drivers(vm: SourceVM, code: str = "C-NO-DRIVERS") -> None:
    """Give a machine an inspection of a Server 2019 that had neither drivers nor programs."""
    inspection = make_inspection(make_conversion(vm, mode=Mode.INSPECT))
    run = inspection.conversion
    guest = {"type": "windows", "osinfo": "win2k19", "arch": "x86_64"}
    run.reports = {**run.reports, "inspection": {**run.reports["inspection"], **guest}}
    run.save()
    inspection.concerns.create(position=9, level="blocks", code=code, title="It is missing")


@pytest.mark.parametrize(
    ("supplied", "wishes", "settled"),
    [("", {}, False),
     ("", {"windows-emulated_devices": "on"}, True),
     ("viostor/w10/amd64/viostor.sys", {}, False),
     ("viostor/2k16/amd64/viostor.sys", {}, False),
     ("viostor/2k16/amd64/viostor.sys", {"windows-sibling_drivers": "on"}, True),
     ("viostor/2k19/amd64/viostor.sys", {}, True),
     ("viostor/2k19/amd64/viostor.sys", {"windows-virtio_win": ""}, False),
     ("viostor/2k19/amd64/viostor.sys", {"windows-virtio_win": "/etc"}, False)],
)  # fmt: skip
def test_drivers_that_were_missing_stop_nothing_once_they_are_there_or_done_without(
    admin: Client, folder: Path, monkeypatch: pytest.MonkeyPatch,
    supplied: str, wishes: dict[str, str], settled: bool,
) -> None:  # fmt: skip
    monkeypatch.setenv("VIRTIO_WIN", str(folder / "not-there"))  # what the host has
    vm = windows_vm()
    without_drivers(vm)
    if supplied:
        put(folder / "unpacked" / supplied)
    review = convert(admin, vm, "review", **wishes).content.decode()
    assert ("It is missing" in review) is not settled
    convert(admin, vm, "start", **wishes)
    assert Conversion.objects.filter(mode=Mode.COPY).exists() is settled


def test_a_program_that_was_missing_stops_nothing_once_it_is_there(admin: Client) -> None:
    vm = windows_vm()
    without_drivers(vm, "C-NO-SERVICE-PROGRAM")
    address = f"{vm.get_absolute_url()}convert/"
    assert "It is missing" in admin.get(address).content.decode()
    add(admin, "rhsrvany.exe", b"MZ")
    assert "It is missing" not in admin.get(address).content.decode()


def test_an_address_that_is_none_is_marked(admin: Client) -> None:
    response = convert(admin, windows_vm(), "start", **{"windows-addresses0": "192.0.2.999"})
    assert "192.0.2.999" in response.content.decode()
    assert "is no IP address" in response.content.decode()
    assert not Conversion.objects.exists()


def test_a_linux_guest_has_no_such_section(admin: Client) -> None:
    vm = make_vm()
    assert (
        "windows-virtio_win" not in admin.get(f"{vm.get_absolute_url()}convert/").content.decode()
    )


def test_an_inspection_knows_the_drivers_too(admin: Client, iso: bytes, folder: Path) -> None:
    add(admin, "virtio-win.iso", iso)
    admin.post(f"{windows_vm().get_absolute_url()}inspect/")
    options = actions.job_of(Conversion.objects.get()).windows
    assert options.virtio_win == str(folder / "virtio-win.iso")
