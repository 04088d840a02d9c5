"""The websocket of a conversion's page: news in, what is new in the rows out.

The client says in the address up to which line it has everything (`after`) and which filter it
shows.  It is sent every later row, on connect, on each nudge and on a slow tick: so reload, late
arrival, reconnect and a lost nudge are one path.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer

from conversions import live
from conversions.models import Conversion
from conversions.routing import group_name
from inventory.access import VIEW

SIGNED_OUT, NOT_ALLOWED, NOT_FOUND = 4401, 4403, 4404
TICK_SECONDS = 15
# The head of the page is drawn again at most this often; lines go at once.
PARTS_SECONDS = 0.5


class ConversionConsumer(AsyncJsonWebsocketConsumer):
    """Sends {"type": "rows", html, to, count, more} and {"type": "parts", ...}; see live.py."""

    _pump_task: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Check access, join the group, then send what is there."""
        await self.accept()
        user = self.scope["user"]
        if not user.is_authenticated:
            return await self.close(SIGNED_OUT)
        if not await database_sync_to_async(user.has_perm)(VIEW):
            return await self.close(NOT_ALLOWED)
        self._uuid = self.scope["url_route"]["kwargs"]["uuid"]
        found = await Conversion.objects.filter(uuid=self._uuid).afirst()
        if found is None:
            return await self.close(NOT_FOUND)
        query = {k: v[-1] for k, v in parse_qs(self.scope["query_string"].decode()).items()}
        self._after = live.number(query.get("after"))
        self._filter = live.LogFilter.of(query)
        self._revision = -1
        self._parts: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._wake.set()
        await self.channel_layer.group_add(group_name(self._uuid), self.channel_name)
        self._pump_task = asyncio.create_task(self._pump())
        return None

    async def disconnect(self, code: int) -> None:
        """Leave the group."""
        if self._pump_task is not None:
            self._pump_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump_task
            await self.channel_layer.group_discard(group_name(self._uuid), self.channel_name)

    async def conversion_news(self, event: dict[str, Any]) -> None:
        """Wake the pump; several nudges become one."""
        self._wake.set()

    async def _pump(self) -> None:
        """Send what is new whenever there is news, and on a slow tick."""
        parts_at = 0.0
        clock = asyncio.get_running_loop().time
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), TICK_SECONDS)
            self._wake.clear()
            await self._send_rows()
            wait = parts_at + PARTS_SECONDS - clock()
            if wait > 0:
                # Lines that come meanwhile are not held up.
                asyncio.get_running_loop().call_later(wait, self._wake.set)
                continue
            parts_at = clock()
            await self._send_parts()

    async def _send_rows(self) -> None:
        more = True
        while more:
            page = await database_sync_to_async(live.rows_after)(
                self._uuid, self._after, self._filter
            )
            more = page["more"]
            if page["to"] > self._after:
                self._after = page["to"]
                await self.send_json({"type": "rows", **page})

    async def _send_parts(self) -> None:
        revision, parts = await database_sync_to_async(live.parts_since)(self._uuid, self._revision)
        changed = {k: v for k, v in parts.items() if self._parts.get(k) != v}
        self._revision, self._parts = revision, self._parts | parts
        await self.send_json({"type": "parts", "parts": changed, "head": self._after})
