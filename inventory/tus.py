"""Resumable uploads: tus 1.0 (core, creation, termination) as an ASGI application.

It stands beside Django because Django spools a request's whole body before a view sees it; here
every chunk goes once, straight to its place in its file.  Source: tus.io protocol 1.0.0.
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

from inventory import actions, uploads
from inventory.access import OPERATE
from inventory.models import OvaUpload
from inventory.sources.errors import SourceError

PREFIX = "/sources/tus/"
VERSION = "1.0.0"
# Written and followed in pieces of this size; it bounds the memory of a request.
PIECE_BYTES = 8 << 20
# A follower that has to catch up after a restart reads faster than the upload writes.
CATCH_UP_BYTES = 4 * PIECE_BYTES
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
    """Answers everything below /sources/tus/.  Needs `user` and cookies in the scope."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        try:
            status, answer, text = await self._answer(scope, headers, receive)
        except TusError as error:
            status, answer, text = error.status, {}, error.text
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
        user = await database_sync_to_async(allowed_user)(scope)
        if method != "HEAD":
            await database_sync_to_async(check_csrf)(scope)
        if headers.get("tus-resumable") != VERSION:
            raise TusError(412, _("This upload protocol is not tus %(v)s.") % {"v": VERSION})
        rest = scope["path"].removeprefix(PREFIX).strip("/")
        if method == "POST" and not rest:
            upload = await database_sync_to_async(create)(headers, user)
            return 201, {"Location": f"{PREFIX}{upload.uuid}", "Upload-Offset": "0"}, ""
        upload = await database_sync_to_async(find)(rest, user)
        if method == "HEAD":
            offset = await database_sync_to_async(offset_of)(upload)
            sizes = {"Upload-Offset": str(offset), "Upload-Length": str(upload.size_bytes)}
            return 200, sizes, ""
        if method == "DELETE":
            await database_sync_to_async(actions.cancel_upload)(upload, user=user)
            return 204, {}, ""
        if method == "PATCH":
            if headers.get("content-type") != "application/offset+octet-stream":
                raise TusError(415, _("The content type must be application/offset+octet-stream."))
            offset = await Writer(upload, _number(headers, "upload-offset")).take(receive)
            return 204, {"Upload-Offset": str(offset)}, ""
        raise TusError(405, _("This method is not known here."))


def allowed_user(scope: Scope) -> Any:
    """Return the signed-in operator.  Raises TusError."""
    user = scope["user"]
    if not user.is_authenticated:
        raise TusError(401, _("You are signed out. Sign in and choose the file again."))
    if not user.has_perm(OPERATE):
        raise TusError(403, _("Uploading needs the role Operators."))
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
    if not text.isdigit() or len(text) > 18:
        raise TusError(400, _("The header %(name)s must be a number.") % {"name": name})
    return int(text)


def create(headers: Mapping[str, str], user: Any) -> OvaUpload:
    """Create the upload a POST describes.  Raises TusError."""
    name = "machine.ova"
    for pair in headers.get("upload-metadata", "").split(","):
        key, _space, value = pair.strip().partition(" ")
        if key in ("filename", "name"):
            try:
                name = base64.b64decode(value, validate=True).decode("utf-8", "replace")
            except binascii.Error as error:
                raise TusError(400, _("The file name is not base64.")) from error
    try:
        return actions.create_upload(name, _number(headers, "upload-length"), user=user)
    except actions.UploadRefusedError as error:
        raise TusError(413, str(error)) from error


def find(text: str, user: Any) -> OvaUpload:
    """Return the unfinished upload of that address and that user.  Raises TusError."""
    try:
        upload = OvaUpload.objects.filter(
            uuid=UUID(text), created_by=user, origin=OvaUpload.Origin.BROWSER
        ).first()
    except ValueError:
        upload = None
    if upload is None:
        raise TusError(404, _("There is no such upload."))
    if upload.status in (OvaUpload.Status.REFUSED, OvaUpload.Status.CANCELLED):
        raise TusError(410, upload.message)
    return upload


def offset_of(upload: OvaUpload) -> int:
    """Return how many bytes are on disk for sure: what the row says, if the file has them."""
    if upload.status != OvaUpload.Status.RECEIVING:
        return upload.size_bytes
    try:
        return min(upload.received_bytes, uploads.part_path(upload).stat().st_size)
    except FileNotFoundError:
        return 0


class Writer:
    """Writes the body of one PATCH to its place; one at a time for an upload."""

    def __init__(self, upload: OvaUpload, offset: int) -> None:
        self._upload = upload
        self._offset = offset
        self._synced_at = time.monotonic()
        self._file = -1

    async def take(self, receive: Receive) -> int:
        """Store the body as it arrives and return the new offset.  Raises TusError.

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
        if self._upload.status != OvaUpload.Status.RECEIVING:
            raise TusError(409, _("This upload is complete already."))
        try:
            self._file = os.open(uploads.part_path(self._upload), os.O_WRONLY)
        except FileNotFoundError as error:
            raise TusError(410, _("The file of this upload is gone; start it again.")) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise TusError(423, _("Another connection is sending this file.")) from error
        self._upload.refresh_from_db()
        expected = offset_of(self._upload)
        if self._offset != expected:
            os.close(self._file)
            raise TusError(
                409,
                _("%(have)d bytes are stored; the browser continued at %(sent)d.")
                % {"have": expected, "sent": self._offset},
            )

    def _store(self, data: bytes) -> None:
        """Write a piece, let the follower look at it, and note what is safe once a second."""
        upload = self._upload
        if self._offset + len(data) > upload.size_bytes:
            raise TusError(413, _("The browser sent more bytes than it announced."))
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._file, view, self._offset)
                self._offset += written
                view = view[written:]
        except OSError as error:
            raise TusError(507, _("The file cannot be stored: %s.") % error.strerror) from error
        follower = uploads.follower_of(upload)
        try:
            known = follower.source is not None
            follower.advance(limit_bytes=CATCH_UP_BYTES)
            if time.monotonic() - self._synced_at >= SYNC_SECONDS or (
                follower.source is not None and not known
            ):
                self._sync()
        except SourceError as error:
            actions.refuse_upload(upload, error)
            raise TusError(422, f"{error.message} {error.remedy}".strip()) from error

    def _sync(self) -> None:
        os.fsync(self._file)
        self._synced_at = time.monotonic()
        actions.received(self._upload, self._offset)
        actions.store_findings(self._upload)
        state = OvaUpload.objects.filter(pk=self._upload.pk).values_list("status", flat=True).get()
        if state != OvaUpload.Status.RECEIVING:
            raise TusError(410, _("This upload was cancelled."))

    def _close(self) -> None:
        """Note what has arrived; hand a complete file to its check."""
        close_old_connections()
        upload = self._upload
        try:
            os.fsync(self._file)
        finally:
            os.close(self._file)
        if not OvaUpload.objects.filter(pk=upload.pk, status=OvaUpload.Status.RECEIVING).exists():
            return
        actions.received(upload, self._offset)
        if self._offset == upload.size_bytes:
            if uploads.follower_of(upload).position >= upload.size_bytes - CATCH_UP_BYTES:
                OvaUpload.objects.filter(pk=upload.pk).update(status=OvaUpload.Status.CHECKING)
                actions.check_received(upload)
            else:
                uploads.forget_follower(upload)
                actions.arrived(upload)
