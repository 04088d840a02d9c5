"""The live page in two browsers: the same lines at the same time, without reloading."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from contextlib import suppress

import pytest
from playwright.sync_api import Page, WebSocketRoute, expect

from tests.browser.console import PYTHON, REPOSITORY, Console

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

# An engine's supervisor, driven by the test: a line in, a line said.
SPEAKER = """
import sys
from django.utils import timezone
from conversions import actions
from tests.demo import make_conversion, make_vm
row = make_conversion(make_vm(), status="running", heartbeat_at=timezone.now())
print(row.get_absolute_url(), flush=True)
for order in sys.stdin:
    verb, _, text = order.strip().partition(" ")
    at = timezone.now().isoformat()
    if verb == "end":
        actions.finish_conversion(row, text, {})
    elif verb == "step":
        event = {"type": "step", "name": text, "title": text, "state": "started", "at": at}
        actions.record_events(row, [event])
    elif verb == "progress":
        done = int(text) << 20
        event = {"type": "progress", "disk": "sda", "done_bytes": done, "at": at}
        actions.record_events(row, [{**event, "total_bytes": 100 << 20}])
    else:
        event = {"type": "log", "level": "info", "step": "copy", "at": at}
        numbers = range(int(text))
        actions.record_events(row, [{**event, "text": f"said {n}"} for n in numbers])
    print("ok", flush=True)
