"""Listing a libvirt host, and the process that does it for a limited time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import libvirt
import pytest

from inventory.sources.errors import SourceError
from inventory.sources.host_access import HostAccess
from inventory.sources.host_listing import HostListing, ListedDomain
from inventory.sources.libvirt_child import _ask, read_host
from inventory.sources.libvirt_listing import check_of, list_domains
from inventory.sources.power import Power
from tests.libvirt_samples import domain, host_file


def listed(tmp_path: Path, *domains: str) -> dict[str, ListedDomain]:
    link = libvirt.open(host_file(tmp_path / "host.xml", domains))
    try:
        return {found.name: found for found in list_domains(link)}
    finally:
        link.close()


def test_active_and_inactive_domains_come_with_state_disks_cards_and_pools(tmp_path: Path) -> None:
    found = listed(tmp_path, domain(0), domain(1, shut_off=False))
    off, on = found["vm0"], found["vm1"]
    assert (off.power, on.power) == (Power.SHUT_OFF, Power.RUNNING)
    assert off.source is not None
    assert off.source.disks[0].declared_capacity_bytes == 20 << 30
    assert off.pools == ("images",)
    assert off.source.nics[0].mac == "52:54:00:00:00:00"
    assert on.source is not None
    assert on.source.disks[0].declared_capacity_bytes is None


def test_a_domain_that_cannot_be_used_is_listed_with_its_reason(tmp_path: Path) -> None:
    found = listed(tmp_path, domain(0, disks=0, memory_mib=512), domain(1))
    assert found["vm0"].source is None
    assert found["vm0"].code == "E-LV-NODISK"
    assert "no disk that can be read" in found["vm0"].problem
    assert found["vm0"].memory_bytes == 512 << 20
    assert found["vm1"].source is not None


@pytest.mark.parametrize(
    ("access", "code"),
    [
        (HostAccess(uri="qemu+ssh://root@kvm1/system", over_ssh=True), "E-SSH-BLOCK"),
        (HostAccess(uri="xen+ssh://root@xen1/", over_ssh=True), "E-XEN-BLOCK"),
        (HostAccess(uri="qemu+ssh://root@kvm1/system"), ""),
        (HostAccess(uri="qemu:///system"), ""),
        (HostAccess(uri="esx://root@esx1/"), ""),
    ],
)
def test_what_cannot_be_read_over_ssh_is_listed_with_its_reason(
    tmp_path: Path, access: HostAccess, code: str
) -> None:
    device = domain(0).replace("/images/vm0.qcow2", "/dev/vg/vm0")
    link = libvirt.open(host_file(tmp_path / "host.xml", [device, domain(1)]))
    on_device, in_file = list_domains(link, check_of(access))
    link.close()
    assert (on_device.code, in_file.code) == (code, "")
    assert ("is a block device" in on_device.problem) is bool(code)
    # What is known of it is shown all the same.
    assert on_device.source is not None


def test_snapshots_and_saved_memory_are_seen(tmp_path: Path) -> None:
    link = libvirt.open(host_file(tmp_path / "host.xml", [domain(0), domain(1, shut_off=False)]))
    link.lookupByName("vm0").snapshotCreateXML(
        "<domainsnapshot><name>before</name></domainsnapshot>"
    )
    link.lookupByName("vm1").managedSave()
    found = {one.name: one for one in list_domains(link)}
    link.close()
    assert found["vm0"].snapshots == ("before",)
    assert not found["vm0"].has_saved_memory
    assert found["vm1"].has_saved_memory
    assert found["vm1"].power == Power.SHUT_OFF


def test_a_listing_survives_its_way_as_json(tmp_path: Path) -> None:
    domains = tuple(listed(tmp_path, domain(0), domain(1, disks=0)).values())
    listing = HostListing(description="TEST on vm", count=2, domains=domains)
    assert HostListing.from_dict(json.loads(json.dumps(listing.to_dict()))) == listing


def test_a_host_is_read_in_a_process_of_its_own() -> None:
    listing = read_host(HostAccess(uri="test:///default"), with_domains=True, seconds=30)
    assert [(d.name, d.power) for d in listing.domains] == [("test", Power.RUNNING)]
    short = read_host(HostAccess(uri="test:///default"), with_domains=False, seconds=30)
    assert (short.count, short.domains) == (1, ())
    assert short.description.startswith("TEST")


def test_a_host_without_answer_ends_in_time_and_leaves_no_process(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    program = ["sh", "-c", f"sleep 60 & echo $! > {note}; wait"]
    started = time.monotonic()
    with pytest.raises(SourceError) as caught:
        _ask({"uri": "qemu+ssh://far/system", "domains": True, "seconds": 1}, program)
    assert caught.value.code == "E-LV-TIMEOUT"
    assert "did not answer within 1 s" in caught.value.message
    assert time.monotonic() - started < 5
    deadline = time.monotonic() + 10  # it was killed; a busy machine takes its time to do so
    while is_alive(int(note.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Tell whether a process is there; a zombie that nobody has waited for is not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_a_child_that_breaks_is_reported_with_its_last_words() -> None:
    with pytest.raises(SourceError) as caught:
        _ask(
            {"uri": "qemu:///system", "domains": True, "seconds": 5},
            ["sh", "-c", "cat > /dev/null; echo no memory left >&2; exit 3"],
        )
    assert caught.value.code == "E-LV-CRASH"
    assert "code 3: no memory left" in caught.value.message


def test_the_child_ends_by_itself_when_nobody_waits_for_it() -> None:
    program = """
import inventory.sources.libvirt_listing as listing, time
listing.list_host = lambda *a, **k: time.sleep(60)
listing.main()
"""
    access = HostAccess(uri="qemu:///system")
    request = {**access.to_dict(), "domains": True, "seconds": -4}
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(request).encode(),
        timeout=20,
    )
    assert done.returncode < 0


def test_the_child_is_not_told_the_consoles_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "do-not-tell")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    program = [sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"]
    environment = _ask({"uri": "x", "domains": False, "seconds": 5}, program)
    assert "SECRET_KEY" in os.environ
    assert "SECRET_KEY" not in environment
    assert environment["SSH_AUTH_SOCK"] == "/run/agent"


@pytest.mark.parametrize("uri", ["qemu+ext:///system?command=/bin/sh", "test:///tmp/evil.xml"])
def test_no_process_starts_for_an_address_that_is_refused(uri: str) -> None:
    with pytest.raises(SourceError) as caught:
        read_host(HostAccess(uri=uri), with_domains=True, seconds=1)
    assert caught.value.code == "E-LV-URI"


def test_a_host_that_refuses_names_itself_and_the_next_move() -> None:
    with pytest.raises(SourceError) as caught:
        read_host(HostAccess(uri="qemu+tls://127.0.0.1:1/system"), with_domains=True, seconds=20)
    assert caught.value.code == "E-LV-CONNECT"
    assert "qemu+tls://127.0.0.1:1/system" in caught.value.message
    assert caught.value.remedy
