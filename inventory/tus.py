"""Resumable uploads: tus 1.0 (core, creation, termination) as an ASGI application.

It stands beside Django because Django spools a request's whole body before a view sees it; here
every chunk goes once, straight to its place in its file.  What a file is for, incoming.py's kinds
know.  Source: tus.io protocol 1.0.0.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import fcntl
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from io import BytesIO
from typing import Any
from uuid import UUID

from channels.db import database_sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import close_old_connections
from django.http import HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.translation import gettext as _

from inventory.access import missing_role
from inventory.incoming import (
    Incoming,
    Kind,
    NoRoomError,
    UploadEndedError,
    UploadRefusedError,
    kind_at,
)

VERSION = "1.0.0"
# Written and followed in pieces of this size; it bounds the memory of a request.
PIECE_BYTES = 8 << 20
SYNC_SECONDS = 1.0

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def in_thread(work: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Return `work` as a coroutine on a thread of its own: uploads do not wait for each other."""
    run: Callable[..., Awaitable[Any]] = database_sync_to_async(work, thread_sensitive=False)
    return run


class TusError(Exception):
    """An answer other than success; the text is for the person at the page."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class TusApp:
    """Answers below the prefix of every kind of upload.  Needs `user` and cookies in the scope."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        try:
            status, answer, text = await self._answer(scope, headers, receive)
        except TusError as error:
            status, answer, text = error.status, {}, error.text
        except UploadRefusedError as error:
            status, answer, text = 413 if isinstance(error, NoRoomError) else 422, {}, str(error)
        except UploadEndedError as error:
            status, answer, text = 410, {}, str(error)
        answer |= {
            "Tus-Resumable": VERSION,
            "Cache-Control": "no-store",
            "Content-Type": "text/plain; charset=utf-8",
            "X-Content-Type-Options": "nosniff",
            "Content-Length": str(len(text.encode())),
        }
        raw = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in answer.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        body = b"" if scope["method"] == "HEAD" else text.encode()
        await send({"type": "http.response.body", "body": body})

    async def _answer(
        self, scope: Scope, headers: Mapping[str, str], receive: Receive
    ) -> tuple[int, dict[str, str], str]:
        method = headers.get("x-http-method-override", scope["method"]).upper()
        if method == "OPTIONS":
            return 204, {"Tus-Version": VERSION, "Tus-Extension": "creation,termination"}, ""
        kind = kind_at(scope["path"])
        if kind is None:
            raise TusError(404, _("Nothing is uploaded to this address."))
        user = await database_sync_to_async(allowed_user)(scope, kind)
        if method != "HEAD":
            await database_sync_to_async(check_csrf)(scope)
        if headers.get("tus-resumable") != VERSION:
            raise TusError(412, _("This upload protocol is not tus %(v)s.") % {"v": VERSION})
        rest = scope["path"].removeprefix(kind.prefix).strip("/")
        if method == "POST" and not rest:
            upload = await database_sync_to_async(create)(kind, headers, user)
            return 201, {"Location": f"{kind.prefix}{upload.uuid}", "Upload-Offset": "0"}, ""
        upload = await database_sync_to_async(find)(kind, rest, user)
        if method == "HEAD":
            offset = await database_sync_to_async(upload.offset)()
            sizes = {"Upload-Offset": str(offset), "Upload-Length": str(upload.size_bytes)}
            return 200, sizes, ""
        if method == "DELETE":
            await database_sync_to_async(upload.cancel)(user=user)
            return 204, {}, ""
        if method == "PATCH":
            if headers.get("content-type") != "application/offset+octet-stream":
                raise TusError(415, _("The content type must be application/offset+octet-stream."))
            offset = await Writer(upload, _number(headers, "upload-offset")).take(receive)
            return 204, {"Upload-Offset": str(offset)}, ""
        raise TusError(405, _("This method is not known here."))


def allowed_user(scope: Scope, kind: Kind) -> Any:
    """Return the signed-in user, who may send files of that kind.  Raises TusError."""
    user = scope["user"]
    if not user.is_authenticated:
        raise TusError(401, _("You are signed out. Sign in and choose the file again."))
    if not user.has_perm(kind.permission):
        raise TusError(403, missing_role(kind.permission))
    return user


