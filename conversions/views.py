"""One run of the engine: its page, its log, stopping it, running it again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods

from conversions import live
from conversions.actions import retry_conversion, stop_conversion
from conversions.description import description_of
from conversions.launch import form_instead, starting
from conversions.leftovers import work_dir
from conversions.live import LogFilter, get_conversion_for
from conversions.models import Conversion, LogLine
from conversions.pipeline.errors import JobError
from conversions.pipeline.job import Mode
from conversions.pipeline.steps import TITLES, Step
from inventory.access import (
    IN_PLACE,
    OPERATE,
    missing_role,
    operator_required,
    viewer_required,
)

# From here on the guest is converted.
COPY_STEPS = (Step.TARGET_BUSES, Step.COPY, Step.METADATA, Step.FINISH)


@require_GET
@viewer_required
def conversion(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Show a run: state, steps, progress or outcome, and the newest lines of its log."""
    found = get_conversion_for(request.user, uuid)
    context = live.page_context(found) | log_context(request, found)
    context |= {
        "page_title": live.page_title(found),
        "may_operate": request.user.has_perm(OPERATE),
        "may_stop": found.is_active
        and not found.is_past_stopping
        and (found.mode != Mode.IN_PLACE or request.user.has_perm(IN_PLACE)),
        "may_retry": found.vm is not None and not found.vm.refusal,
        # Known when it ends; the buttons wait for that.
        "may_keep": found.kept is not None or (found.is_active and keeps_converted(found)),
        "settings_list": settings_list(found),
    }
    return render(request, "conversions/conversion.html", context)


def log_context(request: HttpRequest, found: Conversion) -> dict[str, Any]:
    """Return the lines the address asks for: ?from= a number, or the newest; filtered."""
    query = {key: request.GET.get(key, "") for key in ("level", "step", "q")}
    log_filter = LogFilter.of(query)
    first = live.number(request.GET.get("from"))
    if first:
        lines = live.window_from(found, log_filter, first)
    else:
        lines = live.last_window(found, log_filter)
    total = log_filter.apply(live.lines_of(found)).count() if log_filter.is_set else found.last_seq
    return {
        "lines": lines,
        "log_filter": log_filter,
        "query": urlencode({key: value for key, value in query.items() if value}),
        "first_line": lines[0].seq if lines else 0,
        "last_line": lines[-1].seq if lines else 0,
        "is_at_end": not first or not lines or lines[-1].seq >= found.last_seq,
        "matching": total,
        "window": live.WINDOW,
        "previous": max(1, (lines[0].seq if lines else 1) - live.WINDOW),
        "step_choices": [(step.value, TITLES[step]) for step in Step],
        "level_choices": [
            (LogLine.Level.INFO, _("Info and worse")),
            (LogLine.Level.WARNING, _("Warnings and errors")),
            (LogLine.Level.ERROR, _("Errors")),
            (LogLine.Level.DEBUG, _("All but trace")),
        ],
    }


def settings_list(found: Conversion) -> list[tuple[str, Any]]:
    """Return the settings that a job has as name and words, nested ones as dotted names."""

    def flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from flat(f"{prefix}.{key}" if prefix else key, inner)
        elif isinstance(value, bool):
            yield prefix, _("yes") if value else _("no")
        elif isinstance(value, list):
            yield prefix, ", ".join(map(str, value))
        else:
            yield prefix, value

    return [(name, value) for name, value in flat("", found.job) if value not in (None, "")]


