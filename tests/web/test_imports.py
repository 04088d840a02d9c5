"""Machines of the import folder that are no OVAs: VMX files, alone and in their folders."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from django.test import Client
from pytest_django import Settings

from conversions.launch import quick_job
from conversions.models import Conversion
from conversions.pipeline.job import Mode
from conversions.pipeline.report import RecordingReporter
from conversions.pipeline.source import open_source
from inventory.imports import kind_of
from inventory.models import OvaUpload, SourceVM
from inventory.sources.nbdkit import Servers
from inventory.tasks import check_upload
from tests.demo import make_user

pytestmark = pytest.mark.django_db
VMX = 'displayName = "Web 01"\nmemSize = "2048"\nnumvcpus = "2"\nscsi0:0.fileName = "{disk}"\n'


@pytest.fixture
def admin(client: Client) -> Client:
    """A browser of someone who may do everything."""
    client.force_login(make_user("root", "Administrators"))
    return client


def write_machine(folder: Path, disk: str = "web.vmdk") -> Path:
    """Write a VMX file and a disk of two files, as VMware keeps them."""
    folder.mkdir(exist_ok=True)
    create = ["qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat"]
    subprocess.run([*create, folder / "web.vmdk", "1M"], check=True)
    path = folder / "web.vmx"
    path.write_text(VMX.format(disk=disk))
    return path


def register(client: Client, name: str) -> OvaUpload:
    """Register an entry and let it be checked."""
    assert name in client.get("/sources/").content.decode()
    client.post("/sources/import/", {"name": name})
    upload = OvaUpload.objects.get()
    check_upload(str(upload.uuid))
    upload.refresh_from_db()
    return upload


@pytest.mark.parametrize("entry", ["web", "web.vmx"])
def test_a_vmx_becomes_a_machine_that_the_engine_opens(
    admin: Client, settings: Settings, tmp_path: Path, entry: str
) -> None:
    top = Path(settings.IMPORT_DIR)
    path = write_machine(top / entry if entry == "web" else top)
    upload = register(admin, entry)
    assert (upload.status, upload.message) == ("ready", "")
    vm = SourceVM.objects.get()
    assert (vm.name, vm.kind, vm.location, vm.status) == ("Web 01", "vmx", str(path), "ready")
    assert (vm.vcpus, vm.memory_bytes, vm.disk_bytes) == (2, 2 << 30, 1 << 20)
    assert [disk.file for disk in vm.disks.all()] == ["web.vmdk"]
    page = admin.get(vm.get_absolute_url())
    assert not page.context["may_change_disks"]
    assert "web.vmdk" in page.content.decode()
    source = open_source(
        quick_job(vm, Mode.INSPECT), tmp_path, RecordingReporter(), Servers(tmp_path)
    )
    assert source == vm.source
    assert source.disks[0].other_files == (str(path.parent / "web-flat.vmdk"),)


def test_it_is_inspected_and_converted_but_not_in_place(admin: Client, settings: Settings) -> None:
    write_machine(Path(settings.IMPORT_DIR) / "web")
    register(admin, "web")
    vm = SourceVM.objects.get()
    assert admin.get(f"{vm.get_absolute_url()}convert/").status_code == 200
    assert admin.get(f"{vm.get_absolute_url()}convert-in-place/").status_code == 404
    admin.post(f"{vm.get_absolute_url()}inspect/")
    assert Conversion.objects.get().job["source"]["kind"] == "vmx"


@pytest.mark.parametrize("disk", ["../secret.vmdk", "missing.vmdk"])
def test_a_vmx_that_leads_elsewhere_is_refused_and_kept(
    admin: Client, settings: Settings, disk: str
) -> None:
    top = Path(settings.IMPORT_DIR)
    path = write_machine(top / "web", disk)
    create = ["qemu-img", "create", "-q", "-f", "vmdk", top / "secret.vmdk", "1M"]
    subprocess.run(create, check=True)
    upload = register(admin, "web")
    assert upload.status == "refused"
    assert upload.message
    assert path.exists()
    assert not SourceVM.objects.exists()


def test_what_a_folder_is(tmp_path: Path) -> None:
    assert kind_of(tmp_path) == ("ova", tmp_path)
    for name in ("a.vmx", ".hidden.vmx", "a.vmxf", "a.nvram"):
        (tmp_path / name).touch()
    assert kind_of(tmp_path) == ("vmx", tmp_path / "a.vmx")
    (tmp_path / "b.VMX").touch()
    assert kind_of(tmp_path) == ("ova", tmp_path)
    (tmp_path / "b.VMX").unlink()
    (tmp_path / "a.ovf").touch()
    assert kind_of(tmp_path) == ("ova", tmp_path)
