"""Converting in place from the console: who may, what the page says, what starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.test import Client

from conversions import actions
from conversions.models import Conversion
from conversions.pipeline.job import Mode
from inventory.models import SourceVM
from tests.demo import make_conversion, make_inspection, make_source, make_user, make_vm

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin(client: Client) -> Client:
    client.force_login(make_user("root", "Administrators"))
    return client


def disk_vm(name: str = "web01") -> SourceVM:
    """Return a machine whose disks lie on this server."""
    source = make_source(name)
    disks = tuple(replace(disk, path=f"/srv/{name}.qcow2") for disk in source.disks)
    vm = make_vm(name, source=replace(source, disks=disks))
    vm.kind = "disk"
    vm.save()
    return vm


def confirm(client: Client, vm: SourceVM, **values: Any) -> Any:
    data = {"root": "single", "confirm": vm.name, "guest-fsck": "on"} | values
    return client.post(f"{vm.get_absolute_url()}convert-in-place/", data)


def test_the_page_names_every_disk_and_how_it_is_safe(admin: Client) -> None:
    vm = disk_vm()
    page = admin.get(f"{vm.get_absolute_url()}convert-in-place/").content.decode()
    assert "/srv/web01.qcow2" in page
    assert "bit for bit" in page


def test_the_typed_name_starts_it(admin: Client) -> None:
    vm = disk_vm()
    response = confirm(admin, vm)
    conversion = Conversion.objects.get()
    assert response["Location"] == conversion.get_absolute_url()
    job = actions.job_of(conversion)
    assert (job.mode, job.source.kind, job.target, job.name) == (Mode.IN_PLACE, "disk", None, None)


@pytest.mark.parametrize(("ticked", "direct"), [({}, False), ({"direct": "on"}, True)])
def test_without_an_overlay_only_when_it_is_ticked(
    admin: Client, ticked: dict[str, str], direct: bool
) -> None:
    confirm(admin, disk_vm(), **ticked)
    assert actions.job_of(Conversion.objects.get()).direct is direct


@pytest.mark.rows("4-T104")
@pytest.mark.parametrize(
    ("status", "commit", "said"),
    [
        ("failed", None, "The disks of the source are as they were."),
        ("failed", {"state": "direct"}, "possibly corrupt"),
        ("lost", {"state": "direct"}, "while the disks were changed"),
    ],
)
def test_what_the_disks_have_become(
    admin: Client, status: str, commit: dict[str, str] | None, said: str
) -> None:
    confirm(admin, disk_vm())
    Conversion.objects.update(status=status, reports={"commit": commit} if commit else {})
    conversion = Conversion.objects.get()
    assert said in admin.get(conversion.get_absolute_url()).content.decode()


@pytest.mark.parametrize("typed", ["", "web02", "WEB01"])
def test_another_name_starts_nothing(admin: Client, typed: str) -> None:
    response = confirm(admin, disk_vm(), confirm=typed)
    assert response.status_code == 200
    assert not Conversion.objects.exists()


def test_operators_may_not(client: Client) -> None:
    client.force_login(make_user("ada", "Operators"))
    vm = disk_vm()
    assert "convert-in-place" not in client.get(vm.get_absolute_url()).content.decode()
    response = confirm(client, vm)
    assert response.status_code == 403
    assert "Administrators" in response.content.decode()
    assert not Conversion.objects.exists()


def test_an_ova_has_no_such_page(admin: Client) -> None:
    vm = make_vm()
    assert confirm(admin, vm).status_code == 404
    assert "convert-in-place" not in admin.get(vm.get_absolute_url()).content.decode()


def test_a_blocking_concern_cannot_be_overridden_here(admin: Client) -> None:
    vm = disk_vm()
    make_inspection(make_conversion(vm, mode=Mode.INSPECT), blocks=True)
    response = confirm(admin, vm)
    assert "Cannot start" in response.content.decode()
    assert not Conversion.objects.filter(mode=Mode.IN_PLACE).exists()


def test_a_choice_that_settles_the_blocking_concern_leads_to_the_button(admin: Client) -> None:
    vm = disk_vm()
    SourceVM.objects.update(os_hint="Microsoft Windows Server 2019 (64-bit)")
    inspection = make_inspection(make_conversion(vm, mode=Mode.INSPECT))
    inspection.conversion.reports |= {"inspection": {"type": "windows"}}
    inspection.conversion.save()
    inspection.concerns.create(position=9, level="blocks", code="C-NO-DRIVERS", title="No drivers")
    chosen = {"windows-emulated_devices": "on", "windows-block_driver": "virtio-blk"}
    page = admin.get(f"{vm.get_absolute_url()}convert-in-place/").content.decode()
    assert "Check again" in page and 'name="confirm"' not in page
    page = confirm(admin, vm, **chosen, confirm="").content.decode()
    assert "Check again" not in page and 'name="confirm"' in page
    confirm(admin, vm, **chosen)
    job = actions.job_of(Conversion.objects.get(mode=Mode.IN_PLACE))
    assert job.windows.emulated_devices


def test_a_retry_is_confirmed_anew(admin: Client) -> None:
    vm = disk_vm()
    confirm(admin, vm)
    conversion = Conversion.objects.get()
    Conversion.objects.update(status="failed")
    response = admin.post(f"{conversion.get_absolute_url()}retry/")
    assert response["Location"] == f"{vm.get_absolute_url()}convert-in-place/"
    assert Conversion.objects.count() == 1


@pytest.mark.parametrize(
    ("reports", "words"),
    [
        ({}, "as they were"),
        ({"commit": {"state": "finished"}}, "they are converted"),
        ({"commit": {"state": "unfinished"}}, "Do not start the machine"),
    ],
)
def test_a_failure_says_what_became_of_the_disks(
    admin: Client, reports: dict[str, Any], words: str
) -> None:
    vm = disk_vm()
    confirm(admin, vm)
    Conversion.objects.update(status="failed", reports=reports, result={"message": "It broke."})
    page = admin.get(Conversion.objects.get().get_absolute_url()).content.decode()
    assert words in page


@pytest.mark.rows("4-T104")
def test_disks_that_may_be_damaged_are_not_used_before_they_are_put_back(admin: Client) -> None:
    vm = disk_vm()
    confirm(admin, vm, direct="on")
    Conversion.objects.update(status="failed", reports={"commit": {"state": "direct"}})
    for page in ("convert-in-place/", "inspect/", "convert/"):
        assert "may be damaged" in admin.get(vm.get_absolute_url() + page).content.decode()
    assert confirm(admin, vm).status_code == 200
    assert admin.post(f"{vm.get_absolute_url()}inspect/").status_code == 200
    response = admin.post(f"{vm.get_absolute_url()}rehearse/")
    assert response["Location"] == f"{vm.get_absolute_url()}inspect/"
    assert Conversion.objects.count() == 1
    confirm(admin, vm, **{"damage-restored": "on"})
    assert Conversion.objects.count() == 2
    assert "may be damaged" not in admin.get(f"{vm.get_absolute_url()}convert/").content.decode()


@pytest.mark.parametrize(
    ("define", "words"), [(True, "It is defined anew on its host"), (False, "definition below")]
)
def test_the_page_says_what_is_left_to_do(admin: Client, define: bool, words: str) -> None:
    confirm(admin, disk_vm())
    conversion = Conversion.objects.get()
    conversion.job["define"] = define
    conversion.status = Conversion.Status.DONE
    conversion.reports = {"libvirt_xml": {"xml": "<domain/>"}}
    conversion.save()
    response = admin.get(conversion.get_absolute_url())
    assert words in response.context["sentence"]
    assert "virsh define" not in response.context["sentence"]
    assert "description/" in response.content.decode()
