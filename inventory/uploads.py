"""Where uploads lie on disk, and the followers that read them while they arrive."""

from __future__ import annotations

import shutil
import threading
from contextlib import suppress
from pathlib import Path, PurePosixPath

from django.conf import settings

from inventory.models import OvaUpload
from inventory.sources.follow import OvaFollower

_MAX_NAME_BYTES = 200


def safe_filename(name: str) -> str:
    """Return a browser's file name as one that can stand in a folder of ours."""
    base = PurePosixPath(name.replace("\\", "/")).name
    base = "".join(c for c in base if c.isprintable()).strip().lstrip(".-")
    encoded = base.encode("utf-8", "replace")
    if len(encoded) > _MAX_NAME_BYTES:
        base = encoded[-_MAX_NAME_BYTES:].decode("utf-8", "ignore").lstrip(".-")
    return base or "machine.ova"


def folder_of(upload: OvaUpload) -> Path:
    """Return the folder that belongs to one upload alone."""
    return Path(settings.UPLOAD_DIR) / str(upload.uuid)


def final_path(upload: OvaUpload) -> Path:
    """Return where a complete upload lies."""
    return folder_of(upload) / safe_filename(upload.filename)


def part_path(upload: OvaUpload) -> Path:
    """Return where an upload is written while it arrives."""
    final = final_path(upload)
    return final.with_name(final.name + ".part")


def remove_files(upload: OvaUpload) -> None:
    """Delete what a browser's upload has left; files of the import folder are never touched."""
    forget_follower(upload)
    if upload.origin == OvaUpload.Origin.BROWSER:
        shutil.rmtree(folder_of(upload), ignore_errors=True)


_followers: dict[int, OvaFollower] = {}
_lock = threading.Lock()


def follower_of(upload: OvaUpload) -> OvaFollower:
    """Return this process's follower of an upload; a new one catches up by reading the file.

    That has its final name already where a check was cut off.
    """
    with _lock:
        follower = _followers.get(upload.pk)
        if follower is None:
            final = final_path(upload)
            path = final if final.exists() else part_path(upload)
            follower = OvaFollower(path, upload.size_bytes, label=upload.filename)
            _followers[upload.pk] = follower
        return follower


def forget_follower(upload: OvaUpload) -> None:
    """Let go of an upload's follower."""
    with _lock, suppress(KeyError):
        del _followers[upload.pk]
