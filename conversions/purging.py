"""Taking off the record what is no longer wanted: runs that ended, hosts that are gone."""

from __future__ import annotations

from django.db import transaction
from django.db.models import QuerySet

from conversions.health import is_answering
from conversions.models import (
    Concern,
    Conversion,
    ConversionDisk,
    ConversionHost,
    ConversionStep,
    Inspection,
    KeptWork,
    LogLine,
)


def purge(runs: QuerySet[Conversion]) -> int:
    """Delete those that have ended, with all that belongs to them; return how many that were.

    Each leaves its own entry in the audit record.
    """
    ended = list(runs.exclude(status__in=Conversion.ACTIVE).values_list("pk", flat=True))
    for pk in ended:
        Conversion.objects.defer("job", "reports").get(pk=pk).delete()
    return len(ended)


def belongings(runs: QuerySet[Conversion]) -> dict[str, int]:
    """Return how many rows go with runs, by what they are called; a log can be very long."""
    found = {
        Conversion: runs,
        ConversionStep: ConversionStep.objects.filter(conversion__in=runs),
        ConversionDisk: ConversionDisk.objects.filter(conversion__in=runs),
        LogLine: LogLine.objects.filter(conversion__in=runs),
        Inspection: Inspection.objects.filter(conversion__in=runs),
        Concern: Concern.objects.filter(inspection__conversion__in=runs),
    }
    return {str(model._meta.verbose_name_plural): rows.count() for model, rows in found.items()}


def kept_of(host: ConversionHost) -> QuerySet[KeptWork]:
    """Return what is on record as kept on a host."""
    return KeptWork.objects.filter(worker=host.name)


def forget_host(host: ConversionHost) -> bool:
    """Take a silent host and what it keeps off the record; tell whether it is silent.

    Only its own worker could delete the files; they stay where they are.
    """
    if is_answering(host.seen_at):
        return False
    with transaction.atomic():
        for kept in kept_of(host):
            kept.delete()
        host.delete()
    return True
