"""Drivers as a kind of upload: a partial file and a small record beside it, both gone in the end.

They lie in a hidden folder among the drivers, so that what is complete only has to be renamed.  The
record outlives its file by a week at most: a browser that missed the last answer asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from django.contrib.auth.models import User
from django.utils.translation import gettext as _

from conversions.driver_intake import check_head, checked_name, keep_drivers
from conversions.drivers import arriving_folder
from conversions.pipeline.windows.iso9660 import HEAD_BYTES
from inventory.access import MANAGE_DRIVERS
from inventory.incoming import UploadEndedError, UploadRefusedError, check_room
from inventory.templatetags.console import size


@dataclass(kw_only=True)
class IncomingDrivers:
    """One file on its way in.

    receiving -> kept | refused | cancelled     (`message` says why it was not kept)
    """

    uuid: UUID
    name: str
    size_bytes: int
    user_id: int
    username: str
    received_bytes: int = 0
    is_receiving: bool = True
    message: str = ""

    @classmethod
    def load(cls, uuid: UUID) -> IncomingDrivers | None:
        """Return what the record says; None when it, or a file still wanted, is not there."""
        try:
            found = cls(**json.loads(_record_path(uuid).read_text()) | {"uuid": uuid})
        except (OSError, ValueError, TypeError):
            return None
        return None if found.is_receiving and not found.part_path().exists() else found

    def store(self) -> None:
        """Write the record, in one step."""
        path = _record_path(self.uuid)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(self) | {"uuid": str(self.uuid)}))
        new.replace(path)

    def part_path(self) -> Path:
        """Return where the bytes are written."""
        return _record_path(self.uuid).with_suffix(".part")

    def offset(self) -> int:
        """Return what the record says by now, if the file has it."""
        now = self._fresh()
        if not now.is_receiving:
            return self.size_bytes
        return min(now.received_bytes, now.part_path().stat().st_size)

    def look(self) -> bool:
        """Refuse what its first bytes show to be no use; end when somebody has cancelled it."""
        self._fresh()
        if self.part_path().stat().st_size >= min(HEAD_BYTES, self.size_bytes):
            try:
                check_head(self.part_path(), self.name)
            except UploadRefusedError as error:
                self._end(str(error))
                raise
        return False

    def note(self, offset: int) -> None:
        """Store how far it is.  Raises UploadEndedError."""
        self._fresh()
        self.received_bytes = offset
        self.store()

    def complete(self) -> None:
        """Check it and put it where it is used.  Raises UploadRefusedError."""
        try:
            # An account that is gone by now leaves the entry without a name.
            user = User.objects.filter(pk=self.user_id).first()
            keep_drivers(self.part_path(), self.name, user=user)
        except UploadRefusedError as error:
            self._end(str(error))
            raise
        self._end("")

    def cancel(self, *, user: Any) -> bool:
        """Delete what has arrived, if it is not complete."""
        if not self.is_receiving:
            return False
        self._end(_("Cancelled by %(user)s.") % {"user": user})
        return True

    def _fresh(self) -> IncomingDrivers:
        """Return the record as another process may have left it.  Raises UploadEndedError."""
        now = self.load(self.uuid)
        if now is None or now.message:
            raise UploadEndedError(now.message if now else _("This upload is gone; start again."))
        return now

    def _end(self, message: str) -> None:
        self.is_receiving, self.message = False, message
        self.store()
        self.part_path().unlink(missing_ok=True)


def arriving() -> list[IncomingDrivers]:
    """Return what is on its way in, by name."""
    found = [upload for upload in _all() if upload.is_receiving]
    return sorted(found, key=lambda upload: upload.name)


def _all() -> Iterator[IncomingDrivers]:
    for path in arriving_folder().glob("*.json"):
        with suppress(ValueError):  # a file of somebody else's
            if upload := IncomingDrivers.load(UUID(path.stem)):
                yield upload


def _record_path(uuid: UUID) -> Path:
    return arriving_folder() / f"{uuid}.json"


class DriverUploads:
    """The uploads of the page Windows drivers."""

    prefix = "/drivers/tus/"
    form = "/drivers/add/"
    permission = MANAGE_DRIVERS

    def folder(self) -> Path:
        """Return the folder of what is not complete yet."""
        return arriving_folder()

    def create(self, filename: str, size_bytes: int, *, user: Any) -> IncomingDrivers:
        """Begin an upload.  Raises UploadRefusedError."""
        name = checked_name(filename, size_bytes)
        for other in arriving():
            if other.name == name:
                raise UploadRefusedError(
                    _(
                        "%(name)s is being sent already, by %(user)s: %(have)s of %(size)s are "
                        "here. Go on with that, or cancel it first."
                    )
                    % {
                        "name": name,
                        "user": other.username,
                        "have": size(other.received_bytes),
                        "size": size(other.size_bytes),
                    }
                )
        self.folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        check_room(name, size_bytes, self.folder())
        upload = IncomingDrivers(
            uuid=uuid4(),
            name=name,
            size_bytes=size_bytes,
            user_id=user.pk,
            username=user.get_username(),
        )
        upload.part_path().touch(mode=0o600)
        upload.store()
        return upload

    def find(self, uuid: UUID, *, user: Any) -> IncomingDrivers | None:
        """Return an upload that this user began.  Raises UploadEndedError."""
        upload = IncomingDrivers.load(uuid)
        if upload is None or upload.user_id != user.pk:
            return None
        if upload.message:
            raise UploadEndedError(upload.message)
        return upload

    def due_bytes(self) -> int:
        """Return what is announced and has not arrived yet."""
        return sum(upload.size_bytes - upload.received_bytes for upload in arriving())

    def tidy(self, before: datetime) -> None:
        """Delete what nobody has continued since `before`, and the records of what has ended."""
        for path in arriving_folder().glob("*"):
            with suppress(FileNotFoundError):  # another worker is at it too
                if path.stat().st_mtime < before.timestamp():
                    path.unlink()
