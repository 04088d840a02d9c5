"""Targets for KubeVirt in the console: from the form to the manifest of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from django.test import Client
from pytest_django import Settings

from conversions.actions import job_of
from conversions.models import Conversion, OutputTarget
from conversions.pipeline.job import Mode
from tests.demo import make_conversion, make_source, make_user, make_vm
from tests.web.test_convert import send
from tests.web.test_targets import sent

pytestmark = pytest.mark.django_db
MANIFEST = '---\nkind: VirtualMachine\nname: "<b>"\n'


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(make_user("ada", "Operators"))
    return client


@pytest.fixture
def place(settings: Settings) -> OutputTarget:
    folder = Path(settings.TARGET_DIRS[0]) / "cluster"
    folder.mkdir()
    return OutputTarget.objects.create(
        name="cluster", kind="kubevirt", directory=str(folder), format="raw"
    )


def test_an_administrator_adds_such_a_target(client: Client, settings: Settings) -> None:
    client.force_login(make_user("root", "Administrators"))
    client.post("/targets/add/", sent(settings, kind="kubevirt", format="raw"))
    target = OutputTarget.objects.get()
    assert (target.kind, target.format, target.problem) == ("kubevirt", "raw", "")
    page = client.get("/targets/").content.decode()
    assert "a manifest for KubeVirt" in page
    page = client.post(
        "/targets/add/", sent(settings, name="x", kind="kubevirt", format="raw", compressed="on")
    ).content.decode()
    assert "Compression needs format qcow2" in page


def test_the_review_shows_the_manifest_and_the_job_follows(
    operator: Client, place: OutputTarget
) -> None:
    vm = make_vm("web01")
    filled = send(operator, vm, "target", target=str(place.uuid))
    page = filled.content.decode()
    assert filled.context["form"]["format"].value() == "raw"
    assert '<option value="default" label="pod network default">' in page
    chosen = {"target": str(place.uuid), "format": "raw", "nic0_name": "lab/vlan7"}
    review = send(operator, vm, "review", **chosen)
    assert "(KubeVirt manifest)" in review.content.decode()
    document = yaml.safe_load(review.context["preview"].text)
    spec = document["spec"]["template"]["spec"]
    assert spec["volumes"][0]["hostDisk"]["path"] == f"{place.directory}/web01-sda"
    assert spec["networks"] == [{"name": "net-0", "multus": {"networkName": "lab/vlan7"}}]
    assert review.context["preview"].problems == ()
    again = dict(review.context["hidden"])
    operator.post(f"{vm.get_absolute_url()}convert/", again | {"action": "start"})
    target = job_of(Conversion.objects.get()).target
    assert target
    assert (target.kind, target.directory, target.options) == ("kubevirt", place.directory, {})


def test_qcow2_is_warned_of_before_the_start(operator: Client, place: OutputTarget) -> None:
    review = send(operator, make_vm(), "review", target=str(place.uuid), nic0_name="default")
    assert "for raw" in review.content.decode()


@pytest.mark.parametrize(
    ("field", "changes", "words"),
    [
        pytest.param("name", {"name": "Web_01"}, "(web-01 would do)",
                     marks=pytest.mark.rows("4-T31")),
        ("name", {"name": "_"}, "(machine would do)"),
        ("nic0_name", {"nic0_name": "VM Network"}, "NAMESPACE/NAME"),
        ("nic1_name", {"nic1_name": "default"}, "Only one card"),
    ],
)  # fmt: skip
def test_names_that_kubernetes_does_not_take_are_marked(
    operator: Client, place: OutputTarget, field: str, changes: dict[str, Any], words: str
) -> None:
    vm = make_vm("web01", source=make_source(nics=2))
    good = {"target": str(place.uuid), "nic0_name": "default", "nic1_name": "lab"}
    response = send(operator, vm, "start", **good | changes)
    form = response.context["form"]
    assert list(form.errors) == [field]
    assert words in form.errors[field][0]
    assert not Conversion.objects.exists()
    send(operator, vm, "start", **good)
    assert Conversion.objects.exists()


def test_a_manifest_that_is_there_already_is_not_written_over(
    operator: Client, place: OutputTarget
) -> None:
    (Path(place.directory) / "web01.yaml").touch()
    response = send(
        operator, make_vm("web01"), "start", target=str(place.uuid), nic0_name="default"
    )
    assert "is there already" in response.context["form"].errors["name"][0]


@pytest.mark.parametrize(
    ("report", "ending"),
    [("kubevirt_yaml", "yaml"), ("qemu_script", "sh"), ("libvirt_xml", "xml")],
)
@pytest.mark.parametrize("status", ["done", "failed"])
def test_a_run_keeps_what_describes_the_machine(
    operator: Client, report: str, ending: str, status: str
) -> None:
    key = "xml" if ending == "xml" else "text"
    conversion = make_conversion(make_vm(), status=status, reports={report: {key: MANIFEST}})
    address = f"{conversion.get_absolute_url()}description/"
    page = operator.get(conversion.get_absolute_url()).content.decode()
    assert f'href="{address}?download"' in page
    shown = operator.get(address)
    assert shown["Content-Type"] == "text/plain; charset=utf-8"
    assert shown.content.decode() == MANIFEST
    assert f'.{ending}"' in operator.get(f"{address}?download")["Content-Disposition"]


def test_who_may_read_a_description(client: Client) -> None:
    conversion = make_conversion(make_vm(), mode=Mode.INSPECT)
    address = f"{conversion.get_absolute_url()}description/"
    assert client.get(address).status_code == 302
    client.force_login(make_user("nobody", None))
    assert client.get(address).status_code == 403
    client.force_login(make_user("vera", "Viewers"))
    assert client.get(address).status_code == 404
    assert "description/" not in client.get(conversion.get_absolute_url()).content.decode()
    assert client.post(address).status_code == 405


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("kubevirt", "kubectl"),
        ("qemu", "script"),
        ("libvirt", "defined"),
        ("local", "virsh define"),
    ],
)
def test_the_page_says_what_to_do_with_the_result(operator: Client, kind: str, words: str) -> None:
    conversion = make_conversion(make_vm())
    conversion.job["target"]["kind"] = kind
    conversion.save()
    assert words in operator.get(conversion.get_absolute_url()).context["sentence"]
