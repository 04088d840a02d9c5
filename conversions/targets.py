"""The places results can go to: the folders of the settings, and those an administrator has named.

A folder of the settings is a target of its own, called by its path, with no row and no limits.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext as _

from conversions.health import measure_folder
from conversions.models import Conversion, OutputTarget
from conversions.pipeline.errors import JobError
from conversions.pipeline.job import Target
from conversions.pipeline.outputs.libvirt_host import check_uri

ASK_SECONDS = 10
_PYTHON = [sys.executable, "-m", "conversions.pipeline.outputs.describe"]
Kind = OutputTarget.Kind


class TargetRefusedError(Exception):
    """A place cannot be used; the message is for the person at the page."""


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


def ask(kind: str, place: str, *, seconds: float = ASK_SECONDS) -> dict[str, Any]:
    """Return what `outputs/describe.py` says of a folder or a libvirt host.

    Raises TargetRefusedError, also when there is no answer within the seconds.
    """
    process = subprocess.Popen(
        [*_PYTHON, kind, place],
        cwd=settings.BASE_DIR,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # an ssh that it has started goes with it
    )
    try:
        stdout, stderr = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise TargetRefusedError(
            _("%(place)s did not answer within %(seconds)d s.")
            % {"place": place, "seconds": seconds}
        ) from error
    try:
        said: dict[str, Any] = json.loads(stdout)
    except ValueError:
        said = {"message": stderr.strip()[-300:] or str(process.returncode)}
    if process.returncode:
        raise TargetRefusedError(f"{said['message']} {said.get('remedy', '')}".strip())
    return said


def look_at(target: OutputTarget, *, seconds: float = ASK_SECONDS) -> dict[str, Any]:
    """Ask the place and set what was found on the row, unsaved; return the whole answer.

    What is wrong becomes the row's `problem`; free space and networks stay as last seen then.
    """
    target.checked_at = timezone.now()
    try:
        if target.kind != Kind.LIBVIRT:
            refuse_folder(target.directory)
            said = ask("folder", target.directory, seconds=seconds)
            target.free_bytes, target.problem = said["free_bytes"], said["problem"]
            return said
        check_uri(target.uri)
        said = ask("libvirt", target.uri, seconds=seconds)
    except JobError as error:
        target.problem = f"{error.message} {error.remedy}".strip()
        return {}
    except TargetRefusedError as error:
        target.problem = str(error)
        return {}
    target.networks, target.bridges = said["networks"], said["bridges"]
    pool = next((p for p in said["pools"] if p["name"] == target.storage), None)
    if pool is None:
        names = ", ".join(p["name"] for p in said["pools"]) or _("none")
        words = {"host": target.uri, "pool": target.storage, "names": names}
        target.problem = _("%(host)s has no pool %(pool)s. It has: %(names)s.") % words
    else:
        target.problem, target.free_bytes = pool["problem"], pool["free_bytes"]
        if not said["is_local"]:
            target.pool_path = ""
        elif pool["path"]:
            target.pool_path = pool["path"]
    return said


def check(target: OutputTarget, *, seconds: float = ASK_SECONDS) -> None:
    """Look at a place and store what was found, without touching what an administrator set."""
    look_at(target, seconds=seconds)
    # A query, not save(): what a check finds is no change for the audit log.
    OutputTarget.objects.filter(pk=target.pk).update(
        checked_at=target.checked_at,
        problem=target.problem,
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


def engine_target(target: OutputTarget, **choices: Any) -> Target:
    """Return the engine's target for a place and what was chosen besides."""
    if target.kind == Kind.LIBVIRT:
        return Target(kind="libvirt", uri=target.uri, storage=target.storage, **choices)
    return Target(kind=target.kind, directory=target.directory, **choices)


def is_result_folder(folder: Path) -> bool:
    """Tell whether unfinished files of a run may be deleted there: target folders and pools."""
    if is_allowed_folder(str(folder)):
        return True
    pools = OutputTarget.objects.filter(kind=Kind.LIBVIRT).exclude(pool_path="")
    real = folder.resolve()
    return any(Path(path).resolve() == real for path in pools.values_list("pool_path", flat=True))


def active_runs(target: OutputTarget) -> list[Conversion]:
    """Return the runs under way that write there."""
    same = {"job__target__kind": target.kind}
    if target.kind == Kind.LIBVIRT:
        same |= {"job__target__uri": target.uri, "job__target__storage": target.storage}
    else:
        same |= {"job__target__directory": target.directory}
    return list(Conversion.objects.active().filter(**same))
