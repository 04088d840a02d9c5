"""Chromium against a real console; a console error in the browser fails the test."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.console import Console, running_console

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; without its sandbox, which root in a container cannot have."""
    # Two consoles and what they convert share the machine; nothing here measures time.
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def console(results_dir: Path) -> Iterator[Console]:
    """One console for all browser tests, with a user of each role."""
    log = results_dir / f"server-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}.log"
    with running_console(log) as running:
        yield running


@pytest.fixture
def open_page(
    browser: Browser, console: Console, request: pytest.FixtureRequest, results_dir: Path
) -> Iterator[Callable[..., Page]]:
    """Open pages signed in as `user` (None: nobody), each in a browser context of its own.

    At the end a screenshot of each is kept, and any error in a browser's console fails the test.
    """
    errors: list[str] = []
    pages: list[Page] = []

    def open_one(user: str | None = "operators", **options: object) -> Page:
        context = browser.new_context(
            base_url=console.url, **({"viewport": {"width": 1440, "height": 900}} | options)
        )
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(f"{page.url}: {error}"))
        page.on(
            "console",
            lambda message: (
                errors.append(f"{page.url}: {message.text}") if message.type == "error" else None
            ),
        )
        pages.append(page)
        if user:
            sign_in(page, user, console.password)
        return page

    yield open_one
    name = re.sub(r"\W+", "-", request.node.name)
    for index, page in enumerate(pages):
        page.screenshot(path=results_dir / f"{name}-{index}-end.png", full_page=True)
        page.context.close()
    assert not errors, "the browser reported errors:\n" + "\n".join(errors)


def sign_in(page: Page, user: str, password: str) -> None:
    """Sign in through the form and wait for the page behind it."""
    page.goto("/accounts/login/")
    page.fill("input[name=username]", user)
    page.fill("input[name=password]", password)
    page.locator("form:has(input[name=password]) button[type=submit]").click()
    page.wait_for_url(lambda url: "/accounts/login/" not in url)
