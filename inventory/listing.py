"""Lists of rows: sorted, paged, and the same with and without a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.http import HttpRequest

PAGE_SIZE = 50


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
