"""What a stopped or failed copy leaves, as a person meets it: continued elsewhere, or discarded."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.bare_engine import PATTERN
from tests.browser.console import Console, running_console
from tests.browser.look import SCHEMES, show_scheme, too_pale, too_wide
from tests.browser.test_main_job import wait_for_done

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

MIB = 1 << 20
OUTPUT: dict[str, Any] = {"capture_output": True, "text": True}
# A second copy target, in a folder of its own.
ADD_TARGET = """
from django.conf import settings
from conversions.models import OutputTarget
folder = settings.TARGET_DIRS[0] / "scripts"
folder.mkdir()
OutputTarget.objects.create(name="With a script", kind="qemu", directory=str(folder))
"""


@pytest.fixture(scope="module")
def console(results_dir: Path) -> Iterator[Console]:
    """A console whose conversions need no appliance, with two targets."""
    with running_console(results_dir / "continue.log", engine="tests.bare_engine") as running:
        running.manage("shell", "-c", ADD_TARGET)
        yield running


def begin(page: Page, console: Console, name: str, *, rate_mib: int) -> None:
    """Register a disk image and start to convert it; leave the page when it copies."""
    disk = console.var / "import" / f"{name}.raw"
    disk.write_bytes(os.urandom(24 * MIB))
    page.goto("/sources/")
    page.get_by_role("button", name=f"Register {disk.name}").click()
    row = page.locator("#uploads tbody tr").filter(has_text=disk.name)
    expect(row).to_contain_text("Ready")
    row.locator('a[href*="/machines/"]').click()
    page.get_by_role("link", name="Convert", exact=True).click()
    page.get_by_text("Copying", exact=True).click()
    page.get_by_label("Rate limit").fill(str(rate_mib))
    page.get_by_role("button", name="Review", exact=True).click()
    page.get_by_role("button", name=re.compile("^Start")).click()
    expect(page.locator("main progress").first).to_be_visible()


def kept_folder(console: Console) -> Path:
    """Return the one folder among the work files."""
    [folder] = (console.var / "work").iterdir()
    return folder


def shoot(page: Page, name: str, results_dir: Path) -> None:
    """Keep the page as it looks on a desk and in a hand, by day and by night."""
    for width, scheme in product((390, 1440), SCHEMES):
        page.set_viewport_size({"width": width, "height": 1200})
        show_scheme(page, scheme)
        page.screenshot(path=results_dir / f"{name}-{width}-{scheme}.png")
        assert not too_wide(page), f"{name} at {width} px"
        assert not too_pale(page), f"{name}, {scheme}"


def test_a_stopped_copy_is_continued_to_another_target(
    console: Console, open_page: Callable[..., Page], results_dir: Path
) -> None:
    page = open_page()
    begin(page, console, "web01", rate_mib=1)
    page.get_by_role("link", name="Stop").click()
    expect(page.get_by_text("it can be continued from the copy")).to_be_visible()
    page.get_by_role("button", name="Stop conversion").click()
    expect(page).to_have_title(re.compile("^Stopped"))
    expect(page.get_by_text("only the copy is left")).to_be_visible()
    expect(page.get_by_role("link", name="Discard the kept files")).to_be_visible()
    shoot(page, "kept-stopped", results_dir)
    folder = kept_folder(console)
    page.get_by_role("link", name="Continue from the copy").click()
    shoot(page, "continue", results_dir)
    page.get_by_label("Name on the target").fill("web02")
    page.get_by_label("Target *", exact=True).select_option(label="With a script")
    page.get_by_text("Copying", exact=True).click()
    page.get_by_label("Rate limit").fill("")
    page.get_by_role("button", name="Continue from the copy").click()
    wait_for_done(page, 60)
    expect(page.get_by_text("Continues #1")).to_be_visible()
    shoot(page, "continued", results_dir)
    results = console.var / "results"
    assert sorted(p.name for p in results.rglob("*") if p.is_file()) == ["web02-sda", "web02.sh"]
    assert not folder.exists()
    read = ["qemu-io", "-r", "-f", "qcow2", "-c", f"read -P {PATTERN} 0 512"]
    said = subprocess.run([*read, results / "scripts" / "web02-sda"], check=True, **OUTPUT)
    assert "failed" not in said.stdout, "this is the source, not what was converted"


def test_a_failed_copy_is_discarded(
    console: Console, open_page: Callable[..., Page], results_dir: Path
) -> None:
    page = open_page()
    begin(page, console, "db01", rate_mib=8)
    results = console.var / "results"
    results.rename(console.var / "gone")
    expect(page).to_have_title(re.compile("^Failed"))
    (console.var / "gone").rename(results)
    expect(page.get_by_text("is copied, but not safe on its storage")).to_be_visible()
    shoot(page, "kept-failed", results_dir)
    folder = kept_folder(console)
    expect(page.get_by_role("link", name="Continue from the copy")).to_be_visible()
    page.get_by_role("link", name="Discard the kept files").click()
    expect(page.get_by_text(str(folder))).to_be_visible()
    shoot(page, "discard", results_dir)
    page.get_by_role("button", name="Discard the kept files").click()
    expect(page.get_by_text("deletes the kept files")).to_be_visible()
    for _second in range(20):
        if not folder.exists():
            break
        page.wait_for_timeout(500)
    assert not folder.exists()
    page.reload()
    expect(page.get_by_role("link", name="Continue from the copy")).to_have_count(0)
    expect(page.get_by_role("link", name="Discard the kept files")).to_have_count(0)