def check_csrf(scope: Scope) -> None:
    """Demand Django's CSRF token in the header.  Raises TusError."""
    request = ASGIRequest(dict(scope), BytesIO())
    guard = CsrfViewMiddleware(lambda _request: HttpResponse())
    guard.process_request(request)
    if guard.process_view(request, lambda _request: HttpResponse(), (), {}) is not None:
        raise TusError(403, _("This page is out of date. Reload it and choose the file again."))


def _number(headers: Mapping[str, str], name: str) -> int:
    text = headers.get(name, "")
    if not (text.isascii() and text.isdecimal()) or len(text) > 18:
        raise TusError(400, _("The header %(name)s must be a number.") % {"name": name})
    return int(text)


def create(kind: Kind, headers: Mapping[str, str], user: Any) -> Incoming:
    """Create the upload a POST describes.  Raises TusError, UploadRefusedError."""
    name = ""
    for pair in headers.get("upload-metadata", "").split(","):
        key, _space, value = pair.strip().partition(" ")
        if key in ("filename", "name"):
            try:
                name = base64.b64decode(value, validate=True).decode("utf-8", "replace")
            except binascii.Error as error:
                raise TusError(400, _("The file name is not base64.")) from error
    return kind.create(name, _number(headers, "upload-length"), user=user)


def find(kind: Kind, text: str, user: Any) -> Incoming:
    """Return the upload of that address and that user.  Raises TusError, UploadEndedError."""
    try:
        upload = kind.find(UUID(text), user=user)
    except ValueError:
        upload = None
    if upload is None:
        raise TusError(404, _("There is no such upload."))
    return upload


class Writer:
    """Writes the body of one PATCH to its place; one at a time for an upload."""

    def __init__(self, upload: Incoming, offset: int) -> None:
        self._upload = upload
        self._offset = offset
        self._is_over = False
        self._synced_at = time.monotonic()
        self._file = -1

    async def take(self, receive: Receive) -> int:
        """Store the body as it arrives and return the new offset.

        Raises TusError, UploadRefusedError, UploadEndedError.

        What has been written when the connection breaks is kept.
        """
        await in_thread(self._open)()
        try:
            pending = bytearray()
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    break
                pending += message.get("body", b"")
                more = message.get("more_body", False)
                if len(pending) >= PIECE_BYTES or not more:
                    await in_thread(self._store)(bytes(pending))
                    pending.clear()
            if pending:
                await in_thread(self._store)(bytes(pending))
        finally:
            await asyncio.shield(in_thread(self._close)())
        return self._offset

    def _open(self) -> None:
        if not self._upload.is_receiving:
            raise TusError(409, _("This upload is complete already."))
        try:
            self._file = os.open(self._upload.part_path(), os.O_WRONLY)
        except FileNotFoundError as error:
            raise TusError(410, _("The file of this upload is gone; start it again.")) from error
        try:
            self._check_turn()
        except BaseException:
            os.close(self._file)
            raise

    def _check_turn(self) -> None:
        """Take the file's lock, and let the body only continue where the file ends."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TusError(423, _("Another connection is sending this file.")) from error
        expected = self._upload.offset()
        if self._offset != expected:
            raise TusError(
                409,
                _("%(have)d bytes are stored; the browser continued at %(sent)d.")
                % {"have": expected, "sent": self._offset},
            )

    def _store(self, data: bytes) -> None:
        """Write a piece, let it be looked at, and note what is safe once a second."""
        if self._offset + len(data) > self._upload.size_bytes:
            raise TusError(413, _("The browser sent more bytes than it announced."))
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._file, view, self._offset)
                self._offset += written
                view = view[written:]
        except OSError as error:
            raise TusError(507, _("The file cannot be stored: %s.") % error.strerror) from error
        try:
            is_due = self._upload.look() or time.monotonic() - self._synced_at >= SYNC_SECONDS
            # All of it is noted only once it has been taken: else a crash between the two would
            # leave a file that a browser thinks is done and nobody checks.
            if is_due and self._offset < self._upload.size_bytes:
                os.fsync(self._file)
                self._synced_at = time.monotonic()
                self._upload.note(self._offset)
        except (UploadRefusedError, UploadEndedError):
            self._is_over = True
            raise

    def _close(self) -> None:
        """Note what has arrived, or take the file when that is all of it."""
        close_old_connections()
        try:
            os.fsync(self._file)
            if self._is_over:
                return
            if self._offset == self._upload.size_bytes:
                self._upload.complete()
            else:
                self._upload.note(self._offset)
        finally:
            os.close(self._file)
