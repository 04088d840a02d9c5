"""Every page in a real browser: at every width, light and dark, by keyboard, without a script."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.console import Console
from tests.browser.look import too_pale, too_wide

pytestmark = pytest.mark.browser

# Only what has ended: a worker would take up what waits.
SEED = """
from pathlib import Path
from django.conf import settings
from conversions.pipeline.job import Mode
from conversions.models import LogLine, OutputTarget
from inventory.models import SourceVM
from tests.demo import make_conversion, make_inspection, make_source, make_vm
if not SourceVM.objects.filter(name="pages-demo").exists():
    vm = make_vm("pages-demo", source=make_source("pages-demo", nics=2))
    make_inspection(make_conversion(vm, mode=Mode.INSPECT))
    run = make_conversion(vm, status="failed", result={"message": "No space left on /boot."})
    for seq, level in enumerate(("error", "warning", "info", "debug"), 1):
        words = {"level": level, "step": "space", "text": "/boot " * 40}
        LogLine.objects.create(conversion=run, seq=seq, at=run.created_at, **words)
    drivers = Path(settings.DRIVERS_DIR)
    drivers.mkdir(exist_ok=True)
    (drivers / "no-drivers.iso").write_bytes(bytes(100_000))
    OutputTarget.objects.create(
        name="pages-pool", kind="libvirt", uri="test:///default", storage="default-pool",
        networks=["default"], bridges=["virbr0"], format="raw", rate_mib=50,
    )
    OutputTarget.objects.create(
        name="pages-cloud", kind="openstack", uri="https://cloud.example:5000/v3", storage="fast",
        format="raw", options={"server-id": "11111111-2222-3333-4444-555555555555"},
    )
    other = make_vm("pages-other-with-a-rather-long-name-of-forty-seven-letters")
    make_conversion(other, status="warned")
