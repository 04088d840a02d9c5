"""The inventory in the admin site: to read, never to edit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from inventory.models import LibvirtHost, OvaUpload, SourceDisk, SourceNic, SourceVM
from inventory.templatetags.console import size

admin.site.site_header = _("v2vweb administration")
admin.site.site_title = _("v2vweb")
admin.site.index_title = _("Audit and users")


if TYPE_CHECKING:  # the stubs' classes take the model's type, Django's own do not
    AnyModelAdmin = admin.ModelAdmin[Any]
    AnyTabularInline = admin.TabularInline[Any, Any]
else:
    AnyModelAdmin = admin.ModelAdmin
    AnyTabularInline = admin.TabularInline


class ReadOnlyMixin:
    """Nothing can be added, changed or deleted."""

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        """Rows come from the console's own actions only."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """History is not rewritten."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Evidence stays."""
        return False


class ReadOnlyInline(ReadOnlyMixin, AnyTabularInline):
    """Rows below another row, to read."""

    extra = 0

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Who may read the row may read what belongs to it."""
        return True


class ReadOnlyAdmin(ReadOnlyMixin, AnyModelAdmin):
    """A table to read."""


class SourceDiskInline(ReadOnlyInline):
    """The disks of a machine."""

    model = SourceDisk


class SourceNicInline(ReadOnlyInline):
    """The network cards of a machine."""

    model = SourceNic


@admin.register(OvaUpload)
class OvaUploadAdmin(ReadOnlyAdmin):
    """What was uploaded or registered, by whom, and what became of it."""

    list_display = ["filename", "origin", "status", "shown_size", "created_by", "created_at"]
    list_filter = ["status", "origin", "created_by"]
    search_fields = ["filename", "uuid", "message"]
    date_hierarchy = "created_at"
    list_select_related = ["created_by"]

    @admin.display(description=_("size"), ordering="size_bytes")
    def shown_size(self, row: OvaUpload) -> str:
        """Show the size in binary units."""
        return size(row.size_bytes)


@admin.register(LibvirtHost)
class LibvirtHostAdmin(ReadOnlyAdmin):
    """The hosts, how fresh what is known of them is, and who added them."""

    list_display = ["name", "uri", "state", "refreshed_at", "tried_at", "created_by", "created_at"]
    list_filter = ["state", "created_by"]
    search_fields = ["name", "uri", "uuid", "message"]
    date_hierarchy = "created_at"
    list_select_related = ["created_by"]


@admin.register(SourceVM)
class SourceVMAdmin(ReadOnlyAdmin):
    """The machines and where they came from."""

    list_display = [
        "name", "status", "power", "host", "hypervisor", "os_hint", "page", "created_by",
        "created_at",
    ]  # fmt: skip
    list_filter = ["status", "power", "host", "hypervisor", "firmware", "created_by"]
    search_fields = ["name", "uuid", "os_hint", "nics__mac", "nics__vnet", "host__name"]
    date_hierarchy = "created_at"
    list_select_related = ["created_by", "host"]
    inlines = [SourceDiskInline, SourceNicInline]

    @admin.display(description=_("page"))
    def page(self, row: SourceVM) -> SafeString:
        """Link to the machine's page in the console."""
        return format_html('<a href="{}">{}</a>', row.get_absolute_url(), _("Open"))
