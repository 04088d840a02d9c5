"""Resumable uploads: what a tus client sends and gets, and what is left on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Group, User
from pytest_django import Settings

from inventory import uploads
from inventory.models import OvaUpload, SourceVM
from tests.unit.sources.ova_builder import make_ova, make_ovf
from tests.web.tus_client import Client

# Uploads write on threads of their own, which see only what has been committed.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def operator() -> Client:
    """A client of an operator."""
    user = User.objects.create_user("ada", password="x")
    user.groups.add(Group.objects.get_or_create(name="Operators")[0])
    from inventory.access import create_roles

    create_roles()
    return Client(User.objects.get(pk=user.pk))


@pytest.fixture
def ova(tmp_path: Path) -> Callable[..., bytes]:
    """Return the bytes of an OVA."""
    return lambda **options: make_ova(tmp_path / "x.ova", **options).read_bytes()


def is_empty(settings: Settings) -> bool:
    """Tell whether nothing of any upload lies on disk."""
    return list(Path(settings.UPLOAD_DIR).iterdir()) == []


def test_a_file_in_pieces_becomes_a_machine(
    operator: Client, ova: Callable[..., bytes], settings: Settings
) -> None:
    data = ova()
    created = operator.create(len(data))
    assert created.status == 201
    path = created.headers["location"]
    cut = 7000
    assert operator.patch(path, 0, data[:5000], data[5000:cut]).headers["upload-offset"] == str(cut)
    vm = SourceVM.objects.get()
    assert (vm.name, vm.status) == ("demo", "arriving")
    assert operator.send("HEAD", path).headers["upload-offset"] == str(cut)
    assert operator.patch(path, cut, data[cut:]).status == 204
    vm.refresh_from_db()
    upload = OvaUpload.objects.get()
    assert (vm.status, upload.status) == ("ready", "ready")
    assert [d["status"] for d in upload.digests] == ["matches", "matches"]
    assert vm.source.disks[0].virtual_size_bytes == 1 << 20
    assert Path(upload.path).read_bytes() == data
    assert not list(Path(settings.UPLOAD_DIR).rglob("*.part"))


def test_a_restart_in_the_middle_costs_nothing(operator: Client, ova: Callable[..., bytes]) -> None:
    data = ova()
    path = operator.create(len(data)).headers["location"]
    operator.patch(path, 0, data[:9000])
    uploads._followers.clear()  # what a process that dies forgets
    assert operator.patch(path, 9000, data[9000:]).status == 204
    assert OvaUpload.objects.get().status == "ready"


def test_a_wrong_offset_is_refused_with_both_numbers(
    operator: Client, ova: Callable[..., bytes]
) -> None:
    data = ova()
    path = operator.create(len(data)).headers["location"]
    operator.patch(path, 0, data[:2048])
    answer = operator.patch(path, 4096, data[4096:])
    assert answer.status == 409
    assert "2048" in answer.text and "4096" in answer.text


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"change": lambda files: files.update({"d1.vmdk": b"x" * 2048})}, "E-MF-MISMATCH"),
        ({"ovf": make_ovf(href="../../etc/passwd"), "algorithm": None}, "E-OVA-MISSING"),
        ({"change": lambda files: files.pop("vm.ovf"), "algorithm": None}, "E-OVA-NO-OVF"),
        ({"change": lambda files: files.pop("d1.vmdk"), "algorithm": None}, "E-OVA-MISSING"),
        ({"ovf": make_ovf(doctype='<!DOCTYPE x [<!ENTITY a "b">]>')}, "E-XML-DTD"),
    ],
)
def test_a_bad_package_is_refused_and_nothing_is_left(
    operator: Client,
    ova: Callable[..., bytes],
    settings: Settings,
    options: dict[str, Any],
    code: str,
) -> None:
    data = ova(**options)
    path = operator.create(len(data)).headers["location"]
    operator.patch(path, 0, data)
    upload = OvaUpload.objects.get()
    assert upload.status == "refused"
    assert upload.code in (code, "E-OVA-ESCAPE")
    assert upload.message
    assert is_empty(settings)
    assert not SourceVM.objects.exists()


def test_another_kind_of_file_is_refused_at_its_head(operator: Client, settings: Settings) -> None:
    path = operator.create(100_000).headers["location"]
    answer = operator.patch(path, 0, b"MZ" + b"x" * 2000)
    assert answer.status == 422
    assert "neither a tar archive" in answer.text
    assert is_empty(settings)
    assert operator.patch(path, 2002, b"x").status == 410


def test_a_cut_archive_is_refused(
    operator: Client, ova: Callable[..., bytes], settings: Settings
) -> None:
    data = ova()[:-20_000]
    path = operator.create(len(data)).headers["location"]
    operator.patch(path, 0, data)
    assert OvaUpload.objects.get().code == "E-OVA-UNPACK"
    assert is_empty(settings)


def test_a_file_without_room_is_refused_with_the_numbers(
    operator: Client, settings: Settings
) -> None:
    answer = operator.create(1 << 55)
    assert answer.status == 413
    assert "32.0 PiB" in answer.text
    assert "Nothing was stored" in answer.text
    assert is_empty(settings)


@pytest.mark.parametrize("size", ["", "x", "-1", "\N{SUPERSCRIPT TWO}", "9" * 19])
def test_a_size_that_is_no_number_is_refused(operator: Client, size: str) -> None:
    answer = operator.send("POST", upload_length=size, upload_metadata="filename eC5vdmE=")
    assert answer.status == 400
    assert "upload-length must be a number" in answer.text


def test_more_bytes_than_announced_are_refused(operator: Client, ova: Callable[..., bytes]) -> None:
    data = ova()
    path = operator.create(len(data) - 512).headers["location"]
    assert operator.patch(path, 0, data).status == 413


def test_a_cancelled_upload_is_gone(
    operator: Client, ova: Callable[..., bytes], settings: Settings
) -> None:
    data = ova()
    path = operator.create(len(data)).headers["location"]
    operator.patch(path, 0, data[:7000])
    assert operator.send("DELETE", path).status == 204
    assert is_empty(settings)
    assert not SourceVM.objects.exists()
    assert operator.patch(path, 7000, data[7000:]).status == 410


def test_only_operators_with_a_token_upload(operator: Client) -> None:
    assert Client(AnonymousUser()).create(5000).status == 401
    viewer = User.objects.create_user("eve", password="x")
    assert Client(viewer).create(5000).status == 403
    operator.token = "wrong"
    assert operator.create(5000).status == 403
    assert not OvaUpload.objects.exists()


def test_an_upload_belongs_to_who_began_it(operator: Client) -> None:
    path = operator.create(5000).headers["location"]
    other = User.objects.create_user("bob", password="x")
    other.groups.add(Group.objects.get(name="Operators"))
    assert Client(User.objects.get(pk=other.pk)).send("HEAD", path).status == 404


@pytest.mark.parametrize("name", ["../../evil.ova", "/etc/passwd", "..\\x.ova", "-rf", "a\nb", ""])
def test_names_stay_inside_the_uploads_folder(
    operator: Client, settings: Settings, name: str
) -> None:
    assert operator.create(5000, name).status == 201
    upload = OvaUpload.objects.get()
    part = uploads.part_path(upload)
    assert part.is_file()
    assert part.parent.parent == Path(settings.UPLOAD_DIR)
    assert not part.name.startswith(("-", "."))