"""


class Speaker:
    """A run that says what the test wants, when it wants."""

    def __init__(self, console: Console) -> None:
        self.process = subprocess.Popen(
            [str(PYTHON), "manage.py", "shell", "-c", SPEAKER],
            cwd=REPOSITORY,
            env=console.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self._answer()
        while not self.address.startswith("/"):
            self.address = self._answer()

    def _answer(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the speaker has ended"
        return line.strip()

    def say(self, order: str) -> None:
        """Give an order and wait until it is stored."""
        assert self.process.stdin
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        assert self._answer() == "ok"

    def close(self) -> None:
        """End it."""
        with suppress(BrokenPipeError):
            self.process.communicate(timeout=30)


@pytest.fixture
def speaker(console: Console) -> Speaker:
    """A run of this test."""
    speaker = Speaker(console)
    yield speaker  # type: ignore[misc]
    speaker.close()


def lines(page: Page) -> list[str]:
    """Return the addresses of the lines on a page."""
    ids: list[str] = page.locator(".line").evaluate_all("lines => lines.map(l => l.id)")
    return ids


def test_two_pages_follow_a_run_to_its_end(
    speaker: Speaker, open_page: Callable[..., Page]
) -> None:
    first = open_page("operators")
    first.goto(speaker.address)
    expect(first.locator("#link-state")).to_have_text("Live")
    speaker.say("step copy")
    speaker.say("log 30")
    second = open_page("viewers")
    second.goto(speaker.address)
    speaker.say("progress 40")
    speaker.say("log 5")
    for page in (first, second):
        expect(page.locator(".line")).to_have_count(35)
        expect(page.locator("progress").first).to_have_attribute("value", "40")
        expect(page).to_have_title(re.compile("^Running"))
    assert lines(first) == lines(second) == [f"L{number}" for number in range(1, 36)]
    expect(first.get_by_role("link", name="Stop")).to_be_visible()
    expect(second.get_by_role("link", name="Stop")).to_have_count(0)
    speaker.say("end done")
    for page in (first, second):
        expect(page).to_have_title(re.compile("^Done"))
        expect(page.locator("#link-state")).to_have_text("Ended")


def test_a_page_that_was_cut_off_dials_again_and_misses_nothing(
    speaker: Speaker, open_page: Callable[..., Page]
) -> None:
    page = open_page("operators")
    sockets: list[WebSocketRoute] = []

    def connect(socket: WebSocketRoute) -> None:
        socket.connect_to_server()
        sockets.append(socket)

    page.route_web_socket(re.compile("/ws/"), connect)
    speaker.say("log 3")
    page.goto(speaker.address)
    expect(page.locator("#link-state")).to_have_text("Live")
    sockets[0].close(code=1012)
    expect(page.locator("#link-state")).to_have_text("Reconnecting, saved up to line 3")
    speaker.say("log 700")
    expect(page.locator("#L703")).to_be_attached()
    expect(page.locator("#link-state")).to_have_text("Live")
    assert lines(page) == [f"L{number}" for number in range(1, 704)]
    speaker.say("end done")


def test_a_page_that_cannot_open_a_websocket_polls(
    speaker: Speaker, open_page: Callable[..., Page]
) -> None:
    page = open_page("operators")
    page.route_web_socket(re.compile("/ws/"), lambda socket: socket.close(code=1011))
    page.goto(speaker.address)
    expect(page.locator("#link-state")).to_have_text("Updating every 5 s", timeout=15_000)
    speaker.say("log 3")
    expect(page.locator("#L3")).to_be_attached(timeout=15_000)
    speaker.say("end done")
    expect(page).to_have_title(re.compile("^Done"), timeout=15_000)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(6_000)  # longer than from one poll to the next
    assert [url for url in asked if "/live/" in url] == []


def test_a_page_that_polls_leads_to_the_sign_in_and_back(
    speaker: Speaker, console: Console, open_page: Callable[..., Page]
) -> None:
    page = open_page("operators")
    page.route_web_socket(re.compile("/ws/"), lambda socket: socket.close(code=1011))
    page.goto(speaker.address)
    expect(page.locator("#link-state")).to_have_text("Updating every 5 s", timeout=15_000)
    page.context.clear_cookies()
    page.wait_for_url(re.compile("/accounts/login/"))
    page.fill("input[name=username]", "operators")
    page.fill("input[name=password]", console.password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: url.endswith(speaker.address))
    speaker.say("end done")


def test_a_list_that_polls_leads_to_the_sign_in(open_page: Callable[..., Page]) -> None:
    page = open_page("viewers")
    page.goto("/")
    page.context.clear_cookies()
    page.wait_for_url(lambda url: url.endswith("/accounts/login/?next=/"))


def test_a_reader_who_scrolls_up_is_not_dragged_down(
    speaker: Speaker, open_page: Callable[..., Page]
) -> None:
    page = open_page("operators")
    speaker.say("log 200")
    page.goto(speaker.address)
    expect(page.locator("#link-state")).to_have_text("Live")
    page.locator("#log").evaluate("log => { log.scrollTop = 0; }")
    expect(page.get_by_role("button", name="Follow")).to_have_attribute("aria-pressed", "false")
    speaker.say("log 37")
    expect(page.locator("#new-lines")).to_have_text("37 new lines")
    page.locator("#new-lines").click()
    expect(page.locator("#new-lines")).to_be_hidden()
    expect(page.locator("#L237")).to_be_in_viewport()
    speaker.say("end done")


def test_the_page_is_whole_without_scripts(
    speaker: Speaker, open_page: Callable[..., Page]
) -> None:
    speaker.say("log 600")
    page = open_page("operators", java_script_enabled=False)
    page.goto(speaker.address)
    assert lines_without_script(page) == [f"L{number}" for number in range(101, 601)]
    page.get_by_role("link", name="First lines").click()
    expect(page.locator("#L1")).to_be_visible()
    page.get_by_role("link", name="Stop").click()
    expect(page.get_by_role("button", name="Stop conversion")).to_be_visible()
    page.get_by_role("link", name="Keep running").click()
    expect(page.locator("#L600")).to_be_attached()
    speaker.say("end done")


def lines_without_script(page: Page) -> list[str]:
    """Return the addresses of the lines in the page's HTML."""
    return re.findall(r'<li class="line[^"]*" id="(L\d+)"', page.content())
