"""Drivers sent resumably: what a tus client gets, what is kept and what is left behind."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from auditlog.models import LogEntry
from django.contrib.auth.models import AnonymousUser
from django.test import Client as Browser
from pytest_django import Settings

from conversions.driver_uploads import DriverUploads, arriving
from conversions.drivers import list_drivers, list_tools
from inventory import incoming
from inventory.models import OvaUpload
from inventory.tasks import EXPIRE_AFTER, tidy_uploads
from tests.demo import make_user
from tests.guests.virtio_win import driver_iso_tree, make_iso
from tests.web.tus_client import Client

# Uploads write on threads of their own, which see only what has been committed.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An ISO of drivers."""
    folder = tmp_path_factory.mktemp("virtio-win")
    return make_iso(driver_iso_tree(folder / "tree"), folder / "virtio-win.iso").read_bytes()


@pytest.fixture
def folder(settings: Settings) -> Path:
    """The folder of drivers, which is not there until something is sent."""
    return Path(settings.DRIVERS_DIR)


def client_of(name: str, group: str) -> Client:
    return Client(make_user(name, group), DriverUploads.prefix)


@pytest.fixture
def admin() -> Client:
    """A client of an administrator."""
    return client_of("root", "Administrators")


def payload(folder: Path) -> list[Path]:
    """Return every file of the folder that holds more than the record of an upload."""
    return [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".json"]


def test_an_iso_in_pieces_becomes_a_collection(admin: Client, iso: bytes, folder: Path) -> None:
    created = admin.create(len(iso), "virtio-win.iso")
    assert created.status == 201
    path = created.headers["location"]
    assert (
        admin.patch(path, 0, iso[:40_000], iso[40_000:50_000]).headers["upload-offset"] == "50000"
    )
    assert list_drivers() == []
    assert [(u.name, u.received_bytes) for u in arriving()] == [("virtio-win.iso", 50_000)]
    head = admin.send("HEAD", path).headers
    assert (head["upload-offset"], head["upload-length"]) == ("50000", str(len(iso)))
    assert admin.patch(path, 40_000, iso[40_000:]).status == 409
    assert admin.patch(path, 50_000, iso[50_000:]).status == 204
    [drivers] = list_drivers()
    assert (drivers.name, drivers.problem) == ("virtio-win.iso", "")
    assert payload(folder) == [folder / "virtio-win.iso"]
    assert drivers.path.read_bytes() == iso
    assert not OvaUpload.objects.exists()
    [entry] = LogEntry.objects.filter(content_type__model="driverfile")
    assert (entry.get_action_display(), entry.object_repr) == ("create", "virtio-win.iso")
    assert str(entry.actor) == "root"
    # A browser that missed the answer asks, and hears that all of it is there.
    assert admin.send("HEAD", path).headers["upload-offset"] == str(len(iso))
    assert admin.patch(path, len(iso), b"").status == 409


def test_bytes_that_were_not_noted_are_sent_again(admin: Client, iso: bytes, folder: Path) -> None:
    path = admin.create(len(iso), "virtio-win.iso").headers["location"]
    admin.patch(path, 0, iso[:50_000])
    [part] = (folder / ".arriving").glob("*.part")
    with part.open("ab") as stream:  # what a process that died had written since its last note
        stream.write(bytes(9000))
    assert admin.send("HEAD", path).headers["upload-offset"] == "50000"
    assert admin.patch(path, 50_000, iso[50_000:]).status == 204
    assert (folder / "virtio-win.iso").read_bytes() == iso


def test_a_program_of_the_first_start_goes_the_same_way(admin: Client, folder: Path) -> None:
    data = b"MZ" + bytes(3000)
    path = admin.create(len(data), "RHSRVANY.EXE").headers["location"]
    assert admin.patch(path, 0, data).status == 204
    assert [t.name for t in list_tools()] == ["rhsrvany.exe"]
    assert payload(folder) == [folder / "virt-tools/rhsrvany.exe"]


def test_only_administrators_with_a_token_send_drivers(admin: Client, folder: Path) -> None:
    assert Client(AnonymousUser(), DriverUploads.prefix).create(50_000, "a.iso").status == 401
    refused = client_of("ada", "Operators").create(50_000, "a.iso")
    assert (refused.status, "Administrators" in refused.text) == (403, True)
    admin.token = "wrong"
    assert admin.create(50_000, "a.iso").status == 403
    assert not folder.exists()


def test_an_upload_belongs_to_who_began_it(admin: Client) -> None:
    path = admin.create(50_000, "a.iso").headers["location"]
    other = client_of("bob", "Administrators")
    assert other.send("HEAD", path).status == 404
    assert other.send("DELETE", path).status == 404
    assert [u.name for u in arriving()] == ["a.iso"]
    # Neither does the address of one kind answer for the other.
    assert admin.send("HEAD", path.replace("/drivers/", "/sources/")).status == 404


@pytest.mark.parametrize("name", ["drivers.zip", "evil.exe", "../../x", ""])
def test_other_kinds_of_files_are_refused_before_they_are_sent(
    admin: Client, folder: Path, name: str
) -> None:
    answer = admin.create(50_000, name)
    assert answer.status == 422
    assert "neither an ISO image" in answer.text
    assert not folder.exists()


def test_names_stay_inside_the_folder(admin: Client, iso: bytes, folder: Path) -> None:
    path = admin.create(len(iso), "../../a/.evil.iso").headers["location"]
    admin.patch(path, 0, iso)
    assert payload(folder.parent) == [folder / "evil.iso"]


