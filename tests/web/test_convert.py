"""The convert form, its review, and the runs they start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from auditlog.models import LogEntry
from django.test import Client
from pytest_django import Settings

from conversions.forms import ConvertForm, suggested_name
from conversions.models import Concern, Conversion
from conversions.pipeline.job import Job, Mode, Target
from conversions.space import needs
from inventory.models import SourceVM
from tests.demo import (
    GIB,
    REPORTS,
    make_conversion,
    make_inspection,
    make_source,
    make_user,
    make_vm,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(make_user("ada", "Operators"))
    return client


def values(vm: SourceVM, **changes: Any) -> dict[str, Any]:
    """Return what a browser sends for the form as it came, with changes."""
    detected = ConvertForm(vm=vm).detected() | changes
    return {name: value for name, value in detected.items() if value not in (None, False)}


def send(client: Client, vm: SourceVM, action: str, **changes: Any) -> Any:
    return client.post(
        f"{vm.get_absolute_url()}convert/", values(vm, **changes) | {"action": action}
    )


def test_the_form_comes_filled_with_what_was_detected(operator: Client) -> None:
    vm = make_vm("web 01")
    page = operator.get(f"{vm.get_absolute_url()}convert/").content.decode()
    assert 'value="web-01"' in page
    assert 'value="VM Network"' in page
    assert "detected" in page


@pytest.mark.parametrize(
    ("name", "suggested"),
    [("web01", "web01"), ("../../etc", "etc"), ("Büro PC", "B-ro-PC"), ("//", "machine")],
)
def test_the_suggested_name_is_one_the_form_accepts(name: str, suggested: str) -> None:
    assert suggested_name(SourceVM(name=name)) == suggested


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-o", ".hidden", "a b", "x" * 101])
def test_a_name_that_could_not_be_a_file_is_refused_in_the_form(
    operator: Client, name: str
) -> None:
    vm = make_vm()
    response = send(operator, vm, "start", name=name)
    assert response.status_code == 200
    assert response.context["form"].errors["name"]
    assert not Conversion.objects.exists()


def test_a_target_folder_outside_the_settings_is_refused(operator: Client) -> None:
    response = send(operator, make_vm(), "start", target="/etc")
    assert response.context["form"].errors["target"]
    assert not Conversion.objects.exists()


@pytest.mark.rows("4-T91")
def test_compression_needs_sparse_qcow2(operator: Client) -> None:
    vm = make_vm()
    raw = send(operator, vm, "review", compressed="on", format="raw")
    full = send(operator, vm, "review", compressed="on", allocation="preallocated")
    assert "raw was chosen" in raw.context["form"].errors["compressed"][0]
    assert "exclude each other" in full.context["form"].errors["compressed"][0]


@pytest.mark.rows("4-T20")
@pytest.mark.parametrize("file", ["web01.xml", "web01-sda"])
def test_a_name_that_is_taken_on_the_target_is_refused(
    operator: Client, settings: Settings, file: str
) -> None:
    (Path(settings.TARGET_DIRS[0]) / file).touch()
    response = send(operator, make_vm("web01"), "review")
    assert "is there already" in response.context["form"].errors["name"][0]


def test_the_review_shows_the_resulting_machine_and_what_was_changed(operator: Client) -> None:
    vm = make_vm("web01")
    page = send(operator, vm, "review", name="web02", nic0_name="default").content.decode()
    assert "&lt;name&gt;web02&lt;/name&gt;" in page
    assert "Changed by you" in page
    assert "VM Network → <strong>default</strong>" in page
    assert "Work folder" in page
    assert "Target folder" in page
    assert not Conversion.objects.exists()


def test_going_back_from_the_review_keeps_what_was_typed(operator: Client) -> None:
    page = send(operator, make_vm(), "edit", name="renamed").content.decode()
    assert 'value="renamed"' in page


def test_what_the_review_sends_again_makes_the_same_job(operator: Client) -> None:
    vm = make_vm(source=make_source(nics=2))
    response = send(
        operator, vm, "review", format="raw", trim=False, memory_mib=2048, nic1_name="lan"
    )
    again = dict(response.context["hidden"])
    assert "trim" not in again
    operator.post(f"{vm.get_absolute_url()}convert/", again | {"action": "start"})
    assert (
        Job.from_dict(Conversion.objects.get().job).to_json() == response.context["job"].to_json()
    )


def test_starting_makes_a_conversion_that_waits_for_a_worker(operator: Client) -> None:
    vm = make_vm("web01")
    response = send(operator, vm, "start", nic0_kind="bridge", nic0_name="br0")
    conversion = Conversion.objects.get()
    assert response["Location"] == conversion.get_absolute_url()
    assert conversion.mode == Mode.COPY
    assert conversion.status == Conversion.Status.WAITING
    assert str(conversion.created_by) == "ada"
    job = Job.from_dict(conversion.job)
    assert job.source.location == vm.location
    assert job.network_map.macs == {"00:50:56:00:00:01": ("bridge", "br0")}


def test_a_second_press_of_start_leads_to_the_run_of_the_first(operator: Client) -> None:
    vm = make_vm("web01")
    send(operator, vm, "start")
    first = Conversion.objects.get()
    assert send(operator, vm, "start")["Location"] == first.get_absolute_url()
    assert f"run #{first.pk} makes web01" in operator.get(first.get_absolute_url()).content.decode()
    assert Conversion.objects.count() == 1
    send(operator, vm, "start", name="web01-b")
    assert Conversion.objects.count() == 2


@pytest.mark.parametrize(("name", "status", "runs"), [
    ("web01", "waiting", 1), ("web01", "failed", 2), ("web02", "waiting", 2),
])  # fmt: skip
def test_two_machines_get_one_name_on_a_target_one_after_the_other(
    operator: Client, name: str, status: str, runs: int
) -> None:
    send(operator, make_vm("web01"), "start")
    Conversion.objects.update(status=status)
    send(operator, make_vm("other"), "start", name=name)
    assert Conversion.objects.count() == runs


def test_unchanged_networks_are_not_mapped(operator: Client) -> None:
    vm = make_vm()
    send(operator, vm, "start")
    assert not Job.from_dict(Conversion.objects.get().job).network_map.macs


def test_cards_without_a_mac_are_mapped_by_network_and_keep_their_kind(operator: Client) -> None:
    vm = make_vm(source=make_source(mac=False))
    send(operator, vm, "start", nic0_kind="bridge", nic0_name="lan")
    mapping = Job.from_dict(Conversion.objects.get().job).network_map
    assert mapping.networks == {"VM Network": "lan"}
    assert not mapping.bridges


def test_two_cards_without_a_mac_on_one_network_cannot_go_apart(operator: Client) -> None:
    vm = make_vm(source=make_source(nics=2, mac=False))
    response = send(operator, vm, "review", nic0_name="a", nic1_name="b")
    assert "same target" in response.context["form"].errors["nic1_name"][0]


def test_a_blocking_concern_stops_the_start_until_a_reason_is_typed(operator: Client) -> None:
    vm = make_vm()
    make_inspection(make_conversion(vm, mode=Mode.INSPECT), blocks=True)
    runs = Conversion.objects.filter(mode=Mode.COPY)
    review = send(operator, vm, "review").content.decode()
    assert "Cannot start: 1 blocking concern." in review
    refused = send(operator, vm, "start")
    assert "Type a reason" in refused.content.decode()
    assert not runs.exists()
    send(operator, vm, "start", override_reason="tested on a copy")
    conversion = runs.get()
    assert conversion.reports["override"] == {
        "reason": "tested on a copy",
        "concerns": ["The guest was hibernated"],
        "by": "ada",
    }
    entry = LogEntry.objects.get_for_object(conversion).get(action=LogEntry.Action.UPDATE)
    assert entry.changes["override"][1] == "tested on a copy"
    assert entry.actor.get_username() == "ada"


def test_a_retry_past_a_blocking_concern_needs_the_reason_of_its_run(operator: Client) -> None:
    vm = make_vm()
    old = make_conversion(vm, status="failed")
    make_inspection(make_conversion(vm, mode=Mode.INSPECT), blocks=True)
    for method in (operator.get, operator.post):
        response = method(f"{old.get_absolute_url()}retry/")
        assert response["Location"] == f"{vm.get_absolute_url()}convert/"
    assert not Conversion.objects.filter(retry_of=old).exists()
    send(operator, vm, "start", override_reason="tested on a copy", name="again")
    run = Conversion.objects.get(name="again")
    for _ in range(2):  # a retry of a retry has it too
        Conversion.objects.filter(pk=run.pk).update(status="failed")
        operator.post(f"{run.get_absolute_url()}retry/")
        run = Conversion.objects.get(retry_of=run)
        assert run.reports["override"]["reason"] == "tested on a copy"
    Concern.objects.filter(level="blocks").update(title="Another one")
    Conversion.objects.filter(pk=run.pk).update(status="failed")
    operator.post(f"{run.get_absolute_url()}retry/")
    assert not Conversion.objects.filter(retry_of=run).exists()


def test_a_rehearsal_from_the_form_uses_its_settings_and_writes_nowhere(operator: Client) -> None:
    vm = make_vm()
    send(operator, vm, "rehearse", trim=False)
    conversion = Conversion.objects.get()
    assert conversion.mode == Mode.REHEARSE
    job = Job.from_dict(conversion.job)
    assert job.target is None
    assert not job.trim


@pytest.mark.parametrize("verb", ["inspect", "rehearse"])
def test_inspect_and_rehearse_start_from_the_machine_page(operator: Client, verb: str) -> None:
    vm = make_vm()
    response = operator.post(f"{vm.get_absolute_url()}{verb}/")
    conversion = Conversion.objects.get()
    assert conversion.mode == verb
    assert response["Location"] == conversion.get_absolute_url()


def test_a_second_inspection_leads_to_the_one_under_way(operator: Client) -> None:
    vm = make_vm()
    first = make_conversion(vm, mode=Mode.INSPECT, status="running")
    response = operator.post(f"{vm.get_absolute_url()}inspect/")
    assert response["Location"] == first.get_absolute_url()
    assert Conversion.objects.count() == 1


@pytest.mark.parametrize("verb", ["inspect", "rehearse", "convert"])
@pytest.mark.parametrize("status", ["arriving", "gone"])
def test_what_is_not_there_cannot_be_started(operator: Client, verb: str, status: str) -> None:
    vm = make_vm(status=status)
    response = operator.post(f"{vm.get_absolute_url()}{verb}/")
    assert response["Location"] == vm.get_absolute_url()
    assert not Conversion.objects.exists()


def test_starting_by_address_alone_is_refused(operator: Client) -> None:
    vm = make_vm()
    operator.get(f"{vm.get_absolute_url()}inspect/")
    assert operator.get(f"{vm.get_absolute_url()}rehearse/").status_code == 405
    assert not Conversion.objects.exists()


def job_for(vm: SourceVM, **changes: Any) -> Job:
    form = ConvertForm(values(vm, **changes), vm=vm)
    assert form.is_valid(), form.errors
    return form.job(Mode.COPY)


def test_need_comes_from_the_inspection_when_there_is_one(tmp_path: Path) -> None:
    vm = make_vm()
    job = job_for(vm)
    _work, measured = needs(vm, job, REPORTS, tmp_path)
    _work, guessed = needs(vm, job, {}, tmp_path)
    # 4.5 GiB estimated and 5 %, 8 GiB of capacity; 1 GiB kept free; 1 GiB for work beside it.
    assert measured.need_bytes == int(4.5 * GIB) * 105 // 100 + 2 * GIB
    assert measured.basis == "estimate"
    assert guessed.need_bytes == 10 * GIB
    assert guessed.basis == "capacity"


@pytest.mark.parametrize(
    ("uri", "allocation", "waiting", "basis"),
    [
        ("qemu:///system", "sparse", 0, "work"),
        ("qemu+ssh://kvm2/system", "sparse", int(4.5 * GIB), "upload"),
        ("qemu+ssh://kvm2/system", "preallocated", 8 * GIB, "upload"),
    ],
)
def test_copies_for_another_host_wait_in_the_work_folder(
    tmp_path: Path,
    uri: str,
    allocation: Literal["sparse", "preallocated"],
    waiting: int,
    basis: str,
) -> None:
    vm = make_vm()
    target = Target(kind="libvirt", uri=uri, storage="default", allocation=allocation)
    work, _pool = needs(vm, replace(job_for(vm), target=target), REPORTS, tmp_path)
    assert work.need_bytes == GIB + waiting * 105 // 100
    assert work.basis == basis


def test_preallocated_disks_need_their_full_size(tmp_path: Path) -> None:
    vm = make_vm()
    _work, target = needs(vm, job_for(vm, allocation="preallocated"), REPORTS, tmp_path)
    assert target.need_bytes == 10 * GIB
    assert target.basis == "full"


def test_too_little_space_is_named_with_what_is_missing(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"kind": "", "path": "", "total_bytes": 2 * GIB, "free_bytes": GIB // 2}
    monkeypatch.setattr("conversions.space.measure_folder", lambda kind, path: small)
    page = send(operator, make_vm(), "review").content.decode()
    assert "512.0 MiB missing" in page
    assert "There may be too little space" in page
