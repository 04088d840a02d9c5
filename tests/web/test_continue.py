"""What a failed copy leaves: kept, shown, continued on its own host, discarded, too old."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from conversions import actions, leftovers, tasks
from conversions.models import Conversion, ConversionHost, KeptWork
from conversions.pipeline.job import CopyOptions, Input, Job, Mode, NetworkMap, Target
from conversions.pipeline.kept import RECORD, opened
from conversions.pipeline.leftovers import NOTES, Notes
from conversions.pipeline.report import RecordingReporter
from conversions.processes import processes_of
from conversions.supervisor import Supervisor
from inventory import hosts
from inventory.actions import forget_vm
from inventory.host_store import store_domains
from inventory.models import LibvirtHost, SourceVM
from inventory.templatetags.console import size
from tests.demo import make_user, make_vm

pytestmark = pytest.mark.django_db(transaction=True)
ENGINE = Path(__file__).with_name("fake_engine.py")
Run = Callable[..., Conversion]


@pytest.fixture
def run(settings: Settings) -> Run:
    """Run a conversion with the fake engine to its end; `meanwhile` gets it while it runs."""

    def run(
        mode: str,
        started: Conversion | None = None,
        *,
        meanwhile: Callable[[Conversion], None] | None = None,
        keep: bool = True,
    ) -> Conversion:
        settings.ENGINE_COMMAND = [sys.executable, str(ENGINE), mode]
        if started is None:
            vm = make_vm()
            job = Job(
                mode=Mode.COPY,
                source=Input(kind="ova", location=vm.location),
                target=Target(directory=str(settings.TARGET_DIRS[0])),
                copy=CopyOptions(rate_bytes=5 << 20, keep_converted=keep),
                name="web01",
                network_map=NetworkMap(macs={"00:50:56:00:00:01": ("bridge", "br7")}),
            )
            started = actions.start_conversion(vm, job, user=None)
        claimed = actions.claim_conversion(str(started.uuid))
        assert claimed is not None
        thread = threading.Thread(target=meanwhile, args=[claimed]) if meanwhile else None
        if thread:
            thread.start()
        Supervisor(claimed).run()
        if thread:
            thread.join()
        found = Conversion.objects.get(pk=claimed.pk)
        assert processes_of(found.uuid) == []
        assert list(settings.TARGET_DIRS[0].glob("*.part")) == []
        return found

    return run


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(make_user("ada", "Operators"))
    return client


def answers(settings: Settings) -> None:
    """Let this host count as alive."""
    ConversionHost.objects.create(name=settings.WORKER_NAME, seen_at=timezone.now(), health={})


def names_in(folder: str | Path) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def stop_in_copy(conversion: Conversion) -> None:
    deadline = time.monotonic() + 20
    while not conversion.steps.filter(name="copy", status="running").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    actions.stop_conversion(conversion, user=None)
    connection.close()


@pytest.mark.parametrize(
    ("mode", "status", "meanwhile"),
    [
        ("error:copy", "failed", None),
        pytest.param("die:copy", "failed", None, marks=pytest.mark.rows("4-T22")),
        ("die:finish", "failed", None),
        pytest.param("hang:copy", "stopped", stop_in_copy, marks=pytest.mark.rows("4-T96")),
    ],
)
def test_what_was_converted_is_kept_and_nothing_else(
    run: Run, mode: str, status: str, meanwhile: Callable[[Conversion], None] | None
) -> None:
    """Whether the engine tidied up itself or was killed with -9."""
    conversion = run(mode, meanwhile=meanwhile)
    kept = conversion.kept
    assert conversion.status == status
    assert kept is not None
    assert Path(kept.folder) == leftovers.work_dir(conversion)
    assert names_in(kept.folder) == [RECORD, "v2vovl-sda.qcow2"]
    assert kept.bytes > 0
    assert timedelta(days=6.9) < kept.keep_until - timezone.now() < timedelta(days=7)
    assert conversion.reports["kept"]["folder"] == kept.folder
    [removed] = conversion.reports["files"]["removed"]
    assert removed.endswith("web01-sda.part")


@pytest.mark.parametrize(("mode", "keep"), [("die:copy", False), ("die:trim", True), ("ok", True)])
def test_nothing_is_kept_that_is_not_converted_not_wanted_or_not_needed(
    run: Run, settings: Settings, mode: str, keep: bool
) -> None:
    assert run(mode, keep=keep).kept is None
    assert list(settings.WORK_DIR.iterdir()) == []


def test_a_kill_in_the_middle_of_the_renaming_leaves_no_half_result(
    run: Run, settings: Settings
) -> None:
    conversion = run("renaming")
    assert list(settings.TARGET_DIRS[0].iterdir()) == []
    removed = [Path(name).name for name in conversion.reports["files"]["removed"]]
    assert removed == ["web01.xml.part", "web01-sda"]


def test_the_page_offers_to_continue_and_says_what_is_kept(
    run: Run, operator: Client, settings: Settings
) -> None:
    answers(settings)
    conversion = run("die:copy")
    kept = conversion.kept
    assert kept is not None
    page = operator.get(conversion.get_absolute_url()).content.decode()
    assert "only the copy is left" in page
    assert f"the converted disks, {size(kept.bytes)} on {settings.WORKER_NAME}, until" in page
    assert 'continue/">Continue from the copy' in page
    assert 'discard/">Discard the kept files' in page
    [host] = operator.get("/").context["hosts"]
    assert host["kept"] == {"count": 1, "bytes": kept.bytes}
    form = operator.get(f"{conversion.get_absolute_url()}continue/").context["form"]
    values = {name: form[name].value() for name in form.fields}
    assert values["name"] == "web01"
    assert (values["nic0_kind"], values["nic0_name"]) == ("bridge", "br7")
    assert form.sections[0]["rate_mib"].value() == 5


def send(client: Client, conversion: Conversion, **changed: str) -> None:
    """Send the form of the page as a browser would, with changes."""
    address = f"{conversion.get_absolute_url()}continue/"
    form = client.get(address).context["form"]
    fields = [form[name] for name in form.fields]
    fields += [section[name] for section in form.sections for name in section.fields]
    data = {field.html_name: field.value() for field in fields if field.value()}
    response = client.post(address, data | changed)
    assert response.status_code == 302, response.context["form"].errors


@pytest.mark.rows("4-T97")
def test_a_continued_conversion_uses_the_kept_files_with_another_target(
    run: Run, operator: Client, settings: Settings
) -> None:
    first = run("die:copy")
    kept = first.kept
    assert kept is not None
    send(operator, first, name="web02", format="raw")
    again = Conversion.objects.exclude(pk=first.pk).get()
    job = actions.job_of(again)
    assert (job.resume, job.name, job.target and job.target.format) == (kept.folder, "web02", "raw")
    assert job.network_map == actions.job_of(first).network_map
    assert (again.retry_of, again.continues, again.worker) == (first, kept, settings.WORKER_NAME)
    page = operator.get(f"{first.get_absolute_url()}continue/", follow=True).content.decode()
    assert "goes on with the kept files already" in page
    assert not actions.discard_kept_files(kept)
    again = run("error:copy", again)
    assert (again.status, again.kept) == ("failed", kept)
    assert Path(kept.folder).exists()
    send(operator, again)
    third = Conversion.objects.order_by("-pk")[0]
    third = run("ok", third)
    assert third.status == "done"
    assert not KeptWork.objects.exists()
    assert list(settings.WORK_DIR.iterdir()) == []
    page = operator.get(f"{first.get_absolute_url()}continue/", follow=True).content.decode()
    assert "Nothing is kept of this run any more" in page


def test_a_retry_of_a_continued_run_begins_at_the_start(run: Run, operator: Client) -> None:
    first = run("die:copy")
    send(operator, first)
    again = run("error:copy", Conversion.objects.exclude(pk=first.pk).get())
    retried = actions.retry_conversion(again, user=None)
    assert (retried.job["resume"], retried.worker, retried.continues) == (None, "", None)


def test_only_the_host_with_the_files_takes_it_and_the_page_says_when_it_is_away(
    run: Run, operator: Client, settings: Settings
) -> None:
    first = run("die:copy")
    home = settings.WORKER_NAME
    assert (
        "does not answer" in operator.get(f"{first.get_absolute_url()}continue/").content.decode()
    )
    send(operator, first)
    again = Conversion.objects.exclude(pk=first.pk).get()
    settings.WORKER_NAME = "another"
    assert actions.claim_conversion(str(again.uuid)) is None
    assert list(Conversion.objects.waiting().for_worker("another")) == []
    page = operator.get(again.get_absolute_url()).content.decode()
    assert f"Waits for {home}, which has the converted disks and does not answer" in page
    settings.WORKER_NAME = home
    answers(settings)
    assert actions.claim_conversion(str(again.uuid)) is not None


def test_messages_for_one_host_go_to_its_own_queue(
    run: Run, operator: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[object, ...]] = []
    monkeypatch.setattr(
        tasks.run_conversion,
        "apply_async",
        lambda arguments, queue=None: sent.append((*arguments, queue)),
    )
    first = run("die:copy")
    send(operator, first)
    again = Conversion.objects.exclude(pk=first.pk).get()
    queue = f"host.{settings.WORKER_NAME}"
    assert sent == [(str(first.uuid), None), (str(again.uuid), queue)]
    tasks.start_due()
    assert sent[2:] == [(str(again.uuid), queue)]


def test_discarding_asks_first_and_is_done_by_the_host(
    run: Run, operator: Client, settings: Settings
) -> None:
    conversion = run("die:copy")
    address = f"{conversion.get_absolute_url()}discard/"
    kept = conversion.kept
    assert kept is not None
    page = operator.get(address).content.decode()
    assert kept.folder in page
    assert "does not answer" in page
    assert Path(kept.folder).exists()
    operator.post(address)
    kept.refresh_from_db()
    assert kept.discarding
    page = operator.get(f"{conversion.get_absolute_url()}continue/", follow=True).content.decode()
    assert "are being deleted" in page
    tasks.discard_kept(str(kept.pk))
    assert list(settings.WORK_DIR.iterdir()) == []
    assert not KeptWork.objects.exists()


@pytest.mark.parametrize("why", ["old", "forgotten", "purged"])
def test_what_is_of_no_more_use_is_deleted_by_the_periodic_task(
    run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(
        tasks.discard_kept, "apply_async", lambda arguments, queue: sent.append(queue)
    )
    conversion = run("die:copy")
    kept = conversion.kept
    assert kept is not None
    answers(settings)
    tasks.tidy_kept()
    tasks.discard_kept(str(kept.pk))
    assert (sent, Path(kept.folder).exists()) == ([], True)
    if why == "old":
        KeptWork.objects.update(keep_until=timezone.now())
    elif why == "forgotten":
        assert conversion.vm is not None
        forget_vm(conversion.vm, user=None)
    else:
        conversion.delete()
    tasks.tidy_kept()
    assert sent == [f"host.{settings.WORKER_NAME}"]
    ConversionHost.objects.update(seen_at=timezone.now() - timedelta(hours=1))
    tasks.tidy_kept()
    assert len(sent) == 1  # nothing piles up for a host that is away
    with opened(Path(kept.folder), RecordingReporter()):
        tasks.discard_kept(str(kept.pk))
        assert Path(kept.folder).exists()
    tasks.discard_kept(str(kept.pk))
    assert not Path(kept.folder).exists()
    assert not KeptWork.objects.exists()


def test_disks_of_a_machine_that_its_host_does_not_list_for_once_stay_until_the_host_goes(
    run: Run,
) -> None:
    conversion = run("die:copy")
    host = LibvirtHost.objects.create(name="kvm1", uri="qemu+ssh://kvm1/system")
    SourceVM.objects.update(host=host, kind="libvirt", upload=None)
    now = timezone.now()
    store_domains(host, [], since=now, now=now)
    assert SourceVM.objects.get().status == "gone"
    assert not KeptWork.objects.due().exists()
    hosts.remove_host(host, user="root")
    assert KeptWork.objects.due().get() == conversion.kept


def test_only_work_folders_of_this_host_are_deleted(run: Run, settings: Settings) -> None:
    kept = run("die:copy").kept
    assert kept is not None
    other = settings.TARGET_DIRS[0] / "precious"
    other.mkdir()
    for values in ({"folder": str(other)}, {"worker": "another"}):
        changed = KeptWork.objects.get()
        for name, value in values.items():
            setattr(changed, name, value)
        assert not leftovers.discard_kept(changed)
    assert other.exists()
    assert Path(kept.folder).exists()


def test_a_new_worker_finds_what_the_last_one_left_converted(run: Run, settings: Settings) -> None:
    conversion = run("die:copy")
    KeptWork.objects.all().delete()
    Conversion.objects.update(status="lost", reports={})
    tasks.on_worker_init()
    kept = KeptWork.objects.get()
    assert kept.conversion == conversion
    conversion = Conversion.objects.get()
    assert conversion.reports["kept"]["bytes"] == kept.bytes
    leftovers.discard_kept(kept)
    tasks.on_worker_init()
    assert not KeptWork.objects.exists()


def test_the_stop_dialog_says_what_is_kept(run: Run, operator: Client, settings: Settings) -> None:
    pages: list[str] = []

    def look_and_stop(conversion: Conversion) -> None:
        deadline = time.monotonic() + 20
        while Conversion.objects.get(pk=conversion.pk).step != "copy":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        address = f"{conversion.get_absolute_url()}stop/"
        pages.append(operator.get(address).content.decode())
        operator.post(address)
        connection.close()

    conversion = run("hang:copy", meanwhile=look_and_stop)
    assert "The converted disks, for 7 days: it can be continued from the copy." in pages[0]
    assert str(leftovers.work_dir(conversion)) not in pages[0]
    page = operator.get(conversion.get_absolute_url()).content.decode()
    assert "Kept:" in page


def test_leftovers_on_another_host_are_removed_by_the_engine_or_named(
    run: Run, operator: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that cannot be reached, one that hangs, and libvirt's test driver, which answers."""
    conversion = run("die:copy")
    work = leftovers.work_dir(conversion)

    def note(uri: str) -> None:
        (work / NOTES).unlink(missing_ok=True)
        notes = Notes(work, Target(kind="libvirt", uri=uri, storage="default-pool"), uri)
        notes.add(thing="volume", name="web01-sda", pool="default-pool")

    note("qemu+ssh://nobody.invalid/system?no_tty=1")
    leftovers.clean_up_after(conversion)
    conversion.save(update_fields=["reports"])
    assert conversion.reports["leftovers"]["names"] == ["volume web01-sda"]
    assert work.exists()
    page = operator.get(conversion.get_absolute_url()).content.decode()
    assert "web01-sda: could not be removed and is tried again" in page
    hanging = "import subprocess; subprocess.run(['sleep', '60'])"
    command, settings.CLEAN_UP_COMMAND = settings.CLEAN_UP_COMMAND, [sys.executable, "-c", hanging]
    with monkeypatch.context() as patch:
        patch.setattr(leftovers, "ELSEWHERE_SECONDS", 1)
        leftovers.clean_up_after(conversion)
    settings.CLEAN_UP_COMMAND = command
    assert "no answer within 1 s" in conversion.reports["leftovers"]["message"]
    assert processes_of(conversion.uuid) == []
    note("test:///default")
    tasks.on_worker_init()
    conversion.refresh_from_db()
    assert "leftovers" not in conversion.reports
    assert names_in(work) == [RECORD, "v2vovl-sda.qcow2"]


