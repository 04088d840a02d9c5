"""Named targets: who may, what is refused, what is seen, and what is cleaned up."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from auditlog.models import LogEntry
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from conversions import targets, tasks
from conversions.leftovers import clean_up_after
from conversions.models import OutputTarget
from conversions.pipeline.job import Target
from tests.demo import GIB, make_conversion, make_user, make_vm

pytestmark = pytest.mark.django_db
HOST = {
    "problem": "",
    "free_bytes": None,
    "is_local": True,
    "storages": [
        {"name": "images", "path": "/pool", "free_bytes": 40 * GIB, "problem": ""},
        {"name": "lvm", "path": "", "free_bytes": None, "problem": "Pool lvm is of type logical."},
    ],
    "networks": ["default", "lab"],
    "bridges": ["br0"],
}


@pytest.fixture
def admin(client: Client) -> Client:
    client.force_login(make_user("root", "Administrators"))
    return client


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A libvirt host that answers at once."""
    monkeypatch.setattr("conversions.targets.ask", lambda target, **_options: HOST)


def sent(settings: Settings, *, directory: str | None = None, **changes: Any) -> dict[str, Any]:
    """Return what a browser sends for a folder target, with changes."""
    folder = str(settings.TARGET_DIRS[0]) if directory is None else directory
    values = {"name": "lab", "kind": "local", "local-directory": folder, "format": "qcow2",
              "allocation": "sparse"}  # fmt: skip
    return values | changes


def pool(**changes: Any) -> dict[str, Any]:
    place = {"uri": "qemu:///system", "storage": "images"}
    place |= {name: changes.pop(name) for name in place if name in changes}
    place = {f"libvirt-{name}": value for name, value in place.items()}
    return {"name": "kvm", "kind": "libvirt", "format": "qcow2", "allocation": "sparse",
            **place, **changes}  # fmt: skip


def test_a_folder_is_added_changed_and_removed_and_the_audit_tells(
    admin: Client, settings: Settings
) -> None:
    folder = Path(settings.TARGET_DIRS[0]) / "lab"
    folder.mkdir()
    admin.post("/targets/add/", sent(settings, directory=str(folder), rate_mib=50))
    target = OutputTarget.objects.get()
    assert (str(target.created_by), target.problem) == ("root", "")
    assert target.free_bytes
    page = admin.get("/targets/").content.decode()
    assert "Can be used" in page
    assert "50 MiB a second" in page
    admin.post(
        f"/targets/{target.uuid}/",
        sent(settings, directory=str(folder), max_disk_gib=8),
    )
    target.refresh_from_db()
    assert (target.max_disk_gib, target.rate_mib) == (8, None)
    admin.post(f"/targets/{target.uuid}/remove/")
    assert not OutputTarget.objects.exists()
    entries = LogEntry.objects.filter(content_type__model="outputtarget").order_by("pk")
    assert [entry.action for entry in entries] == [0, 1, 2]
    assert {entry.actor.get_username() for entry in entries} == {"root"}
    assert "free_bytes" not in entries[0].changes


@pytest.mark.parametrize(
    "directory", ["/etc", "relative", "{top}/../..", "{top}/link", "{top}/missing", ""]
)
def test_a_folder_outside_the_settings_or_missing_is_refused(
    admin: Client, settings: Settings, tmp_path: Path, directory: str
) -> None:
    top = Path(settings.TARGET_DIRS[0])
    (top / "link").symlink_to(tmp_path)
    response = admin.post("/targets/add/", sent(settings, directory=directory.format(top=top)))
    assert response.context["form"].part.errors["directory"]
    assert not OutputTarget.objects.exists()


