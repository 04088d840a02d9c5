"""Every run in the admin site: an audit to read, filter, search and export."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, StreamingHttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from conversions import history
from conversions.health import is_answering
from conversions.models import (
    Concern,
    Conversion,
    ConversionDisk,
    ConversionHost,
    ConversionStep,
    Inspection,
    KeptWork,
    OutputTarget,
    SavedMap,
)
from conversions.purging import belongings, forget_host, kept_of, purge
from inventory.access import PURGE
from inventory.admin import ReadOnlyAdmin, ReadOnlyInline
from inventory.templatetags.console import duration, size


class StepInline(ReadOnlyInline):
    """The fifteen steps."""

    model = ConversionStep
    fields = ["position", "name", "status", "started_at", "seconds", "reason", "warnings"]


class DiskInline(ReadOnlyInline):
    """The disks and what was copied."""

    model = ConversionDisk
    fields = ["index", "name", "shown_done", "shown_total", "seconds", "path"]
    readonly_fields = ["shown_done", "shown_total"]

    @admin.display(description=_("copied"))
    def shown_done(self, row: ConversionDisk) -> str:
        """Show bytes in binary units."""
        return size(row.done_bytes)

    @admin.display(description=_("to copy"))
    def shown_total(self, row: ConversionDisk) -> str:
        """Show bytes in binary units."""
        return size(row.total_bytes)


@admin.register(Conversion)
class ConversionAdmin(ReadOnlyAdmin):
    """Who asked for what, when, with which settings, and what came of it."""

    list_display = [
        "number",
        "vm_name",
        "mode",
        "status",
        "created_by",
        "created_at",
        "took",
        "worker",
        "links",
    ]
    list_display_links = ["number"]
    list_filter = ["status", "mode", "created_by", "worker", "created_at"]
    search_fields = ["vm_name", "name", "uuid", "created_by__username"]
    date_hierarchy = "created_at"
    list_select_related = ["created_by"]
    inlines = [StepInline, DiskInline]
    actions = ["export_csv", "export_json"]
    fieldsets = [
        (None, {"fields": ["number", "uuid", "vm_name", "name", "mode", "status", "links"]}),
        (
            _("Who and when"),
            {
                "fields": [
                    "created_by",
                    "created_at",
                    "started_at",
                    "finished_at",
                    "took",
                    "worker",
                    "stop_requested_by",
                    "stop_requested_at",
                    "force_stop",
                    "retry_of",
                ]
            },
        ),
        (_("Settings"), {"fields": ["shown_job"]}),
        (_("Result"), {"fields": ["warnings", "last_seq", "shown_result", "shown_reports"]}),
    ]
    readonly_fields = ["number", "took", "links", "shown_job", "shown_result", "shown_reports"]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Purging needs its own right, and what runs cannot be purged."""
        if obj is not None and obj.is_active:
            return False
        return request.user.has_perm(PURGE)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Conversion]) -> None:
        """Purge what has ended."""
        purge(queryset)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Name the runs and count what belongs to them, which the purge right covers.

        Django's own way lists every line of their logs.
        """
        ended = Conversion.objects.exclude(status__in=Conversion.ACTIVE)
        runs = ended.filter(pk__in=[run.pk for run in objs])
        missing = set() if request.user.has_perm(PURGE) else {_("conversion")}
        return [str(run) for run in runs], belongings(runs), missing, []

    @admin.display(description=_("number"), ordering="pk")
    def number(self, row: Conversion) -> str:
        """Show the number people use."""
        return f"#{row.pk}"

    @admin.display(description=_("took"))
    def took(self, row: Conversion) -> str:
        """Show how long it ran."""
        return duration(row.elapsed)

    @admin.display(description=_("pages"))
    def links(self, row: Conversion) -> SafeString:
        """Link to its page and its log."""
        return format_html(
            '<a href="{}">{}</a> · <a href="{}">{}</a>',
            row.get_absolute_url(),
            _("Page"),
            reverse("conversion_log_text", args=[row.uuid]),
            _("Log"),
        )

    @admin.display(description=_("settings"))
    def shown_job(self, row: Conversion) -> SafeString:
        """Show the job as readable JSON."""
        return _pretty(row.job)

    @admin.display(description=_("result"))
    def shown_result(self, row: Conversion) -> SafeString:
        """Show the engine's result as readable JSON."""
        return _pretty(row.result)

    @admin.display(description=_("reports"))
    def shown_reports(self, row: Conversion) -> SafeString:
        """Show the engine's reports as readable JSON."""
        return _pretty(row.reports)

    @admin.action(description=_("Export as CSV"), permissions=["view"])
    def export_csv(
        self, request: HttpRequest, queryset: QuerySet[Conversion]
    ) -> StreamingHttpResponse:
        """Give the chosen runs as CSV."""
        rows = history.with_bytes(queryset).iterator(chunk_size=500)
        return StreamingHttpResponse(
            history.csv_lines(rows),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": 'attachment; filename="conversions.csv"'},
        )

    @admin.action(description=_("Export as JSON"), permissions=["view"])
    def export_json(
        self, request: HttpRequest, queryset: QuerySet[Conversion]
    ) -> StreamingHttpResponse:
        """Give the chosen runs as JSON."""
        rows = history.with_bytes(queryset).iterator(chunk_size=500)
        return StreamingHttpResponse(
            history.json_parts(rows),
            content_type="application/json",
            headers={"Content-Disposition": 'attachment; filename="conversions.json"'},
        )