def test_a_name_that_is_taken_is_refused_before_it_is_sent(
    admin: Client, iso: bytes, folder: Path
) -> None:
    first = admin.create(len(iso), "a.iso").headers["location"]
    meanwhile = client_of("bob", "Administrators").create(len(iso), "a.iso")
    assert meanwhile.status == 422
    assert "is being sent already, by root" in meanwhile.text
    admin.patch(first, 0, iso)
    again = admin.create(len(iso), "a.iso")
    assert (again.status, "is there already" in again.text) == (422, True)
    assert payload(folder) == [folder / "a.iso"]


def test_what_is_no_iso_is_refused_at_its_head(admin: Client, folder: Path) -> None:
    path = admin.create(700 << 20, "virtio-win.iso").headers["location"]
    answer = admin.patch(path, 0, b"no iso" * 10_000)
    assert (answer.status, "it is not an ISO image" in answer.text) == (422, True)
    assert payload(folder) == []
    gone = admin.send("HEAD", path)
    assert gone.status == 410
    assert admin.create(700 << 20, "virtio-win.iso").status == 201


@pytest.mark.parametrize("what", ["cut off", "without drivers"])
def test_an_iso_of_no_use_is_refused_at_its_end(
    admin: Client, iso: bytes, folder: Path, tmp_path: Path, what: str
) -> None:
    data = iso[: len(iso) // 3]
    if what == "without drivers":
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree/readme.txt").write_text("nothing")
        data = make_iso(tmp_path / "tree", tmp_path / "x.iso").read_bytes()
    path = admin.create(len(data), "virtio-win.iso").headers["location"]
    answer = admin.patch(path, 0, data)
    assert (answer.status, "virtio-win.iso was not kept" in answer.text) == (422, True)
    assert str(folder) not in answer.text
    assert payload(folder) == []
    assert list_drivers() == []
    assert admin.patch(path, 0, data).status == 410


def test_a_file_without_room_is_refused_with_the_numbers(admin: Client, folder: Path) -> None:
    answer = admin.create(1 << 55, "virtio-win.iso")
    assert (answer.status, "32.0 PiB" in answer.text) == (413, True)
    assert payload(folder) == []


def test_what_is_promised_to_one_kind_is_not_promised_to_another(
    admin: Client, settings: Settings
) -> None:
    before = incoming.free_bytes(Path(settings.UPLOAD_DIR))
    assert before is not None
    assert admin.create(before - (64 << 20), "virtio-win.iso").status == 201
    assert Client(admin.user).create(before // 2).status == 413


def test_a_cancelled_upload_is_gone(admin: Client, iso: bytes, folder: Path) -> None:
    path = admin.create(len(iso), "a.iso").headers["location"]
    admin.patch(path, 0, iso[:50_000])
    assert admin.send("DELETE", path).status == 204
    assert payload(folder) == []
    answer = admin.patch(path, 50_000, iso[50_000:])
    assert (answer.status, answer.text) == (410, "Cancelled by root.")


def test_another_administrator_sees_it_arrive_and_cancels_it(
    admin: Client, iso: bytes, folder: Path, client: Browser
) -> None:
    path = admin.create(len(iso), "a.iso").headers["location"]
    admin.patch(path, 0, iso[:50_000])
    client.force_login(make_user("ada", "Operators"))
    cancel = f"/drivers/{path.rsplit('/', 1)[1]}/cancel/"
    page = client.get("/drivers/list/").content.decode()
    assert "48.8 KiB of" in page and "every 2s" in page and cancel not in page
    assert client.post(cancel).status_code == 403
    client.force_login(make_user("bob", "Administrators"))
    assert cancel in client.get("/drivers/").content.decode()
    assert "is cancelled" in client.post(cancel, follow=True).content.decode()
    assert payload(folder) == []
    assert "every 2s" not in client.get("/drivers/list/").content.decode()
    assert "had ended already" in client.post(cancel, follow=True).content.decode()
    unknown = cancel.replace(path.rsplit("/", 1)[1], "0" * 8 + "-0000-0000-0000-" + "0" * 12)
    assert client.post(unknown).status_code == 404


def test_an_upload_cancelled_in_the_middle_of_a_body_ends(
    admin: Client, iso: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inventory.tus.PIECE_BYTES", 1)
    path = admin.create(len(iso), "a.iso").headers["location"]

    class Body(list[bytes]):
        def pop(self, *_args: object) -> bytes:  # type: ignore[override]  # the client's only use
            if len(self) == 1:
                arriving()[0].cancel(user="bob")
            return super().pop(0)

    answer = admin.send(
        "PATCH", path, Body([iso[:50_000], iso[50_000:]]),
        upload_offset=0, content_type="application/offset+octet-stream",
    )  # fmt: skip
    assert (answer.status, answer.text) == (410, "Cancelled by bob.")
    assert payload(folder) == []


def test_what_nobody_continues_for_a_week_is_removed(
    admin: Client, iso: bytes, folder: Path
) -> None:
    old = admin.create(len(iso), "old.iso").headers["location"]
    admin.patch(old, 0, iso[:50_000])
    past = time.time() - EXPIRE_AFTER.total_seconds() - 60
    for path in (folder / ".arriving").iterdir():
        os.utime(path, (past, past))
    fresh = admin.create(len(iso), "fresh.iso").headers["location"]
    tidy_uploads()
    assert [u.name for u in arriving()] == ["fresh.iso"]
    assert admin.send("HEAD", old).status == 404
    assert admin.send("HEAD", fresh).status == 200
    assert len(list((folder / ".arriving").iterdir())) == 2