@pytest.mark.parametrize(
    "uri",
    ["qemu+ext:///system", "qemu+ssh://h/system?command=/bin/sh", "qemu+ssh://-oProxy=x/system",
     "esx://host/", "vpx://vc/DC/h", "file:///etc/passwd", "qemu://u:p@h/system", ""],
)  # fmt: skip
def test_an_address_that_could_do_harm_is_refused_unasked(
    admin: Client, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("conversions.targets.ask", lambda target, **_o: asked.append(target))
    response = admin.post("/targets/add/", pool(uri=uri))
    assert response.context["form"].part.errors["uri"]
    assert admin.post("/targets/add/", pool(uri=uri, action="look")).status_code == 200
    assert not asked
    assert not OutputTarget.objects.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [("nowhere", "has no pool nowhere. It has: images, lvm."), ("lvm", "of type logical")],
)
def test_only_a_pool_that_the_host_has_and_that_takes_files_is_saved(
    admin: Client, host: None, name: str, words: str
) -> None:
    response = admin.post("/targets/add/", pool(storage=name))
    assert words in response.context["form"].part.errors["storage"][0]
    admin.post("/targets/add/", pool())
    target = OutputTarget.objects.get()
    assert (target.pool_path, target.networks, target.bridges) == (
        "/pool", ["default", "lab"], ["br0"],
    )  # fmt: skip


def test_a_target_that_moves_to_another_host_keeps_nothing_of_the_old_one(
    admin: Client, host: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin.post("/targets/add/", pool())
    target = OutputTarget.objects.get()
    far = HOST | {"is_local": False, "networks": [], "bridges": []}
    monkeypatch.setattr("conversions.targets.ask", lambda *_a, **_o: far)
    admin.post(f"/targets/{target.uuid}/", pool(uri="qemu+ssh://far/system"))
    target.refresh_from_db()
    assert (target.uri, target.pool_path, target.networks) == ("qemu+ssh://far/system", "", [])


def test_looking_at_a_host_shows_its_pools_and_keeps_what_was_typed(
    admin: Client, host: None
) -> None:
    page = admin.post("/targets/add/", pool(action="look", name="typed")).content.decode()
    assert "qemu:///system, images can be used. Pools: images. Networks: default, lab." in page
    assert "Nothing was saved yet." in page
    assert '<option value="images">' in page
    assert 'value="typed"' in page
    assert not OutputTarget.objects.exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"compressed": "on", "format": "raw"}, "Compression needs format qcow2"),
     pytest.param({"compressed": "on", "allocation": "preallocated"}, "exclude each other",
                  marks=pytest.mark.rows("4-T91")),
     ({"rate_mib": 0}, "Zero would let nothing through"),
     ({"max_disk_gib": -1}, "greater than or equal to 0"),
     ({"format": "vmdk"}, "Select a valid choice")],
)  # fmt: skip
def test_what_contradicts_is_refused_with_the_reason(
    admin: Client, settings: Settings, changes: dict[str, Any], words: str
) -> None:
    page = admin.post("/targets/add/", sent(settings, **changes)).content.decode()
    assert words in page
    assert not OutputTarget.objects.exists()


def test_viewers_read_operators_look_again_only_administrators_change(
    client: Client, settings: Settings, host: None
) -> None:
    target = OutputTarget.objects.create(
        name="<b>lab</b>", kind="libvirt", uri="x", storage="images"
    )
    for role, checks in (("Viewers", 403), ("Operators", 302)):
        client.force_login(make_user(role, role))
        page = client.get("/targets/").content.decode()
        assert "&lt;b&gt;lab&lt;/b&gt;" in page
        assert "An administrator can add one." in page
        assert client.post(f"/targets/{target.uuid}/check/").status_code == checks
        for address in ("add/", f"{target.uuid}/", f"{target.uuid}/remove/"):
            assert client.get(f"/targets/{address}").status_code == 403
            assert client.post(f"/targets/{address}", sent(settings)).status_code == 403
    client.force_login(make_user("nobody", None))
    assert client.get("/targets/").status_code == 403
    assert OutputTarget.objects.count() == 1


