"""What a conversion's page shows and how it is drawn: one source for first paint, socket, poll."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Q, QuerySet
from django.http import Http404
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from conversions.description import description_of
from conversions.health import host_answers
from conversions.models import Conversion, ConversionDisk, LogLine
from conversions.pipeline.job import Mode
from conversions.pipeline.steps import Step

WINDOW = 500
QUIET_AFTER = timedelta(seconds=120)
FORCE_AFTER = timedelta(seconds=30)
ESTIMATE_AFTER_SECONDS = 30
PARTS = ("head", "steps", "progress", "outcome")
_LEVELS = {
    "error": ["error"],
    "warning": ["error", "warning"],
    "info": ["error", "warning", "info"],
    "debug": ["error", "warning", "info", "debug"],
}
# The fifteen steps in the words of the page.
PHASES: tuple[tuple[str, Any, tuple[Step, ...]], ...] = (
    ("open", lambda: _("Open"), (Step.REQUEST, Step.SOURCE, Step.OVERLAYS, Step.TARGETS)),
    ("inspect", lambda: _("Inspect"), (Step.HANDLE, Step.LAUNCH, Step.INSPECTION, Step.SPACE)),
    ("convert", lambda: _("Convert"), (Step.CONVERSION,)),
    ("trim", lambda: _("Trim"), (Step.TRIM, Step.CLOSE, Step.TARGET_BUSES)),
    ("copy", lambda: _("Copy"), (Step.COPY,)),
    ("finish", lambda: _("Finish"), (Step.METADATA, Step.FINISH)),
)


def number(text: str | None) -> int:
    """Return a line number from an address, 0 for anything else."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 16 else 0


@dataclass(frozen=True, slots=True)
class LogFilter:
    """What of a log is shown: levels from `level` up, one step, lines containing `q`."""

    level: str = ""
    step: str = ""
    q: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> LogFilter:
        """Read the filter from an address; values that are not known count as none."""
        level, step = query.get("level", ""), query.get("step", "")
        return cls(
            level=level if level in _LEVELS else "",
            step=step if step in set(Step) else "",
            q=query.get("q", "").replace("\0", "")[:200],
        )

    def apply(self, rows: QuerySet[LogLine]) -> QuerySet[LogLine]:
        """Keep the lines of this filter."""
        condition = Q()
        if self.level:
            condition &= Q(level__in=_LEVELS[self.level])
        if self.step:
            condition &= Q(step=self.step)
        if self.q:
            condition &= Q(text__icontains=self.q)
        return rows.filter(condition)

    @property
    def is_set(self) -> bool:
        """Tell whether anything is left out."""
        return bool(self.level or self.step or self.q)


def get_conversion_for(user: Any, uuid: UUID) -> Conversion:
    """Return the conversion with that UUID.  Raises Http404."""
    found = (
        Conversion.objects.select_related(
            "vm", "created_by", "stop_requested_by", "retry_of", "own_kept", "continues"
        )
        .filter(uuid=uuid)
        .first()
    )
    if found is None:
        raise Http404(_("There is no such conversion."))
    return found


def lines_of(conversion: Conversion) -> QuerySet[LogLine]:
    """Return a conversion's lines up to the last one its row knew of when it was read.

    Whatever is stored after that comes as news, so nothing is shown twice.
    """
    return LogLine.objects.filter(conversion=conversion, seq__lte=conversion.last_seq)


def last_window(conversion: Conversion, log_filter: LogFilter) -> list[LogLine]:
    """Return the newest lines, at most a window of them, oldest first."""
    rows = log_filter.apply(lines_of(conversion)).order_by("-seq")[:WINDOW]
    return list(rows)[::-1]


def window_before(conversion: Conversion, log_filter: LogFilter, before: int) -> list[LogLine]:
    """Return the lines before a number, at most a window of them, oldest first."""
    rows = log_filter.apply(lines_of(conversion)).filter(seq__lt=before).order_by("-seq")[:WINDOW]
    return list(rows)[::-1]


def window_from(conversion: Conversion, log_filter: LogFilter, first: int) -> list[LogLine]:
    """Return the lines from a number on, at most a window of them."""
    rows = log_filter.apply(lines_of(conversion)).filter(seq__gte=first)
    return list(rows.order_by("seq")[:WINDOW])


_cache: OrderedDict[Any, Any] = OrderedDict()
_cache_lock = threading.Lock()
_CACHE_ENTRIES = 64


