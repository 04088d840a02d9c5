"""The Sources place: the plain form, the import folder, cancelling and forgetting."""

from __future__ import annotations

import asyncio
import gzip
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from auditlog.models import LogEntry
from django.contrib.auth.models import Group, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from inventory import actions
from inventory.access import create_roles
from inventory.actions import begin_check, create_upload, forget_vm, store_machine
from inventory.bodies import LIMIT_BYTES
from inventory.incoming import RESERVE_BYTES, UploadRefusedError
from inventory.models import OvaUpload, SourceVM
from inventory.sources.ova import OvaReader
from inventory.tasks import check_upload, tidy_uploads
from inventory.uploads import part_path
from tests.demo import make_user, make_vm
from tests.unit.sources.ova_builder import make_ova

pytestmark = pytest.mark.django_db


@pytest.fixture
def signed_in(client: Client) -> Client:
    """A browser of an operator."""
    user = User.objects.create_user("ada", password="x")
    Group.objects.get_or_create(name="Operators")
    create_roles()
    user.groups.add(Group.objects.get(name="Operators"))
    client.force_login(user)
    return client


def test_the_plain_form_takes_a_file_and_moves_it(
    signed_in: Client,
    tmp_path: Path,
    settings: Settings,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    data = make_ova(tmp_path / "web01.ova").read_bytes()
    with django_capture_on_commit_callbacks():
        answer = signed_in.post("/sources/upload/", {"file": SimpleUploadedFile("w.ova", data)})
    assert answer.status_code == 302
    upload = OvaUpload.objects.get()
    assert upload.status == "checking"
    check_upload(str(upload.uuid))
    upload.refresh_from_db()
    assert (upload.status, upload.vm.status) == ("ready", "ready")
    assert Path(upload.path).read_bytes() == data
    assert [p.name for p in Path(settings.UPLOAD_DIR).iterdir()] == [str(upload.uuid)]
    page = signed_in.get("/sources/").content.decode()
    assert "matches manifest" in page
    assert signed_in.get(f"/sources/{upload.uuid}/").status_code == 200
    forget_vm(upload.vm, user="ada")


def test_a_file_of_the_plain_form_needs_no_room_besides_its_own(
    signed_in: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = SimpleNamespace(total=1 << 40, used=1 << 40, free=RESERVE_BYTES)
    monkeypatch.setattr("shutil.disk_usage", lambda _path: full)
    signed_in.post("/sources/upload/", {"file": SimpleUploadedFile("w.ova", bytes(9000))})
    assert OvaUpload.objects.get().status == "checking"


class Sent:
    """A POST to the whole application: what it answered, and how many bytes it took for that."""

    def __init__(
        self, path: str, body: bytes, client: Client | None = None, **headers: str
    ) -> None:
        from v2vweb.asgi import application  # not before there is a key

        self.taken = 0
        cookies = client.cookies if client else {}
        headers["cookie"] = "; ".join(f"{key}={cookie.value}" for key, cookie in cookies.items())
        scope = {
            "type": "http", "http_version": "1.1", "scheme": "http", "method": "POST",
            "path": path, "root_path": "", "query_string": b"",
            "headers": [
                (b"host", b"testserver"),
                *((k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()),
            ],
        }  # fmt: skip
        self.messages: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if self.taken == len(body):
                await asyncio.Event().wait()  # the browser waits for the answer
            piece = body[self.taken : self.taken + (1 << 20)]
            self.taken += len(piece)
            more = self.taken < len(body)
            return {"type": "http.request", "body": piece, "more_body": more}

        async def send(message: dict[str, Any]) -> None:
            self.messages.append(message)

        asyncio.run(application(scope, receive, send))
        self.status = self.messages[0]["status"]


@pytest.fixture
def no_tmp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be written where temporary files go by themselves."""
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", ["/accounts/login/", "/sources/upload/", "/drivers/add/"])
def test_a_large_body_of_somebody_else_is_refused_before_it_is_stored(
    client: Client, no_tmp: None, path: str
) -> None:
    client.force_login(make_user("eve", "Viewers"))
    for browser in (None, client):
        sent = Sent(path, bytes(20 << 20), browser)
        assert sent.status == 413
        assert sent.taken == LIMIT_BYTES + (1 << 20)
        assert b"Nothing was stored" in sent.messages[1]["body"]
    assert Sent(path, bytes(5 << 20), content_length=str(5 << 20)).taken == 0


@pytest.mark.django_db(transaction=True)
def test_the_plain_form_takes_a_large_file_onto_the_file_system_of_uploads(
    signed_in: Client, settings: Settings, no_tmp: None
) -> None:
    signed_in.get("/sources/")
    name = 'Content-Disposition: form-data; name="file"; filename="w.ova"'
    data = bytes(LIMIT_BYTES + 1)
    body = b"--x\r\n" + name.encode() + b"\r\n\r\n" + data + b"\r\n--x--\r\n"
    options = {
        "content_type": "multipart/form-data; boundary=x",
        "content_length": str(len(body)),
        "x_csrftoken": signed_in.cookies["csrftoken"].value,
    }
    assert Sent("/sources/upload/", body, signed_in, **options).status == 302
    upload = OvaUpload.objects.get()
    assert part_path(upload).read_bytes() == data
    assert [p.name for p in Path(settings.UPLOAD_DIR).iterdir()] == [str(upload.uuid)]


@pytest.mark.django_db(transaction=True)
def test_a_file_that_has_no_room_is_refused_before_it_is_sent(
    signed_in: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(total=1 << 40, used=0, free=RESERVE_BYTES + (100 << 20))
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage)
    sent = Sent("/sources/upload/", bytes(1), signed_in, content_length=str(51 << 20))
    assert (sent.status, sent.taken) == (413, 0)
    assert b"larger than the 50.0 MiB" in sent.messages[1]["body"]


def test_the_import_folder_is_registered_in_place(
    signed_in: Client,
    settings: Settings,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    file = make_ova(Path(settings.IMPORT_DIR) / "big.ova")
    assert "big.ova" in signed_in.get("/sources/").content.decode()
    signed_in.post("/sources/import/", {"name": "big.ova"})
    upload = OvaUpload.objects.get()
    check_upload(str(upload.uuid))
    vm = SourceVM.objects.get()
    assert (vm.status, vm.location) == ("ready", str(file))
    again = signed_in.post("/sources/import/", {"name": "big.ova"}, follow=True)
    assert "registered already" in again.content.decode()
    with django_capture_on_commit_callbacks(execute=True):
        forget_vm(vm, user="ada")
    assert file.exists()


def test_a_compressed_ova_becomes_a_machine_once_it_is_there(
    signed_in: Client, tmp_path: Path, settings: Settings
) -> None:
    data = gzip.compress(make_ova(tmp_path / "web01.ova").read_bytes())
    signed_in.post("/sources/upload/", {"file": SimpleUploadedFile("w.ova", data)})
    upload = OvaUpload.objects.get()
    check_upload(str(upload.uuid))
    upload.refresh_from_db()
    assert (upload.status, upload.message) == ("ready", "")
    assert {digest["status"] for digest in upload.digests} == {"matches"}
    vm = SourceVM.objects.get()
    assert (vm.status, vm.location) == ("ready", upload.path)
    assert not list(Path(settings.WORK_DIR).iterdir())


def test_a_disk_of_the_import_folder_is_a_machine(signed_in: Client, settings: Settings) -> None:
    disk = Path(settings.IMPORT_DIR) / "db01.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "1G"], check=True)
    assert "db01.qcow2" in signed_in.get("/sources/").content.decode()
    signed_in.post("/sources/import/", {"name": "db01.qcow2"})
    check_upload(str(OvaUpload.objects.get().uuid))
    vm = SourceVM.objects.get()
    assert (vm.kind, vm.status, vm.name, vm.disk_bytes) == ("disk", "ready", "db01", 1 << 30)
    assert "db01.qcow2" in signed_in.get(vm.get_absolute_url()).content.decode()


def test_a_disk_that_leads_elsewhere_is_refused(signed_in: Client, settings: Settings) -> None:
    folder = Path(settings.IMPORT_DIR)
    (folder / "secret.raw").write_bytes(bytes(1 << 20))
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw"]
    subprocess.run([*create, "-b", folder / "secret.raw", folder / "evil.qcow2"], check=True)
    signed_in.post("/sources/import/", {"name": "evil.qcow2"})
    upload = OvaUpload.objects.get()
    check_upload(str(upload.uuid))
    upload.refresh_from_db()
    assert upload.status == "refused"
    assert not SourceVM.objects.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "../uploads", "/etc/passwd", "out", "missing"])
def test_nothing_outside_the_import_folder_is_registered(
    signed_in: Client, settings: Settings, name: str
) -> None:
    (Path(settings.IMPORT_DIR) / "out").symlink_to("/etc")
    signed_in.post("/sources/import/", {"name": name})
    assert not OvaUpload.objects.exists()


@pytest.mark.parametrize("name", ["sub/big.ova", "notes.txt", "a\0b.ova"])
def test_only_what_is_offered_is_registered(
    signed_in: Client, settings: Settings, name: str
) -> None:
    (Path(settings.IMPORT_DIR) / "sub").mkdir()
    make_ova(Path(settings.IMPORT_DIR) / "sub" / "big.ova")
    (Path(settings.IMPORT_DIR) / "notes.txt").touch()
    page = signed_in.post("/sources/import/", {"name": name}, follow=True)
    assert "in the import folder" in page.content.decode()
    assert not OvaUpload.objects.exists()


def test_a_link_out_of_the_import_folder_is_shown_with_what_to_do(
    signed_in: Client, settings: Settings, tmp_path: Path
) -> None:
    top = Path(settings.IMPORT_DIR)
    (top / "nas.ova").symlink_to(make_ova(tmp_path / "elsewhere.ova"))
    make_ova(top / "here.ova")
    (top / "again.ova").symlink_to("here.ova")
    page = signed_in.get("/sources/").content.decode()
    assert page.count('value="nas.ova"') == 0
    assert page.count('value="again.ova"') == 1
    assert "link out of the import folder" in page
    page = signed_in.post("/sources/import/", {"name": "nas.ova"}, follow=True).content.decode()
    assert "nas.ova: This is a link out of the import folder." in page
    assert not OvaUpload.objects.exists()


def test_a_name_that_is_no_utf_8_is_shown_with_what_to_do(
    signed_in: Client, settings: Settings
) -> None:
    Path(os.fsdecode(bytes(settings.IMPORT_DIR) + b"/caf\xe9.ova")).touch()
    page = signed_in.get("/sources/").content.decode()
    assert r"caf\xe9.ova" in page
    assert "Rename it" in page
    assert 'action="/sources/import/"' not in page


def test_a_missing_folder_of_uploads_is_named_on_the_page(
    signed_in: Client, settings: Settings
) -> None:
    Path(settings.UPLOAD_DIR).rmdir()
    page = signed_in.get("/sources/").content.decode()
    assert "Nothing can be uploaded" in page
    assert str(settings.UPLOAD_DIR) in page
    with pytest.raises(UploadRefusedError, match="is not there"):
        create_upload("a.ova", 5000, user=None)


def test_a_stated_capacity_that_no_column_holds_is_cut() -> None:
    vm = make_vm()
    assert vm.upload is not None
    stated = {"virtual_size_bytes": None, "declared_capacity_bytes": 10**12 << 30}
    source = replace(vm.source, disks=(replace(vm.source.disks[0], **stated),))
    vm = store_machine(vm.upload, source, status="arriving")
    vm.refresh_from_db()
    assert vm.disks.get().capacity_bytes == vm.disk_bytes == 2**63 - 1


def test_a_bad_file_of_the_import_folder_is_refused_and_kept(
    signed_in: Client, settings: Settings
) -> None:
    file = make_ova(
        Path(settings.IMPORT_DIR) / "bad.ova",
        change=lambda files: files.update({"d1.vmdk": b"KDMV" + bytes(4096)}),
    )
    signed_in.post("/sources/import/", {"name": "bad.ova"})
    upload = OvaUpload.objects.get()
    check_upload(str(upload.uuid))
    upload.refresh_from_db()
    assert upload.status == "refused"
    assert upload.message
    assert file.exists()
    assert not SourceVM.objects.exists()


def test_forgetting_a_machine_deletes_its_upload_and_keeps_its_row(
    signed_in: Client,
    tmp_path: Path,
    settings: Settings,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    data = make_ova(tmp_path / "web01.ova").read_bytes()
    signed_in.post("/sources/upload/", {"file": SimpleUploadedFile("w.ova", data)})
    check_upload(str(OvaUpload.objects.get().uuid))
    vm = SourceVM.objects.get()
    with django_capture_on_commit_callbacks(execute=True):
        forget_vm(vm, user="ada")
    vm.refresh_from_db()
    assert vm.status == "gone"
    assert list(Path(settings.UPLOAD_DIR).iterdir()) == []
    entry = LogEntry.objects.get_for_object(vm).latest("pk")
    assert entry.changes_dict["status"] == ["ready", "gone"]


def test_an_upload_nobody_continued_for_a_week_is_cancelled(signed_in: Client) -> None:
    old = OvaUpload.objects.create(filename="old.ova", size_bytes=10)
    OvaUpload.objects.filter(pk=old.pk).update(updated_at="2020-01-01T00:00:00Z")
    new = OvaUpload.objects.create(filename="new.ova", size_bytes=10)
    tidy_uploads()
    assert OvaUpload.objects.get(pk=old.pk).status == "cancelled"
    assert OvaUpload.objects.get(pk=new.pk).status == "receiving"
    signed_in.post(f"/sources/{new.uuid}/cancel/")
    assert OvaUpload.objects.get(pk=new.pk).status == "cancelled"
    entry = LogEntry.objects.get_for_object(new).latest("pk")
    assert entry.changes_dict["status"] == ["receiving", "cancelled"]
    assert entry.actor is not None


@pytest.mark.django_db(transaction=True)  # the signs come from a thread
@pytest.mark.parametrize("origin", ["browser", "import"])
def test_a_check_that_takes_long_is_not_begun_again(
    origin: str, signed_in: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_ova(settings.IMPORT_DIR / "web01.ova")
    if origin == "import":
        signed_in.post("/sources/import/", {"name": file.name})
    else:
        packed = SimpleUploadedFile("w.ova", gzip.compress(file.read_bytes()))
        signed_in.post("/sources/upload/", {"file": packed})
    upload = OvaUpload.objects.get()
    sent: list[str] = []
    monkeypatch.setattr(check_upload, "delay", sent.append)
    monkeypatch.setattr(actions, "SIGN_SECONDS", 0.01)
    real = OvaReader.verify

    def verify(*arguments: Any) -> Any:
        row = OvaUpload.objects.filter(pk=upload.pk)
        row.update(updated_at="2020-01-01T00:00:00Z")
        deadline = time.monotonic() + 20
        while row.filter(updated_at__year=2020).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        tidy_uploads()
        return real(*arguments)

    monkeypatch.setattr(OvaReader, "verify", verify)
    check_upload(str(upload.uuid))
    upload.refresh_from_db()
    assert (upload.status, sent) == ("ready", [])


@pytest.mark.parametrize("packed", [False, True])
def test_a_check_that_a_crash_cut_off_is_done_by_the_next(
    packed: bool, signed_in: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_ova(tmp_path / "web01.ova").read_bytes()
    data = gzip.compress(data) if packed else data
    upload = create_upload("w.ova", len(data), user=None)
    part_path(upload).write_bytes(data)
    assert begin_check(upload)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(actions, "adopt", Mock(side_effect=KeyboardInterrupt))
        check_upload(str(upload.uuid))
    assert not part_path(upload).exists()
    check_upload(str(upload.uuid))
    upload.refresh_from_db()
    assert (upload.status, upload.message) == ("ready", "")
    assert SourceVM.objects.get().location == upload.path


def test_viewers_see_sources_without_the_form(client: Client) -> None:
    assert client.get("/sources/").status_code == 302
    user = User.objects.create_user("eve", password="x")
    Group.objects.get_or_create(name="Viewers")
    create_roles()
    user.groups.add(Group.objects.get(name="Viewers"))
    client.force_login(user)
    page = client.get("/sources/")
    assert page.status_code == 200
    assert "drop-zone" not in page.content.decode()
    assert client.post("/sources/upload/").status_code == 403
    assert client.post("/sources/import/").status_code == 403
