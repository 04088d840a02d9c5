"""Background work of the inventory: checking what has arrived, clearing what never will."""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task
from django.utils import timezone

from inventory import actions, hosts, incoming
from inventory.models import LibvirtHost, OvaUpload

EXPIRE_AFTER = timedelta(days=7)
STALE_CHECK = timedelta(minutes=5)


@shared_task
def check_upload(uuid: str) -> None:
    """Check a complete upload or a file of the import folder."""
    upload = OvaUpload.objects.filter(uuid=uuid, status=OvaUpload.Status.CHECKING).first()
    if upload is None:
        return
    if upload.origin == OvaUpload.Origin.IMPORT:
        actions.check_import(upload)
    else:
        actions.check_received(upload)


@shared_task
def refresh_host(uuid: str) -> None:
    """Read the domains of one host, if it is due."""
    if host := LibvirtHost.objects.filter(uuid=uuid).first():
        hosts.refresh(host)


@shared_task
def refresh_hosts() -> None:
    """Read the hosts that are due one after another, the one that waits longest first.

    Ends as soon as enough other tasks are doing the same.
    """
    while (host := hosts.due_hosts().first()) is not None:
        if not hosts.refresh(host):
            return


@shared_task
def tidy_uploads() -> None:
    """Cancel uploads that nobody continued for a week; check again what a crash left unchecked."""
    now = timezone.now()
    for kind in incoming.kinds():
        kind.tidy(now - EXPIRE_AFTER)
    for upload in OvaUpload.objects.filter(
        status=OvaUpload.Status.CHECKING, updated_at__lt=now - STALE_CHECK
    ):
        OvaUpload.objects.filter(pk=upload.pk).update(updated_at=now)
        check_upload.delay(str(upload.uuid))
