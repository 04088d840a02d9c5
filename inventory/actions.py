"""The verbs of the inventory: take in uploads, register files, forget machines."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from auditlog.models import LogEntry
from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from inventory import uploads
from inventory.imports import kind_of
from inventory.incoming import UploadRefusedError, check_room
from inventory.machine_rows import columns_of, store_parts
from inventory.models import OvaUpload, SourceVM
from inventory.sources.base import SourceReader
from inventory.sources.errors import SourceError
from inventory.sources.ova import OvaReader
from inventory.sources.readers import reader_for
from inventory.sources.types import Source
from v2vweb.celery import send

logger = logging.getLogger(__name__)

# A check that shows no sign for five minutes is begun anew, see tasks.py.
SIGN_SECONDS = 60
Status = OvaUpload.Status
OPEN = (Status.RECEIVING, Status.CHECKING)


def create_upload(filename: str, size_bytes: int, *, user: Any) -> OvaUpload:
    """Promise room for a file that will arrive.  Raises UploadRefusedError."""
    name = uploads.safe_filename(filename)
    if size_bytes < 1024:
        raise UploadRefusedError(
            _("%(name)s has %(bytes)d bytes; an OVA has more. Nothing was stored.")
            % {"name": name, "bytes": size_bytes}
        )
    check_room(name, size_bytes, Path(settings.UPLOAD_DIR))
    upload = OvaUpload.objects.create(
        filename=name, size_bytes=size_bytes, created_by=user, origin=OvaUpload.Origin.BROWSER
    )
    uploads.folder_of(upload).mkdir(mode=0o700)
    uploads.part_path(upload).touch(mode=0o600)
    return upload


def importable(name: str) -> Path:
    """Return the path of an entry of the import folder.  Raises UploadRefusedError.

    It must be an OVA, a folder, an .ovf, a VMX file or a disk image directly in that folder, and
    stay there after links.
    """
    top = Path(settings.IMPORT_DIR).resolve()
    path = (top / name).resolve()
    if not name or path == top or not path.is_relative_to(top) or not path.exists():
        raise UploadRefusedError(_("There is no %(name)s in the import folder.") % {"name": name})
    return path


def register_import(name: str, *, user: Any) -> OvaUpload:
    """Register a file of the import folder as a source.  Raises UploadRefusedError."""
    path = importable(name)
    if OvaUpload.objects.filter(path=str(path), status__in=[*OPEN, Status.READY]).exists():
        raise UploadRefusedError(_("%(name)s is registered already.") % {"name": name})
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    total = sum(p.stat().st_size for p in files)
    with transaction.atomic():
        upload = OvaUpload.objects.create(
            filename=path.name,
            origin=OvaUpload.Origin.IMPORT,
            path=str(path),
            size_bytes=total,
            received_bytes=total,
            status=Status.CHECKING,
            created_by=user,
        )
        _check_later(upload)
    return upload


def received(upload: OvaUpload, received_bytes: int) -> None:
    """Note how much has been written for sure."""
    OvaUpload.objects.filter(pk=upload.pk).update(
        received_bytes=received_bytes, updated_at=timezone.now()
    )


def show_machine(upload: OvaUpload, source: Source) -> None:
    """Show the machine of an upload whose descriptor has arrived; once."""
    if not SourceVM.objects.filter(upload=upload).exists():
        store_machine(upload, source, status=SourceVM.Status.ARRIVING)


def store_machine(upload: OvaUpload, source: Source, *, status: str) -> SourceVM:
    """Write the machine's row and those of its disks and network cards, replacing older ones."""
    kind, location = "ova", upload.path
    if upload.origin == OvaUpload.Origin.IMPORT:
        kind, path = kind_of(Path(upload.path))
        location = str(path)
    values = columns_of(source) | {"kind": kind, "location": location, "status": status}
    with transaction.atomic():
        vm, _created = SourceVM.objects.update_or_create(
            upload=upload,
            defaults=values,
            create_defaults={**values, "created_by": upload.created_by},
        )
        store_parts([vm])
    return vm


def refuse_upload(upload: OvaUpload, error: SourceError) -> None:
    """Refuse an upload with its reason; nothing of it stays on disk or in the list of machines."""
    moved = OvaUpload.objects.filter(pk=upload.pk, status__in=OPEN).update(
        status=Status.REFUSED,
        code=error.code,
        message=f"{error.message} {error.remedy}".strip(),
        updated_at=timezone.now(),
    )
    if moved:
        _note(upload, status=Status.REFUSED, message=error.message)
        SourceVM.objects.filter(upload=upload, status=SourceVM.Status.ARRIVING).delete()
        uploads.remove_files(upload)


def cancel_upload(upload: OvaUpload, *, user: Any) -> bool:
    """Cancel an upload that is not complete; tell whether it was."""
    moved = OvaUpload.objects.filter(pk=upload.pk, status__in=OPEN).update(
        status=Status.CANCELLED,
        message=_("Cancelled by %(user)s.") % {"user": user},
        updated_at=timezone.now(),
    )
    if moved:
        _note(upload, status=Status.CANCELLED)
        SourceVM.objects.filter(upload=upload, status=SourceVM.Status.ARRIVING).delete()
        uploads.remove_files(upload)
    return bool(moved)


def _note(row: OvaUpload | SourceVM, **after: str) -> None:
    """Enter a change into the audit record, which sees no conditional update by itself."""
    changes = {name: [str(getattr(row, name)), str(value)] for name, value in after.items()}
    LogEntry.objects.log_create(row, force_log=True, action=LogEntry.Action.UPDATE, changes=changes)


