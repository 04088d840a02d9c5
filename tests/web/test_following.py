"""Following libvirt hosts: what a host tells becomes rows; one that breaks holds up no other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import libvirt
import pytest
from django.utils import timezone

from inventory import following
from inventory.following import Follower, store_news
from inventory.host_store import store_domains
from inventory.models import LibvirtHost, SourceVM
from inventory.sources.host_access import HostAccess
from inventory.sources.host_listing import ListedDomain
from inventory.sources.libvirt_child import follow_host
from inventory.sources.libvirt_listing import list_domain, list_domains
from tests.libvirt_daemon import URI, running_libvirtd
from tests.libvirt_samples import domain, host_file

pytestmark = pytest.mark.django_db

LIVE = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>{memory}</memory>
<os><type arch='x86_64'>hvm</type></os><devices><disk type='file' device='disk'>
<driver name='qemu' type='qcow2'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>
</devices></domain>"""


@pytest.fixture
def listed(tmp_path: Path) -> Callable[..., list[ListedDomain]]:
    """Return domains as a host with them lists them."""

    def list_them(*domains: str) -> list[ListedDomain]:
        with closing(libvirt.open(host_file(tmp_path / "host.xml", domains))) as link:
            return list(list_domains(link))

    return list_them


@pytest.fixture
def start() -> Iterator[Callable[[Follower], None]]:
    """Have a follower ended with the test."""
    stop = threading.Event()
    stop.set()
    started: list[Follower] = []
    yield started.append
    for follower in started:
        follower.run(stop)


def make_host(name: str = "kvm1") -> LibvirtHost:
    return LibvirtHost.objects.create(name=name, uri=f"qemu+ssh://{name}/system")


