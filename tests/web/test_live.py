"""A run's page as plain HTML: state, steps, outcome, log windows, stop and retry."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client, override_settings
from django.utils import timezone

from conversions import actions, live
from conversions.models import Conversion, ConversionDisk, LogLine
from inventory.sealing import seal
from tests.demo import make_conversion, make_user, make_vm

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator() -> User:
    """Someone who may start and stop."""
    return make_user("ada", "Operators")


@pytest.fixture
def signed_in(client: Client, operator: User) -> Client:
    """An operator's browser."""
    client.force_login(operator)
    return client


def with_log(conversion: Conversion, count: int) -> Conversion:
    """Give a run a log: every hundredth line is a warning."""
    LogLine.objects.bulk_create(
        LogLine(
            conversion=conversion,
            seq=seq,
            at=timezone.now(),
            step="copy",
            level="info" if seq % 100 else "warning",
            text=f"<b>line {seq}</b>",
        )
        for seq in range(1, count + 1)
    )
    conversion.last_seq = count
    conversion.save(update_fields=["last_seq"])
    return conversion


def shown(client: Client, conversion: Conversion, query: str = "") -> list[int]:
    """Return the numbers of the lines on the page."""
    answer = client.get(conversion.get_absolute_url() + query)
    assert answer.status_code == 200
    return [int(n) for n in re.findall(r'id="L(\d+)"', answer.content.decode())]


@pytest.mark.parametrize("status", Conversion.Status.values)
def test_the_page_tells_every_state_in_its_title(status: str, signed_in: Client) -> None:
    conversion = make_conversion(make_vm(), status=status)
    page = signed_in.get(conversion.get_absolute_url()).content.decode()
    title = re.search(r"<title>(.*?)</title>", page, re.DOTALL)
    assert title
    assert str(Conversion.Status(status).label) in title[1]
    assert ("/stop/" in page) == conversion.is_active


def test_the_log_comes_in_windows_from_any_line(signed_in: Client) -> None:
    conversion = with_log(make_conversion(make_vm(), status="running"), 1200)
    assert shown(signed_in, conversion) == list(range(701, 1201))
    assert shown(signed_in, conversion, "?from=300") == list(range(300, 800))
    assert shown(signed_in, conversion, "?from=x") == list(range(701, 1201))
    assert shown(signed_in, conversion, "?level=warning") == list(range(100, 1201, 100))
    assert shown(signed_in, conversion, "?q=line+777") == [777]
    assert b"<b>line" not in signed_in.get(conversion.get_absolute_url()).content


def test_a_search_with_special_characters_survives_in_the_links(signed_in: Client) -> None:
    conversion = with_log(make_conversion(make_vm(), status="running"), 1)
    page = signed_in.get(conversion.get_absolute_url() + "?q=a%26b%23c").content.decode()
    assert 'data-query="q=a%26b%23c"' in page


def test_lines_stored_after_the_row_was_read_are_not_shown_twice() -> None:
    conversion = with_log(make_conversion(make_vm(), status="running"), 10)
    conversion.last_seq = 7
    lines = live.last_window(conversion, live.LogFilter())
    assert [line.seq for line in lines] == list(range(1, 8))


def test_polling_gives_what_follows_a_line(signed_in: Client) -> None:
    conversion = with_log(make_conversion(make_vm(), status="running"), 10)
    news = signed_in.get(f"{conversion.get_absolute_url()}live/?after=8").json()
    assert (news["rows"]["count"], news["rows"]["to"]) == (2, 10)
    assert news["parts"]["active"] == "1"


@pytest.mark.parametrize("text", ["\N{SUPERSCRIPT TWO}", "-1", "x", "9" * 30])
def test_a_line_number_that_is_none_counts_as_none(signed_in: Client, text: str) -> None:
    conversion = with_log(make_conversion(make_vm(), status="running"), 3)
    assert shown(signed_in, conversion, f"?from={text}") == [1, 2, 3]
    news = signed_in.get(f"{conversion.get_absolute_url()}live/?after={text}").json()
    assert news["rows"]["count"] == 3


