"""The verbs of conversions: start, continue, claim, record, stop, end.  Rows are the truth."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.conf import settings
from django.db import Error, transaction
from django.db.models import F, Q
from django.db.models.expressions import Combinable
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from conversions.inputs import input_of
from conversions.models import (
    Concern,
    Conversion,
    ConversionDisk,
    ConversionStep,
    Inspection,
    KeptWork,
    LogLine,
    OutputTarget,
)
from conversions.news import News, group_name
from conversions.pipeline.job import Job
from conversions.pipeline.steps import Step
from conversions.secrets import take_secrets, with_secrets
from conversions.targets import job_of_now
from inventory.models import SourceVM
from v2vweb.celery import host_queue, send

logger = logging.getLogger(__name__)

Status = Conversion.Status
StepStatus = ConversionStep.Status
RETRIED = (Status.FAILED, Status.STOPPED, Status.LOST)
# Warnings of these steps are about the host, not about the result.
_HOST_STEPS = (Step.REQUEST, Step.HANDLE, Step.LAUNCH)
# What only the supervisor of a run writes, while it runs.
_OWN = ["last_seq", "last_output_at", "step", "warnings", "reports", "result"]
# Two threads of one worker must not both see its last free place.
_claiming = threading.Lock()


def start_conversion(
    vm: SourceVM,
    job: Job,
    *,
    user: Any,
    target: OutputTarget | None = None,
    retry_of: Conversion | None = None,
    continues: KeptWork | None = None,
) -> Conversion:
    """Ask for a run of the engine; a worker takes it as soon as one has room.

    `target` is where the job says the result goes, when that is a named one.
    What `continues` kept files is for the worker of the host where they are.
    """
    values, sealed = take_secrets(job)
    del values["work_dir"]
    with transaction.atomic():
        conversion = Conversion.objects.create(
            vm=vm,
            vm_name=vm.name,
            name=job.name or vm.name,
            mode=job.mode,
            job=values,
            target=target,
            sealed_secrets=sealed,
            created_by=user,
            retry_of=retry_of,
            continues=continues,
            worker=continues.worker if continues else "",
        )
        ConversionStep.objects.bulk_create(
            ConversionStep(conversion=conversion, position=position, name=step)
            for position, step in enumerate(Step, 1)
        )
        transaction.on_commit(lambda: _send_to_worker(conversion))
    return conversion


def _send_to_worker(conversion: Conversion) -> None:
    from conversions.tasks import run_conversion

    queue = host_queue(conversion.worker) if conversion.worker else None
    send(run_conversion, str(conversion.uuid), queue=queue)


def retry_conversion(conversion: Conversion, *, user: Any) -> Conversion:
    """Ask for the same once more, from its start.  Raises ValueError without a machine, JobError.

    The machine is read, and its target written to, as their servers are reached now, which may have
    other addresses and passwords.
    """
    vm = conversion.vm
    if vm is None or vm.status != SourceVM.Status.READY:
        raise ValueError("the machine is gone")
    job = replace(job_of_now(conversion), source=input_of(vm), resume=None)
    return start_conversion(vm, job, user=user, target=conversion.target, retry_of=conversion)


def continue_conversion(
    kept: KeptWork, job: Job, *, user: Any, target: OutputTarget | None
) -> Conversion | None:
    """Ask for a run that goes on from the copy with kept files; None when they are in use or gone.

    The machine is there; the form has seen to that.
    """
    with transaction.atomic():
        row = KeptWork.objects.select_for_update().filter(pk=kept.pk, discarding=False).first()
        first = row.conversion if row else None
        if row is None or first is None or first.vm is None or row.is_in_use:
            return None
        job = replace(job, resume=row.folder)
        return start_conversion(
            first.vm, job, user=user, target=target, retry_of=first, continues=row
        )


def discard_kept_files(kept: KeptWork) -> bool:
    """Have the host delete kept files; tell whether they are not in use."""
    from conversions.tasks import discard_kept

    with transaction.atomic():
        row = KeptWork.objects.select_for_update().filter(pk=kept.pk).first()
        if row is None or row.is_in_use:
            return row is None
        row.discarding = True
        row.save(update_fields=["discarding"])
        queue, pk = host_queue(row.worker), str(row.pk)
        transaction.on_commit(lambda: send(discard_kept, pk, queue=queue))
    return True


def job_of(conversion: Conversion) -> Job:
    """Return the job of a run, with its secrets.  Raises JobError, ValueError."""
    return with_secrets(conversion.job, conversion.sealed_secrets)


def stop_conversion(conversion: Conversion, *, user: Any, force: bool = False) -> bool:
    """Ask for a stop; one that still waits is stopped at once.  Tell whether it was active."""
    now = timezone.now()
    asked = {"stop_requested_at": now, "stop_requested_by": user}
    row = Conversion.objects.filter(pk=conversion.pk)
    if row.filter(status=Status.WAITING).update(
        status=Status.STOPPED, finished_at=now, revision=F("revision") + 1, **asked
    ):
        conversion.steps.filter(status=StepStatus.WAITING).update(status=StepStatus.CANCELLED)
        announce(conversion)
        return True
    if row.filter(status=Status.RUNNING).update(
        status=Status.STOPPING, force_stop=force, revision=F("revision") + 1, **asked
    ):
        announce(conversion)
        return True
    if force and row.filter(status=Status.STOPPING).update(force_stop=True):
        return True
    return row.filter(status=Status.STOPPING).exists()


def claim_conversion(uuid: str) -> Conversion | None:
    """Take a waiting conversion for this worker; None when it is taken or the worker is full.

    One that continues kept files is for the worker of their host alone.
    """
    now = timezone.now()
    with _claiming, transaction.atomic():
        busy = Conversion.objects.on_worker().filter(worker=settings.WORKER_NAME).count()
        if busy >= settings.CONVERSIONS_AT_ONCE:
            return None
        mine = Q(worker="") | Q(worker=settings.WORKER_NAME)
        taken = Conversion.objects.filter(mine, uuid=uuid, status=Status.WAITING).update(
            status=Status.RUNNING,
            worker=settings.WORKER_NAME,
            started_at=now,
            heartbeat_at=Now(),
            last_output_at=now,
            revision=F("revision") + 1,
        )
    if not taken:
        return None
    conversion = Conversion.objects.get(uuid=uuid)
    announce(conversion)
    return conversion


def announce(conversion: Conversion) -> None:
    """Nudge every open page of a conversion, after the commit; a lost nudge costs nothing."""
    transaction.on_commit(lambda: _send_news(conversion))


def _send_news(conversion: Conversion) -> None:
    layer = get_channel_layer()
    if layer is None:
        return
    news: News = {
        "type": "conversion.news",
        "upto": conversion.last_seq,
        "revision": conversion.revision,
    }
    try:
        async_to_sync(layer.group_send)(group_name(conversion.uuid), news)
    except Exception:  # the layer is down: pages fetch on their own clock
        logger.warning("No news could be sent of %s (ignored).", conversion, exc_info=True)


def record_events(conversion: Conversion, events: Sequence[dict[str, Any]]) -> None:
    """Store a batch of the engine's events in one transaction, then announce it.

    `conversion` is this process's own copy: what only its supervisor writes is ahead of or equal to
    the row's.  When the database fails the copy is as before, and the batch can be given again,
    also when it was stored and only the word of that was lost.  The reports can be large, so a
    batch without one does not write them.
    """
    before = {name: copy(getattr(conversion, name)) for name in _OWN}
    row = Conversion.objects.filter(pk=conversion.pk)
    try:
        with transaction.atomic():
            if row.filter(last_seq__gt=conversion.last_seq).exists():
                conversion.refresh_from_db(fields=_OWN)
                return
            _apply(conversion, events)
            conversion.revision += 1
            own = {name: getattr(conversion, name) for name in _OWN}
            changed = {name: value for name, value in own.items() if value != before[name]}
            row.update(**changed, heartbeat_at=Now(), revision=F("revision") + 1)
            announce(conversion)
    except Error:
        for name, value in before.items():
            setattr(conversion, name, value)
        raise


def _apply(conversion: Conversion, events: Sequence[dict[str, Any]]) -> None:
    """Take a batch over into the copy, and into the rows of lines, steps, disks and reports."""
    lines: list[LogLine] = []
    progress: dict[str, dict[str, Any]] = {}
    for event in events:
        kind = event["type"]
        if kind == "log":
            lines.append(_line(conversion, event))
        elif kind == "progress":
            progress[event["disk"]] = event
        elif kind == "step":
            _record_step(conversion, event)
        elif kind == "report":
            conversion.reports[event["name"]] = event["data"]
            _record_report(conversion, event["name"], event["data"])
        elif kind == "result":
            conversion.result = {
                k: event.get(k, "") for k in ("status", "code", "message", "remedy", "step")
            }
    LogLine.objects.bulk_create(lines)
    for event in progress.values():
        _record_progress(conversion, event)
    conversion.last_output_at = timezone.now()


def _line(conversion: Conversion, event: dict[str, Any]) -> LogLine:
    """Give a log event the next number of its conversion; count warnings where they belong."""
    conversion.last_seq += 1
    if event["level"] == LogLine.Level.WARNING and event["step"] not in _HOST_STEPS:
        conversion.warnings += 1
        conversion.steps.filter(name=event["step"]).update(warnings=F("warnings") + 1)
    return LogLine(
        conversion=conversion,
        seq=conversion.last_seq,
        at=_time(event),
        step=event["step"],
        level=event["level"],
        text=event["text"],
    )


def _time(event: dict[str, Any]) -> datetime:
    return parse_datetime(str(event.get("at", ""))) or timezone.now()


def _record_step(conversion: Conversion, event: dict[str, Any]) -> None:
    steps = conversion.steps.filter(name=event["name"])
    state = event["state"]
    if state == "started":
        conversion.step = event["name"]
        steps.update(
            status=StepStatus.RUNNING,
            started_at=_time(event),
            first_seq=conversion.last_seq + 1,
        )
    elif state == "skipped":
        steps.update(status=StepStatus.SKIPPED, reason=event["reason"][:255])
    elif state == "failed":
        steps.update(status=StepStatus.FAILED, seconds=event["seconds"])
    else:
        steps.filter(warnings__gt=0).update(status=StepStatus.WARNED, seconds=event["seconds"])
        steps.filter(warnings=0).update(status=StepStatus.DONE, seconds=event["seconds"])


def _record_report(conversion: Conversion, name: str, data: Any) -> None:
    """Give the reports that pages list and filter by rows of their own."""
    if name == "overlays":
        for index, overlay in enumerate(data):
            ConversionDisk.objects.update_or_create(
                conversion=conversion,
                name=overlay["sd"],
                defaults={"index": index, "virtual_bytes": overlay["virtual_size_bytes"]},
            )
    elif name == "estimate":
        for sd, size in data["disks"].items():
            conversion.disks.filter(name=sd).update(estimated_bytes=size)
    elif name == "copy_plan":
        for sd, size in data.items():
            conversion.disks.filter(name=sd, total_bytes=None).update(total_bytes=size)
    elif name == "copy":
        for disk in data:
            conversion.disks.filter(name=disk["disk"]).update(
                actual_bytes=disk["allocated_bytes"],
                seconds=disk["seconds"],
                path=disk["path"],
                rate=disk["rate"],
            )
    elif name == "inspection":
        Inspection.objects.update_or_create(
            conversion=conversion,
            defaults={
                "vm": conversion.vm,
                "product_name": data["product_name"][:255],
                "distro": data["distro"][:60],
                "arch": data["arch"][:20],
            },
        )
    elif name == "concerns":
        inspection = Inspection.objects.filter(conversion=conversion).first()
        if inspection is not None:
            inspection.concerns.all().delete()
            Concern.objects.bulk_create(
                Concern(
                    inspection=inspection,
                    position=position,
                    level=concern["level"],
                    code=concern["code"][:60],
                    title=concern["title"][:255],
                    found=concern["found"],
                    meaning=concern["meaning"],
                    remedy=concern["remedy"],
                )
                for position, concern in enumerate(data)
            )


def _record_progress(conversion: Conversion, event: dict[str, Any]) -> None:
    """Overwrite a disk's progress; the bytes never fall.

    The rate is the one of lately that the engine tells, else the mean since the start.
    """
    disk = conversion.disks.filter(name=event["disk"]).first()
    if disk is None:
        disk = ConversionDisk(
            conversion=conversion, name=event["disk"], index=conversion.disks.count()
        )
    at = _time(event)
    disk.started_at = disk.started_at or at
    disk.total_bytes = event["total_bytes"]
    if event["done_bytes"] > disk.done_bytes:
        disk.at = at
        disk.done_bytes = event["done_bytes"]
    seconds = (at - disk.started_at).total_seconds()
    mean = disk.done_bytes / seconds if seconds > 0 else None
    disk.rate = event.get("rate", mean)
    disk.save()


def beat(conversion: Conversion) -> None:
    """Renew the lease of a running conversion, by the one clock that all hosts share."""
    Conversion.objects.filter(pk=conversion.pk).update(heartbeat_at=Now())


def finish_conversion(conversion: Conversion, status: str, result: dict[str, str]) -> None:
    """End a conversion that a worker holds; steps that ran have failed or were cancelled."""
    stopped = status == Status.STOPPED
    with transaction.atomic():
        moved = (
            Conversion.objects.on_worker()
            .filter(pk=conversion.pk)
            .update(
                status=status,
                result=result,
                reports=conversion.reports,
                finished_at=timezone.now(),
                pid=None,
                # A retry of what failed needs them; what is done needs them no more.
                sealed_secrets=""
                if status in (Status.DONE, Status.WARNED)
                else F("sealed_secrets"),
                revision=F("revision") + 1,
            )
        )
        if not moved:
            return
        if status not in (Status.DONE, Status.WARNED):
            running = conversion.steps.filter(status=StepStatus.RUNNING)
            running.update(status=StepStatus.CANCELLED if stopped else StepStatus.FAILED)
            if stopped:
                conversion.steps.filter(status=StepStatus.FAILED).update(
                    status=StepStatus.CANCELLED
                )
            conversion.steps.filter(status=StepStatus.WAITING).update(status=StepStatus.CANCELLED)
        conversion.refresh_from_db()
        announce(conversion)


def lost_since() -> Combinable:
    """Return the time before which a last heartbeat means that the worker is gone."""
    return Now() - timedelta(seconds=settings.LOST_AFTER_SECONDS)
