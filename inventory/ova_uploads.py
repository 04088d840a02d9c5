"""OVAs as a kind of upload: read and checked while they arrive, with a row to show for each."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings

from inventory import actions, uploads
from inventory.access import OPERATE
from inventory.incoming import UploadEndedError, UploadRefusedError
from inventory.models import OvaUpload
from inventory.sources.errors import SourceError

# A follower that has to catch up after a restart reads faster than the upload writes.
CATCH_UP_BYTES = 32 << 20
Status = OvaUpload.Status


class IncomingOva:
    """One OVA on its way in."""

    def __init__(self, row: OvaUpload) -> None:
        """Stand for a row."""
        self._row = row
        self.uuid = row.uuid
        self.size_bytes = row.size_bytes

    @property
    def is_receiving(self) -> bool:
        """Tell whether bytes are still wanted."""
        return self._row.status == Status.RECEIVING

    def part_path(self) -> Path:
        """Return where the bytes are written."""
        return uploads.part_path(self._row)

    def offset(self) -> int:
        """Return what the row says by now, if the file has it."""
        self._row.refresh_from_db()
        if not self.is_receiving:
            return self.size_bytes
        try:
            return min(self._row.received_bytes, self.part_path().stat().st_size)
        except FileNotFoundError:
            return 0

    def look(self) -> bool:
        """Let the follower read on; tell whether it has just found the machine."""
        follower = uploads.follower_of(self._row)
        known = follower.source is not None
        try:
            follower.advance(limit_bytes=CATCH_UP_BYTES)
        except SourceError as error:
            actions.refuse_upload(self._row, error)
            raise UploadRefusedError(f"{error.message} {error.remedy}".strip()) from error
        return follower.source is not None and not known

    def note(self, offset: int) -> None:
        """Store how far it is and what the follower has found."""
        actions.received(self._row, offset)
        actions.store_findings(self._row)
        self._row.refresh_from_db()
        if not self.is_receiving:
            raise UploadEndedError(self._row.message)

    def complete(self) -> None:
        """Check it here when its follower has kept up, else leave that to a worker."""
        if uploads.follower_of(self._row).position < self.size_bytes - CATCH_UP_BYTES:
            uploads.forget_follower(self._row)
            actions.arrived(self._row)
        elif actions.begin_check(self._row):
            actions.check_received(self._row)

    def cancel(self, *, user: Any) -> bool:
        """Cancel it if it is not complete."""
        return actions.cancel_upload(self._row, user=user)


class OvaUploads:
    """The uploads of the Sources page."""

    prefix = "/sources/tus/"
    form = "/sources/upload/"
    permission = OPERATE

    def folder(self) -> Path:
        """Return the folder of uploads."""
        return Path(settings.UPLOAD_DIR)

    def create(self, filename: str, size_bytes: int, *, user: Any) -> IncomingOva:
        """Begin an upload.  Raises UploadRefusedError."""
        return IncomingOva(actions.create_upload(filename, size_bytes, user=user))

    def find(self, uuid: UUID, *, user: Any) -> IncomingOva | None:
        """Return an upload that this user began in the browser.  Raises UploadEndedError."""
        row = OvaUpload.objects.filter(
            uuid=uuid, created_by=user, origin=OvaUpload.Origin.BROWSER
        ).first()
        if row is None:
            return None
        if row.status in (Status.REFUSED, Status.CANCELLED):
            raise UploadEndedError(row.message)
        return IncomingOva(row)

    def due_bytes(self) -> int:
        """Return what is announced and has not arrived yet."""
        receiving = OvaUpload.objects.filter(
            status=Status.RECEIVING, origin=OvaUpload.Origin.BROWSER
        )
        return sum(u.size_bytes - u.received_bytes for u in receiving)

    def tidy(self, before: datetime) -> None:
        """Cancel what nobody has continued since `before`."""
        for row in OvaUpload.objects.filter(status=Status.RECEIVING, updated_at__lt=before):
            actions.cancel_upload(row, user="v2vweb, unfinished for a week")
