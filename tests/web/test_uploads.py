"""The Sources place: the plain form, the import folder, cancelling and forgetting."""

from __future__ import annotations

import gzip
import subprocess
import time
from pathlib import Path
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
from inventory.actions import begin_check, create_upload, forget_vm
from inventory.models import OvaUpload, SourceVM
from inventory.sources.ova import OvaReader
from inventory.tasks import check_upload, tidy_uploads
from inventory.uploads import part_path
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
