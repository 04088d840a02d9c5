"""The convert form with named targets, saved network maps and the options of the copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from lxml import etree
from pytest_django import DjangoAssertNumQueries, Settings

from conversions.actions import job_of, retry_conversion
from conversions.models import Conversion, OutputTarget, SavedMap
from conversions.pipeline.job import Mode
from inventory.models import SourceVM
from tests.demo import GIB, make_source, make_user, make_vm
from tests.web.test_convert import send

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(make_user("ada", "Operators"))
    return client


@pytest.fixture
def pool() -> OutputTarget:
    return OutputTarget.objects.create(
        name="kvm lab", kind="libvirt", uri="qemu:///system", storage="images", free_bytes=40 * GIB,
        networks=["default", "lab"], bridges=["br0"], format="raw", rate_mib=50,
    )  # fmt: skip


def test_a_pool_reaches_the_job_and_a_retry_keeps_it(operator: Client, pool: OutputTarget) -> None:
    vm = make_vm("web01")
    review = send(operator, vm, "review", target=str(pool.uuid))
    page = review.content.decode()
    assert "kvm lab" in page
    assert "40.0 GiB" in page
    xml = etree.fromstring(review.context["preview"].text.encode())
    [disk] = xml.findall("devices/disk[@type='volume']/source")
    assert (disk.get("pool"), disk.get("volume")) == ("images", "web01-sda")
    again = dict(review.context["hidden"])
    operator.post(f"{vm.get_absolute_url()}convert/", again | {"action": "start"})
    first = Conversion.objects.get()
    page = operator.get(first.get_absolute_url()).content.decode()
    assert "qcow2, qemu:///system, images" in page
    target = job_of(first).target
    assert target
    assert (target.kind, target.uri, target.storage, target.directory) == (
        "libvirt", "qemu:///system", "images", "",
    )  # fmt: skip
    Conversion.objects.update(status="failed")
    assert job_of(retry_conversion(first, user=first.created_by)).target == target


def test_a_script_for_qemu_goes_to_its_folder_and_has_no_networks(
    operator: Client, settings: Settings
) -> None:
    folder = Path(settings.TARGET_DIRS[0]) / "scripts"
    folder.mkdir()
    place = OutputTarget.objects.create(name="qemu", kind="qemu", directory=str(folder))
    vm = make_vm("web01")
    response = send(operator, vm, "start", target=str(place.uuid), nic0_name="lan")
    assert "nothing to choose" in response.context["form"].errors["nic0_name"][0]
    (folder / "web01.sh").touch()
    response = send(operator, vm, "start", target=str(place.uuid))
    assert "is there already" in response.context["form"].errors["name"][0]
    review = send(operator, vm, "review", target=str(place.uuid), name="web02")
    assert "(qemu start script)" in review.content.decode()
    assert "file=./web02-sda,format=qcow2" in review.context["preview"].text
    send(operator, vm, "start", target=str(place.uuid), name="web02")
    target = job_of(Conversion.objects.get()).target
    assert target
    assert (target.kind, target.directory) == ("qemu", str(folder))


def test_a_machine_above_the_limit_is_refused_with_both_numbers(
    operator: Client, pool: OutputTarget
) -> None:
    pool.max_disk_gib = 7
    pool.save()
    response = send(operator, make_vm(), "start", target=str(pool.uuid))
    [error] = response.context["form"].errors["target"]
    assert "at most 7.0 GiB of disks; this one has 8.0 GiB" in error
    assert not Conversion.objects.exists()


@pytest.mark.parametrize("target", ["/etc", "", "00000000-0000-0000-0000-000000000000", "\0", "1"])
def test_a_target_that_is_none_is_refused(
    operator: Client, pool: OutputTarget, target: str
) -> None:
    response = send(operator, make_vm(), "start", target=target)
    assert response.context["form"].errors["target"]
    assert not Conversion.objects.exists()


def test_a_folder_that_the_settings_no_longer_allow_is_refused(
    operator: Client, tmp_path: Path
) -> None:
    place = OutputTarget.objects.create(name="old", kind="local", directory=str(tmp_path))
    response = send(operator, make_vm(), "start", target=str(place.uuid))
    assert "no longer" in response.context["form"].errors["target"][0]
    assert not Conversion.objects.exists()


def test_the_form_starts_with_what_the_target_says_and_offers_its_networks(
    operator: Client, pool: OutputTarget
) -> None:
    vm = make_vm()
    page = operator.get(f"{vm.get_absolute_url()}convert/").content.decode()
    assert "kvm lab (40.0 GiB free)" in page
    assert 'value="br0"' not in page
    response = send(operator, vm, "target", target=str(pool.uuid), name="kept")
    page = response.content.decode()
    assert '<option value="br0" label="bridge br0">' in page
    assert 'value="kept"' in page
    form = response.context["form"]
    assert (form["format"].value(), form["allocation"].value()) == ("raw", "sparse")
    [copying, *_others] = form.sections
    assert (copying["rate_mib"].value(), copying.is_open) == (50, True)
    assert not Conversion.objects.exists()


def test_networks_are_saved_as_a_map_and_fill_another_machine(operator: Client) -> None:
    first = make_vm("web01", source=make_source(nics=2))
    both = {"nic0_kind": "bridge", "nic0_name": "br0", "nic1_kind": "bridge", "nic1_name": "br0"}
    page = send(operator, first, "save_map", map_name="<lab>", **both).content.decode()
    assert "The networks are saved as &lt;lab&gt;." in page
    saved = SavedMap.objects.get()
    assert str(saved.created_by) == "ada"
    assert saved.entries == [
        {"from_kind": "network", "from_name": "VM Network", "kind": "bridge", "name": "br0"}
    ]
    second = make_vm("web02")
    form = send(operator, second, "map", map=str(saved.pk)).context["form"]
    assert (form["nic0_kind"].value(), form["nic0_name"].value()) == ("bridge", "br0")
    send(operator, second, "start", nic0_kind="bridge", nic0_name="br0", map=str(saved.pk))
    job = job_of(Conversion.objects.get())
    assert job.network_map.macs == {"00:50:56:00:00:01": ("bridge", "br0")}


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"map_name": ""}, "Type a name"), ({"map_name": "taken"}, "There is a map of that name"),
     ({"map_name": "x", "nic1_name": "other"}, "each can lead to one place only"),
     ({"map_name": "x" * 101}, "at most 100")],
)  # fmt: skip
def test_what_can_be_no_map_is_refused_with_the_reason(
    operator: Client, changes: dict[str, Any], words: str
) -> None:
    SavedMap.objects.create(name="taken", entries=[])
    vm = make_vm(source=make_source(nics=2))
    page = send(operator, vm, "save_map", nic0_name="lan", **{"nic1_name": "lan"} | changes)
    assert words in page.content.decode()
    assert SavedMap.objects.count() == 1


def test_a_card_without_a_mac_keeps_its_kind_whatever_the_map_says(operator: Client) -> None:
    entry = {"from_kind": "network", "from_name": "VM Network", "kind": "bridge", "name": "br0"}
    saved = SavedMap.objects.create(name="lab", entries=[entry])
    vm = make_vm(source=make_source(mac=False))
    form = send(operator, vm, "map", map=str(saved.pk)).context["form"]
    assert form["nic0_name"].value() == "VM Network"


def test_operators_remove_maps_and_viewers_do_not(operator: Client) -> None:
    saved = SavedMap.objects.create(name="lab", entries=[])
    address = f"/targets/maps/{saved.pk}/remove/"
    assert operator.get(address).status_code == 405
    operator.post(address)
    assert not SavedMap.objects.exists()
    SavedMap.objects.create(pk=saved.pk, name="lab", entries=[])
    operator.force_login(make_user("vera", "Viewers"))
    assert operator.post(address).status_code == 403


def test_the_copy_options_reach_the_job(operator: Client) -> None:
    options = {"copy-parallel": 2, "copy-rate_mib": 10, "copy-verify": "full", "copy-digests": "on",
               "copy-overlap": "never"}  # fmt: skip
    vm = make_vm()
    review = send(operator, vm, "review", **options)
    assert "10.0 MiB a second" in review.content.decode()
    again = dict(review.context["hidden"])
    operator.post(f"{vm.get_absolute_url()}convert/", again | {"action": "start"})
    copy = job_of(Conversion.objects.get()).copy
    assert (copy.parallel, copy.rate_bytes, copy.verify) == (2, 10 << 20, "full")
    assert (copy.digests, copy.overlap) == (True, "never")


@pytest.mark.parametrize(
    ("name", "value"),
    [pytest.param("parallel", "0", marks=pytest.mark.rows("4-T24")),
     ("parallel", 17), ("parallel", "x"), ("rate_mib", "0"), ("rate_mib", -1),
     ("verify", "maybe")],
)  # fmt: skip
def test_copy_options_that_cannot_be_are_marked(operator: Client, name: str, value: Any) -> None:
    response = send(operator, make_vm(), "start", **{f"copy-{name}": value})
    [copying, *_others] = response.context["form"].sections
    assert copying.errors[name]
    assert not Conversion.objects.exists()


def test_in_place_there_is_no_copy_to_set(client: Client) -> None:
    client.force_login(make_user("root", "Administrators"))
    vm = make_vm()
    SourceVM.objects.filter(pk=vm.pk).update(kind="disk")
    page = client.get(f"{vm.get_absolute_url()}convert-in-place/").content.decode()
    assert "copy-parallel" not in page


def test_the_form_asks_few_questions_whatever_the_number_of_targets(
    operator: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    vm = make_vm()
    for number in range(30):
        OutputTarget.objects.create(name=f"t{number}", kind="libvirt")
        SavedMap.objects.create(name=f"m{number}", entries=[])
    with django_assert_max_num_queries(13):
        operator.get(f"{vm.get_absolute_url()}convert/")


def test_a_rehearsal_ignores_where_the_result_would_go(
    operator: Client, pool: OutputTarget
) -> None:
    send(operator, make_vm(), "rehearse", target=str(pool.uuid))
    conversion = Conversion.objects.get()
    assert (conversion.mode, job_of(conversion).target) == (Mode.REHEARSE, None)
