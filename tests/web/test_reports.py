"""The list of reports and a report."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from lxml import etree

from conversions.findings import capabilities, mount_points
from conversions.models import Inspection
from conversions.pipeline.job import Mode
from tests.demo import REPORTS, make_conversion, make_inspection, make_user, make_vm

pytestmark = pytest.mark.django_db


@pytest.fixture
def viewer(client: Client) -> Client:
    client.force_login(make_user("vera", "Viewers"))
    return client


def test_before_the_first_report_the_page_says_how_to_get_one(viewer: Client) -> None:
    assert "No reports yet" in viewer.get("/reports/").content.decode()


def test_the_list_counts_concerns_by_level_and_searches(viewer: Client) -> None:
    make_inspection(make_conversion(make_vm("web01")), blocks=True)
    make_inspection(make_conversion(make_vm("shop")))
    response = viewer.get("/reports/?q=web01")
    (row,) = response.context["listing"].page
    assert row.levels == [("blocks", 1), ("warning", 1), ("note", 1)]
    assert "0 of 2 reports match." in viewer.get("/reports/?q=nothing").content.decode()


def test_every_word_of_a_search_must_match_and_adds_one_condition(viewer: Client) -> None:
    make_inspection(make_conversion(make_vm("web01")))
    words = ["web", "01", "debian", "bookworm", "gnu", "linux"]
    with CaptureQueriesContext(connection) as queries:
        response = viewer.get("/reports/", {"q": " ".join(words)})
    assert len(response.context["listing"].page) == 1
    conditions = [query["sql"].upper().count(" LIKE ") for query in queries]
    assert max(conditions) == 2 * len(words)
    assert not viewer.get("/reports/?q=web01+suse").context["listing"].page.object_list


def test_a_search_of_too_many_words_is_cut_and_the_field_shows_what_is_left(
    viewer: Client,
) -> None:
    words = [f"word{number}" for number in range(400)]
    for place in ("/reports/", "/machines/"):
        assert viewer.get(place, {"q": " ".join(words)}).context["q"] == " ".join(words[:10])


def test_a_report_shows_what_was_found_and_why(viewer: Client) -> None:
    report = make_inspection(make_conversion(make_vm("web01"), mode=Mode.INSPECT), blocks=True)
    page = viewer.get(report.get_absolute_url()).content.decode()
    for text in (
        "Debian GNU/Linux 12 (bookworm)",
        "/dev/debvg/root",
        "/boot/vmlinuz-6.1.0-18-amd64",
        "Virtio disks (virtio-blk), the fast way",
        "kernel 6.1.0-18-amd64 has virtio_blk in its initramfs",
        "The guest was hibernated",
        "Start it, shut it down, upload again.",
        "open-vm-tools",
        "4.5 GiB",
        "xvda",
        "removed open-vm-tools",
    ):
        assert text in page, text


def test_a_report_of_a_run_that_ended_early_shows_what_there_is(viewer: Client) -> None:
    run = make_conversion(make_vm(), status="failed", reports={})
    report = Inspection.objects.create(conversion=run, vm=run.vm, product_name="Debian")
    page = viewer.get(report.get_absolute_url()).content.decode()
    assert "ended before it could look for all of them" in page
    assert "Not estimated." in page


def test_a_report_downloads_as_json(viewer: Client) -> None:
    report = make_inspection(make_conversion(make_vm("web01")))
    data = viewer.get(f"{report.get_absolute_url()}report.json").json()
    assert data["machine"] == "web01"
    assert data["reports"]["inspection"]["distro"] == "debian"


def test_an_unknown_report_is_not_found(viewer: Client) -> None:
    path = "/reports/00000000-0000-0000-0000-000000000000/"
    assert viewer.get(path).status_code == 404


def test_mount_points_are_worked_out_in_bytes() -> None:
    root, boot = mount_points(REPORTS["mpstats"])
    assert root.path == "/"
    assert root.total_bytes == 1500000 * 4096
    assert root.used_bytes == 400000 * 4096
    assert root.available_bytes == 1020000 * 4096
    assert boot.path == "/boot"


def test_capabilities_keep_their_order_and_unknown_values_their_name() -> None:
    found = capabilities({"machine": "new-board", "block_bus": "ide", "acpi": False})
    assert [row.value for row in found] == ["ide", "new-board", "false"]
    assert str(found[1].words) == "new-board"
    assert str(found[2].words) == "No"


def test_a_report_is_given_as_xml(client: Client) -> None:
    client.force_login(make_user("vera", "Viewers"))
    inspection = make_inspection(make_conversion(make_vm("web01"), mode=Mode.INSPECT))
    address = f"{inspection.get_absolute_url()}inspection.xml"
    assert address in client.get(inspection.get_absolute_url()).content.decode()
    response = client.get(address)
    assert response["Content-Type"] == "application/xml; charset=utf-8"
    assert response["Content-Disposition"].startswith("attachment; filename=")
    root = etree.fromstring(response.content)
    assert root.findtext("operatingsystem/osinfo") == "debian12"
    client.force_login(make_user("nobody", None))
    assert client.get(address).status_code == 403


def test_a_run_that_ended_early_has_no_xml(client: Client) -> None:
    client.force_login(make_user("vera", "Viewers"))
    inspection = make_inspection(make_conversion(make_vm(), mode=Mode.INSPECT, status="failed"))
    inspection.conversion.reports = {}
    inspection.conversion.save()
    assert client.get(f"{inspection.get_absolute_url()}inspection.xml").status_code == 404
