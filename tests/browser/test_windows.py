"""A Windows guest from upload to result: what is missing is said, added, and then used.

The guest is of a few files and registry hives: nothing of it starts, but all of it is converted.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from lxml import etree
from playwright.sync_api import Page, expect

from tests.browser.console import Console
from tests.browser.test_main_job import Screenshots, upload, wait_for_done
from tests.guests.virtio_win import driver_iso_tree, make_iso, tools_folder
from tests.guests.windows import W10, build_image
from tests.unit.sources.ova_builder import NIC, make_ova, make_ovf

# Three runs of the engine and an appliance that builds the guest, without KVM.
pytestmark = [pytest.mark.browser, pytest.mark.timeout(1500)]


def build_ova(folder: Path) -> Path:
    """Pack a phony Windows 10 as VMware would."""
    disk, vmdk = folder / "disk.qcow2", folder / "disk.vmdk"
    build_image(W10, disk)
    convert = ["qemu-img", "convert", "-f", "qcow2", "-O", "vmdk"]
    subprocess.run([*convert, "-o", "subformat=streamOptimized", disk, vmdk], check=True)
    card = NIC.replace("<r:Conn", "<r:Address>00:50:56:01:02:03</r:Address><r:Conn", 1)
    ovf = make_ovf(name="<Name>win10</Name>", more=card, firmware="")
    return make_ova(folder / "win10.ova", {"d1.vmdk": vmdk.read_bytes()}, ovf=ovf)


def test_windows_gets_its_drivers(
    console: Console, open_page: Callable[..., Page], tmp_path: Path, results_dir: Path
) -> None:
    page = open_page("administrator")
    shots = Screenshots(page, results_dir / "windows")
    machine = upload(page, build_ova(tmp_path), shots)

    page.get_by_role("button", name="Inspect", exact=True).click()
    wait_for_done(page)
    page.goto(machine)
    page.get_by_role("link", name="Read the report").first.click()
    expect(page.get_by_text("Windows 10 Pro").first).to_be_visible()
    expect(page.get_by_text("Blocks").first).to_be_visible()
    shots.take("without-drivers")

    iso = make_iso(driver_iso_tree(tmp_path / "tree"), tmp_path / "virtio-win.iso")
    tools = tools_folder(tmp_path / "tools", ("rhsrvany.exe",))
    (tools / "rhsrvany.exe").write_bytes(b"MZ" + bytes(2000))
    page.goto("/drivers/")
    send_drivers(page, iso, tools / "rhsrvany.exe", shots)
    assert (console.var / "drivers/virtio-win.iso").stat().st_size == iso.stat().st_size

    page.goto(machine)
    page.get_by_role("button", name="Inspect", exact=True).click()
    wait_for_done(page)
    page.goto(f"{machine}convert/")
    page.get_by_label("Name on the target").fill("win10")
    page.get_by_label(re.compile("Fixed addresses of")).fill("192.0.2.10,192.0.2.1,24")
    shots.take("form")
    page.get_by_role("button", name="Review", exact=True).click()
    shots.take("review")
    page.get_by_role("button", name="Start conversion").click()
    page.wait_for_url(re.compile(r"/conversions/[0-9a-f-]{36}/"))
    wait_for_done(page)
    shots.take("converted")
    page.get_by_role("link", name="Read the report").first.click()
    expect(page.get_by_text("/Windows/drivers/VirtIO/viostor.sys").first).to_be_visible()
    expect(page.get_by_text(re.compile(r"registry: Start = ")).first).to_be_visible()
    shots.take("report")
    domain = etree.parse(console.var / "results" / "win10.xml")
    target = domain.find("devices/disk[@device='disk']/target")
    assert target is not None
    assert target.get("bus") == "virtio"


def send_drivers(page: Page, iso: Path, tool: Path, shots: Screenshots) -> None:
    """Send a program and an ISO on their page; in the middle leave it and choose the ISO again."""
    choose = page.locator("input[type=file]")
    there = page.locator("#drivers")
    choose.set_input_files(tool)
    expect(there.get_by_role("link", name=f"Remove {tool.name}")).to_be_visible(timeout=30_000)
    with iso.open("ab") as stream:
        stream.truncate(64 << 20)
    # So slow that it is still on its way when it is paused.
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 4 << 20}
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    network.send("Network.emulateNetworkConditions", slow)
    choose.set_input_files(iso)
    sent = page.locator("#transfers li").filter(has_text=iso.name)
    expect(sent).to_contain_text("MiB/s", timeout=30_000)
    sent.get_by_role("button", name="Pause").click()
    expect(sent).to_contain_text("Paused")
    # What has arrived is noted a little after the connection ends.
    arriving = there.get_by_role("progressbar", name=iso.name)
    expect(arriving).not_to_have_attribute("value", "0")
    shots.take("paused")
    page.reload()
    network.send("Network.emulateNetworkConditions", slow | {"uploadThroughput": -1})
    with page.expect_request(lambda request: request.method == "PATCH") as continued:
        choose.set_input_files(iso)
    assert int(continued.value.headers["upload-offset"]) > 0
    expect(there).to_contain_text("labelled virtio-win-0.1.285", timeout=60_000)
    expect(arriving).to_have_count(0)
    shots.take("drivers")
