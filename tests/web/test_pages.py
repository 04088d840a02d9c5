"""The overview, the health of hosts, start-up checks, and how numbers look."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.core.checks import run_checks
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from conversions.health import is_answering, measure, report_health
from conversions.models import ConversionDisk, ConversionHost
from conversions.pipeline.accelerator import Accelerator
from conversions.templatetags.states import WORDS, state
from inventory.templatetags.console import duration, fullness, percent, size, when
from tests.demo import GIB, REPORTS, make_conversion, make_inspection, make_user, make_vm

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(make_user("ada", "Operators"))
    return client


@pytest.fixture(autouse=True)
def no_kvm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the answer about KVM for granted; finding out starts a guest."""
    found = Accelerator(kvm=False, reason="there is no /dev/kvm")
    monkeypatch.setattr("conversions.health.choose_accelerator", lambda: found)


def overview(client: Client) -> str:
    return client.get("/").content.decode()


def test_an_empty_console_teaches_the_way(operator: Client) -> None:
    page = overview(operator)
    assert "Upload an OVA" in page
    assert "Nothing is running and nothing waits." in page
    assert "No worker has reported yet" in page


def test_the_next_step_is_to_inspect_then_to_convert(operator: Client) -> None:
    vm = make_vm("web01")
    assert f"{vm.get_absolute_url()}inspect/" in overview(operator)
    make_inspection(make_conversion(vm, mode="inspect"))  # type: ignore[arg-type]
    page = overview(operator)
    assert f"{vm.get_absolute_url()}inspect/" not in page
    assert f"{vm.get_absolute_url()}convert/" in page
    make_conversion(vm)
    assert "Nothing waits for you" in overview(operator)


def test_running_conversions_show_their_bytes(operator: Client) -> None:
    run = make_conversion(make_vm("web01"), status="running")
    ConversionDisk.objects.create(
        conversion=run, index=0, name="sda", done_bytes=2 * GIB, total_bytes=8 * GIB
    )
    page = overview(operator)
    assert "2.0 GiB of 8.0 GiB" in page
    assert 'value="25"' in page


@pytest.mark.parametrize(
    ("done", "said"),
    [(2 * GIB, "2.0 GiB of 8.0 GiB"), (8 * GIB, "copied; what the conversion changes follows")],
)
def test_disks_that_are_copied_while_the_guest_is_converted_show_it(
    operator: Client, done: int, said: str
) -> None:
    run = make_conversion(make_vm("web01"), status="running", step="conversion")
    page = operator.get(run.get_absolute_url()).content.decode()
    assert "GiB of 8.0 GiB" not in page
    ConversionDisk.objects.create(
        conversion=run, index=0, name="sda", done_bytes=done, total_bytes=8 * GIB,
        started_at=timezone.now(), at=timezone.now(),
    )  # fmt: skip
    assert said in operator.get(run.get_absolute_url()).content.decode()


def test_a_host_shows_health_and_the_versions_of_its_last_run(
    operator: Client, settings: Settings
) -> None:
    report_health()
    make_conversion(make_vm(), reports={"appliance": REPORTS["appliance"]})
    page = overview(operator)
    assert "Worker answers" in page
    assert "Software emulation (TCG): slow" in page
    assert "there is no /dev/kvm" in page
    assert "libguestfs 1.48.6" in page
    assert str(settings.WORK_DIR) in page


def test_a_silent_host_is_called_silent(operator: Client) -> None:
    ConversionHost.objects.create(name="lab", seen_at=timezone.now() - timedelta(minutes=5))
    assert "Worker silent" in overview(operator)


def test_a_host_answers_for_a_minute_after_it_was_heard() -> None:
    now = timezone.now()
    assert is_answering(now - timedelta(seconds=50))
    assert not is_answering(now - timedelta(seconds=70))


def test_a_missing_folder_is_measured_as_not_known(settings: Settings) -> None:
    settings.WORK_DIR = Path("/nonexistent")
    folders = {folder["kind"]: folder for folder in measure()["folders"]}
    assert folders["work"]["free_bytes"] is None
    assert folders["target"]["free_bytes"] > 0


def test_checks_name_a_missing_folder_and_the_setting(settings: Settings) -> None:
    settings.WORK_DIR = Path("/nonexistent")
    found = {message.id: message for message in run_checks()}
    assert "does not exist" in found["conversions.W001"].msg
    assert "V2VWEB_WORK" in (found["conversions.W001"].hint or "")
    assert "inventory.W001" not in found


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\N{EN DASH}"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (40 * GIB, "40.0 GiB"),
        (2**50, "1.0 PiB"),
    ],
)
def test_sizes_are_in_binary_units(value: int | None, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\N{EN DASH}"),
        (4.2, "0:04"),
        (692, "11:32"),
        (timedelta(hours=2, minutes=5, seconds=9), "2:05:09"),
    ],
)
def test_durations_read_as_people_say_them(value: float | timedelta | None, text: str) -> None:
    assert duration(value) == text


def test_times_carry_their_zone() -> None:
    text = when(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert "2026-01-02 03:04 UTC" in text
    assert 'datetime="2026-01-02T03:04:05+00:00"' in text


def test_a_share_stays_within_its_bounds() -> None:
    assert percent(5, 10) == 50
    assert percent(11, 10) == 100
    assert percent(1, 0) == 0
    assert percent(None, 10) == 0


def test_a_bar_warns_before_it_is_full() -> None:
    assert [fullness(part, 100) for part in (84, 85, 94, 95)] == ["", "high", "high", "full"]


@pytest.mark.parametrize("value", list(WORDS))
def test_every_state_has_word_icon_and_colour(value: str, repository: Path) -> None:
    html = state(value)
    sprite = (repository / "static/img/icons.svg").read_text()
    icon = html.split("#")[1].split('"')[0]
    assert f'id="{icon}"' in sprite
    assert "state-" in html
    assert str(WORDS[value]) in html


def test_the_style_sheet_goes_out_compressed(client: Client) -> None:
    address = "/static/vendor/patternfly/patternfly.css"
    response = client.get(address, headers={"Accept-Encoding": "gzip"})
    assert response["Content-Encoding"] == "gzip"
    assert int(response["Content-Length"]) < 100_000
    response.close()


def test_the_compressed_style_sheet_is_the_same(repository: Path) -> None:
    folder = repository / "static/vendor/patternfly"
    packed = gzip.decompress((folder / "patternfly.css.gz").read_bytes())
    assert packed == (folder / "patternfly.css").read_bytes()
