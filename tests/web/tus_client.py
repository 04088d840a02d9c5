"""A tus client for tests: talks to the ASGI application itself, signed in as somebody."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from django.middleware.csrf import get_token
from django.test import RequestFactory

from inventory.ova_uploads import OvaUploads
from inventory.tus import TusApp


class Answer:
    """Status, headers and text of an answer."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.status: int = messages[0]["status"]
        self.headers = {k.decode(): v.decode() for k, v in messages[0]["headers"]}
        self.text: str = messages[1]["body"].decode()


class Client:
    """A tus client that is signed in as somebody."""

    def __init__(self, user: Any, prefix: str = OvaUploads.prefix) -> None:
        self.user = user
        self.prefix = prefix
        request = RequestFactory().get("/")
        self.token = get_token(request)
        self.cookie = f"csrftoken={request.META['CSRF_COOKIE']}"

    def send(
        self, method: str, path: str = "", body: list[bytes] | None = None, **headers: object
    ) -> Answer:
        """Send a request, its body in these pieces."""
        named = {"tus-resumable": "1.0.0", "x-csrftoken": self.token, "cookie": self.cookie}
        named |= {k.replace("_", "-"): str(v) for k, v in headers.items() if v is not None}
        scope = {
            "type": "http",
            "method": method,
            "path": path or self.prefix,
            "query_string": b"",
            "headers": [(b"host", b"testserver")]
            + [(k.encode(), v.encode("latin-1")) for k, v in named.items()],
            "user": self.user,
        }
        pieces = [b""] if body is None else body
        messages: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            piece = pieces.pop(0) if pieces else None
            if piece is None:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

        async def send(message: dict[str, Any]) -> None:
            messages.append(message)

        asyncio.run(TusApp()(scope, receive, send))
        return Answer(messages)

    def create(self, size: int, name: str = "web01.ova") -> Answer:
        """Announce a file."""
        encoded = base64.b64encode(name.encode()).decode()
        return self.send("POST", upload_length=size, upload_metadata=f"filename {encoded}")

    def patch(self, path: str, offset: int, *body: bytes) -> Answer:
        """Send bytes from an offset on."""
        return self.send(
            "PATCH",
            path,
            list(body),
            upload_offset=offset,
            content_type="application/offset+octet-stream",
        )