def _remembered(key: Any, make: Any) -> Any:
    """Return what `make` gives, once for all viewers in this process who ask the same."""
    with _cache_lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
        value = _cache[key] = make()
        while len(_cache) > _CACHE_ENTRIES:
            _cache.popitem(last=False)
        return value


def rows_after(uuid: UUID, after: int, log_filter: LogFilter) -> dict[str, Any]:
    """Return the lines after a number as {"html", "from", "to", "count", "more"}, one page.

    `to` is the number up to which everything that passes the filter has been sent.
    """
    pk, head = Conversion.objects.filter(uuid=uuid).values_list("pk", "last_seq").get()
    if head <= after:
        return {"html": "", "from": after, "to": after, "count": 0, "more": False}

    def make() -> dict[str, Any]:
        rows = LogLine.objects.filter(conversion_id=pk, seq__gt=after, seq__lte=head)
        lines = list(log_filter.apply(rows).order_by("seq")[: WINDOW + 1])
        more = len(lines) > WINDOW
        lines = lines[:WINDOW]
        return {
            "html": render_to_string("conversions/_log_rows.html", {"lines": lines}),
            "from": after,
            "to": lines[-1].seq if more else head,
            "count": len(lines),
            "more": more,
        }

    result: dict[str, Any] = _remembered(("rows", pk, after, head, log_filter), make)
    return result


def parts_since(uuid: UUID, revision: int) -> tuple[int, dict[str, str]]:
    """Return the page's revision and its parts as HTML, drawn once per revision and second."""
    now = timezone.now()
    current = Conversion.objects.filter(uuid=uuid).values_list("revision", flat=True).get()

    def make() -> dict[str, str]:
        conversion = get_conversion_for(None, uuid)
        context = page_context(conversion)
        parts: dict[str, str] = {
            name: render_to_string(f"conversions/_live_{name}.html", context) for name in PARTS
        }
        parts["title"] = page_title(conversion)
        parts["active"] = "1" if conversion.is_active else ""
        return parts

    key = ("parts", uuid, current, now.replace(microsecond=0))
    return current, _remembered(key, make)


def page_title(conversion: Conversion) -> str:
    """Return the title of the page, which carries the state."""
    return f"{shown_state(conversion)[1]} · {conversion.vm_name} · #{conversion.pk}"


def shown_state(conversion: Conversion) -> tuple[str, str]:
    """Return the state as key and word; one that says nothing is quiet, without a worker lost."""
    beat = conversion.heartbeat_at or timezone.now()
    held = conversion.status in (Conversion.Status.RUNNING, Conversion.Status.STOPPING)
    if held and timezone.now() - beat > timedelta(seconds=settings.LOST_AFTER_SECONDS):
        return "lost", _("Lost")
    if conversion.status == Conversion.Status.RUNNING and silence(conversion) > QUIET_AFTER:
        return "quiet", _("Quiet")
    return conversion.status, str(conversion.get_status_display())


def silence(conversion: Conversion) -> timedelta:
    """Return for how long nothing came: no byte while disks are copied, else no output."""
    now = timezone.now()
    last = conversion.last_output_at or now
    if conversion.step == Step.COPY:
        views = [disk_view(disk, 0, 0) for disk in conversion.disks.all()]
        moved = [view["disk"].at or view["disk"].started_at for view in views if view["busy"]]
        last = min(last, max(moved, default=last))
    return now - last


def page_context(conversion: Conversion) -> dict[str, Any]:
    """Return what the parts of the page need; templates list the names."""
    key, word = shown_state(conversion)
    steps = list(conversion.steps.all())
    disks = list(conversion.disks.all())
    now = timezone.now()
    asked = conversion.stop_requested_at
    views = [disk_view(disk, number, len(disks)) for number, disk in enumerate(disks, 1)]
    return {
        "conversion": conversion,
        "state_key": key,
        "state_word": word,
        "sentence": sentence(conversion, key, steps),
        "phases": phases(steps),
        "steps": steps,
        "disks": views,
        "together": together(views),
        # Large disks are copied already while the guest is being converted.
        "copying": conversion.is_active
        and (conversion.step == Step.COPY or any(disk.started_at for disk in disks)),
        "inspection": getattr(conversion, "inspection", None),
        "copies": conversion.reports.get("copy", []),
        "source_check": conversion.reports.get("source_check"),
        "files": conversion.reports.get("files", {}),
        "description": None if conversion.is_active else description_of(conversion),
        "kept": None if conversion.is_active or conversion.is_success else conversion.kept,
        "leftovers": conversion.reports.get("leftovers", {}),
        "failed_line": failed_line(conversion),
        "may_force": conversion.status == Conversion.Status.STOPPING
        and not conversion.is_past_stopping
        and asked is not None
        and now - asked > FORCE_AFTER,
        "now": now,
    }


