"""A machine of a libvirt host: listed, inspected, converted into a pool, defined there, started."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import libvirt
import pytest
from playwright.sync_api import Page, expect

from tests.browser.console import Console
from tests.browser.test_main_job import Screenshots, wait_for_done
from tests.libvirt_daemon import URI, running_libvirtd

# Two runs of the engine and a boot, without KVM.
pytestmark = [pytest.mark.browser, pytest.mark.timeout(3000)]

RUN_SECONDS = 1000
BOOT_SECONDS = 600
# As on VMware: the guest's own initramfs finds no virtio disk, and its /etc/fstab names /dev/sda.
SOURCE = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>1024</memory>
<vcpu>2</vcpu><os><type arch='x86_64' machine='pc'>hvm</type></os><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>
<target dev='sda' bus='sata'/></disk><serial type='pty'/></devices></domain>"""
POOL = """<pool type='dir'><name>{name}</name><target><path>{path}</path></target></pool>"""


@pytest.fixture
def libvirtd(tmp_path: Path) -> Iterator[libvirt.virConnect]:
    """The host's libvirtd, started when it does not run."""
    try:
        with running_libvirtd(tmp_path) as link:
            yield link
    except PermissionError as error:
        pytest.skip(str(error))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the daemon's machines may reach; pytest's own are only for its user."""
    with tempfile.TemporaryDirectory(prefix="v2vweb-libvirt-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        (Path(name) / "pool").mkdir()
        yield Path(name)


def unpack_disk(ova: Path, disk: Path) -> None:
    """Write the only disk of an OVA as qcow2."""
    with tarfile.open(ova) as tar:
        member = next(m for m in tar if m.name.endswith(".vmdk"))
        stream = tar.extractfile(member)
        assert stream
        vmdk = disk.with_suffix(".vmdk")
        with stream, vmdk.open("wb") as file:
            while piece := stream.read(1 << 20):
                file.write(piece)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", vmdk, disk], check=True)
    vmdk.unlink()


def test_a_machine_of_a_libvirt_host_boots_once_converted(
    build_sample: Callable[..., Path],
    libvirtd: libvirt.virConnect,
    folder: Path,
    console: Console,
    open_page: Callable[..., Page],
    results_dir: Path,
) -> None:
    name = f"e2e-{os.getpid()}"
    disk = folder / "source.qcow2"
    unpack_disk(build_sample("debian", layout="plain"), disk)
    modified = disk.stat().st_mtime_ns
    source = libvirtd.defineXML(SOURCE.format(name=name, disk=disk))
    pool = libvirtd.storagePoolCreateXML(POOL.format(name=name, path=folder / "pool"))
    page = open_page("administrator")
    shots = Screenshots(page, results_dir / "libvirt")
    try:
        add_host(page, shots, name)
        follow_state(page, shots, source, name)
        page.get_by_role("link", name=name, exact=True).click()
        machine = page.url
        page.get_by_role("button", name="Inspect", exact=True).click()
        wait_for_done(page, RUN_SECONDS)
        page.goto(machine)
        page.get_by_role("link", name="Read the report").first.click()
        expect(page.locator("main")).to_contain_text("Debian GNU/Linux 12")
        add_target(page, shots, name)
        convert(page, machine, shots, name)
        shots.take("converted")
        assert disk.stat().st_mtime_ns == modified
        pool.refresh()
        assert pool.listVolumes() == [f"{name}-new-sda"]
        result = libvirtd.lookupByName(f"{name}-new")
        assert not result.isActive()
        assert "bus='virtio'" in result.XMLDesc().replace('"', "'")
        guest = boot(libvirtd, result, results_dir / "libvirt-boot.log")
        assert guest["root"] == "/dev/vda2"
        # What the conversion has defined is a machine of the host by now.
        page.goto(f"/machines/?q={name}-new")
        expect(page.get_by_role("link", name=f"{name}-new", exact=True)).to_be_visible()
        page.get_by_role("link", name=f"{name}-new", exact=True).click()
        expect(page.locator("main")).to_contain_text(name)  # its pool
        look_at_all(open_page, page.url, results_dir / "machine-with-history")
    finally:
        for domain in (name, f"{name}-new"):
            with suppress(libvirt.libvirtError):
                libvirtd.lookupByName(domain).destroy()
            with suppress(libvirt.libvirtError):
                libvirtd.lookupByName(domain).undefine()
        pool.destroy()


def add_host(page: Page, shots: Screenshots, machine: str) -> None:
    """Add this server as a host and wait until the machine is on its page."""
    page.goto("/sources/hosts/add/")
    page.get_by_label("Address").fill(URI)
    page.get_by_label("Name").fill("this server")
    page.get_by_role("button", name="Add host").click()
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=machine, exact=True))
    # A worker reads it, and the page says so by itself.
    expect(row).to_contain_text("Shut off", timeout=60_000)
    expect(page.get_by_text("shows here within seconds")).to_be_visible(timeout=60_000)
    shots.take("host")


def add_target(page: Page, shots: Screenshots, pool: str) -> None:
    """Name the pool of this server as a target."""
    page.goto("/targets/add/")
    page.get_by_label("Kind").select_option("libvirt")
    page.get_by_label("Address of the libvirt host").fill(URI)
    page.locator("input[name=libvirt-storage]").fill(pool)
    page.locator("input[name=name]").fill(f"pool {pool}")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("region", name=f"pool {pool}")).to_contain_text("Can be used")
    shots.take("target")


def convert(page: Page, machine: str, shots: Screenshots, name: str) -> None:
    """Convert the machine into the pool by the form."""
    page.goto(machine)
    page.get_by_role("link", name="Convert", exact=True).click()
    choice = page.locator("select[name=target] option", has_text=f"pool {name}")
    page.locator("select[name=target]").select_option(choice.get_attribute("value"))
    page.get_by_role("button", name="Start with what the target says").click()
    page.get_by_label("Name on the target").fill(f"{name}-new")
    page.get_by_role("button", name="Review", exact=True).click()
    expect(page.locator("pre")).to_contain_text(f'volume="{name}-new-sda"')
    shots.take("review")
    page.get_by_role("button", name=re.compile("^Start")).click()
    page.wait_for_url(re.compile(r"/conversions/[0-9a-f-]{36}/"))
    wait_for_done(page, RUN_SECONDS)


def follow_state(page: Page, shots: Screenshots, domain: libvirt.virDomain, name: str) -> None:
    """Start and end the machine behind the console's back; the page follows without reloading."""
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))
    page.evaluate("window.notReloaded = true")
    # It does not get to run, so its disk stays as it is.
    domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    expect(row).to_contain_text("Paused", timeout=20_000)
    shots.take("paused")
    domain.destroy()
    expect(row).to_contain_text("Shut off", timeout=20_000)
    assert page.evaluate("window.notReloaded")


