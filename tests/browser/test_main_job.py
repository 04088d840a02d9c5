"""The main job, as a person does it: upload, look inside, convert, watch, boot the result."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.console import Console
from tests.guests.boot import boot_guest

# An upload, two runs of the engine and a boot, without KVM.
pytestmark = [pytest.mark.browser, pytest.mark.timeout(1800)]

UPLOAD_SECONDS = 180
RUN_SECONDS = 600
# The state stands in the title, so that it is seen on a tab in the background.
ENDED = re.compile("Done|Failed|Stopped|Lost")


@pytest.mark.parametrize("layout", ["lvm", "plain"])
def test_an_uploaded_machine_boots_on_virtio_once_converted(
    layout: str,
    build_sample: Callable[..., Path],
    console: Console,
    open_page: Callable[..., Page],
    results_dir: Path,
) -> None:
    ova = build_sample("debian", layout=layout)
    page = open_page("operators")
    shots = Screenshots(page, results_dir / f"main-job-{layout}")

    machine = upload(page, ova, shots)
    page.get_by_role("button", name="Inspect", exact=True).click()
    wait_for_done(page)
    shots.take("inspected")
    page.goto(machine)
    page.get_by_role("link", name="Read the report").first.click()
    check_report(page)
    shots.take("report")

    page.goto(machine)
    page.get_by_role("link", name="Convert", exact=True).click()
    name = f"sample-{layout}"
    page.get_by_label("Name on the target").fill(name)
    shots.take("form")
    page.get_by_role("button", name="Review", exact=True).click()
    expect(page.locator("pre")).to_contain_text(f"<name>{name}</name>")
    shots.take("review")
    page.get_by_role("button", name=re.compile("^Start")).click()

    page.wait_for_url(re.compile(r"/conversions/[0-9a-f-]{36}/"))
    second = open_page("viewers")
    second.goto(page.url)
    shots.take_when_visible("copying", page.locator("main progress").first)
    wait_for_done(page)
    shots.take("converted")
    assert lines_of(page) == lines_of(second) != []

    disk = console.var / "results" / f"{name}-sda"
    assert f'"{disk}"' in (console.var / "results" / f"{name}.xml").read_text().replace("'", '"')
    assert list((console.var / "work").iterdir()) == []
    assert digests_of(console.var / "uploads", ova.stat().st_size) == {digest_of(ova)}
    guest = boot_guest([disk], console=results_dir / f"main-job-{layout}-boot.log")
    root = "/dev/mapper/vg0-root" if layout == "lvm" else "/dev/vda2"
    assert (guest["root"], guest["nic"]) == (root, "virtio_net")


class Screenshots:
    """Numbered screenshots of one page, for people to look at after the run."""

    def __init__(self, page: Page, prefix: Path) -> None:
        self.page = page
        self.prefix = prefix
        self.count = 0

    def take(self, name: str) -> None:
        """Keep the page as it is now."""
        self.count += 1
        path = self.prefix.with_name(f"{self.prefix.name}-{self.count}-{name}.png")
        self.page.screenshot(path=path, full_page=True)

    def take_when_visible(self, name: str, what: object) -> None:
        """Keep the page as it is once `what` is there."""
        expect(what).to_be_visible(timeout=RUN_SECONDS * 1000)  # type: ignore[call-overload]
        self.take(name)


def upload(page: Page, ova: Path, shots: Screenshots) -> str:
    """Upload through the page; open the machine it became, ready to use; return its address."""
    page.goto("/sources/")
    page.locator("input[type=file]").first.set_input_files(ova)
    # The descriptor is the head of the file: the machine is there before the rest is.
    # By its name: until the list comes anew, its first row is an older upload's.
    row = page.locator("#uploads tbody tr").filter(has_text=ova.name)
    link = row.locator('a[href*="/machines/"]')
    expect(link).to_be_visible(timeout=UPLOAD_SECONDS * 1000)
    shots.take("uploading")
    # Leaving the page would interrupt what the browser sends.
    expect(row).to_contain_text("Ready", timeout=UPLOAD_SECONDS * 1000)
    link.click()
    expect(page.get_by_role("button", name="Inspect", exact=True)).to_be_visible()
    shots.take("machine")
    return page.url


def wait_for_done(page: Page, seconds: int = RUN_SECONDS) -> None:
    """Wait on a run's page, without reloading it, until it says that the run has ended well."""
    expect(page).to_have_title(ENDED, timeout=seconds * 1000)
    assert "Done" in page.title(), page.locator("main").inner_text()[:4000]


def lines_of(page: Page) -> list[str]:
    """Return the log lines on a run's page by their addresses, top to bottom."""
    expect(page).to_have_title(ENDED, timeout=30_000)
    page.wait_for_timeout(2000)  # the last lines come right after the state
    return page.locator('[id^="L"]').evaluate_all(
        "lines => lines.filter(l => /^L[0-9]+$/.test(l.id)).map(l => l.id + ' ' + l.innerText)"
    )


def check_report(page: Page) -> None:
    """Check that the report tells what the sample guest is."""
    main = page.locator("main")
    for text in ("Debian GNU/Linux 12", "/boot", "6.1.0-", "virtio", "open-vm-tools"):
        expect(main).to_contain_text(text)
    expect(main).to_contain_text(re.compile("initramfs", re.IGNORECASE))


def digest_of(path: Path) -> str:
    """Return a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests_of(folder: Path, size_bytes: int) -> set[str]:
    """Return the digests of the files of that size below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {digest_of(path) for path in files if path.stat().st_size == size_bytes}
