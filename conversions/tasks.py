"""What the worker of a conversion host does: run conversions, and give up those that are lost."""

from __future__ import annotations

import logging
import time
from copy import deepcopy
from datetime import timedelta
from pathlib import Path
from typing import Any

from celery import shared_task
from celery.signals import worker_init, worker_ready, worker_shutting_down
from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from conversions import actions, leftovers, targets
from conversions.health import is_answering, refuse_second_of_name
from conversions.models import Conversion, ConversionHost, KeptWork, OutputTarget
from conversions.processes import kill_processes_of
from conversions.supervisor import Supervisor, shutting_down
from v2vweb.celery import host_queue, send

logger = logging.getLogger(__name__)
# So long a check of a target counts as new.
CHECKED_SECONDS = 45


@shared_task(ignore_result=True)
def run_conversion(uuid: str) -> None:
    """Run a conversion to its end, when this worker has room for it."""
    if shutting_down.is_set():
        return
    conversion = actions.claim_conversion(uuid)
    if conversion is None:
        return
    Supervisor(conversion).run()
    # To itself: it is this worker that has room now.
    send(start_due, queue=host_queue(settings.WORKER_NAME))


@shared_task(ignore_result=True)
def start_due() -> None:
    """Send for what waits, as much as this worker has room for."""
    busy = Conversion.objects.on_worker().filter(worker=settings.WORKER_NAME).count()
    room = max(0, settings.CONVERSIONS_AT_ONCE - busy)
    for conversion in Conversion.objects.waiting().for_worker(settings.WORKER_NAME)[:room]:
        queue = host_queue(conversion.worker) if conversion.worker else None
        send(run_conversion, str(conversion.uuid), queue=queue)


@shared_task(ignore_result=True)
def mark_lost() -> None:
    """Give up conversions whose worker has not been heard of for too long."""
    silent = Conversion.objects.on_worker().filter(heartbeat_at__lt=actions.lost_since())
    if not silent.exists():
        return
    # When it was the database that was away, those that are alive are about to tell.
    time.sleep(settings.HEARTBEAT_SECONDS)
    for conversion in silent.all():
        give_up(conversion)


def give_up(conversion: Conversion) -> None:
    """End a conversion as lost; on this host its processes and files go first."""
    if conversion.worker == settings.WORKER_NAME:
        kill_processes_of(conversion.uuid)
        leftovers.clean_up_after(conversion)
    heard = conversion.heartbeat_at or conversion.started_at or timezone.now()
    result = {
        "code": "E-LOST",
        "message": f"The worker on {conversion.worker} stopped answering at "
        f"{timezone.localtime(heard):%H:%M:%S %Z}.",
        "remedy": "See that the worker runs again, then retry.",
        "step": conversion.step,
    }
    actions.finish_conversion(conversion, Conversion.Status.LOST, result)


@shared_task(ignore_result=True)
def tidy_kept() -> None:
    """Have every host that answers delete the kept files that are due."""
    hosts = {h.name for h in ConversionHost.objects.all() if is_answering(h.seen_at)}
    for kept in KeptWork.objects.due().filter(worker__in=hosts):
        send(discard_kept, str(kept.pk), queue=host_queue(kept.worker))


@shared_task(ignore_result=True)
def discard_kept(pk: str) -> None:
    """Delete kept files of this host, if they are still due."""
    kept = KeptWork.objects.due().filter(pk=pk).first()
    if kept is not None:
        leftovers.discard_kept(kept)


@shared_task(ignore_result=True)
def check_target(uuid: str) -> None:
    """Look at a named target and store what was found."""
    target = OutputTarget.objects.filter(uuid=uuid).first()
    if target is not None:
        targets.check(target)


@shared_task(ignore_result=True)
def check_targets() -> None:
    """Look at every named target, one after the other, at most ten seconds each.

    Where many hosts are silent this takes longer than until it is due again; what another run of
    it has just looked at is passed over, so they share the work and do not pile up.  So is one
    whose server refuses the password, which too many attempts would lock out.
    """
    for pk in OutputTarget.objects.filter(is_locked_out=False).values_list("pk", flat=True):
        recent = timezone.now() - timedelta(seconds=CHECKED_SECONDS)
        due = OutputTarget.objects.filter(pk=pk).exclude(checked_at__gt=recent).first()
        if due is not None:
            targets.check(due)


@worker_init.connect
def on_worker_init(**_kwargs: Any) -> None:
    """Give up what an earlier worker of this host left, before this one takes anything."""
    refuse_second_of_name()
    for conversion in Conversion.objects.on_worker().filter(worker=settings.WORKER_NAME):
        logger.warning("%s was left by a worker that is gone.", conversion)
        give_up(conversion)
    # Given up by another host, which could not reach the files here, or cut off in the middle of
    # writing into the disks of a source.
    left = (
        Q(status=Conversion.Status.LOST)
        | Q(reports__commit__state="unfinished")
        | Q(reports__leftovers__state="unfinished")
    )
    for conversion in Conversion.objects.filter(left, worker=settings.WORKER_NAME):
        kill_processes_of(conversion.uuid)
        before = deepcopy(conversion.reports)
        leftovers.clean_up_after(conversion)
        if conversion.reports != before:
            conversion.save(update_fields=["reports"])
    for kept in KeptWork.objects.filter(worker=settings.WORKER_NAME):
        if not Path(kept.folder).exists():  # someone has emptied the work folder
            kept.delete()


@worker_ready.connect
def on_worker_ready(**_kwargs: Any) -> None:
    """Look for what waits for this host alone; its message may have gone with the last worker."""
    send(start_due, queue=host_queue(settings.WORKER_NAME))


@worker_shutting_down.connect
def on_worker_shutting_down(**_kwargs: Any) -> None:
    """Stop every engine of this worker; their supervisors tidy up and the worker ends."""
    shutting_down.set()
