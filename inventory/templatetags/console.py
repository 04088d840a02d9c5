"""How sizes, times and icons look on every page."""

from __future__ import annotations

from datetime import datetime, timedelta

from django import template
from django.templatetags.static import static
from django.utils import formats, timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from django.utils.translation import gettext as _

register = template.Library()
DASH = "\N{EN DASH}"  # there is no value
UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


@register.filter
def size(value: float | str | None) -> str:
    """Return a number of bytes in binary units: 1536 is 1.5 KiB; a dash for None."""
    if value is None or value == "":
        return DASH
    number, unit = float(value), "B"
    for unit_ in UNITS:
        if abs(number) < 1024:
            break
        number, unit = number / 1024, unit_
    if unit == "B":
        return f"{int(number)} B"
    return f"{formats.number_format(number, 1)} {unit}"


@register.filter
def duration(value: timedelta | float | str | None) -> str:
    """Return a time span as people say it: 0:04, 11:32, 2:05:09; a dash for None."""
    if value is None or value == "":
        return DASH
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}"


@register.filter
def when(value: datetime | None) -> SafeString:
    """Return an absolute time with its zone; the seconds and how long ago show on hover."""
    if not value:
        return SafeString(DASH)
    local = timezone.localtime(value)
    return format_html(
        '<time class="when" datetime="{}" title="{}">{}</time>',
        local.isoformat(timespec="seconds"),
        f"{local:%H:%M:%S %Z}, " + _("%(time)s ago") % {"time": timesince(value)},
        f"{local:%Y-%m-%d %H:%M %Z}",
    )


@register.filter
def ago(value: datetime | None) -> SafeString:
    """Return how long ago a time was, in its largest unit; the time itself shows on hover."""
    if not value:
        return SafeString(DASH)
    local = timezone.localtime(value)
    if timezone.now() - value < timedelta(minutes=1):
        words = _("just now")
    else:
        words = _("%(time)s ago") % {"time": timesince(value, depth=1)}
    return format_html(
        '<time class="when" datetime="{}" title="{}">{}</time>',
        local.isoformat(timespec="seconds"),
        f"{local:%Y-%m-%d %H:%M:%S %Z}",
        words,
    )


@register.filter
def percent(part: float | None, whole: float | None) -> int:
    """Return what share of whole part is, 0 to 100; 0 when the whole is not known."""
    if not part or not whole:
        return 0
    return max(0, min(100, round(100 * part / whole)))


@register.simple_tag
def icon(name: str, css: str = "") -> SafeString:
    """Return an icon of the sprite; it is decoration, the word stands beside it."""
    return format_html(
        '<svg class="icon {}" aria-hidden="true" focusable="false"><use href="{}#{}"></use></svg>',
        css,
        static("img/icons.svg"),
        name,
    )


@register.simple_tag(takes_context=True)
def current(context: template.Context, *prefixes: str) -> bool:
    """Tell whether the page's path is one of these, or below one of them."""
    path = context["request"].path
    return any(path == p or (p != "/" and path.startswith(p)) for p in prefixes)


@register.inclusion_tag("_sort_header.html", takes_context=True)
def sort_header(context: template.Context, key: str, text: str, css: str = "") -> dict[str, object]:
    """Return a column's head that sorts the list by it, and the other way round when it does."""
    sort = context["listing"].sort
    direction = "" if sort.removeprefix("-") != key else ("down" if sort[0] == "-" else "up")
    return {
        "request": context["request"],
        "sort": f"-{key}" if direction == "up" else key,
        "direction": direction,
        "text": text,
        "css": css,
    }


@register.filter
def minus(whole: float | None, part: float | None) -> float:
    """Return whole less part; nothing counts as 0."""
    return (whole or 0) - (part or 0)


@register.filter
def fullness(part: float | None, whole: float | None) -> str:
    """Return how a bar of used space looks: "full" from 95 %, "high" from 85 %."""
    share = percent(part, whole)
    return "full" if share >= 95 else "high" if share >= 85 else ""