def boot(link: libvirt.virConnect, domain: libvirt.virDomain, log: Path) -> dict[str, str]:
    """Start a machine and return what the guest says on its console when it is up."""
    domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    stream = link.newStream(0)
    domain.openConsole(None, stream, 0)
    domain.resume()
    # Reading waits for ever; a machine that is ended ends it.
    timer = threading.Timer(BOOT_SECONDS, domain.destroy)
    timer.start()
    said = bytearray()
    begun = time.monotonic()
    try:
        while not (match := re.search(rb"GUEST-UP ([^\r\n]*)[\r\n]", said)):
            piece = stream.recv(4096)
            assert piece, f"the guest is not up after {time.monotonic() - begun:.0f} s"
            said += piece
    finally:
        timer.cancel()
        log.write_bytes(said)
        with suppress(libvirt.libvirtError):
            domain.destroy()
    fields = match.group(1).decode(errors="replace").split()
    return dict(field.split("=", 1) for field in fields)


def look_at_all(open_page: Callable[..., Page], address: str, prefix: Path) -> None:
    """Take pictures of a page for people to look at: wide and narrow, light and dark."""
    for width in (1440, 390):
        for scheme in ("light", "dark"):
            page = open_page(
                "administrator", viewport={"width": width, "height": 1600}, color_scheme=scheme
            )
            page.goto(address)
            page.screenshot(path=prefix.with_name(f"{prefix.name}-{width}-{scheme}.png"))