"""
PLACES = [
    "/",
    "/sources/",
    "/machines/",
    "/conversions/",
    "/reports/",
    "/targets/",
    "/drivers/",
    "/accounts/password/",
]


@pytest.fixture(scope="session")
def demo(console: Console) -> Console:
    """A console with two machines, a report and a failed conversion."""
    console.manage("shell", "-c", SEED)
    return console


def machine_address(page: Page) -> str:
    page.goto("/machines/?q=pages-demo")
    address = page.get_by_role("link", name="pages-demo").get_attribute("href")
    assert address
    return address


@pytest.mark.parametrize("width", [390, 768, 1200, 1440, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_the_screen_and_can_be_read(
    demo: Console, open_page: Callable[..., Page], width: int, scheme: str
) -> None:
    page = open_page("administrator", viewport={"width": width, "height": 900}, color_scheme=scheme)
    machine = machine_address(page)
    page.goto("/reports/?q=pages-demo")
    report = page.get_by_role("link", name="pages-demo").get_attribute("href")
    page.goto("/conversions/?q=pages-demo&status=failed")
    run = page.get_by_role("link", name=re.compile("^Conversion #")).get_attribute("href")
    forms = [f"{machine}convert/", f"{machine}forget/", f"{run}retry/"]
    for address in [*PLACES, machine, *forms, str(report), str(run)]:
        page.goto(address)
        assert not too_wide(page), f"{address} at {width} px"
        assert not too_pale(page), f"{address}, {scheme}"
        expect(page.locator("h1")).to_have_count(1)


def test_the_theme_follows_the_system_until_chosen_and_is_kept(
    demo: Console, open_page: Callable[..., Page]
) -> None:
    page = open_page(color_scheme="dark")
    dark = re.compile("pf-v6-theme-dark")
    expect(page.locator("html")).to_have_class(dark)
    page.get_by_role("button", name="Dark theme").click()
    expect(page.locator("html")).not_to_have_class(dark)
    page.reload()
    expect(page.locator("html")).not_to_have_class(dark)
    expect(page.get_by_role("button", name="Dark theme")).to_have_attribute("aria-pressed", "false")


def test_the_first_tab_skips_to_the_content(demo: Console, open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.goto("/machines/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def test_the_user_menu_opens_and_closes_by_keyboard(
    demo: Console, open_page: Callable[..., Page]
) -> None:
    page = open_page()
    summary = page.locator(".user-menu summary")
    summary.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Sign out")).to_be_hidden()
    expect(summary).to_be_focused()


@pytest.mark.parametrize("scripts", [True, False])
def test_a_small_screen_reaches_every_place(
    demo: Console, open_page: Callable[..., Page], scripts: bool
) -> None:
    page = open_page(viewport={"width": 390, "height": 800}, java_script_enabled=scripts)
    places = page.get_by_role("navigation", name="Places")
    expect(places).to_be_hidden()
    page.locator("[data-nav-toggle]").click()
    expect(places).to_be_visible()
    places.get_by_role("link", name="Machines").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Machines")


def test_searching_machines_changes_list_and_address_and_back_undoes_it(
    demo: Console, open_page: Callable[..., Page]
) -> None:
    page = open_page()
    page.goto("/machines/")
    other = page.get_by_role("link", name=re.compile("^pages-other"))
    expect(other).to_be_visible()
    page.get_by_label("Search").press_sequentially("pages-demo")
    expect(other).to_be_hidden()
    expect(page.get_by_role("link", name="pages-demo")).to_be_visible()
    expect(page).to_have_url(re.compile(r"q=pages-demo"))
    page.go_back()
    expect(other).to_be_visible()


def test_sorting_and_chips_work_by_script_and_by_link(
    demo: Console, open_page: Callable[..., Page]
) -> None:
    for scripts in (True, False):
        page = open_page(java_script_enabled=scripts)
        page.goto("/conversions/")
        page.locator(".chips").get_by_role("link", name=re.compile("Failed")).click()
        expect(page).to_have_url(re.compile("status=failed"))
        expect(page.get_by_text("No space left on /boot.").first).to_be_visible()
        page.get_by_role("link", name="Machine", exact=True).click()
        expect(page).to_have_url(re.compile("sort=machine"))
        expect(page).to_have_url(re.compile("status=failed"))


def test_packages_of_a_report_can_be_searched(
    demo: Console, open_page: Callable[..., Page]
) -> None:
    page = open_page()
    page.goto("/reports/?q=pages-demo")
    page.get_by_role("link", name="pages-demo").click()
    page.get_by_text("6 packages installed").click()
    page.get_by_label("Search").fill("open-vm")
    expect(page.locator(".packages li", has_text="open-vm-tools")).to_be_visible()
    expect(page.locator(".packages li", has_text="nginx")).to_be_hidden()


def test_the_convert_form_leads_to_the_review_and_back_without_a_script(
    demo: Console, open_page: Callable[..., Page]
) -> None:
    page = open_page(java_script_enabled=False)
    page.goto(f"{machine_address(page)}convert/")
    page.get_by_label("Name on the target").fill("no good/")
    page.get_by_role("button", name="Review").click()
    expect(page.get_by_text("Use letters, digits and")).to_be_visible()
    page.get_by_label("Name on the target").fill("renamed")
    page.get_by_role("button", name="Review").click()
    text = page.get_by_role("region", name="The machine that will result")
    expect(text.and_(page.locator("pre"))).to_contain_text("<name>renamed</name>")
    assert page.locator("pre").evaluate("pre => pre.clientHeight < innerHeight"), "Start is far off"
    expect(page.get_by_role("button", name="Start conversion")).to_be_visible()
    page.get_by_role("button", name="Change settings").click()
    expect(page.get_by_label("Name on the target")).to_have_value("renamed")


def choose_target(page: Page) -> None:
    """Choose the pool; a worker may have put its free space behind the name meanwhile."""
    choice = page.locator("select[name=target] option", has_text="pages-pool")
    page.locator("select[name=target]").select_option(choice.get_attribute("value"))


@pytest.mark.parametrize("scripts", [True, False])
def test_a_target_and_a_saved_map_fill_the_form(
    demo: Console, open_page: Callable[..., Page], scripts: bool
) -> None:
    page = open_page(java_script_enabled=scripts)
    page.goto(f"{machine_address(page)}convert/")
    choose_target(page)
    page.get_by_role("button", name="Start with what the target says").click()
    expect(page.get_by_label("Disk format")).to_have_value("raw")
    expect(page.get_by_label("Rate limit (MiB a second)")).to_have_value("50")
    expect(page.get_by_text("network default, bridge virbr0")).to_be_visible()
    name = f"pages-map-{scripts}"
    for card in ("00:50:56:00:00:01", "00:50:56:00:00:02"):
        page.get_by_label(f"Kind for {card}").select_option("bridge")
        page.get_by_label(f"Target for {card}").fill("br0")
    page.get_by_label("Save these networks as").fill(name)
    page.get_by_role("button", name="Save the map").click()
    expect(page.get_by_text(f"The networks are saved as {name}.")).to_be_visible()

    page.goto(f"{machine_address(page)}convert/")
    page.get_by_label("Saved network map").select_option(label=name)
    page.get_by_role("button", name="Fill in from the map").click()
    expect(page.get_by_label("Target for 00:50:56:00:00:02")).to_have_value("br0")
    choose_target(page)
    page.get_by_role("button", name="Review").click()
    expect(page.locator("pre")).to_contain_text('<source bridge="br0"/>')
    expect(page.locator("pre")).to_contain_text('volume="pages-demo-sda"')


def test_every_control_has_a_name_for_a_screen_reader(
    demo: Console, open_page: Callable[..., Page]
) -> None:
    page = open_page()
    machine = machine_address(page)
    for address in [*PLACES, machine, f"{machine}convert/"]:
        page.goto(address)
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("input, select, button, a, summary, progress")]
                .filter((e) => e.type !== "hidden" && !e.closest("[hidden]"))
                .filter((e) => !e.textContent.trim() && !e.getAttribute("aria-label")
                    && !(e.labels && e.labels.length))
                .map((e) => e.outerHTML)"""
        )
        assert nameless == [], f"{address}: {nameless}"
