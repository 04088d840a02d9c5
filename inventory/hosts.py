"""The verbs of hosts: add, ask for a reading, read, remove."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from inventory.host_store import store_domains
from inventory.models import LibvirtHost, SourceVM
from inventory.sealing import seal
from inventory.sources.errors import SourceError
from inventory.sources.libvirt_child import read_host
from v2vweb.celery import send

logger = logging.getLogger(__name__)


def add_host(values: Mapping[str, Any], password: str, *, user: Any) -> LibvirtHost:
    """Take a host into the inventory; its machines follow as soon as a worker has read it.

    `values` are fields of the model, the password is "" for none.
    """
    with transaction.atomic():
        host = LibvirtHost(**values, created_by=user)
        _seal_password(host, password)
        host.save()
        request_refresh(host)
    return host


def change_host(host: LibvirtHost, values: Mapping[str, Any], password: str | None) -> None:
    """Change what is known of a host and have it read anew; None leaves the password as it is.

    A reading that is under way asks what the host was before, so its result does not count.
    """
    names = [*values, "refreshing_since"]
    for name, value in values.items():
        setattr(host, name, value)
    host.refreshing_since = None
    if password is not None:
        _seal_password(host, password)
        names += ["sealed_password", "password_set_at"]
    with transaction.atomic():
        host.save(update_fields=names)
        request_refresh(host)


def _seal_password(host: LibvirtHost, password: str) -> None:
    host.sealed_password = seal(password) if password else ""
    host.password_set_at = timezone.now() if password else None


def request_refresh(host: LibvirtHost) -> None:
    """Ask for a reading now; without a free worker it is done as soon as there is one."""
    from inventory.tasks import refresh_host

    LibvirtHost.objects.filter(pk=host.pk).update(wanted_at=timezone.now())
    transaction.on_commit(lambda: send(refresh_host, str(host.uuid)))


def due_hosts() -> QuerySet[LibvirtHost]:
    """Return the hosts that somebody waits for or that were not read for a while, longest first."""
    now = timezone.now()
    stale = now - timedelta(seconds=settings.HOST_REFRESH_SECONDS)
    rows = LibvirtHost.objects.filter(
        Q(wanted_at__isnull=False) | Q(tried_at__isnull=True) | Q(tried_at__lt=stale)
    )
    free = Q(refreshing_since__isnull=True) | Q(refreshing_since__lte=_lease_end())
    return rows.filter(free).order_by(F("tried_at").asc(nulls_first=True))


def _lease_end() -> datetime:
    """Return since when a reading that has not ended belongs to a worker that is no more."""
    return timezone.now() - timedelta(seconds=settings.HOST_READ_SECONDS + 60)


def _claim(host: LibvirtHost) -> bool:
    """Take a host that is due, unless enough are being read; of two workers one gets it."""
    now = timezone.now()
    with transaction.atomic():
        reading = LibvirtHost.objects.filter(refreshing_since__gt=_lease_end())
        if reading.count() >= settings.HOSTS_AT_ONCE:
            return False
        moved = due_hosts().filter(pk=host.pk).order_by().update(
            refreshing_since=now, tried_at=now, wanted_at=None
        )  # fmt: skip
    host.refreshing_since = now
    return moved == 1


def refresh(host: LibvirtHost) -> bool:
    """Read a host that is due and store what it has, or why it cannot be read.

    Returns False when it is not due, is being read, or too many others are; nothing changes then.
    """
    if not _claim(host):
        return False
    started = timezone.now()
    try:
        listing = read_host(host.access(), with_domains=True, seconds=settings.HOST_READ_SECONDS)
    except SourceError as error:
        logger.warning("The host %s cannot be read: %s", host.name, error.message)
        _release(host, error.code, f"{error.message} {error.remedy}".strip())
        return True
    now = timezone.now()
    try:
        with transaction.atomic():
            # Somebody else's by now, or removed, when the lease is not what it was.
            ours = LibvirtHost.objects.filter(pk=host.pk, refreshing_since=host.refreshing_since)
            if ours.update(
                refreshing_since=None, state=LibvirtHost.State.FRESH, refreshed_at=now,
                description=listing.description[:300], code="", message="",
            ):  # fmt: skip
                store_domains(host, listing.domains, since=started, now=now)
    except Exception:
        _release(
            host,
            "E-LV-STORE",
            _("What was read from it could not be stored. The log of the worker says why."),
        )
        raise
    return True


def _release(host: LibvirtHost, code: str, message: str) -> None:
    """Note why a reading failed and let others try."""
    LibvirtHost.objects.filter(pk=host.pk, refreshing_since=host.refreshing_since).update(
        refreshing_since=None, state=LibvirtHost.State.FAILED, code=code, message=message
    )


def remove_host(host: LibvirtHost, *, user: Any) -> None:
    """Take a host off the inventory; machines with a history stay as gone, the others go."""
    with transaction.atomic():
        machines = SourceVM.objects.filter(host=host)
        machines.filter(conversions__isnull=True, inspections__isnull=True).delete()
        machines.update(
            status=SourceVM.Status.GONE,
            problem=_("Its host %(host)s was removed by %(user)s.")
            % {"host": host.name, "user": user},
        )
        host.delete()
