"""The history of runs: its filters, its counts, its exports."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from typing import Any

from django.db.models import Count, Q, QuerySet, Sum
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from conversions.forms import HistoryFilter
from conversions.models import Conversion

S = Conversion.Status
# The chips: key in the address, words, statuses.
CHIPS: list[tuple[str, str | Promise, list[Conversion.Status]]] = [
    ("running", _("Running"), [S.RUNNING, S.STOPPING]),
    ("waiting", _("Waiting"), [S.WAITING]),
    ("done", _("Done"), [S.DONE]),
    ("warned", _("Done with warnings"), [S.WARNED]),
    ("failed", _("Failed"), [S.FAILED]),
    ("lost", _("Lost"), [S.LOST]),
    ("stopped", _("Stopped"), [S.STOPPED]),
]
COLUMNS = [
    "number",
    "uuid",
    "machine",
    "name",
    "mode",
    "status",
    "asked_for",
    "asked_by",
    "started",
    "ended",
    "seconds",
    "bytes",
    "conversion_host",
    "warnings",
    "error_code",
    "error_message",
]


def filtered(form: HistoryFilter) -> QuerySet[Conversion]:
    """Return the runs that fit every filter but the status."""
    rows = Conversion.objects.all()
    if not form.is_valid():
        # A filter that makes no sense is left out; the others still count.
        form.errors.clear()
    values = form.cleaned_data
    for word in (values.get("q") or "").split():
        condition = Q(vm_name__icontains=word) | Q(name__icontains=word)
        number = word.removeprefix("#")
        if number.isdecimal() and len(number) < 19:
            condition |= Q(pk=int(number))
        rows = rows.filter(condition)
    if values.get("mode"):
        rows = rows.filter(mode=values["mode"])
    if values.get("who"):
        rows = rows.filter(created_by__username=values["who"])
    if values.get("since"):
        rows = rows.filter(created_at__date__gte=values["since"])
    if values.get("until"):
        rows = rows.filter(created_at__date__lte=values["until"])
    return rows


def with_status(rows: QuerySet[Conversion], key: str) -> QuerySet[Conversion]:
    """Keep the runs of one chip; an unknown key keeps all."""
    for chip, _words, statuses in CHIPS:
        if chip == key:
            return rows.filter(status__in=statuses)
    return rows


def chips(rows: QuerySet[Conversion], chosen: str) -> list[dict[str, Any]]:
    """Return every chip with its count, and whether it is the chosen one."""
    counts = dict(rows.order_by().values_list("status").annotate(Count("pk")))
    found: list[dict[str, Any]] = [
        {"key": "", "words": _("All"), "count": sum(counts.values()), "is_chosen": not chosen}
    ]
    for key, words, statuses in CHIPS:
        count = sum(counts.get(status, 0) for status in statuses)
        found.append({"key": key, "words": words, "count": count, "is_chosen": key == chosen})
    return found


def with_bytes(rows: QuerySet[Conversion]) -> QuerySet[Conversion]:
    """Add what was copied, over all disks, as `copied_bytes`."""
    return rows.select_related("created_by", "inspection").annotate(
        copied_bytes=Sum("disks__done_bytes")
    )


def export_rows(rows: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Return runs as flat records, keys as COLUMNS, times in ISO 8601 with zone."""
    for row in rows:
        elapsed = row.elapsed
        yield {
            "number": row.pk,
            "uuid": str(row.uuid),
            "machine": row.vm_name,
            "name": row.name,
            "mode": row.mode,
            "status": row.status,
            "asked_for": row.created_at.isoformat(),
            "asked_by": row.created_by.get_username() if row.created_by else None,
            "started": row.started_at.isoformat() if row.started_at else None,
            "ended": row.finished_at.isoformat() if row.finished_at else None,
            "seconds": round(elapsed.total_seconds(), 1) if elapsed is not None else None,
            "bytes": getattr(row, "copied_bytes", None),
            "conversion_host": row.worker,
            "warnings": row.warnings,
            "error_code": row.result.get("code", ""),
            "error_message": row.result.get("message", ""),
        }


class _Echo:
    """A file that hands back what is written to it, for streaming."""

    def write(self, text: str) -> str:
        return text


def csv_lines(rows: Iterable[Any]) -> Iterator[str]:
    """Return runs as CSV, line by line."""
    writer = csv.DictWriter(_Echo(), COLUMNS)
    yield writer.writer.writerow(COLUMNS)
    for record in export_rows(rows):
        yield writer.writerow({key: _harmless(value) for key, value in record.items()})


def json_parts(rows: Iterable[Any]) -> Iterator[str]:
    """Return runs as one JSON list, record by record."""
    separator = "["
    for record in export_rows(rows):
        yield f"{separator}\n{json.dumps(record)}"
        separator = ","
    yield "[]\n" if separator == "[" else "\n]\n"


def _harmless(value: Any) -> Any:
    """Keep a spreadsheet from taking a stranger's name for a formula."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value
