"""Reading one domain of a libvirt host, against libvirt's own test driver."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import libvirt
import pytest

from inventory.sources import libvirt_host
from inventory.sources.errors import SourceError
from inventory.sources.libvirt_host import LibvirtReader, connection, find_domain, refuse_busy
from inventory.sources.libvirt_listing import list_domain
from tests.libvirt_samples import domain, host_file

UUID = "00000000-0000-0000-0000-000000000000"
VOLUME = (
    "<disk type='volume' device='disk'><driver name='qemu' type='qcow2'/>"
    "<source pool='{pool}' volume='{volume}'/><target dev='vda' bus='virtio'/></disk>"
)

Serve = Callable[..., str]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Give the address of a host with these domains; files are no addresses in use."""
    monkeypatch.setattr(libvirt_host, "checked_uri", str)
    return lambda *domains: host_file(tmp_path / "host.xml", domains)


def read(uri: str, name: str) -> object:
    return LibvirtReader(uri, name, warn=lambda _text: None).read()


def on_volume(pool: str, volume: str) -> str:
    """Return a domain whose only disk is a volume."""
    xml = domain(0)
    begin, end = xml.index("<disk"), xml.index("</disk>") + len("</disk>")
    return xml[:begin] + VOLUME.format(pool=pool, volume=volume) + xml[end:]


@pytest.mark.rows("1-T224")
@pytest.mark.parametrize("name", [UUID, "vm0"])
def test_a_domain_is_found_by_its_uuid_and_by_its_name(serve: Serve, name: str) -> None:
    with pytest.raises(SourceError) as caught:  # found: its disk is what is missing here
        read(serve(domain(0), domain(1)), name)
    assert (caught.value.code, "/images/vm0.qcow2" in caught.value.message) == ("E-LV-DISK", True)


def test_a_disk_that_may_not_be_read_is_named_with_what_helps(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those that libvirt has made: of root, mode 0600."""
    disk = tmp_path / "vm0.qcow2"
    disk.touch()
    uri = serve(domain(0).replace("/images/vm0.qcow2", str(disk)))
    assert read(uri, "vm0")
    opened = os.open

    def refuse(path: str, *how: int, **more: int) -> int:
        if path == str(disk):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return opened(path, *how, **more)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SourceError, match=f"{disk} of vm0 cannot be read: Permission") as caught:
        read(uri, "vm0")
    assert (caught.value.code, "setfacl" in caught.value.remedy) == ("E-LV-DISK", True)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("writable", [False, True])
def test_the_password_of_the_display_is_asked_for_where_it_is_kept(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool, writable: bool
) -> None:
    disk = tmp_path / "vm0.qcow2"
    disk.touch()
    screen = "<graphics type='vnc' passwd='s3cret'/></devices>"
    xml = domain(0).replace("/images/vm0.qcow2", str(disk)).replace("</devices>", screen)
    uri, warnings = serve(xml), list[str]()
    if not writable:

        def refuse(_address: str) -> NoReturn:
            raise libvirt.libvirtError("authentication failed")

        monkeypatch.setattr(libvirt, "open", refuse)
    source = LibvirtReader(uri, "vm0", warn=warnings.append, keep_display=keep).read()
    assert source.display
    assert source.display.password == ("s3cret" if keep and writable else None)
    assert len(warnings) == (keep and not writable)


@pytest.mark.rows("1-T224")
def test_a_domain_that_is_not_there_is_named(serve: Serve) -> None:
    with pytest.raises(SourceError, match="has no domain 'vm7'") as caught:
        read(serve(domain(0)), "vm7")
    assert caught.value.code == "E-LV-NODOM"


@pytest.mark.rows("1-T222")
@pytest.mark.parametrize("state", ["1", "2", "3", "4"])  # running, blocked, paused, being shut down
def test_a_domain_whose_disks_change_is_refused(serve: Serve, state: str) -> None:
    xml = domain(0).replace("<test:runstate>5<", f"<test:runstate>{state}<")
    with (
        connection(serve(xml)) as link,
        pytest.raises(SourceError, match="its disks change while they are read") as caught,
    ):
        refuse_busy(find_domain(link, "vm0"))
    assert caught.value.code == "E-LV-RUNNING"


def test_a_domain_with_saved_memory_is_refused(serve: Serve) -> None:
    uri = serve(domain(0, shut_off=False))
    link = libvirt.open(uri)
    found = link.lookupByName("vm0")
    found.managedSave()
    with pytest.raises(SourceError, match="was saved while it ran") as caught:
        libvirt_host.refuse_busy(found)
    assert caught.value.code == "E-LV-SAVED"
    link.close()


@pytest.mark.rows("1-T211")
def test_a_volume_of_a_pool_of_files_is_a_path_with_the_volumes_format(serve: Serve) -> None:
    with connection(serve(on_volume("images", "vm0.qcow2"))) as link:
        found = list_domain(link, UUID)
    assert found is not None
    assert found.source is not None
    (disk,) = found.source.disks
    assert (disk.path, disk.format) == ("/images/vm0.qcow2", "qcow2")
    assert (disk.declared_capacity_bytes, found.pools) == (20 << 30, ("images",))


@pytest.mark.rows("1-T212")
@pytest.mark.parametrize(("pool", "volume"), [("nowhere", "vm0.qcow2"), ("images", "gone.qcow2")])
def test_a_volume_that_is_not_there_is_named(serve: Serve, pool: str, volume: str) -> None:
    uri = serve(on_volume(pool, volume))
    with pytest.raises(SourceError) as caught:
        read(uri, "vm0")
    assert caught.value.code == "E-LV-VOLUME"
    assert pool in caught.value.message
    assert volume in caught.value.message
    with connection(uri) as link:
        found = list_domain(link, UUID)
    assert found is not None
    assert (found.source, found.code) == (None, "E-LV-VOLUME")
