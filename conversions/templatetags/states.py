"""One look for every state: word, then icon, then colour, the same on every page."""

from __future__ import annotations

from django import template
from django.utils.functional import Promise
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from conversions.models import Concern, Conversion, ConversionStep
from inventory.models import POWER_CHOICES, LibvirtHost, OvaUpload, SourceVM
from inventory.templatetags.console import icon

register = template.Library()

COLOURS = {
    "waiting": "grey",
    "running": "blue",
    "stopping": "grey",
    "stopped": "grey",
    "done": "green",
    "warned": "amber",
    "failed": "red",
    "lost": "red",
    "quiet": "amber",
    "skipped": "grey",
    "cancelled": "grey",
    "receiving": "blue",
    "checking": "blue",
    "arriving": "blue",
    "ready": "green",
    "refused": "red",
    "gone": "grey",
    "blocks": "red",
    "warning": "amber",
    "note": "grey",
    "never": "grey",
    "fresh": "green",
    "vanished": "grey",
    "unreadable": "red",
    "paused": "blue",
    "suspended": "blue",
    "being shut down": "blue",
    "shut off": "grey",
    "crashed": "amber",
    "unknown": "grey",
}
ICONS = {
    "receiving": "sources",
    "arriving": "sources",
    "checking": "running",
    "ready": "done",
    "refused": "failed",
    "gone": "trash",
    "never": "waiting",
    "fresh": "done",
    "vanished": "empty",
    "unreadable": "failed",
    "paused": "pause",
    "suspended": "pause",
    "being shut down": "stopping",
    "shut off": "stopped",
    "crashed": "warning",
    "unknown": "note",
}


def _words() -> dict[str, str | Promise]:
    words: dict[str, str | Promise] = {
        "quiet": _("Quiet"),
        "vanished": _("No longer on its host"),
        "unreadable": _("Cannot be used"),
        **dict(POWER_CHOICES),
    }
    for choices in (
        ConversionStep.Status,
        LibvirtHost.State,
        OvaUpload.Status,
        SourceVM.Status,
        Concern.Level,
        Conversion.Status,
    ):
        words.update({member.value: member.label for member in choices})
    return words


WORDS = _words()


@register.simple_tag
def state(value: str, text: str = "") -> SafeString:
    """Return a state as a coloured icon with its word; `text` replaces the word."""
    return format_html(
        '<span class="state state-{}">{}<span>{}</span></span>',
        COLOURS.get(value, "grey"),
        icon(ICONS.get(value, value)),
        text or WORDS.get(value, value),
    )