def talker(*lines: dict[str, Any] | str, then: str = "time.sleep(60)") -> list[str]:
    """Return a program that says these lines and then does something."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    return [sys.executable, "-c", f"import time; print({text!r}, end='', flush=True); {then}"]


def popen(program: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(program, stdout=subprocess.PIPE, start_new_session=True)


def turn_until(follower: Follower, is_so: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not come about"
        follower.turn()


def test_what_a_host_tells_becomes_rows(
    listed: Callable[..., list[ListedDomain]], start: Callable[[Follower], None]
) -> None:
    host = make_host()
    one, two = listed(domain(0), domain(1, shut_off=False))
    store_domains(host, [one], since=timezone.now(), now=timezone.now())
    lines: list[dict[str, Any]] = [
        {"ready": True}, {"domain": two.to_dict()}, {"gone": one.uuid}, {"gone": "unknown"},
    ]  # fmt: skip
    follower = Follower(lambda _access: popen(talker(*lines)))
    start(follower)
    turn_until(follower, lambda: SourceVM.objects.filter(status="gone").exists())
    first, second = SourceVM.objects.order_by("name")
    assert (first.status, second.status) == ("gone", "ready")
    assert (second.name, second.power, second.disks.count()) == ("vm1", "running", 1)
    host.refresh_from_db()
    assert host.is_followed
    assert host.wanted_at  # what was missed before is read


def test_a_change_is_kept_with_its_time(listed: Callable[..., list[ListedDomain]]) -> None:
    host = make_host()
    (before,) = listed(domain(0))
    store_domains(host, [before], since=timezone.now(), now=timezone.now())
    (after,) = listed(domain(0, shut_off=False, memory_mib=2048))
    store_news(host.pk, {"domain": after.to_dict()})
    vm = SourceVM.objects.get()
    assert [(c["what"], c["before"], c["after"]) for c in vm.changes] == [
        ("power", "shut off", "running"),
        ("memory", "1.0 GiB", "2.0 GiB"),
    ]
    assert vm.refusal


def test_what_was_told_during_a_reading_is_newer_than_the_reading(
    listed: Callable[..., list[ListedDomain]],
) -> None:
    host = make_host()
    old = listed(domain(0), domain(1))
    begun = timezone.now() - timedelta(minutes=1)
    store_domains(host, old, since=begun, now=begun)
    started, undefined, defined = listed(
        domain(0, shut_off=False), domain(1), domain(2, shut_off=False)
    )
    for line in ({"domain": started.to_dict()}, {"gone": undefined.uuid},
                 {"domain": defined.to_dict()}):  # fmt: skip
        store_news(host.pk, line)
    # It was listed before all that, and is stored after it.
    store_domains(host, old, since=begun, now=timezone.now())
    found = {vm.name: (vm.power, vm.status) for vm in SourceVM.objects.all()}
    assert found == {
        "vm0": ("running", "ready"), "vm1": ("shut off", "gone"), "vm2": ("running", "ready"),
    }  # fmt: skip
    # The next reading begins after it and is believed.
    store_domains(host, old, since=timezone.now(), now=timezone.now())
    found = {vm.name: (vm.power, vm.status) for vm in SourceVM.objects.all()}
    assert found == {
        "vm0": ("shut off", "ready"), "vm1": ("shut off", "ready"), "vm2": ("running", "gone"),
    }  # fmt: skip


def test_a_host_that_hangs_or_babbles_holds_up_no_other(
    start: Callable[[Follower], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(following, "CONNECT_SECONDS", 3.0)
    note = tmp_path / "pid"
    programs = {
        # It has started another program, as libvirt starts ssh.
        make_host("hangs").uri: ["sh", "-c", f"sleep 61 & echo $! >{note}; wait"],
        make_host("babbles").uri: talker("<no JSON>"),
        make_host("floods").uri: ["sh", "-c", "exec cat /dev/zero"],
        make_host("works").uri: talker({"ready": True}),
    }
    follower = Follower(lambda access: popen(programs[access.uri]))
    start(follower)
    begun = time.monotonic()
    turn_until(follower, lambda: LibvirtHost.objects.get(name="works").is_followed)
    assert time.monotonic() - begun < 10
    turn_until(follower, lambda: not is_alive(int(note.read_text())))
    names = LibvirtHost.objects.exclude(followed_at=None).values_list("name", flat=True)
    assert list(names) == ["works"]


def test_a_lost_host_is_followed_again_after_pauses_that_grow(
    start: Callable[[Follower], None],
) -> None:
    host = make_host()
    starts: list[str] = []

    def begin(uri: str) -> subprocess.Popen[bytes]:
        starts.append(uri)
        return popen(talker({"ready": True}, then="pass"))

    follower = Follower(begin)
    start(follower)
    pauses = []
    for count in range(1, 9):
        turn_until(follower, lambda count=count: len(starts) == count)  # type: ignore[misc]
        followed = follower._hosts[host.pk]
        turn_until(follower, lambda: follower._hosts[host.pk].process is None)
        pauses.append(round(followed.start_at - time.monotonic()))
        followed.start_at = 0.0
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    host.refresh_from_db()
    assert not host.is_followed
    followed.ready_since = time.monotonic() - 100  # this time it went well for long
    follower._lose(followed, "again")
    assert round(followed.start_at - time.monotonic()) == 1


def test_a_host_that_cannot_tell_is_asked_again_much_later(
    start: Callable[[Follower], None],
) -> None:
    host = make_host()
    error = {"code": "E-LV-NOEVENTS", "message": "It does not tell.", "remedy": ""}
    follower = Follower(lambda _access: popen(talker({"error": error}, then="pass")))
    start(follower)
    turn_until(follower, lambda: bool(follower._hosts) and follower._hosts[host.pk].is_told)
    assert follower._hosts[host.pk].start_at - time.monotonic() > 3000


def test_a_silent_host_and_a_removed_one_are_let_go(
    start: Callable[[Follower], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(following, "HOSTS_EVERY_SECONDS", 0.0)
    host = make_host()
    processes: list[subprocess.Popen[bytes]] = []

    def begin(_uri: str) -> subprocess.Popen[bytes]:
        processes.append(popen(talker({"ready": True})))
        return processes[-1]

    follower = Follower(begin)
    start(follower)
    turn_until(follower, lambda: len(processes) == 2)  # the first said nothing more
    assert processes[0].returncode == -9
    host.delete()
    turn_until(follower, lambda: not follower._hosts)
    assert processes[1].returncode == -9


@pytest.mark.parametrize("change", [{"shares_disks": True}, {"uri": "qemu+ssh://kvm2/system"}])
def test_a_host_that_is_read_otherwise_is_followed_anew(
    start: Callable[[Follower], None], monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    monkeypatch.setattr(following, "HOSTS_EVERY_SECONDS", 0.0)
    host = make_host()
    asked: list[HostAccess] = []

    def begin(access: HostAccess) -> subprocess.Popen[bytes]:
        asked.append(access)
        return popen(talker({"ready": True}))

    follower = Follower(begin)
    start(follower)
    turn_until(follower, lambda: len(asked) == 1)
    LibvirtHost.objects.filter(pk=host.pk).update(**change)
    turn_until(follower, lambda: len(asked) == 2)
    assert (asked[0].over_ssh, asked[1].over_ssh) == (True, "shares_disks" not in change)


def test_an_address_that_is_refused_starts_nothing() -> None:
    LibvirtHost.objects.create(name="old", uri="qemu+ext:///system?command=/bin/sh")
    follower = Follower()
    follower.turn()
    (followed,) = follower._hosts.values()
    assert followed.process is None
    assert followed.is_told


def is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


# --- A real libvirtd ---------------------------------------------------------------------------


@pytest.fixture
def libvirtd(tmp_path: Path) -> Iterator[libvirt.virConnect]:
    """The host's libvirtd, started when it does not run."""
    try:
        with running_libvirtd(tmp_path) as link:
            yield link
    except PermissionError as error:
        pytest.skip(str(error))


