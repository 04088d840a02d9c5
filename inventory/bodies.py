"""How large a request's body may be: Django stores all of it before anybody looks at it.

Only the plain forms for files take large ones, from who may use them, and as much as there is room
for: what arrives is stored once as it came and once more as the file in it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from channels.db import database_sync_to_async
from django.conf import settings
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler
from django.utils.translation import gettext as _

from inventory.incoming import form_at, free_bytes
from inventory.templatetags.console import size
from inventory.tus import Receive, Scope, Send, TusError, allowed_user

# Text of forms; Django itself takes no more than 2.5 MiB of it.
LIMIT_BYTES = 4 << 20


class Handler(ASGIHandler):
    """Django's, with what it stores of a request on the file system that keeps uploads."""

    async def read_body(self, receive: Any) -> Any:
        """Return the body as a file, on disk when it is large.  Raises RequestAborted."""
        body = tempfile.SpooledTemporaryFile(  # noqa: SIM115  Django closes it after the answer
            max_size=settings.FILE_UPLOAD_MAX_MEMORY_SIZE, dir=settings.FILE_UPLOAD_TEMP_DIR
        )
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                body.close()
                raise RequestAborted
            body.write(message.get("body", b""))
            more = message.get("more_body", False)
        body.seek(0)
        return body


class LimitedBodies:
    """Answers 413 to a body that is too large, and leaves the rest to an application."""

    def __init__(self, application: Any) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; `user` in the scope may send files."""
        limit = await database_sync_to_async(limit_for)(scope) if "user" in scope else LIMIT_BYTES
        seen = 0

        async def limited() -> dict[str, Any]:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            # Django drops what it has and answers nothing.
            return message if seen <= limit else {"type": "http.disconnect"}

        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > limit:
            seen = int(announced)
        else:
            await self._application(scope, limited, send)
        if seen > limit:
            await _refuse(limit, send)


def limit_for(scope: Scope) -> int:
    """Return how many bytes this user may send to this address."""
    kind = form_at(scope["path"])
    if kind is None:
        return LIMIT_BYTES
    try:
        allowed_user(scope, kind)
    except TusError:
        return LIMIT_BYTES  # Django says why not
    folder = Path(settings.FILE_UPLOAD_TEMP_DIR or tempfile.gettempdir())
    return max(LIMIT_BYTES, (free_bytes(folder) or 0) // 2)


async def _refuse(limit: int, send: Send) -> None:
    text = _(
        "What was sent is larger than the %(limit)s that can be taken here. Nothing was stored. "
        "Files are uploaded on the page Sources, by who is signed in and may, while there is room."
    ) % {"limit": size(limit)}
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(text.encode())).encode()),
    ]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