class ConcernInline(ReadOnlyInline):
    """The concerns of a report."""

    model = Concern


@admin.register(Inspection)
class InspectionAdmin(ReadOnlyAdmin):
    """What was found in guests."""

    list_display = ["conversion", "product_name", "distro", "arch", "created_at"]
    list_filter = ["distro", "arch"]
    search_fields = ["conversion__vm_name", "product_name"]
    date_hierarchy = "created_at"
    list_select_related = ["conversion"]
    inlines = [ConcernInline]


@admin.register(ConversionHost)
class ConversionHostAdmin(ReadOnlyAdmin):
    """The conversion hosts and when they were last heard; one that is gone can be forgotten."""

    list_display = ["name", "seen_at"]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Who may forget them may see them."""
        return request.user.has_perm(PURGE) or super().has_view_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """One that answers would be back at once."""
        if obj is not None and is_answering(obj.seen_at):
            return False
        return request.user.has_perm(PURGE)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Name what goes with silent hosts: the record of what they keep, not the files."""
        silent = [host for host in objs if not is_answering(host.seen_at)]
        kept = [row for host in silent for row in kept_of(host)]
        words = _("%(kept)s (the files themselves stay on that host)")
        names = [host.name for host in silent] + [words % {"kept": row} for row in kept]
        counts = {_("conversion hosts"): len(silent), _("kept works"): len(kept)}
        return names, counts, set(), []

    def delete_model(self, request: HttpRequest, obj: ConversionHost) -> None:
        """Forget one."""
        forget_host(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[ConversionHost]) -> None:
        """Forget those that are silent."""
        for host in queryset:
            forget_host(host)


@admin.register(KeptWork)
class KeptWorkAdmin(ReadOnlyAdmin):
    """The converted disks that are kept to be continued from the copy."""

    list_display = ["conversion", "worker", "folder", "shown_bytes", "kept_at", "keep_until"]
    list_filter = ["worker"]
    list_select_related = ["conversion"]

    @admin.display(description=_("size"))
    def shown_bytes(self, row: KeptWork) -> str:
        """Show bytes in binary units."""
        return size(row.bytes)


@admin.register(OutputTarget)
class OutputTargetAdmin(ReadOnlyAdmin):
    """The named targets; they are changed on the console's own page, which checks them."""

    list_display = ["name", "kind", "place", "problem", "checked_at", "created_by"]
    list_filter = ["kind"]
    list_select_related = ["created_by"]
    search_fields = ["name", "directory", "uri", "storage"]


@admin.register(SavedMap)
class SavedMapAdmin(ReadOnlyAdmin):
    """The saved network maps."""

    list_display = ["name", "created_by", "created_at"]
    list_select_related = ["created_by"]


def _pretty(data: Any) -> SafeString:
    """Return JSON as a block of text."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    return format_html("<pre>{}</pre>", text)