def phases(steps: list[Any]) -> list[dict[str, Any]]:
    """Group the fifteen steps into the six words of the page: state, seconds, warnings, steps."""
    by_name = {step.name: step for step in steps}
    result = []
    for name, word, members in PHASES:
        rows = [by_name[m] for m in members if m in by_name]
        states = [row.status for row in rows]
        result.append(
            {
                "name": name,
                "word": word(),
                "status": phase_status(states),
                "seconds": sum(row.seconds or 0 for row in rows),
                "since": next((r.started_at for r in rows if r.status == "running"), None),
                "warnings": sum(row.warnings for row in rows),
                "reason": next((r.reason for r in rows if r.reason), ""),
                "steps": rows,
            }
        )
    return result


def phase_status(states: list[str]) -> str:
    """Return the one state of several steps."""
    for status in ("failed", "running", "cancelled"):
        if status in states:
            return status
    left = [s for s in states if s != "skipped"]
    if not left:
        return "skipped"
    if "waiting" in left:
        return "waiting" if all(s == "waiting" for s in left) else "running"
    return "warned" if "warned" in left else "done"


def disk_view(disk: ConversionDisk, index: int, count: int) -> dict[str, Any]:
    """Return one disk's progress: bytes, percent (99 until done), rate, range of time left.

    `silent` is how it stands when no byte comes: "" for bytes that do, "scanning" while that is
    ordinary, "stalled" when it has lasted; `age` are the seconds since the last one.
    """
    total, done, now = disk.total_bytes, disk.done_bytes, timezone.now()
    complete = disk.actual_bytes is not None
    arrived = not complete and total is not None and 0 < total <= done
    busy = disk.started_at is not None and not complete and not arrived
    moved = disk.at or disk.started_at
    age = int((now - moved).total_seconds()) if moved else None
    silent = ""
    if busy and age is not None and age >= QUIET_AFTER.seconds:
        silent = "stalled"
    elif busy and disk.rate == 0:
        silent = "scanning"
    return {
        "disk": disk,
        "index": index,
        "count": count,
        "percent": 100 if complete else percent_of(done, total),
        "complete": complete,
        "arrived": arrived,
        "busy": busy,
        "started": disk.started_at is not None,
        "silent": silent,
        "left": time_left(disk.started_at, disk.rate, total, done) if busy else None,
        "age": age,
    }


