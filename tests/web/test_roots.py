"""A machine with several operating systems: the run says so, a person chooses, the job has it."""

from __future__ import annotations

import pytest
from django.test import Client

from conversions import actions
from conversions.forms import ConvertForm
from conversions.in_place import InPlaceForm
from conversions.models import Conversion
from conversions.pipeline.job import Mode
from inventory.models import SourceVM
from tests.demo import make_conversion, make_inspection, make_user, make_vm
from tests.web.test_convert import send

pytestmark = [pytest.mark.django_db, pytest.mark.rows("4-T111")]
ROOTS = [
    {"device": "/dev/sda2", "product_name": "Debian 12", "type": "linux"},
    {"device": "btrfsvol:/dev/sdb1/@", "product_name": "openSUSE", "type": "linux"},
]


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(make_user("ada", "Operators"))
    return client


@pytest.fixture
def vm() -> SourceVM:
    """A machine whose inspection ended at two systems."""
    vm = make_vm("web01")
    make_conversion(
        vm, mode=Mode.INSPECT, status="failed", reports={"roots": ROOTS},
        result={"code": "E-ROOT-CHOICE", "message": "Several.", "remedy": "Choose one."},
    )  # fmt: skip
    return vm


def test_the_run_that_met_them_leads_to_the_choice(operator: Client, vm: SourceVM) -> None:
    address = f"{vm.get_absolute_url()}inspect/"
    for page in (vm.get_absolute_url(), Conversion.objects.get().get_absolute_url()):
        assert f'href="{address}"' in operator.get(page).content.decode()
    form = operator.get(address).content.decode()
    assert "Debian 12 (/dev/sda2)" in form
    assert "openSUSE (btrfsvol:/dev/sdb1/@)" in form


@pytest.mark.parametrize("root", [root["device"] for root in ROOTS])
def test_the_chosen_system_is_on_record(operator: Client, vm: SourceVM, root: str) -> None:
    operator.post(f"{vm.get_absolute_url()}inspect/", {"system-root": root})
    run = Conversion.objects.latest("pk")
    assert actions.job_of(run).root == root
    make_inspection(run)
    run.refresh_from_db()
    run.reports = {**run.reports, "roots": ROOTS}
    run.save()
    assert ConvertForm(vm=vm, inspection=run.inspection).detected()["root"] == root
    send(operator, vm, "start", root=root)
    assert actions.job_of(Conversion.objects.latest("pk")).root == root


def test_a_system_that_is_not_there_is_not_looked_for(operator: Client, vm: SourceVM) -> None:
    response = send(operator, vm, "start", root="/dev/sdz9")
    assert response.context["form"].errors["root"]
    assert not Conversion.objects.filter(mode=Mode.COPY).exists()


def test_both_forms_offer_the_systems_and_nothing_else(vm: SourceVM) -> None:
    offered = ["single", "first", *(root["device"] for root in ROOTS)]
    for form in (ConvertForm(vm=vm), InPlaceForm(vm=vm)):
        field = form.fields["root"]
        assert [key for key, _words in field.choices] == offered  # type: ignore[attr-defined]
    Conversion.objects.update(reports={"roots": ROOTS[:1]})
    choices = ConvertForm(vm=vm).fields["root"].choices  # type: ignore[attr-defined]
    assert [key for key, _words in choices] == ["single", "first"]