@require_GET
@viewer_required
def conversion_log(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Give earlier lines alone: ?before= a number."""
    found = get_conversion_for(request.user, uuid)
    log_filter = LogFilter.of(request.GET)
    before = live.number(request.GET.get("before")) or found.last_seq + 1
    lines = live.window_before(found, log_filter, before)
    context = {"lines": lines, "first_line": lines[0].seq if lines else 0}
    return render(request, "conversions/_log_rows.html", context)


@require_GET
@viewer_required
def conversion_live(request: HttpRequest, uuid: UUID) -> JsonResponse:
    """Give what the websocket would send, for pages that cannot open one."""
    get_conversion_for(request.user, uuid)
    after = live.number(request.GET.get("after"))
    rows = live.rows_after(uuid, after, LogFilter.of(request.GET))
    _revision, parts = live.parts_since(uuid, -1)
    return JsonResponse({"rows": rows, "parts": parts})


@require_GET
@viewer_required
def conversion_log_text(request: HttpRequest, uuid: UUID) -> StreamingHttpResponse:
    """Give the log as plain text, whole or ?from= and ?to=, also while it grows."""
    found = get_conversion_for(request.user, uuid)
    rows = LogFilter.of(request.GET).apply(live.lines_of(found))
    first, last = live.number(request.GET.get("from")), live.number(request.GET.get("to"))
    if first:
        rows = rows.filter(seq__gte=first)
    if last:
        rows = rows.filter(seq__lte=last)

    async def text() -> AsyncIterator[str]:
        async for line in rows.order_by("seq").aiterator(chunk_size=2000):
            at = line.at.isoformat(timespec="milliseconds")
            yield f"{line.seq} {at} {line.step} {line.level} {line.text}\n"

    response = StreamingHttpResponse(text(), content_type="text/plain; charset=utf-8")
    if "download" in request.GET:
        name = f"v2vweb-{found.pk}.log"
        response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


@require_GET
@viewer_required
def conversion_description(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Give what describes the machine on its target, as plain text or ?download."""
    description = description_of(get_conversion_for(request.user, uuid))
    if description is None:
        raise Http404(_("The run ended before it could describe the machine."))
    response = HttpResponse(description.text, content_type="text/plain; charset=utf-8")
    if "download" in request.GET:
        response["Content-Disposition"] = f'attachment; filename="{description.file_name}"'
    return response


def keeps_converted(found: Conversion) -> bool:
    """Tell whether what it converts is kept when its copy fails or is stopped."""
    return found.continues is not None or bool(found.job.get("copy", {}).get("keep_converted"))


@require_http_methods(["GET", "POST"])
@operator_required
def conversion_stop(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Ask whether to stop, saying what stops, what is deleted and what is kept; then stop."""
    found = get_conversion_for(request.user, uuid)
    if found.mode == Mode.IN_PLACE and not request.user.has_perm(IN_PLACE):
        raise PermissionDenied(missing_role(IN_PLACE))
    stops = found.is_active and not found.is_past_stopping
    if stops and request.method == "POST":
        stops = stop_conversion(found, user=request.user, force="force" in request.POST)
        if stops:
            return redirect(found)
    if not stops:
        text = _("This run stops no more: it has ended, or it writes into the disks of its source.")
        messages.info(request, text)
        return redirect(found)
    will_keep = keeps_converted(found) and (found.step in COPY_STEPS or found.continues is not None)
    targets = found.reports.get("targets", {})
    pool = f"{targets['pool']}/" if "pool" in targets else ""
    volumes = [f"{pool}{name}" for name in (*targets.get("volumes", []), *targets.get("disks", []))]
    work = [] if will_keep and found.continues is None else [str(work_dir(found))]
    context = live.page_context(found) | {
        "deleted": [*work, *targets.get("parts", []), *volumes],
        "will_keep": will_keep,
        "keep_days": settings.KEEP_DAYS,
        "continues": found.continues,
    }
    return render(request, "conversions/stop.html", context)


@require_http_methods(["GET", "POST"])
@operator_required
@starting
def conversion_retry(request: HttpRequest, uuid: UUID) -> HttpResponse:
    """Ask, then run the same once more with the same settings."""
    found = get_conversion_for(request.user, uuid)
    if found.is_active or found.vm is None:
        messages.error(
            request,
            _("This run cannot be retried: it is still active, or its machine is gone."),
        )
        return redirect(found)
    if found.vm.refusal:
        messages.error(request, found.vm.refusal)
        return redirect(found)
    if found.mode == Mode.IN_PLACE:  # it is confirmed anew each time
        return redirect("convert_in_place", found.vm.uuid)
    if form := form_instead(request, found, found.vm):
        return form
    if request.method == "POST":
        try:
            return redirect(retry_conversion(found, user=request.user))
        except JobError as error:
            messages.error(request, f"{error.message} {error.remedy}".strip())
            return redirect(found)
    context = {"conversion": found, "settings_list": settings_list(found)}
    return render(request, "conversions/retry.html", context)