def test_a_run_that_says_nothing_is_quiet_and_one_without_worker_is_lost(
    signed_in: Client,
) -> None:
    now = timezone.now()
    conversion = make_conversion(
        make_vm(), status="running", last_output_at=now - timedelta(minutes=4), heartbeat_at=now
    )
    assert b"No output for 4 min" in signed_in.get(conversion.get_absolute_url()).content
    Conversion.objects.update(heartbeat_at=now - timedelta(minutes=2))
    assert b"stopped answering" in signed_in.get(conversion.get_absolute_url()).content


def test_stopping_asks_first_and_names_what_is_deleted(signed_in: Client) -> None:
    part = "/srv/web01-sda.part"
    conversion = make_conversion(
        make_vm(), status="running", reports={"targets": {"parts": [part], "finals": []}}
    )
    address = f"{conversion.get_absolute_url()}stop/"
    page = signed_in.get(address).content.decode()
    for text in (part, "Keep running", "Stop conversion"):
        assert text in page
    assert signed_in.post(address).status_code == 302
    conversion.refresh_from_db()
    assert conversion.status == "stopping"
    assert conversion.stop_requested_by
    assert "Force stop" not in signed_in.get(address).content.decode()
    Conversion.objects.update(stop_requested_at=timezone.now() - timedelta(seconds=31))
    assert "Force stop" in signed_in.get(address).content.decode()
    signed_in.post(address, {"force": "1"})
    conversion.refresh_from_db()
    assert conversion.force_stop


def test_a_retry_has_the_same_settings(signed_in: Client) -> None:
    conversion = make_conversion(make_vm(), status="failed")
    address = f"{conversion.get_absolute_url()}retry/"
    conversion.job["trim"] = False
    conversion.save()
    response = signed_in.get(address)
    assert "Retry the conversion of web01?" in response.content.decode()
    shown = dict(response.context["settings_list"])
    assert (shown["trim"], shown["verify_digests"]) == ("no", "yes")
    assert "" not in shown.values()
    signed_in.post(address)
    again = Conversion.objects.get(retry_of=conversion)
    assert {**again.job, "work_dir": None} == conversion.job
    assert (again.mode, again.status) == ("copy", "waiting")
    assert again.steps.count() == 15


def test_a_retry_whose_secrets_cannot_be_read_says_so(signed_in: Client) -> None:
    with override_settings(SECRET_KEY="another"):
        sealed = seal({"keys": []})
    conversion = make_conversion(make_vm(), status="failed", sealed_secrets=sealed)
    address = f"{conversion.get_absolute_url()}retry/"
    page = signed_in.post(address, follow=True).content.decode()
    assert "sealed with another SECRET_KEY" in page
    assert "type them again" in page
    assert Conversion.objects.count() == 1


def test_a_viewer_can_look_but_neither_stop_nor_retry(client: Client) -> None:
    client.force_login(make_user("vera", "Viewers"))
    conversion = make_conversion(make_vm(), status="running")
    assert client.get(conversion.get_absolute_url()).status_code == 200
    for verb in ("stop", "retry"):
        assert client.post(f"{conversion.get_absolute_url()}{verb}/").status_code == 403


def test_nothing_is_shown_to_who_is_signed_out_and_unknown_runs_are_not_found(
    client: Client, operator: User
) -> None:
    address = make_conversion(make_vm(), status="running").get_absolute_url()
    for page in ("", "live/", "log/", "log.txt", "stop/", "retry/"):
        assert client.get(address + page).status_code == 302
    client.force_login(operator)
    for page in ("", "live/", "log/", "log.txt", "stop/", "retry/"):
        unknown = f"/conversions/00000000-0000-4000-8000-000000000000/{page}"
        assert client.get(unknown).status_code == 404