def together(views: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the figure over all disks, weighted by bytes; None for one disk or before the plan."""
    disks = [view["disk"] for view in views]
    if len(disks) < 2 or any(disk.total_bytes is None for disk in disks):
        return None
    total = sum(disk.total_bytes for disk in disks)
    done = sum(min(disk.done_bytes, disk.total_bytes) for disk in disks)
    busy = [view["disk"] for view in views if view["busy"]]
    rate = sum(disk.rate or 0 for disk in busy)
    begun = min((disk.started_at for disk in disks if disk.started_at), default=None)
    complete = all(view["complete"] for view in views)
    return {
        "done": done,
        "total": total,
        "rate": rate,
        "percent": 100 if complete else percent_of(done, total),
        "left": time_left(begun, rate, total, done) if busy else None,
    }


def percent_of(done: int, total: int | None) -> int:
    """Return whole percent, 99 at most: only an end that was told is 100."""
    return min(99, 100 * done // total) if total else 0


def time_left(
    begun: datetime | None, rate: float | None, total: int | None, done: int
) -> tuple[int, int] | None:
    """Return the least and the most minutes that are left; None while that is still measured."""
    if not rate or not total or begun is None:
        return None
    if (timezone.now() - begun).total_seconds() < ESTIMATE_AFTER_SECONDS:
        return None
    seconds = (total - done) / rate
    return minutes(seconds * 0.8), minutes(seconds * 1.5)


def minutes(seconds: float) -> int:
    """Return whole minutes, at least 1."""
    return max(1, round(seconds / 60))


def failed_line(conversion: Conversion) -> int | None:
    """Return the number of the last error line, else of the last line, for the error card."""
    if conversion.status not in (Conversion.Status.FAILED, Conversion.Status.LOST):
        return None
    rows = lines_of(conversion).filter(level=LogLine.Level.ERROR)
    last_error = rows.order_by("-seq").values_list("seq", flat=True).first()
    return last_error or conversion.last_seq or None


def sentence(conversion: Conversion, key: str, steps: list[Any]) -> str:
    """Return the one sentence that says what the reader has to do, even if nothing."""
    status = Conversion.Status
    if key == status.WAITING and conversion.worker and not host_answers(conversion.worker):
        return _(
            "Waits for %(host)s, which has the converted disks and does not answer. See that its "
            "worker runs, or stop this and retry from the start."
        ) % {"host": conversion.worker}
    if key == status.WAITING:
        ahead = Conversion.objects.waiting().filter(created_at__lt=conversion.created_at).count()
        ahead += Conversion.objects.on_worker().count()
        return ngettext(
            "%(n)d run ahead of this one; a host runs %(limit)d at once.",
            "%(n)d runs ahead of this one; a host runs %(limit)d at once.",
            ahead,
        ) % {"n": ahead, "limit": settings.CONVERSIONS_AT_ONCE}
    if conversion.is_past_stopping and key != status.LOST:
        return _(
            "Nothing to do. The disks of the source are being changed; nothing stops that, and the "
            "machine must not be started before it has ended."
        )
    if key == "quiet":
        words = {"n": int(silence(conversion).total_seconds() // 60)}
        if conversion.step == Step.COPY:
            return _("No byte for %(n)d min; the worker is alive. Wait, or stop it.") % words
        return _("No output for %(n)d min; the worker is alive. Wait, or stop it.") % words
    if key == status.RUNNING:
        return _("Nothing to do. You can close this page.")
    if key == status.STOPPING:
        seconds = (timezone.now() - (conversion.stop_requested_at or timezone.now())).seconds
        return _("Stopping since %(n)d s; the engine ends what it started.") % {"n": seconds}
    if key in (status.STOPPED, status.FAILED, status.LOST) and conversion.kept:
        return _("The guest is converted and kept; only the copy is left. Continue when you like.")
    if key == status.STOPPED:
        who = conversion.stop_requested_by
        by = _("Stopped by %(user)s.") % {"user": who} if who else _("Stopped.")
        if conversion.reports.get("commit"):
            return f"{by} " + _("Read below what became of the disks.")
        return f"{by} " + _("The source is unchanged. Retry when you like.")
    if key == status.LOST and conversion.reports.get("commit"):
        return _("The worker stopped answering while the disks were changed. Read why below.")
    if key == status.LOST:
        return _("The worker stopped answering. The source is unchanged. Retry.")
    if key == status.FAILED:
        return _("Read why below, mend it, then retry.")
    if conversion.mode == "inspect":
        return _("Inspected. Read the report, then convert the machine.")
    if conversion.mode == "rehearse":
        return ngettext(
            "It would convert, with %(n)d warning. Nothing was kept.",
            "It would convert, with %(n)d warnings. Nothing was kept.",
            conversion.warnings,
        ) % {"n": conversion.warnings}
    if key == status.WARNED:
        return ngettext(
            "Converted; %(n)d thing to check in the log.",
            "Converted; %(n)d things to check in the log.",
            conversion.warnings,
        ) % {"n": conversion.warnings}
    return next_move(conversion.job)


def next_move(job: dict[str, Any]) -> str:
    """Return what to do with the result of a job."""
    if job.get("mode") == Mode.IN_PLACE:
        if job.get("define"):
            return _("Converted. It is defined anew on its host and can be started.")
        return _("Converted. Give it the definition below before you start it.")
    kind = (job.get("target") or {}).get("kind")
    if kind == "kubevirt":
        return _("Converted. Read the manifest, apply it with kubectl and start the machine.")
    if kind == "qemu":
        return _("Converted. Start it with the script beside the disks.")
    if kind == "libvirt":
        return _("Converted. It is defined on its host and can be started.")
    if kind == "openstack":
        return _("Converted. Start a server from the bootable volume, with the others attached.")
    if kind == "ovirt-upload":
        return _("Converted. It is a machine of oVirt now and can be started there.")
    return _("Converted. Define it with virsh define and start it.")
