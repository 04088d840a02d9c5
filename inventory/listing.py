"""Lists of rows: sorted, paged, and the same with and without a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers

PAGE_SIZE = 50
# Every word is a condition on each row; nobody needs more to tell rows apart.
MAX_WORDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One page of rows and how it is sorted; `sort` is a key, with "-" before it for downwards."""

    page: Page[Any]
    sort: str


def make_listing(
    request: HttpRequest,
    rows: QuerySet[Any],
    *,
    sorts: Mapping[str, Sequence[str]],
    default: str,
) -> Listing:
    """Sort and page rows as the address asks (?sort=-name&page=2); what it asks wrongly is ignored.

    `sorts` maps a column's key to the fields it sorts by; the primary key settles ties.
    """
    sort = request.GET.get("sort", default)
    if sort.removeprefix("-") not in sorts:
        sort = default
    sign = "-" if sort.startswith("-") else ""
    fields = [sign + field for field in sorts[sort.removeprefix("-")]]
    paginator = Paginator(rows.order_by(*fields, f"{sign}pk"), PAGE_SIZE)
    return Listing(page=paginator.get_page(request.GET.get("page")), sort=sort)


def render_list(
    request: HttpRequest, page: str, fragment: str, context: Mapping[str, Any]
) -> HttpResponse:
    """Render the whole page, or for htmx the list alone.

    Both have one address, so a browser's cache must tell them apart; and when htmx asks for a page
    of the history that it has forgotten, it needs the whole.
    """
    htmx: Any = getattr(request, "htmx", None)
    alone = bool(htmx) and not htmx.history_restore_request
    response = render(request, fragment if alone else page, dict(context))
    patch_vary_headers(response, ["HX-Request", "HX-History-Restore-Request"])
    return response


def search_words(request: HttpRequest) -> list[str]:
    """Return the words searched for (?q=), the first ten of them.

    NUL, which no database takes, is left out.
    """
    return request.GET.get("q", "").replace("\0", "").split()[:MAX_WORDS]