def test_a_real_host_is_followed(
    libvirtd: libvirt.virConnect, start: Callable[[Follower], None], tmp_path: Path
) -> None:
    """Define, start, pause, end, undefine: each is on the row soon, without a reading."""
    host = LibvirtHost.objects.create(name="here", uri=URI)
    follower = Follower(follow_host)
    start(follower)
    turn_until(follower, lambda: LibvirtHost.objects.get().is_followed, 60)
    # Where the daemon's user, who is another, may read it.
    disk = Path(f"/var/tmp/v2vweb-follow-{os.getpid()}.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "1M"], check=True)
    name = f"v2vweb-follow-{os.getpid()}"

    def is_shown(seconds: float = 10, **columns: str) -> None:
        turn_until(follower, lambda: host.vms.filter(name=name, **columns).exists(), seconds)

    try:
        guest = libvirtd.defineXML(LIVE.format(name=name, memory=32, disk=disk))
        is_shown(power="shut off", status="ready")
        try:
            guest.create()
            is_shown(power="running")
            guest.suspend()
            is_shown(power="paused")
            guest.resume()
            is_shown(power="running")
            guest.destroy()
            is_shown(power="shut off")
            libvirtd.defineXML(LIVE.format(name=name, memory=64, disk=disk).replace(
                "<memory", f"<uuid>{guest.UUIDString()}</uuid><memory"))  # fmt: skip
            turn_until(follower, lambda: host.vms.get(name=name).memory_bytes == 64 << 20, 10)
        finally:
            if guest.isActive():
                guest.destroy()
            guest.undefine()
        is_shown(status="gone")
        changes = [(c["what"], c["after"]) for c in host.vms.get(name=name).changes]
        assert changes[0] == ("memory", "64.0 MiB")
        assert ("power", "paused") in changes
    finally:
        disk.unlink()
    host.refresh_from_db()
    assert host.refreshed_at is None
    assert list_domain(libvirtd, "00000000-0000-0000-0000-000000000000") is None


def test_a_real_host_that_goes_away_is_followed_again(
    start: Callable[[Follower], None], tmp_path: Path
) -> None:
    LibvirtHost.objects.create(name="here", uri=URI)
    follower = Follower(follow_host)
    start(follower)
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            with running_libvirtd(folder):
                turn_until(follower, lambda: LibvirtHost.objects.get().is_followed, 60)
        except PermissionError as error:
            pytest.skip(str(error))
        with suppress(libvirt.libvirtError):
            libvirt.open(URI).close()
            pytest.skip("libvirtd was there before and stays")
        turn_until(follower, lambda: not LibvirtHost.objects.get().is_followed, 60)
