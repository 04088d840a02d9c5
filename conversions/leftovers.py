"""What a run leaves on its conversion host: removed, or kept to be continued from the copy."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from conversions.models import Conversion, KeptWork
from conversions.pipeline.commit import keep_if_begun
from conversions.pipeline.errors import HostError, JobError
from conversions.pipeline.kept import discard, keep_converted, size_of
from conversions.pipeline.leftovers import names_in, notes_of
from conversions.pipeline.report import EventReporter
from conversions.pipeline.work import MIN_FREE_BYTES
from conversions.processes import environment_for, kill_processes_of
from conversions.targets import is_result_folder, job_of_now

logger = logging.getLogger(__name__)

# A host that does not answer is asked again when the worker starts.
ELSEWHERE_SECONDS = 60


def work_dir(conversion: Conversion) -> Path:
    """Return the private work folder of a conversion."""
    return Path(settings.WORK_DIR) / str(conversion.uuid)


def clean_up_after(conversion: Conversion) -> list[str]:
    """Delete what a run of this host left: unfinished target files, volumes, its work folder.

    Only names the engine announced, with the ending .part or in the middle of losing it, in a
    target folder or the folder of a target's pool.  Converted overlays that the run was to keep
    stay, on record as KeptWork.  Returns what was deleted; the report `files` tells it too.
    """
    removed = _remove_files(conversion)
    work = work_dir(conversion)
    if (
        work.exists()
        and _finish_begun_commit(conversion, work)
        and _remove_elsewhere(conversion, work, removed)
    ):
        if work.exists() and keep_converted(work, MIN_FREE_BYTES, _reporter()):
            _record_kept(conversion, work)
        else:
            shutil.rmtree(work, ignore_errors=True)
            removed.append(str(work))
    kept = conversion.continues
    if kept is not None and not Path(kept.folder).exists():
        kept.delete()  # the run has used it up
        conversion.continues = None
    if removed:
        files = conversion.reports.setdefault("files", {"created": [], "removed": []})
        files["removed"] = [*files["removed"], *removed]
    return removed


def _reporter() -> EventReporter:
    return EventReporter(lambda event: logger.info("%s", event))


def _remove_files(conversion: Conversion) -> list[str]:
    """Delete the files of a result that is not whole, and forget their names.

    A lost run is looked at by every start of its worker; later runs may have files of these names.
    """
    targets = conversion.reports.pop("targets", {})
    parts, finals = targets.get("parts", []), targets.get("finals", [])
    names = [name for name in parts if name.endswith(".part")]
    if targets.get("committing"):
        # Killed while the parts were renamed: what has its final name already is half a result.
        pairs = zip(parts, finals, strict=False)
        names += [n for part, n in pairs if part == f"{n}.part" and not Path(part).exists()]
    removed = []
    for name in names:
        path = Path(name)
        if is_result_folder(path.parent) and path.is_file():
            path.unlink()
            removed.append(name)
    return removed


def _finish_begun_commit(conversion: Conversion, work: Path) -> bool:
    """Finish writing into the source's own disks where that was begun; tell if the folder may go.

    It is kept when that fails, for the next start of the worker.
    """
    try:
        if keep_if_begun(work, _reporter()):
            conversion.reports["commit"] = {"state": "finished"}
    except HostError as error:
        logger.error("%s: %s %s", conversion, error.message, error.remedy)
        conversion.reports["commit"] = {"state": "unfinished", "message": error.message}
        return False
    return True


def _remove_elsewhere(conversion: Conversion, work: Path, removed: list[str]) -> bool:
    """Have the engine remove what a killed run made on other hosts; tell if nothing is left there.

    A process of its own: a connection can hang.  What it cannot remove is tried again by the next
    start of the worker; the work folder has the notes for that.
    """
    if not notes_of(work):
        return True
    message = ""
    try:
        job = job_of_now(conversion).to_json()
    except JobError as error:
        job = ""  # the engine tells what it lacks
        logger.warning("%s: its job cannot be read: %s", conversion, error)
    process = subprocess.Popen(
        [*settings.CLEAN_UP_COMMAND, str(work)],
        cwd=settings.BASE_DIR,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment_for(conversion.uuid),
    )
    try:
        stdout, _errors = process.communicate(job + "\n", timeout=ELSEWHERE_SECONDS)
    except subprocess.TimeoutExpired:
        kill_processes_of(conversion.uuid)  # an ssh that it has started holds its output open
        process.communicate()
        stdout, message = "", f"There was no answer within {ELSEWHERE_SECONDS} s."
    events = [json.loads(line) for line in stdout.splitlines()]
    if events:
        message = str(events[-1].get("message", ""))
    for event in events:
        if event["type"] == "report" and event["name"] == "files":
            removed += event["data"]["removed"]
    if process.returncode:
        logger.error("%s: leftovers on other hosts remain: %s", conversion, message)
        conversion.reports["leftovers"] = {
            "state": "unfinished", "message": message, "names": names_in(notes_of(work)),
        }  # fmt: skip
        return False
    conversion.reports.pop("leftovers", None)
    return True


def _record_kept(conversion: Conversion, work: Path) -> None:
    """Put a kept folder on record, with the time until which it is kept."""
    kept, _is_new = KeptWork.objects.update_or_create(
        conversion=conversion,
        defaults={"folder": str(work), "worker": settings.WORKER_NAME, "bytes": size_of(work)},
        create_defaults={
            "folder": str(work),
            "worker": settings.WORKER_NAME,
            "bytes": size_of(work),
            "keep_until": timezone.now() + timedelta(days=settings.KEEP_DAYS),
        },
    )
    conversion.reports["kept"] = {
        "folder": kept.folder,
        "bytes": kept.bytes,
        "worker": kept.worker,
        "until": kept.keep_until.isoformat(),
    }


def discard_kept(kept: KeptWork) -> bool:
    """Delete a kept folder of this host and its record; tell if it is gone.

    A run that continues it holds it; then it stays.
    """
    folder = Path(kept.folder)
    if kept.worker != settings.WORKER_NAME or not _is_work_folder(folder):
        logger.error("%s is not a work folder of this host; it stays.", folder)
        return False
    if folder.exists() and not discard(folder):
        return False
    kept.delete()
    logger.info("The kept files in %s are deleted.", folder)
    return True


def _is_work_folder(folder: Path) -> bool:
    """Tell whether a folder is one that `work_dir` gives."""
    try:
        UUID(folder.name)
    except ValueError:
        return False
    return folder.parent == Path(settings.WORK_DIR)
