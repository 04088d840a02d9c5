"""What is taken for Windows guests: an ISO with drivers, or a program of the first start."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

from auditlog.models import LogEntry
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.utils.translation import gettext as _

from conversions.drivers import arriving_folder, described, note, target_of, tool_problem
from conversions.pipeline.windows.collection import TOOLS
from conversions.pipeline.windows.iso9660 import HEAD_BYTES, starts_like_iso
from inventory.incoming import UploadRefusedError
from inventory.uploads import safe_filename

MAX_TOOL_BYTES = 64 << 20


def checked_name(filename: str, size_bytes: int) -> str:
    """Return the name under which a file may be added, before anything of it has been looked at.

    Raises UploadRefusedError when it is of no use here, or something is called that already.
    """
    name = safe_filename(filename)
    if name.lower() in TOOLS:
        name = name.lower()
        if not 0 < size_bytes <= MAX_TOOL_BYTES:
            raise _not_kept(name, _("it is no Windows program."))
    elif not name.lower().endswith(".iso"):
        raise UploadRefusedError(
            _("%(name)s is neither an ISO image nor one of the programs %(tools)s.")
            % {"name": name, "tools": ", ".join(TOOLS)}
        )
    elif size_bytes < HEAD_BYTES:
        raise UploadRefusedError(
            _("%(name)s was not kept: it has %(bytes)d bytes; an ISO image has more.")
            % {"name": name, "bytes": size_bytes}
        )
    if target_of(name).exists():
        raise UploadRefusedError(
            _("%(name)s is there already. Remove it first, or give this one another name.")
            % {"name": name}
        )
    return name


def check_head(path: Path, name: str) -> None:
    """Refuse a file whose first HEAD_BYTES show that it is no use.  Raises UploadRefusedError."""
    if name in TOOLS:
        if problem := tool_problem(path):
            raise _not_kept(name, problem)
    elif not starts_like_iso(path):
        raise _not_kept(name, _("it is not an ISO image."))


def keep_drivers(path: Path, name: str, *, user: Any) -> None:
    """Move a complete file to where it is used, after a look at all of it.

    Takes a name of checked_name().  Raises UploadRefusedError; nothing is left behind then.
    """
    target = target_of(name)
    part = arriving_folder() / f"{uuid4()}.part"
    try:
        checked_name(name, path.stat().st_size)
        part.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.parent.mkdir(exist_ok=True)
        shutil.move(path, part)
        problem = tool_problem(part) if name in TOOLS else described(part).problem
        if problem:
            raise _not_kept(name, problem.replace(str(part), name))
        part.chmod(0o644)
        part.rename(target)
        note(LogEntry.Action.CREATE, name, user=user)
    except OSError as error:
        raise _not_kept(name, f"{error.strerror or error}.") from error
    finally:
        part.unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def take_drivers(file: TemporaryUploadedFile, *, user: Any) -> str:
    """Keep an ISO of drivers or a first-start program from a form; return its name.

    Raises UploadRefusedError; nothing is left behind then.
    """
    name = checked_name(file.name or "", file.size or 0)
    keep_drivers(Path(file.temporary_file_path()), name, user=user)
    return name


def _not_kept(name: str, problem: object) -> UploadRefusedError:
    return UploadRefusedError(
        _("%(name)s was not kept: %(problem)s") % {"name": name, "problem": problem}
    )
