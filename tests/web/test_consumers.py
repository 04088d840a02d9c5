"""The websocket of a run's page: every line once and in order, however late one comes."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from channels.db import database_sync_to_async
from channels.routing import URLRouter
from django.contrib.auth.models import AnonymousUser
from django.utils import timezone

from conversions import actions, consumers
from conversions.models import Conversion
from conversions.routing import websocket_urlpatterns
from tests.demo import make_conversion, make_user, make_vm

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]
in_database = database_sync_to_async


class Socket(ApplicationCommunicator):
    """A browser's side of a websocket; channels' own needs a server that is not used here."""

    async def connect(self) -> None:
        """Open it."""
        await self.send_input({"type": "websocket.connect"})
        assert (await self.receive_output(5))["type"] == "websocket.accept"

    async def message(self) -> dict[str, Any]:
        """Return what is sent next."""
        answer = await self.receive_output(5)
        assert answer["type"] == "websocket.send", answer
        message: dict[str, Any] = json.loads(answer["text"])
        return message

    async def close_code(self) -> int:
        """Return the code it is closed with, whatever is sent before."""
        while (answer := await self.receive_output(5))["type"] != "websocket.close":
            pass
        return int(answer["code"])

    async def disconnect(self) -> None:
        """Close the page."""
        await self.send_input({"type": "websocket.disconnect", "code": 1001})
        await self.wait(5)


async def run_with_lines(count: int) -> Conversion:
    """Return a running conversion whose log has that many lines."""
    return await in_database(_run_with_lines)(count)


def _run_with_lines(count: int) -> Conversion:
    conversion = make_conversion(make_vm(), status="running")
    say(conversion, range(1, count + 1))
    return conversion


def say(conversion: Conversion, numbers: range, level: str = "info") -> None:
    """Let the engine of a conversion say a line for each number."""
    at = timezone.now().isoformat()
    actions.record_events(
        conversion,
        [
            {"type": "log", "at": at, "level": level, "step": "copy", "text": f"line {number}"}
            for number in numbers
        ],
    )


def websocket(conversion: Conversion | None, user: Any, query: str = "") -> Socket:
    """Return a browser's side of the websocket."""
    uuid = conversion.uuid if conversion else "00000000-0000-4000-8000-000000000000"
    scope = {
        "type": "websocket",
        "path": f"/ws/conversions/{uuid}/",
        "query_string": query.encode(),
        "headers": [],
        "user": user,
    }
    return Socket(URLRouter(websocket_urlpatterns), scope)


async def lines(socket: Socket, count: int) -> list[int]:
    """Return the numbers of the lines that come, until there are that many."""
    numbers: list[int] = []
    while len(numbers) < count:
        message = await socket.message()
        numbers += [int(n) for n in re.findall(r'id="L(\d+)"', message.get("html", ""))]
    return numbers


async def viewer() -> Any:
    """Return someone who may read."""
    return await in_database(make_user)("vera", "Viewers")


async def test_a_late_viewer_gets_every_line_in_pages_then_the_news() -> None:
    conversion = await run_with_lines(1201)
    socket = websocket(conversion, await viewer())
    await socket.connect()
    assert await lines(socket, 1201) == list(range(1, 1202))
    await in_database(say)(conversion, range(1202, 1205))
    assert await lines(socket, 3) == [1202, 1203, 1204]
    await socket.disconnect()


async def test_who_dials_again_gets_what_follows_the_last_line_seen() -> None:
    conversion = await run_with_lines(20)
    socket = websocket(conversion, await viewer(), "after=17")
    await socket.connect()
    assert await lines(socket, 3) == [18, 19, 20]
    await socket.disconnect()


async def test_two_viewers_see_the_same_lines() -> None:
    conversion = await run_with_lines(5)
    user = await viewer()
    first, second = websocket(conversion, user), websocket(conversion, user, "after=2")
    await first.connect()
    await second.connect()
    await in_database(say)(conversion, range(6, 8))
    assert await lines(first, 7) == [1, 2, 3, 4, 5, 6, 7]
    assert await lines(second, 5) == [3, 4, 5, 6, 7]
    await first.disconnect()
    await second.disconnect()


async def test_only_lines_that_pass_the_filter_are_sent() -> None:
    conversion = await run_with_lines(5)
    await in_database(say)(conversion, range(6, 7), "error")
    await in_database(say)(conversion, range(7, 9))
    socket = websocket(conversion, await viewer(), "level=error")
    await socket.connect()
    assert await lines(socket, 1) == [6]
    await socket.disconnect()


async def test_a_lost_nudge_is_made_good_by_the_slow_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "TICK_SECONDS", 0.2)
    monkeypatch.setattr(actions, "_send_news", lambda conversion: None)
    conversion = await run_with_lines(1)
    socket = websocket(conversion, await viewer())
    await socket.connect()
    assert await lines(socket, 1) == [1]
    await in_database(say)(conversion, range(2, 3))
    assert await lines(socket, 1) == [2]
    await socket.disconnect()


async def test_who_may_not_see_it_is_told_by_the_close_code() -> None:
    conversion = await run_with_lines(1)
    nobody = await in_database(make_user)("nobody", None)
    for user, row, code in (
        (AnonymousUser(), conversion, 4401),
        (nobody, conversion, 4403),
        (await viewer(), None, 4404),
    ):
        socket = websocket(row, user)
        await socket.connect()
        assert await socket.close_code() == code


async def test_a_role_that_is_taken_away_closes_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "TICK_SECONDS", 0.2)
    conversion = await run_with_lines(1)
    user = await viewer()
    socket = websocket(conversion, user)
    await socket.connect()
    assert await lines(socket, 1) == [1]
    await in_database(user.groups.clear)()
    assert await socket.close_code() == 4403


async def test_markup_in_a_line_stays_text() -> None:
    conversion = await run_with_lines(0)
    at = timezone.now().isoformat()
    event = {"type": "log", "at": at, "level": "info", "step": "copy", "text": "<script>x</script>"}
    await in_database(actions.record_events)(conversion, [event])
    socket = websocket(conversion, await viewer())
    await socket.connect()
    message = await socket.message()
    while message["type"] != "rows":
        message = await socket.message()
    assert "&lt;script&gt;" in message["html"]
    assert "<script>" not in message["html"]
    await socket.disconnect()
