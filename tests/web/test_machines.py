"""The list of machines, a machine's page, forgetting it."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from conversions.pipeline.job import Mode
from inventory.models import SourceVM
from tests.demo import make_conversion, make_inspection, make_source, make_user, make_vm

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(make_user("ada", "Operators"))
    return client


def listed(client: Client, query: str = "") -> list[str]:
    response = client.get(f"/machines/{query}")
    return [vm.name for vm in response.context["listing"].page]


def test_without_machines_the_page_teaches_the_next_step(operator: Client) -> None:
    page = operator.get("/machines/").content.decode()
    assert "No machines yet" in page
    assert "Upload an OVA" in page


def test_a_filter_that_hides_all_says_so_and_how_to_clear_it(operator: Client) -> None:
    make_vm("web01")
    page = operator.get("/machines/?q=nothing").content.decode()
    assert "0 of 1 machine match." in page
    assert "Clear the filters" in page


@pytest.mark.parametrize("words", ["web", "WEB01", "debian", "VM+Network", "00:50:56", "web01.ova"])
def test_search_finds_by_name_system_file_network_and_mac(operator: Client, words: str) -> None:
    make_vm("web01")
    assert listed(operator, f"?q={words}") == ["web01"]


def test_every_word_of_a_search_must_match(operator: Client) -> None:
    make_vm("web01")
    make_vm("db01")
    assert listed(operator, "?q=debian+db") == ["db01"]
    assert listed(operator, "?q=db%00") == ["db01"]


def test_a_machine_with_two_cards_on_one_network_is_listed_once(operator: Client) -> None:
    make_vm("two", source=make_source("two", nics=2))
    assert listed(operator, "?q=network") == ["two"]


def test_states_filter_the_list(operator: Client) -> None:
    make_vm("new")
    make_vm("gone", status="gone")
    make_vm("arriving", status="arriving")
    done = make_vm("done")
    make_inspection(make_conversion(done))
    assert sorted(listed(operator)) == ["arriving", "done", "new"]
    assert listed(operator, "?state=new") == ["new"]
    assert listed(operator, "?state=gone") == ["gone"]
    assert listed(operator, "?state=converted") == ["done"]
    assert len(listed(operator, "?state=all")) == 4
    assert len(listed(operator, "?state=nonsense")) == 3


def test_columns_sort_both_ways_and_nonsense_is_ignored(operator: Client) -> None:
    for name in ("b", "a", "c"):
        make_vm(name)
    assert listed(operator, "?sort=name") == ["a", "b", "c"]
    assert listed(operator, "?sort=-name") == ["c", "b", "a"]
    assert listed(operator, "?sort=password") == ["c", "a", "b"]


def test_the_list_has_pages_and_a_page_too_far_is_the_last(operator: Client) -> None:
    for number in range(52):
        make_vm(f"vm{number:02}")
    assert len(listed(operator, "?sort=name")) == 50
    assert listed(operator, "?sort=name&page=2") == ["vm50", "vm51"]
    assert listed(operator, "?sort=name&page=99") == ["vm50", "vm51"]


def test_a_long_list_takes_no_more_queries_than_a_short_one(operator: Client) -> None:
    make_inspection(make_conversion(make_vm("first")))
    operator.get("/machines/")
    with CaptureQueriesContext(
        connection,
    ) as few:
        operator.get("/machines/")
    for number in range(10):
        make_inspection(make_conversion(make_vm(f"vm{number}")))
    with CaptureQueriesContext(connection) as many:
        operator.get("/machines/")
    assert len(many) == len(few)


def test_htmx_gets_the_table_alone(operator: Client) -> None:
    make_vm("web01")
    page = operator.get("/machines/", headers={"HX-Request": "true"}).content.decode()
    assert "web01" in page
    assert "<html" not in page


def test_a_page_out_of_the_browsers_history_comes_whole(operator: Client) -> None:
    headers = {"HX-Request": "true", "HX-History-Restore-Request": "true"}
    response = operator.get("/machines/", headers=headers)
    assert "<html" in response.content.decode()
    assert "HX-Request" in response["Vary"]


def test_a_machine_page_shows_record_disks_cards_digests_and_runs(operator: Client) -> None:
    vm = make_vm("web01")
    run = make_conversion(vm, mode=Mode.INSPECT)
    make_inspection(run)
    page = operator.get(vm.get_absolute_url()).content.decode()
    for text in (
        "web01-disk1.vmdk",
        "00:50:56:00:00:01",
        "VM Network",
        "matches the manifest",
        "source name: web01",
        "VMware tools found",
        f"Inspection&nbsp;#{run.pk}",
        "Debian GNU/Linux 12 (bookworm)",
    ):
        assert text in page, text


def test_names_from_a_source_are_never_markup(operator: Client) -> None:
    evil = "<script>alert(1)</script>"
    vm = make_vm(evil)
    make_inspection(make_conversion(vm))
    for path in ("/", "/machines/", vm.get_absolute_url(), f"{vm.get_absolute_url()}convert/"):
        page = operator.get(path).content.decode()
        assert evil not in page
        assert "&lt;script&gt;" in page


def test_the_record_is_there_as_plain_text(operator: Client) -> None:
    response = operator.get(f"{make_vm('web01').get_absolute_url()}source.txt")
    assert response["Content-Type"].startswith("text/plain")
    assert "source name: web01\nhypervisor type: vmware\n" in response.content.decode()


def test_an_arriving_machine_offers_nothing_that_cannot_work_yet(operator: Client) -> None:
    vm = make_vm(status="arriving")
    page = operator.get(vm.get_absolute_url()).content.decode()
    assert "still arriving" in page
    assert "inspect/" not in page


def test_forgetting_asks_what_goes_and_what_stays(operator: Client) -> None:
    vm = make_vm("web01")
    page = operator.get(f"{vm.get_absolute_url()}forget/").content.decode()
    assert "Forget web01?" in page
    assert "The uploaded file web01.ova (1.0 GiB)." in page
    assert "every report and every log" in page


def test_a_machine_in_use_is_not_forgotten(operator: Client) -> None:
    vm = make_vm()
    make_conversion(vm, status="running")
    response = operator.post(f"{vm.get_absolute_url()}forget/", follow=True)
    assert "Stop that first" in response.content.decode()
    assert SourceVM.objects.get().status == SourceVM.Status.READY


def test_a_forgotten_machine_leaves_its_history(operator: Client) -> None:
    vm = make_vm("web01")
    run = make_conversion(vm)
    operator.post(f"{vm.get_absolute_url()}forget/")
    assert not SourceVM.objects.filter(status=SourceVM.Status.READY).exists()
    run.refresh_from_db()
    assert run.vm_name == "web01"
