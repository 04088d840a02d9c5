"""What every conversion host says about itself, and whether it still does.

A worker measures itself when it starts and every REPORT_SECONDS after, and stores that in its row;
the overview reads the rows.  A host whose row is older than SILENT_SECONDS does not answer.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import threading
from dataclasses import asdict
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from celery.signals import worker_ready
from django.conf import settings
from django.db import DatabaseError, connection
from django.utils import timezone

from conversions.pipeline.accelerator import choose_accelerator

logger = logging.getLogger(__name__)

REPORT_SECONDS = 15
SILENT_SECONDS = 60


def measure() -> dict[str, Any]:
    """Measure this host: free space of its folders, accelerator, versions, load.

    Returns {"folders": [{kind, path, total_bytes, free_bytes}], "accelerator": {kvm, reason},
    "qemu_img", "cpus", "memory_bytes", "load", "machine"}; numbers are None where they cannot be
    had.
    """
    folders = [("uploads", settings.UPLOAD_DIR), ("work", settings.WORK_DIR)]
    folders += [("target", target) for target in settings.TARGET_DIRS]
    return {
        "folders": [measure_folder(kind, path) for kind, path in folders],
        "qemu_img": _qemu_img_version(),
        # Really tried, once per boot of this host.
        "accelerator": asdict(choose_accelerator()),
        "cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load": round(os.getloadavg()[0], 2),
        "machine": machine(),
    }


@cache
def machine() -> str:
    """Return what tells this machine from another of the same name, "" when nothing does.

    A hash: the id itself is not to be told to others, see machine-id(5).
    """
    try:
        text = Path("/etc/machine-id").read_bytes().strip()
    except OSError:
        return ""
    return hashlib.sha256(b"v2vweb " + text).hexdigest()[:32] if text else ""


def measure_folder(kind: str, path: Path) -> dict[str, Any]:
    """Return how big the file system of a folder is and how much of it is free."""
    try:
        usage = shutil.disk_usage(path)
    except OSError:
        return {"kind": kind, "path": str(path), "total_bytes": None, "free_bytes": None}
    return {
        "kind": kind,
        "path": str(path),
        "total_bytes": usage.total,
        "free_bytes": usage.free,
    }


@cache
def _qemu_img_version() -> str:
    """Return what qemu-img calls itself, or "" when it does not run."""
    try:
        run = subprocess.run(
            ["qemu-img", "--version"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return run.stdout.split("\n", 1)[0].removeprefix("qemu-img version ").split(" ")[0]


def report_health() -> None:
    """Store a fresh measurement of this host."""
    from conversions.models import ConversionHost

    ConversionHost.objects.update_or_create(
        name=settings.WORKER_NAME, defaults={"seen_at": timezone.now(), "health": measure()}
    )


def is_answering(seen_at: Any) -> bool:
    """Tell whether a host that was last heard at that time still counts as alive."""
    return bool(timezone.now() - seen_at < timedelta(seconds=SILENT_SECONDS))


def host_answers(worker: str) -> bool:
    """Tell whether the worker of a host counts as alive."""
    from conversions.models import ConversionHost

    host = ConversionHost.objects.filter(name=worker).first()
    return host is not None and is_answering(host.seen_at)


def refuse_second_of_name() -> None:
    """End this worker while another machine reports under its name.

    By its name it would take the other's conversions for what an earlier worker of its own left.
    """
    from conversions.models import ConversionHost

    host = ConversionHost.objects.filter(name=settings.WORKER_NAME).first()
    known = host.health.get("machine") if host is not None and is_answering(host.seen_at) else ""
    if known and machine() and known != machine():
        raise SystemExit(
            f"Another machine reports as {settings.WORKER_NAME}, so this worker does not start: it "
            "would end the conversions of that one. Give this host a name of its own with "
            "V2VWEB_WORKER in var/env. If it takes the place of the other, it starts once that has "
            "been silent for a minute."
        )


def start_reporting(**_kwargs: object) -> None:
    """Report from now on for as long as this worker lives."""
    threading.Thread(target=_report_forever, name="health", daemon=True).start()


def _report_forever() -> None:
    pause = threading.Event()
    while True:
        try:
            report_health()
        except DatabaseError:
            logger.warning("The health of this host could not be stored (ignored).", exc_info=True)
        finally:
            connection.close()
        pause.wait(REPORT_SECONDS)


worker_ready.connect(start_reporting)
