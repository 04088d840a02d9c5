"""What can be sent to the console as a large file: the kinds of uploads, and the room they share.

tus.py knows how bytes travel; a kind knows what they are for: who may send them, where they go,
what is checked when they are announced, while they arrive and at the end.  Each app registers its
own, so this one needs to know no other.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from django.utils.translation import gettext as _

from inventory.templatetags.console import size

RESERVE_BYTES = 1 << 30


class UploadRefusedError(Exception):
    """An upload cannot be taken; the message is for the person at the page."""


class NoRoomError(UploadRefusedError):
    """There is not enough free space for it."""


class UploadEndedError(Exception):
    """The upload was refused or cancelled before; the message says which."""


class Incoming(Protocol):
    """One file on its way in.  Everything but its creation may happen in another process."""

    uuid: UUID
    size_bytes: int

    @property
    def is_receiving(self) -> bool:
        """Tell whether bytes are still wanted, as far as was known when it was looked up."""
        ...

    def part_path(self) -> Path:
        """Return where the bytes are written."""
        ...

    def offset(self) -> int:
        """Return how many bytes are on disk for sure by now; all of them once it is complete."""
        ...

    def look(self) -> bool:
        """Look at what has arrived, after every piece; tell whether to note it at once.

        Raises UploadRefusedError; nothing of it is left on disk then.
        """
        ...

    def note(self, offset: int) -> None:
        """Note that bytes up to `offset` are on disk for sure.

        Raises UploadEndedError when somebody has cancelled it meanwhile.
        """
        ...

    def complete(self) -> None:
        """Take the file, all of which is there, or leave that to a worker.

        Raises UploadRefusedError; nothing of it is left on disk then.
        """
        ...

    def cancel(self, *, user: Any) -> bool:
        """Delete what has arrived of an upload that is not complete; tell whether it was."""
        ...


class Kind(Protocol):
    """One kind of upload."""

    prefix: str
    # Where a browser without scripts sends the same files.
    form: str
    permission: str

    def folder(self) -> Path:
        """Return the folder it goes to."""
        ...

    def create(self, filename: str, size_bytes: int, *, user: Any) -> Incoming:
        """Begin the upload of a file that a browser names so.  Raises UploadRefusedError."""
        ...

    def find(self, uuid: UUID, *, user: Any) -> Incoming | None:
        """Return an upload that this user began.  Raises UploadEndedError."""
        ...

    def due_bytes(self) -> int:
        """Return how many bytes are announced and have not arrived yet."""
        ...

    def tidy(self, before: datetime) -> None:
        """Cancel what nobody has continued since `before`."""
        ...


_kinds: dict[str, Kind] = {}


def register(kind: Kind) -> None:
    """Take uploads of a kind below its prefix from now on."""
    _kinds[kind.prefix] = kind


def kinds() -> Iterable[Kind]:
    """Return every kind."""
    return _kinds.values()


def kind_at(path: str) -> Kind | None:
    """Return the kind whose uploads live at an address, None when it is no upload's."""
    return next((kind for prefix, kind in _kinds.items() if path.startswith(prefix)), None)


def form_at(path: str) -> Kind | None:
    """Return the kind whose plain form sends to an address, None when none does."""
    return next((kind for kind in _kinds.values() if kind.form == path), None)


def free_bytes(folder: Path) -> int | None:
    """Return how much may still be promised there: free space less reserve less what is due.

    Due is what uploads of every kind on that file system have announced and not sent yet.  None
    when the folder is not there.
    """
    device = _device_of(folder)
    if device is None:
        return None
    due = 0
    for kind in kinds():
        kind_due = kind.due_bytes()
        if kind_due and _device_of(kind.folder()) == device:
            due += kind_due
    return max(0, shutil.disk_usage(folder).free - RESERVE_BYTES - due)


def _device_of(folder: Path) -> int | None:
    try:
        return folder.stat().st_dev
    except OSError:
        return None


def check_room(name: str, size_bytes: int, folder: Path) -> None:
    """Refuse a file that does not fit.  Raises NoRoomError with the numbers, UploadRefusedError."""
    free = free_bytes(folder)
    if free is None:
        raise UploadRefusedError(
            _("The folder %(folder)s is not there. On the server, make it or mount it.")
            % {"folder": folder}
        )
    if size_bytes > free:
        raise NoRoomError(
            _("%(name)s needs %(need)s in %(folder)s; %(free)s are free. Nothing was stored.")
            % {"name": name, "need": size(size_bytes), "free": size(free), "folder": folder}
        )
