"""Names shared by those who announce news of a conversion and those who wait for it."""

from __future__ import annotations

from typing import Literal, TypedDict
from uuid import UUID


class News(TypedDict):
    """What travels through the channel layer: there is news; the rows have it."""

    type: Literal["conversion.news"]
    upto: int
    revision: int


def group_name(uuid: UUID) -> str:
    """Return the channel layer's group of one conversion."""
    return f"conversion.{uuid}"