def copying(**disks: dict[str, Any]) -> Conversion:
    """Return a run that copies; the values are those of its disks, 1000 MiB each."""
    conversion = make_conversion(
        make_vm(), status="running", step="copy",
        last_output_at=timezone.now(), heartbeat_at=timezone.now(),
    )  # fmt: skip
    for index, (name, values) in enumerate(disks.items()):
        ConversionDisk.objects.create(
            conversion=conversion, index=index, name=name,
            **{"total_bytes": 1000 << 20, "virtual_bytes": 4 << 30} | values,
        )  # fmt: skip
    return conversion


def ago(**values: float) -> datetime:
    return timezone.now() - timedelta(**values)


def test_a_figure_over_all_disks_is_weighted_by_bytes(signed_in: Client) -> None:
    first = {"started_at": ago(minutes=5), "at": ago(seconds=3), "rate": 5 << 20,
             "done_bytes": 400 << 20}  # fmt: skip
    conversion = copying(sda=first, sdb={"total_bytes": 600 << 20})
    page = signed_in.get(conversion.get_absolute_url()).content.decode()
    assert "All disks" in page
    assert "400.0 MiB of 1.5 GiB, 5.0 MiB/s, about 3\N{EN DASH}6 min left" in page
    assert "400.0 MiB of 1000.0 MiB, 5.0 MiB/s, about 2\N{EN DASH}3 min left" in page
    assert "waiting, 600.0 MiB of data in 4.0 GiB" in page
    assert "25 %" in page
    conversion.disks.filter(name="sdb").update(total_bytes=None)
    assert "All disks" not in signed_in.get(conversion.get_absolute_url()).content.decode()


@pytest.mark.parametrize(
    ("silent", "rate", "said"),
    [
        ({"seconds": 20}, 0, ["passing over empty space", "Nothing to do"]),
        ({"seconds": 20}, 1 << 20, ["last bytes 20 s ago", "Nothing to do"]),
        ({"minutes": 4}, 0, ["No byte written for 4:0", "No byte for 4 min", "Quiet ·"]),
    ],
)
def test_a_copy_that_writes_nothing_says_so(
    signed_in: Client, silent: dict[str, int], rate: int, said: list[str]
) -> None:
    """Spec 4.6: empty space is ordinary, two minutes without a byte are not."""
    disk = {"started_at": ago(minutes=9), "at": ago(**silent), "rate": rate, "done_bytes": 5 << 20}
    page = signed_in.get(copying(sda=disk).get_absolute_url()).content.decode()
    assert [words for words in said if words not in page] == []


def test_the_rate_of_lately_and_the_plan_of_the_copy_are_kept() -> None:
    conversion = copying(sda={"total_bytes": None}, sdb={"total_bytes": None})
    at = timezone.now().isoformat()
    progress = {"type": "progress", "disk": "sda", "at": at, "total_bytes": 100}
    actions.record_events(
        conversion,
        [
            {"type": "report", "name": "copy_plan", "data": {"sda": 90, "sdb": 70}},
            progress | {"done_bytes": 40, "rate": 7},
        ],
    )
    assert list(conversion.disks.values_list("name", "total_bytes", "done_bytes", "rate")) == [
        ("sda", 100, 40, 7.0), ("sdb", 70, 0, None),
    ]  # fmt: skip


def test_a_result_tells_how_each_disk_was_copied_and_checked(signed_in: Client) -> None:
    """Spec 4.7: the digest that was asked for is in the report, and on the page."""
    record = {"disk": "sda", "data_bytes": 3 << 30, "seconds": 61.0, "rate": 50 << 20,
              "verified": "full", "sha256": "ab" * 32}  # fmt: skip
    conversion = make_conversion(make_vm(), status="done", reports={"copy": [record]})
    page = signed_in.get(conversion.get_absolute_url()).content.decode()
    assert "3.0 GiB of data in 1:01 (50.0 MiB/s), compared byte by byte" in page
    assert "ab" * 32 in page
