"""A libvirt host from the Sources page to the machine's own page, and the pages beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.console import Console

pytestmark = pytest.mark.browser

# A machine whose disk lies on this server and whose inspection has met a LUKS device.
SEED = """
from dataclasses import replace
from conversions.pipeline.job import Mode
from tests.demo import make_conversion, make_inspection, make_source, make_vm
source = make_source("shelf01")
disks = tuple(replace(disk, path="/srv/disks/shelf01.qcow2") for disk in source.disks)
vm = make_vm("shelf01", source=replace(source, disks=disks))
vm.kind = "disk"
vm.save()
met = [{"device": "/dev/sda5", "kind": "crypto_LUKS", "uuid": "1f2e"}]
make_inspection(make_conversion(vm, mode=Mode.INSPECT, reports={"encrypted": met}))
"""


def shoot(open_page: Callable[..., Page], address: str, name: str, folder: Path) -> None:
    """Take pictures of a page for people to look at: wide and narrow, light and dark."""
    for width in (1440, 390):
        for scheme in ("light", "dark"):
            page = open_page(
                "administrator", viewport={"width": width, "height": 900}, color_scheme=scheme
            )
            page.goto(address)
            page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=True)


def test_a_host_is_added_and_its_machines_show_up(
    console: Console, open_page: Callable[..., Page], results_dir: Path
) -> None:
    page = open_page("administrator")
    page.goto("/sources/")
    page.get_by_role("link", name="Add a host").click()
    page.get_by_label("Name").fill("bench")
    page.get_by_label("Address").fill("qemu+ext:///system?command=/bin/false")
    page.get_by_role("button", name="Add host").click()
    expect(page.get_by_text("is refused").first).to_be_visible()
    page.get_by_label("Address").fill("test:///default")
    page.get_by_role("button", name="Test connection").click()
    expect(page.get_by_text("The host answers")).to_be_visible()
    shoot(open_page, "/sources/hosts/add/", "host-add", results_dir)
    page.get_by_role("button", name="Add host").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("bench")
    machine = page.get_by_role("link", name="test", exact=True)
    for _attempt in range(30):  # a worker reads it
        if machine.count():
            break
        page.wait_for_timeout(1000)
        page.reload()
    shoot(open_page, page.url, "host", results_dir)
    shoot(open_page, "/sources/", "sources", results_dir)
    machine.click()
    expect(page.get_by_text("Shut it down from inside")).to_be_visible()
    expect(page.get_by_role("button", name="Inspect")).to_have_count(0)
    shoot(open_page, page.url, "machine-of-a-host", results_dir)


def test_in_place_names_the_disks_and_wants_the_name(
    console: Console, open_page: Callable[..., Page], results_dir: Path
) -> None:
    console.manage("shell", "-c", SEED)
    page = open_page("administrator")
    page.goto("/machines/?q=shelf01")
    page.get_by_role("link", name="shelf01").click()
    machine = page.url
    page.get_by_role("link", name="Convert in place").click()
    expect(page.get_by_text("/srv/disks/shelf01.qcow2")).to_be_visible()
    page.get_by_label("Type the machine's name").fill("shelf02")
    page.get_by_role("button", name="Convert in place").click()
    expect(page.get_by_text("This is not its name")).to_be_visible()
    shoot(open_page, f"{machine}convert-in-place/", "in-place", results_dir)
    page.goto(f"{machine}convert/")
    page.get_by_text("Adjust the guest").click()
    page.get_by_label("Host name").fill("-no-")
    page.get_by_label("Passphrase of /dev/sda5").fill("correct horse")
    page.get_by_role("button", name="Review").click()
    expect(page.get_by_text("This is no host name")).to_be_visible()
    page.screenshot(path=results_dir / "convert-sections.png", full_page=True)
    page.get_by_label("Host name").fill("shelf01.example")
    page.get_by_role("button", name="Review").click()
    expect(page.get_by_text("Host name: nothing → shelf01.example")).to_be_visible()
    assert "correct horse" not in page.content()
    page.screenshot(path=results_dir / "review-sections.png", full_page=True)
