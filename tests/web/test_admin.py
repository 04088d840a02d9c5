"""The admin site: an audit to read; purging is a right of its own and leaves a trace."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from auditlog.models import LogEntry
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from conversions.models import Conversion, ConversionDisk, ConversionHost, KeptWork, LogLine
from inventory.models import OvaUpload, SourceVM
from tests.demo import GIB, make_conversion, make_inspection, make_user, make_vm

pytestmark = pytest.mark.django_db
RUNS = "/admin/conversions/conversion/"
HOSTS = "/admin/conversions/conversionhost/"


@pytest.fixture
def administrator(client: Client) -> Client:
    client.force_login(make_user("root", "Administrators"))
    return client


def body(response: Any) -> str:
    return b"".join(response.streaming_content).decode()


def test_someone_who_is_not_staff_does_not_get_in(client: Client) -> None:
    client.force_login(make_user("ada", "Operators"))
    assert client.get("/admin/").status_code == 302


def test_the_list_filters_searches_and_links_to_page_and_log(administrator: Client) -> None:
    run = make_conversion(make_vm("web01"), status="failed")
    make_conversion(make_vm("shop"))
    page = administrator.get(f"{RUNS}?q=web01&status__exact=failed").content.decode()
    assert f"#{run.pk}" in page
    assert "shop" not in page
    assert run.get_absolute_url() in page
    assert f"{run.get_absolute_url()}log.txt" in page


def test_a_run_shows_settings_steps_disks_and_reports_read_only(administrator: Client) -> None:
    run = make_conversion(make_vm("web01"))
    make_inspection(run)
    ConversionDisk.objects.create(conversion=run, index=0, name="sda", done_bytes=3 * GIB)
    page = administrator.get(f"{RUNS}{run.pk}/change/").content.decode()
    for text in ("&quot;mode&quot;: &quot;copy&quot;", "Opening the source", "3.0 GiB", "debian12"):
        assert text in page, text
    assert 'name="_save"' not in page


@pytest.mark.parametrize(
    "model", ["conversions/conversion", "inventory/sourcevm", "inventory/ovaupload"]
)
def test_nothing_can_be_added(administrator: Client, model: str) -> None:
    assert administrator.get(f"/admin/{model}/add/").status_code == 403


def test_machines_and_uploads_cannot_be_changed_or_deleted(administrator: Client) -> None:
    vm = make_vm("web01")
    machine = f"/admin/inventory/sourcevm/{vm.pk}"
    upload = f"/admin/inventory/ovaupload/{vm.upload_id}"
    for path in (f"{machine}/change/", f"{machine}/delete/", f"{upload}/delete/"):
        assert administrator.post(path, {"name": "x", "post": "yes"}).status_code == 403
    assert SourceVM.objects.get().name == "web01"
    assert administrator.get(f"{machine}/change/").status_code == 200


def test_evidence_cannot_be_deleted_without_the_purge_right(client: Client) -> None:
    user = make_user("ada", "Operators")
    user.is_staff = True
    user.save()
    client.force_login(user)
    run = make_conversion(make_vm())
    assert client.get(f"{RUNS}{run.pk}/change/").status_code == 200
    assert client.post(f"{RUNS}{run.pk}/delete/", {"post": "yes"}).status_code == 403
    action = {"action": "delete_selected", "_selected_action": [run.pk], "post": "yes"}
    client.post(RUNS, action)
    assert Conversion.objects.filter(pk=run.pk).exists()


def test_purging_removes_the_run_with_its_lines_and_leaves_a_trace(administrator: Client) -> None:
    run = make_conversion(make_vm("web01"))
    make_inspection(run)
    LogLine.objects.create(
        conversion=run, seq=1, at=run.created_at, step="source", level="info", text="x"
    )
    response = administrator.post(f"{RUNS}{run.pk}/delete/", {"post": "yes"})
    assert response.status_code == 302
    assert not Conversion.objects.exists()
    assert not LogLine.objects.exists()
    entry = LogEntry.objects.get(action=LogEntry.Action.DELETE, content_type__model="conversion")
    assert entry.object_repr == f"#{run.pk} web01"
    assert entry.actor.get_username() == "root"


def test_purging_several_leaves_a_trace_of_each_and_spares_what_runs(administrator: Client) -> None:
    vm = make_vm()
    ended = [make_conversion(vm), make_conversion(vm, status="failed")]
    running = make_conversion(vm, status="running")
    chosen = [run.pk for run in [*ended, running]]
    action = {"action": "delete_selected", "_selected_action": chosen, "post": "yes"}
    administrator.post(RUNS, action)
    assert list(Conversion.objects.all()) == [running]
    gone = LogEntry.objects.filter(action=LogEntry.Action.DELETE, content_type__model="conversion")
    assert gone.count() == 2


def test_the_page_that_asks_counts_the_lines_and_loads_none(administrator: Client) -> None:
    run = make_conversion(make_vm("web01"))
    for seq in range(1, 4):
        LogLine.objects.create(
            conversion=run, seq=seq, at=run.created_at, step="source", level="info", text="x"
        )
    with CaptureQueriesContext(connection) as queries:
        page = administrator.get(f"{RUNS}{run.pk}/delete/").content.decode()
    assert re.search(r"Log lines:\s*3", page)
    assert f"#{run.pk} web01" in page
    assert not [q for q in queries if '"conversions_logline"."text"' in q["sql"]]


def test_old_runs_are_purged_by_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    vm = make_vm()
    old, _new, running = (make_conversion(vm, status=s) for s in ("failed", "done", "running"))
    long_ago = timezone.now() - timedelta(days=40)
    Conversion.objects.filter(pk__in=[old.pk, running.pk]).update(finished_at=long_ago)
    call_command("purge_conversions", "--days", "30", "--dry-run")
    assert "Would purge 1 conversions" in capsys.readouterr().out
    assert Conversion.objects.count() == 3
    call_command("purge_conversions", "--days", "30")
    assert "Purged 1 conversions" in capsys.readouterr().out
    assert not Conversion.objects.filter(pk=old.pk).exists()
    assert Conversion.objects.count() == 2
    gone = LogEntry.objects.get(action=LogEntry.Action.DELETE, content_type__model="conversion")
    assert gone.object_repr == f"#{old.pk} web01"
    with pytest.raises(CommandError, match="at least 1"):
        call_command("purge_conversions", "--days", "0")


def test_a_host_that_is_gone_is_forgotten_with_what_it_keeps(administrator: Client) -> None:
    now = timezone.now()
    gone = ConversionHost.objects.create(name="gone", seen_at=now - timedelta(hours=1))
    here = ConversionHost.objects.create(name="here", seen_at=now)
    for host in (gone, here):
        KeptWork.objects.create(
            conversion=make_conversion(make_vm(), status="failed"), worker=host.name,
            folder="/work/x", bytes=1, keep_until=now, discarding=True,
        )  # fmt: skip
    address = f"{HOSTS}{gone.pk}/delete/"
    overview = administrator.get("/").content.decode()
    assert address in overview
    assert f"{HOSTS}{here.pk}/delete/" not in overview
    assert "gone:/work/x (the files themselves stay" in administrator.get(address).content.decode()
    assert administrator.post(f"{HOSTS}{here.pk}/delete/", {"post": "yes"}).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [gone.pk, here.pk], "post": "yes"}
    administrator.post(HOSTS, chosen)
    assert list(ConversionHost.objects.all()) == [here]
    assert [kept.worker for kept in KeptWork.objects.all()] == ["here"]


def test_only_who_may_purge_forgets_a_host(client: Client) -> None:
    user = make_user("ada", "Operators")
    user.is_staff = True
    user.save()
    client.force_login(user)
    seen_at = timezone.now() - timedelta(hours=1)
    host = ConversionHost.objects.create(name="gone", seen_at=seen_at)
    assert "Forget this host" not in client.get("/").content.decode()
    assert client.post(f"{HOSTS}{host.pk}/delete/", {"post": "yes"}).status_code == 403


def test_chosen_runs_export_as_csv_and_json(administrator: Client) -> None:
    run = make_conversion(make_vm("web01"))
    make_conversion(make_vm("shop"))
    chosen = {"_selected_action": [run.pk]}
    text = body(administrator.post(RUNS, {"action": "export_csv", **chosen}))
    assert "web01" in text
    assert "shop" not in text
    data = json.loads(body(administrator.post(RUNS, {"action": "export_json", **chosen})))
    assert [row["machine"] for row in data] == ["web01"]


def test_changes_of_uploads_and_users_are_audited() -> None:
    upload = make_vm().upload
    assert upload is not None
    upload.received_bytes -= 1
    upload.save()
    upload.status = OvaUpload.Status.REFUSED
    upload.save()
    entries = LogEntry.objects.get_for_object(upload).filter(action=LogEntry.Action.UPDATE)
    assert [list(entry.changes) for entry in entries] == [["status"]]
    user = make_user("eve", None)
    user.set_password("another")
    user.save()
    entry = LogEntry.objects.get_for_object(user).filter(action=LogEntry.Action.UPDATE).first()
    assert entry is not None
    assert entry.changes == {"password": ["********", "********"]}


def test_the_audit_log_is_there_to_read_for_administrators(administrator: Client) -> None:
    make_vm()
    assert administrator.get("/admin/auditlog/logentry/").status_code == 200
    assert administrator.get("/admin/auth/user/").status_code == 200
