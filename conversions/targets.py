"""The places results can go to: the folders of the settings, and those an administrator has named.

A folder of the settings is a target of its own, called by its path, with no row and no limits.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from conversions.health import measure_folder
from conversions.models import Conversion, OutputTarget
from conversions.pipeline.errors import SIGN_IN_REFUSED, JobError
from conversions.pipeline.job import Job, Target
from conversions.pipeline.outputs.libvirt_host import check_uri
from conversions.processes import engine_environment
from conversions.secrets import with_secrets

ASK_SECONDS = 10
_PROGRAM = [sys.executable, "-m", "conversions.pipeline.outputs.describe"]
Kind = OutputTarget.Kind
# What there is to choose on a server, one and many.
STORAGE_WORDS = {
    Kind.LIBVIRT: (gettext_lazy("pool"), gettext_lazy("Pools")),
    Kind.OPENSTACK: (gettext_lazy("volume type"), gettext_lazy("Volume types")),
    Kind.OVIRT: (gettext_lazy("storage domain"), gettext_lazy("Storage domains")),
}


class TargetRefusedError(Exception):
    """A place cannot be used; the message is for the person at the page.

    `code` is the engine's, where it was the engine that found out.
    """

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


def is_allowed_folder(directory: str) -> bool:
    """Tell whether a folder lies in one of the settings' target folders, links followed."""
    folder = Path(directory)
    if not folder.is_absolute() or "\0" in directory:
        return False
    real = folder.resolve()
    return any(real.is_relative_to(Path(top).resolve()) for top in settings.TARGET_DIRS)


def refuse_folder(directory: str) -> None:
    """Refuse a folder outside the settings.  Raises TargetRefusedError."""
    if not is_allowed_folder(directory):
        raise TargetRefusedError(
            _("%(folder)s is not in a target folder of this server. Those are: %(allowed)s.")
            % {"folder": directory, "allowed": ", ".join(map(str, settings.TARGET_DIRS))}
        )


def ask(target: Target, *, seconds: float = ASK_SECONDS) -> dict[str, Any]:
    """Return what `outputs/describe.py` says of a target's place.

    Raises TargetRefusedError, also when there is no answer within the seconds.
    """
    process = subprocess.Popen(
        _PROGRAM,
        cwd=settings.BASE_DIR,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=engine_environment(),
        start_new_session=True,  # an ssh that it has started goes with it
    )
    try:
        stdout, stderr = process.communicate(json.dumps(asdict(target)) + "\n", timeout=seconds)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise TargetRefusedError(
            _("%(place)s did not answer within %(seconds)d s.")
            % {"place": target.place, "seconds": seconds}
        ) from error
    try:
        said: dict[str, Any] = json.loads(stdout)
    except ValueError:
        said = {"message": stderr.strip()[-300:] or str(process.returncode)}
    if process.returncode:
        words = in_words(said["message"], said.get("remedy", ""))
        raise TargetRefusedError(words, code=said.get("code", ""))
    return said


def in_words(message: str, remedy: str) -> str:
    """Return what the engine says for a page: without what to change on a command line."""
    message, remedy = (re.sub(r" \(-o[a-z]\)", "", text) for text in (message, remedy))
    sentences = re.split(r"(?<=\.)\s+", remedy)
    kept = [one for one in sentences if not re.search(r"(^|\s)-o[a-z]\b", one)]
    return " ".join([message, *kept]).strip()


def look_at(target: OutputTarget, *, seconds: float = ASK_SECONDS) -> dict[str, Any]:
    """Ask the place and set what was found on the row, unsaved; return the whole answer.

    What is wrong becomes the row's `problem`; free space and networks stay as last seen then.
    """
    target.checked_at = timezone.now()
    target.is_locked_out = False
    try:
        if target.is_folder:
            refuse_folder(target.directory)
        elif target.kind == Kind.LIBVIRT:
            check_uri(target.uri)
        said = ask(target.engine_target(), seconds=seconds)
    except JobError as error:
        target.problem = in_words(error.message, error.remedy)
        return {}
    except TargetRefusedError as error:
        target.problem = str(error)
        target.is_locked_out = error.code == SIGN_IN_REFUSED
        return {}
    target.networks, target.bridges = said.get("networks", []), said.get("bridges", [])
    found = _storage_of(target, said)
    target.problem, target.free_bytes = found["problem"], found["free_bytes"]
    if not said.get("is_local"):
        target.pool_path = ""
    elif found.get("path"):
        target.pool_path = found["path"]
    return said


def _storage_of(target: OutputTarget, said: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what is said of the target's pool and the like; of the place when it has none."""
    if not target.storage:
        return said
    named = {storage["name"]: storage for storage in said["storages"]}
    if target.storage in named:
        found: Mapping[str, Any] = named[target.storage]
        return found
    words = {
        "place": target.uri or target.options.get("os-cloud", ""),
        "what": STORAGE_WORDS[Kind(target.kind)][0],
        "name": target.storage,
        "names": ", ".join(named) or _("none"),
    }
    problem = _("%(place)s has no %(what)s %(name)s. It has: %(names)s.") % words
    return {"problem": problem, "free_bytes": target.free_bytes}


def check(target: OutputTarget, *, seconds: float = ASK_SECONDS) -> None:
    """Look at a place and store what was found, without touching what an administrator set."""
    look_at(target, seconds=seconds)
    # A query, not save(): what a check finds is no change for the audit log.
    OutputTarget.objects.filter(pk=target.pk).update(
        checked_at=target.checked_at,
        problem=target.problem,
        is_locked_out=target.is_locked_out,
        free_bytes=target.free_bytes,
        pool_path=target.pool_path,
        networks=target.networks,
        bridges=target.bridges,
    )


def folder_targets() -> list[OutputTarget]:
    """Return the folders of the settings as targets, unsaved; the first is the default."""
    return [
        OutputTarget(name=str(path), kind=Kind.LOCAL, directory=str(path))
        for path in settings.TARGET_DIRS
    ]


def all_targets() -> dict[str, OutputTarget]:
    """Return every target by what a form calls it: a path of the settings, or the row's UUID."""
    own = {target.directory: target for target in folder_targets()}
    return own | {str(target.uuid): target for target in OutputTarget.objects.all()}


def free_bytes(target: OutputTarget) -> int | None:
    """Return what is free there: of the settings' folders now, of others as last seen."""
    if target.pk is None:
        free: int | None = measure_folder("target", Path(target.directory))["free_bytes"]
        return free
    return target.free_bytes


def job_of_now(conversion: Conversion) -> Job:
    """Return the job of a run with its secrets, a named target as that is reached now.

    The disks stay as they were asked for.  Raises JobError.
    """
    values = conversion.job
    if conversion.target is not None:
        asked = Target.from_dict(values["target"])
        target = conversion.target.engine_target(
            format=asked.format, allocation=asked.allocation, compressed=asked.compressed
        )
        values = values | {"target": asdict(target)}
    return with_secrets(values, conversion.sealed_secrets)


def is_result_folder(folder: Path) -> bool:
    """Tell whether unfinished files of a run may be deleted there: target folders and pools."""
    if is_allowed_folder(str(folder)):
        return True
    pools = OutputTarget.objects.filter(kind=Kind.LIBVIRT).exclude(pool_path="")
    real = folder.resolve()
    return any(Path(path).resolve() == real for path in pools.values_list("pool_path", flat=True))
