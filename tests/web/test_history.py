"""The history of runs: chips, filters in the address, exports."""

from __future__ import annotations

import csv
import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from conversions.models import Conversion, ConversionDisk
from conversions.pipeline.job import Mode
from tests.demo import GIB, make_conversion, make_inspection, make_user, make_vm

pytestmark = pytest.mark.django_db


@pytest.fixture
def viewer(client: Client) -> Client:
    client.force_login(make_user("vera", "Viewers"))
    return client


def listed(client: Client, query: str = "") -> list[int]:
    response = client.get(f"/conversions/{query}")
    return [row.pk for row in response.context["listing"].page]


def body(response: Any) -> str:
    return b"".join(response.streaming_content).decode()


def test_before_the_first_run_the_page_says_what_will_be_here(viewer: Client) -> None:
    page = viewer.get("/conversions/").content.decode()
    assert "No conversions yet" in page
    assert "Go to Machines" in page


def test_chips_count_and_filter(viewer: Client) -> None:
    vm = make_vm()
    failed = make_conversion(vm, status="failed")
    for status in ("done", "done", "stopping"):
        make_conversion(vm, status=status)
    response = viewer.get("/conversions/?status=failed")
    counts = {chip["key"]: chip["count"] for chip in response.context["chips"]}
    assert counts[""] == 4
    assert counts["done"] == 2
    assert counts["running"] == 1
    assert listed(viewer, "?status=failed") == [failed.pk]


def test_filters_stand_in_the_address_and_combine(viewer: Client) -> None:
    ada, web, shop = make_user("ada", "Operators"), make_vm("web01"), make_vm("shop")
    wanted = make_conversion(web, user=ada, mode=Mode.REHEARSE)
    make_conversion(web, user=ada)
    make_conversion(shop, user=ada, mode=Mode.REHEARSE)
    make_conversion(web, mode=Mode.REHEARSE)
    assert listed(viewer, "?q=web&who=ada&mode=rehearse") == [wanted.pk]
    assert listed(viewer, f"?q=%23{wanted.pk}") == [wanted.pk]


def test_dates_limit_the_list_and_nonsense_is_ignored(viewer: Client) -> None:
    old = make_conversion(make_vm())
    Conversion.objects.update(created_at=timezone.now() - timedelta(days=30))
    new = make_conversion(make_vm("other"))
    today = timezone.localdate()
    assert listed(viewer, f"?since={today}") == [new.pk]
    assert listed(viewer, f"?until={today - timedelta(days=1)}") == [old.pk]
    assert listed(viewer, "?since=yesterday") == [new.pk, old.pk]


@pytest.mark.parametrize("query", ["?q=%23999999999999999999999", "?page=-1", "?sort=x", "?q=%00"])
def test_bad_input_gives_a_page_all_the_same(viewer: Client, query: str) -> None:
    make_conversion(make_vm())
    assert viewer.get(f"/conversions/{query}").status_code == 200


def test_a_row_shows_duration_bytes_result_and_links(viewer: Client) -> None:
    run = make_conversion(make_vm(), status="failed", result={"message": "No space left."})
    ConversionDisk.objects.create(conversion=run, index=0, name="sda", done_bytes=3 * GIB)
    inspection = make_inspection(run)
    page = viewer.get("/conversions/").content.decode()
    for text in ("11:00", "3.0 GiB", "No space left.", inspection.get_absolute_url(), "log.txt"):
        assert text in page, text


def test_history_outlives_the_machine(viewer: Client) -> None:
    vm = make_vm("web01")
    run = make_conversion(vm)
    vm.delete()
    assert listed(viewer) == [run.pk]
    assert "web01" in viewer.get("/conversions/").content.decode()


def test_csv_holds_what_the_filters_leave(viewer: Client) -> None:
    make_conversion(make_vm("web01"), status="failed")
    make_conversion(make_vm("shop"))
    text = body(viewer.get("/conversions/export.csv?status=failed"))
    (row,) = csv.DictReader(text.splitlines())
    assert row["machine"] == "web01"
    assert row["status"] == "failed"
    assert row["asked_for"].endswith("+00:00")


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x"])
def test_a_name_is_never_a_formula_in_the_csv(viewer: Client, name: str) -> None:
    make_conversion(make_vm(name))
    (row,) = csv.DictReader(body(viewer.get("/conversions/export.csv")).splitlines())
    assert row["machine"] == f"'{name}"


def test_json_holds_every_run_and_is_valid_without_any(viewer: Client) -> None:
    assert json.loads(body(viewer.get("/conversions/export.json"))) == []
    runs = [make_conversion(make_vm(name)) for name in ("a", "b")]
    data = json.loads(body(viewer.get("/conversions/export.json")))
    assert [row["uuid"] for row in data] == [str(run.uuid) for run in reversed(runs)]