def begin_check(upload: OvaUpload) -> bool:
    """Take note that the last byte has arrived; tell whether it was still wanted."""
    moved = OvaUpload.objects.filter(pk=upload.pk, status=Status.RECEIVING).update(
        status=Status.CHECKING, received_bytes=upload.size_bytes, updated_at=timezone.now()
    )
    return bool(moved)


def arrived(upload: OvaUpload) -> None:
    """Take note that the last byte has arrived; the check follows on a worker."""
    with transaction.atomic():
        if begin_check(upload):
            _check_later(upload)


def _check_later(upload: OvaUpload) -> None:
    from inventory.tasks import check_upload

    transaction.on_commit(lambda: send(check_upload, str(upload.uuid)))


def check_received(upload: OvaUpload) -> None:
    """Check a complete upload with the follower that saw it arrive, and make it ready.

    Refuses it when the follower finds a reason.
    """
    follower = uploads.follower_of(upload)
    try:
        while follower.position < upload.size_bytes:
            before = follower.position
            follower.advance(limit_bytes=256 << 20)
            store_findings(upload)
            if follower.position == before:
                break
        follower.finish()
        store_findings(upload)
        part, final = uploads.part_path(upload), uploads.final_path(upload)
        if part.exists():
            part.rename(final)
        upload.path = str(final)
        OvaUpload.objects.filter(pk=upload.pk).update(path=upload.path)
        with signs_of_life(upload), unpack_folder() as folder:
            reader = OvaReader(final, work_dir=folder, warn=_warn(upload))
            if follower.is_packed:
                verify(upload, reader)
            adopt(upload, reader)
    except SourceError as error:
        refuse_upload(upload, error)
    finally:
        uploads.forget_follower(upload)


def store_findings(upload: OvaUpload) -> None:
    """Store what the follower knows by now; show the machine when it knows it."""
    follower = uploads.follower_of(upload)
    OvaUpload.objects.filter(pk=upload.pk).update(
        checked_bytes=min(follower.position, upload.size_bytes),
        digests=follower.digests,
        warnings=[*([follower.note] if follower.note else []), *follower.warnings],
        updated_at=timezone.now(),
    )
    if follower.source is not None:
        show_machine(upload, follower.source)


def check_import(upload: OvaUpload) -> None:
    """Read and verify a file of the import folder and make it ready, or refuse it."""
    kind, path = kind_of(Path(upload.path))
    try:
        with signs_of_life(upload), unpack_folder() as folder:
            reader = reader_for(kind, str(path), work_dir=folder, warn=_warn(upload))
            show_machine(upload, reader.read())
            verify(upload, reader)
            adopt(upload, reader)
    except SourceError as error:
        refuse_upload(upload, error)


@contextmanager
def signs_of_life(upload: OvaUpload) -> Iterator[None]:
    """Show that a check goes on, however long it unpacks and reads without another word."""
    over = threading.Event()

    def show() -> None:
        while not over.wait(SIGN_SECONDS):
            try:
                OvaUpload.objects.filter(pk=upload.pk).update(updated_at=timezone.now())
            except DatabaseError:
                logger.warning("%s: no sign could be stored (ignored).", upload, exc_info=True)
            finally:
                connection.close()

    thread = threading.Thread(target=show, name="signs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def unpack_folder() -> Iterator[Path]:
    """Give a folder for what a compressed OVA holds, for as long as it is looked at."""
    Path(settings.WORK_DIR).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="check-", dir=settings.WORK_DIR) as folder:
        yield Path(folder)


def verify(upload: OvaUpload, reader: SourceReader) -> None:
    """Check the digests of a file that lies there whole, showing how far it is.

    Raises SourceError.
    """
    stored_at = 0.0

    def progress(done: int, _total: int) -> None:
        nonlocal stored_at
        if time.monotonic() - stored_at > 1:
            stored_at = time.monotonic()
            OvaUpload.objects.filter(pk=upload.pk).update(
                checked_bytes=min(done, upload.size_bytes)
            )

    OvaUpload.objects.filter(pk=upload.pk).update(digests=reader.verify(progress))


def adopt(upload: OvaUpload, reader: SourceReader) -> None:
    """Give a checked upload's machine its full record and make both ready."""
    source = reader.read()
    with transaction.atomic():
        moved = OvaUpload.objects.filter(pk=upload.pk, status__in=OPEN).update(
            status=Status.READY, checked_bytes=upload.size_bytes, updated_at=timezone.now()
        )
        if moved:
            store_machine(upload, source, status=SourceVM.Status.READY)


def _warn(upload: OvaUpload) -> Callable[[str], None]:
    def warn(text: str) -> None:
        upload.warnings = list(dict.fromkeys([*upload.warnings, text]))[:100]
        OvaUpload.objects.filter(pk=upload.pk).update(warnings=upload.warnings)

    return warn


def forget_vm(vm: SourceVM, *, user: Any) -> None:
    """Delete a machine's uploaded file and take it off the list; its history stays."""
    with transaction.atomic():
        SourceVM.objects.filter(pk=vm.pk).update(status=SourceVM.Status.GONE)
        _note(vm, status=SourceVM.Status.GONE)
        upload = vm.upload
        if upload is not None:
            OvaUpload.objects.filter(pk=upload.pk).update(
                status=Status.CANCELLED,
                message=_("Forgotten by %(user)s.") % {"user": user},
                updated_at=timezone.now(),
            )
            transaction.on_commit(lambda: uploads.remove_files(upload))