def test_the_page_asks_few_questions_whatever_the_number(
    admin: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(30):
        OutputTarget.objects.create(name=f"t{number}", uri="qemu+ssh://h/system", kind="libvirt")
    with django_assert_max_num_queries(9):
        admin.get("/targets/")


def test_a_host_that_does_not_answer_is_given_up(
    admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conversions.targets._PROGRAM", ["sleep", "60"])
    begun = time.monotonic()
    with pytest.raises(targets.TargetRefusedError, match="did not answer within 1 s"):
        targets.ask(Target(kind="libvirt", uri="qemu:///system"), seconds=1)
    assert time.monotonic() - begun < 10


def test_the_background_check_keeps_the_last_numbers_and_says_what_is_wrong(
    admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = OutputTarget.objects.create(
        name="kvm", kind="libvirt", uri="qemu:///system", storage="images"
    )
    monkeypatch.setattr("conversions.targets.ask", lambda *_a, **_o: HOST)
    tasks.check_targets()
    target.refresh_from_db()
    assert (target.free_bytes, target.problem) == (40 * GIB, "")

    def failing(*_arguments: str, **_options: float) -> None:
        raise AssertionError("it was looked at a moment ago")

    monkeypatch.setattr("conversions.targets.ask", failing)
    tasks.check_targets()

    def silent(*_arguments: str, **_options: float) -> None:
        raise targets.TargetRefusedError("It did not answer.")

    monkeypatch.setattr("conversions.targets.ask", silent)
    OutputTarget.objects.update(checked_at=timezone.now() - timedelta(minutes=1))
    tasks.check_targets()
    target.refresh_from_db()
    assert (target.free_bytes, target.networks) == (40 * GIB, ["default", "lab"])
    assert "It did not answer." in admin.get("/targets/").content.decode()
    # What a check finds is no change that somebody made.
    assert LogEntry.objects.get_for_object(target).count() == 1


def test_the_program_describes_a_folder_and_libvirts_test_driver(tmp_path: Path) -> None:
    said = targets.ask(Target(directory=str(tmp_path)), seconds=60)
    assert said["problem"] == ""
    assert said["free_bytes"] > 0
    missing = Target(directory=str(tmp_path / "x"))
    assert "is no folder" in targets.ask(missing, seconds=60)["problem"]
    host = targets.ask(Target(kind="libvirt", uri="test:///default"), seconds=60)
    assert [p["name"] for p in host["storages"]] == ["default-pool"]
    assert host["networks"] == ["default"]
    with pytest.raises(targets.TargetRefusedError, match="refused"):
        targets.ask(Target(kind="libvirt", uri="qemu+ext:///system"), seconds=60)


def test_unfinished_files_of_a_pool_are_removed_and_no_others(tmp_path: Path) -> None:
    pool_folder, other = tmp_path / "pool", tmp_path / "other"
    parts = []
    for folder in (pool_folder, other):
        folder.mkdir()
        part = folder / "web01-sda.part"
        part.touch()
        (folder / "web01-sda").touch()
        parts += [str(part), str(folder / "web01-sda")]
    OutputTarget.objects.create(
        name="kvm", kind="libvirt", uri="qemu:///system", storage="p", pool_path=str(pool_folder)
    )
    conversion = make_conversion(make_vm(), status="running")
    conversion.reports = {"targets": {"parts": parts}}
    assert clean_up_after(conversion) == [str(pool_folder / "web01-sda.part")]
    assert sorted(path.name for path in pool_folder.iterdir()) == ["web01-sda"]
    assert len(list(other.iterdir())) == 2


def test_a_lost_run_is_tidied_up_once(settings: Settings) -> None:
    """Later runs have files of the same names, and workers start often."""
    folder = settings.TARGET_DIRS[0]
    parts = [folder / "web01-sda.part", folder / "web01.xml.part"]
    finals = [part.with_suffix("") for part in parts]
    names = {"parts": list(map(str, parts)), "finals": list(map(str, finals)), "committing": True}
    make_conversion(make_vm(), status="lost", reports={"targets": names})
    finals[0].touch()
    parts[1].touch()
    tasks.on_worker_init()
    assert list(folder.iterdir()) == []
    later = [finals[0], parts[1]]
    for path in later:
        path.write_text("of a later run")
    tasks.on_worker_init()
    assert sorted(folder.iterdir()) == later


def test_a_target_that_is_being_written_to_is_not_removed(admin: Client) -> None:
    target = OutputTarget.objects.create(
        name="kvm", kind="libvirt", uri="qemu:///system", storage="images"
    )
    conversion = make_conversion(make_vm(), status="running", target=target)
    page = admin.post(f"/targets/{target.uuid}/remove/").content.decode()
    assert f"#{conversion.pk}" in page
    assert OutputTarget.objects.exists()
