"""Spec 5.3 and 5.4: domains of libvirt hosts, on libvirt's own test driver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from inventory.sources import libvirt_host
from inventory.sources.errors import SourceError
from inventory.sources.libvirt_host import check_idle, connection, find_domain, refuse_busy
from inventory.sources.readers import reader_for

UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"
NODE = """<node><domain type='test'><name>busy</name><memory>1024</memory><os><type>hvm</type></os>
<devices><disk type='file' device='disk'><source file='{disk}'/><target dev='vda'/></disk></devices>
</domain></node>"""


@pytest.fixture
def domain() -> Iterator[Any]:
    """The one domain of the driver, which is running; what is done to it is undone."""
    with connection("test:///default", read_only=False) as link:
        found = link.lookupByName("test")
        yield found
        state = found.state()[0]
        if state == libvirt.VIR_DOMAIN_PAUSED:
            found.resume()
        elif state == libvirt.VIR_DOMAIN_SHUTOFF:
            found.create()


@pytest.mark.rows("1-T224")
@pytest.mark.parametrize("name", [UUID, "test"])
def test_a_domain_is_found_by_its_uuid_and_by_its_name(name: str) -> None:
    with connection("test:///default") as link:
        assert find_domain(link, name).name() == "test"


@pytest.mark.rows("1-T224")
def test_an_unknown_domain_is_named(tmp_path: Path) -> None:
    reader = reader_for(
        "libvirt", "none", work_dir=tmp_path, warn=print, connection="test:///default"
    )
    with pytest.raises(SourceError, match="'none'") as caught:
        reader.read()
    assert caught.value.code == "E-LV-NODOM"


@pytest.mark.rows("1-T222")
@pytest.mark.parametrize("state", ["running", "paused"])
def test_a_domain_that_is_not_shut_off_is_refused_unless_it_may_be(state: str, domain: Any) -> None:
    if state == "paused":
        domain.suspend()
    with pytest.raises(SourceError, match=state) as caught:
        check_idle(domain, None)
    assert caught.value.code == "E-LV-RUNNING"
    warnings: list[str] = []
    check_idle(domain, warnings.append)
    assert state in warnings[0]


def test_a_domain_that_is_shut_off_is_taken(domain: Any) -> None:
    domain.destroy()
    warnings: list[str] = []
    refuse_busy(domain)
    check_idle(domain, warnings.append)
    assert warnings == []


@pytest.mark.rows("1-T223")
def test_of_the_test_driver_a_running_domain_is_taken_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(512))
    node = tmp_path / "node.xml"
    node.write_text(NODE.format(disk=disk))
    # Such an address is refused elsewhere: it reads a file.
    monkeypatch.setattr(libvirt_host, "checked_uri", lambda uri: uri)
    warnings: list[str] = []
    with connection(f"test://{node}") as link:
        assert link.lookupByName("busy").state()[0] == libvirt.VIR_DOMAIN_RUNNING
    reader = libvirt_host.LibvirtReader(f"test://{node}", "busy", warn=warnings.append)
    assert [found.path for found in reader.read().disks] == [str(disk)]
    assert warnings == []