def test_no_one_else_may_continue_or_discard(run: Run, client: Client) -> None:
    conversion = run("die:copy")
    for verb in ("continue", "discard"):
        address = f"{conversion.get_absolute_url()}{verb}/"
        assert client.post(address).status_code == 302  # to the sign-in
        assert not KeptWork.objects.get().discarding
    client.force_login(make_user("vic", "Viewers"))
    for verb in ("continue", "discard"):
        address = f"{conversion.get_absolute_url()}{verb}/"
        assert client.post(address).status_code == 403
        unknown = f"/conversions/00000000-0000-0000-0000-000000000000/{verb}/"
        client.force_login(make_user(f"op-{verb}", "Operators"))
        assert client.get(unknown).status_code == 404
        client.force_login(make_user(f"vic-{verb}", "Viewers"))
    assert not KeptWork.objects.get().discarding
    assert (
        "Continue from the copy" not in client.get(conversion.get_absolute_url()).content.decode()
    )


@pytest.mark.parametrize(("days", "expected"), [(7, True), (0, False)])
def test_jobs_of_the_console_keep_what_they_convert(
    operator: Client, settings: Settings, days: int, expected: bool
) -> None:
    settings.KEEP_DAYS = days
    vm = make_vm()
    address = f"{vm.get_absolute_url()}convert/"
    form = operator.get(address).context["form"]
    data = {name: "on" if v is True else v for name, v in form.detected().items() if v}
    operator.post(address, data | {"action": "start"})
    job = Job.from_dict(Conversion.objects.get().job)
    assert job.copy.keep_converted is expected
    assert replace(job.copy, keep_converted=False) == CopyOptions()
