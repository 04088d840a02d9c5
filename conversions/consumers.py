"""The websocket of a conversion's page: news in, what is new in the rows out.

The client says in the address up to which line it has everything (`after`) and which filter it
shows.  It is sent every later row, on connect, on each nudge and on a slow tick: so reload, late
arrival, reconnect and a lost nudge are one path.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.contrib.auth import get_user_model

from conversions import live
from conversions.models import Conversion
from conversions.news import group_name
from inventory.access import VIEW

logger = logging.getLogger(__name__)

SIGNED_OUT, NOT_ALLOWED, NOT_FOUND = 4401, 4403, 4404
TRY_AGAIN = 1012
TICK_SECONDS = 15
# The head of the page is drawn again at most this often; lines go at once.
PARTS_SECONDS = 0.5


class ConversionConsumer(AsyncJsonWebsocketConsumer):
    """Sends {"type": "rows", html, to, count, more} and {"type": "parts", ...}; see live.py."""

    _pump_task: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Check access, join the group, then send what is there."""
        await self.accept()
        self._uuid = self.scope["url_route"]["kwargs"]["uuid"]
        refusal = await database_sync_to_async(self._refusal)()
        if refusal:
            await self.close(refusal)
            return
        query = {k: v[-1] for k, v in parse_qs(self.scope["query_string"].decode()).items()}
        self._after = live.number(query.get("after"))
        self._filter = live.LogFilter.of(query)
        self._revision = -1
        self._parts: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._wake.set()
        await self.channel_layer.group_add(group_name(self._uuid), self.channel_name)
        self._pump_task = asyncio.create_task(self._pump_or_close())

    def _refusal(self) -> int:
        """Return the code to close with for someone who may not see this, else 0."""
        user = self.scope["user"]
        if not user.is_authenticated:
            return SIGNED_OUT
        fresh = get_user_model().objects.filter(pk=user.pk, is_active=True).first()
        if fresh is None or not fresh.has_perm(VIEW):
            return NOT_ALLOWED
        return 0 if Conversion.objects.filter(uuid=self._uuid).exists() else NOT_FOUND

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

    async def _pump_or_close(self) -> None:
        """Send until it fails; the page dials again then, from the line it has."""
        try:
            await self._pump()
        except Exception:
            logger.exception("The websocket of conversion %s failed.", self._uuid)
            await self.close(TRY_AGAIN)

    async def _pump(self) -> None:
        """Send what is new whenever there is news, and on a slow tick."""
        parts_at = 0.0
        clock = asyncio.get_running_loop().time
        checked_at = clock()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), TICK_SECONDS)
            self._wake.clear()
            if clock() - checked_at > TICK_SECONDS:
                # Roles can be taken away while a page is open.
                checked_at = clock()
                refusal = await database_sync_to_async(self._refusal)()
                if refusal:
                    await self.close(refusal)
                    return
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
