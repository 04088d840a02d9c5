"""The supervisor: whatever the engine does, the row tells it and nothing is left behind."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from conversions import actions, leftovers, supervisor, tasks
from conversions.health import report_health
from conversions.models import Conversion, ConversionHost
from conversions.pipeline.job import Input, Job, Mode, Target
from conversions.pipeline.steps import Step
from conversions.processes import processes_of
from conversions.supervisor import Supervisor
from tests.demo import make_vm

# Threads see what each other stored.
pytestmark = pytest.mark.django_db(transaction=True)
ENGINE = Path(__file__).with_name("fake_engine.py")
Run = Callable[..., Conversion]


@pytest.fixture
def begin(settings: Settings) -> Run:
    """Claim a conversion whose engine plays a mode."""

    def begin(mode: str) -> Conversion:
        settings.ENGINE_COMMAND = [sys.executable, str(ENGINE), mode]
        vm = make_vm()
        job = Job(
            mode=Mode.COPY,
            source=Input(kind="ova", location=vm.location),
            target=Target(directory=str(settings.TARGET_DIRS[0])),
        )
        started = actions.start_conversion(vm, job, user=None)
        claimed = actions.claim_conversion(str(started.uuid))
        assert claimed is not None
        return claimed

    return begin


@pytest.fixture
def run(begin: Run, settings: Settings) -> Run:
    """Run a conversion to its end; nothing may be left of it."""

    def run(mode: str, meanwhile: Callable[[Conversion], None] | None = None) -> Conversion:
        conversion = begin(mode)
        thread = threading.Thread(target=meanwhile, args=[conversion]) if meanwhile else None
        if thread:
            thread.start()
        Supervisor(conversion).run()
        if thread:
            thread.join()
        conversion.refresh_from_db()
        assert processes_of(conversion.uuid) == []
        assert list(settings.WORK_DIR.iterdir()) == []
        assert list(settings.TARGET_DIRS[0].glob("*.part")) == []
        return conversion

    return run


def stop_in_conversion(conversion: Conversion, *, force: bool = False) -> None:
    """Ask for a stop as soon as the step runs."""
    deadline = time.monotonic() + 20
    while not conversion.steps.filter(name=Step.CONVERSION, status="running").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    actions.stop_conversion(conversion, user=None, force=force)
    connection.close()


def test_a_run_that_ends_well_is_done_with_gapless_lines(run: Run) -> None:
    conversion = run("ok")
    assert (conversion.status, conversion.result) == ("done", {})
    assert {step.status for step in conversion.steps.all()} == {"done"}
    assert list(conversion.lines.values_list("seq", flat=True)) == list(range(1, 16))
    assert conversion.last_seq == 15
    disk = conversion.disks.get()
    assert (disk.done_bytes, disk.total_bytes) == (100 << 20, 100 << 20)
    assert conversion.steps.get(name="source").first_seq == 2


def test_a_thousand_lines_arrive_whole_and_in_order(run: Run) -> None:
    conversion = run("chatty:1000")
    texts = conversion.lines.filter(level="debug").values_list("text", flat=True)
    assert list(texts) == [f"line {number}" for number in range(1000)]
    assert conversion.last_seq == conversion.lines.count() == 1015


def test_an_error_is_told_with_its_step_and_what_was_unfinished_is_removed(run: Run) -> None:
    conversion = run("error")
    assert (conversion.status, conversion.result["message"]) == ("failed", "It broke.")
    assert conversion.steps.get(name="conversion").status == "failed"
    assert conversion.steps.get(name="copy").status == "cancelled"
    assert any(path.endswith(".part") for path in conversion.reports["files"]["removed"])


def test_an_engine_that_ends_without_a_result_has_failed(run: Run) -> None:
    conversion = run("crash")
    assert conversion.status == "failed"
    assert "exit code 134" in conversion.result["message"]
    assert conversion.lines.filter(text="the library says goodbye").exists()


@pytest.mark.parametrize("step", list(Step))
def test_an_engine_killed_in_any_step_has_failed_there(step: Step, run: Run) -> None:
    conversion = run(f"die:{step}")
    assert conversion.status == "failed"
    assert "SIGKILL" in conversion.result["message"]
    assert conversion.steps.get(name=step).status == "failed"


def test_a_stop_ends_the_engine_by_its_own_way_out(run: Run) -> None:
    conversion = run("hang", stop_in_conversion)
    assert conversion.status == "stopped"
    assert conversion.steps.get(name="conversion").status == "cancelled"


def test_a_forced_stop_ends_an_engine_that_does_not_listen_and_its_children(run: Run) -> None:
    conversion = run("deaf", lambda row: stop_in_conversion(row, force=True))
    assert conversion.status == "stopped"


def test_an_engine_that_does_not_listen_is_killed_after_the_grace(
    run: Run, settings: Settings
) -> None:
    settings.STOP_GRACE_SECONDS = 1
    assert run("deaf", stop_in_conversion).status == "stopped"


class Clock:
    """Stands for the time module of the supervisor; a sleep is over at once."""

    def __init__(self) -> None:
        self.slept = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.slept

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(supervisor, "time", clock)
    monkeypatch.setattr(supervisor, "RETRY_SECONDS", 40)
    return clock


# `_apply` fails within the transaction; `_send_news` after it, as when only its answer is lost.
@pytest.mark.parametrize("verb", ["beat", "_apply", "_send_news", "finish_conversion"])
def test_a_database_that_is_away_for_a_minute_ends_no_run(
    verb: str, begin: Run, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversion = begin("ok")
    monkeypatch.setattr(supervisor, "STORE_EVENTS", 5)
    real, attempts = getattr(actions, verb), count(1)

    def failing(*arguments: Any) -> Any:
        done = real(*arguments)
        if next(attempts) % 3:
            raise OperationalError("server closed the connection unexpectedly")
        return done

    monkeypatch.setattr(actions, verb, failing)
    Supervisor(conversion).run()
    conversion.refresh_from_db()
    assert clock.slept > supervisor.DRAIN_SECONDS
    assert (conversion.status, conversion.result) == ("done", {})
    assert {step.status for step in conversion.steps.all()} == {"done"}
    assert list(conversion.lines.values_list("seq", flat=True)) == list(range(1, 16))
    assert conversion.last_seq == 15


def test_a_run_ends_when_its_database_stays_away_and_the_next_start_tells_it(
    begin: Run, clock: Clock, settings: Settings
) -> None:
    conversion = begin("hang")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(OperationalError):
        patch.setattr(actions, "beat", Mock(side_effect=OperationalError("cannot connect")))
        Supervisor(conversion).run()
    assert clock.slept < 2 * settings.DATABASE_AWAY_SECONDS + 100
    assert processes_of(conversion.uuid) == []
    tasks.on_worker_init()
    conversion.refresh_from_db()
    assert conversion.status == "lost"
    assert list(settings.WORK_DIR.iterdir()) == []


def test_a_batch_without_a_report_does_not_write_the_reports(begin: Run) -> None:
    conversion = begin("ok")
    packages = {"applications": [{"name": f"package-{n}"} for n in range(100)]}
    at = timezone.now().isoformat()
    report = {"type": "report", "name": "packages", "data": packages}
    progress = {"type": "progress", "disk": "sda", "done_bytes": 1, "total_bytes": 2, "at": at}
    for events, is_written in (([report], True), ([progress], False)):
        with CaptureQueriesContext(connection) as queries:
            actions.record_events(conversion, events)
        assert any("package-99" in query["sql"] for query in queries) == is_written
    assert Conversion.objects.get(pk=conversion.pk).reports == {"packages": packages}


def test_a_new_worker_gives_up_what_the_last_one_left(begin: Run, settings: Settings) -> None:
    conversion = begin("hang")
    process = Supervisor(conversion)._start()
    deadline = time.monotonic() + 20
    while not (leftovers.work_dir(conversion) / "overlay").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    tasks.on_worker_init()
    with process:
        process.wait(10)
    conversion.refresh_from_db()
    assert conversion.status == "lost"
    assert "stopped answering" in conversion.result["message"]
    assert processes_of(conversion.uuid) == []
    assert list(settings.WORK_DIR.iterdir()) == []


def test_a_worker_that_is_silent_for_too_long_has_lost_its_conversion(
    begin: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversion = begin("ok")
    pause = Mock(side_effect=lambda _seconds: actions.beat(conversion))
    monkeypatch.setattr("conversions.tasks.time.sleep", pause)
    tasks.mark_lost()
    assert not pause.called
    # The database was away, and its worker tells as soon as it can.
    Conversion.objects.update(heartbeat_at="2026-01-01T00:00Z", worker="another")
    tasks.mark_lost()
    conversion.refresh_from_db()
    assert conversion.status == "running"
    pause.side_effect = None
    Conversion.objects.update(heartbeat_at="2026-01-01T00:00Z")
    tasks.mark_lost()
    conversion.refresh_from_db()
    assert conversion.status == "lost"


def test_a_worker_whose_clock_is_behind_is_not_lost(
    begin: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = timezone.now() - timedelta(hours=1)
    pause = Mock()
    monkeypatch.setattr("conversions.tasks.time.sleep", pause)
    with monkeypatch.context() as patch:
        patch.setattr(timezone, "now", lambda: behind)
        conversion = begin("ok")
    tasks.mark_lost()
    for renew in (actions.beat, lambda row: actions.record_events(row, [])):
        Conversion.objects.update(heartbeat_at="2026-01-01T00:00Z")
        with monkeypatch.context() as patch:
            patch.setattr(timezone, "now", lambda: behind)
            renew(conversion)
        tasks.mark_lost()
    assert not pause.called


def test_a_worker_does_not_start_while_another_machine_has_its_name(
    begin: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conversions.health.machine", lambda: "this")
    conversion = begin("ok")
    report_health()
    host = ConversionHost.objects.get()
    host.health["machine"] = "another"
    host.save()
    with pytest.raises(SystemExit, match=f"reports as {settings.WORKER_NAME}.*V2VWEB_WORKER"):
        tasks.on_worker_init()
    conversion.refresh_from_db()
    assert conversion.status == "running"
    # This machine itself may, at once; another one's place may be taken when it is silent.
    report_health()
    tasks.on_worker_init()
    conversion.refresh_from_db()
    assert conversion.status == "lost"
    host.seen_at = timezone.now() - timedelta(minutes=2)
    host.save()
    tasks.on_worker_init()


def test_a_worker_takes_no_more_than_its_limit(begin: Run, settings: Settings) -> None:
    settings.CONVERSIONS_AT_ONCE = 1
    first = begin("ok")
    waiting = actions.start_conversion(first.vm, Job.from_dict(first.job), user=None)  # type: ignore[arg-type]
    assert actions.claim_conversion(str(waiting.uuid)) is None
    assert actions.claim_conversion(str(first.uuid)) is None
    assert actions.stop_conversion(waiting, user=None)
    waiting.refresh_from_db()
    assert waiting.status == "stopped"
