"""Names shared by those who announce news of a conversion and those who wait for it."""

from __future__ import annotations

from typing import Any, Literal, TypedDict
from uuid import UUID

from django.urls import path


class News(TypedDict):
    """What travels through the channel layer: there is news; the rows have it."""

    type: Literal["conversion.news"]
    upto: int
    revision: int


def group_name(uuid: UUID) -> str:
    """Return the channel layer's group of one conversion."""
    return f"conversion.{uuid}"


def _websocket_urls() -> list[Any]:
    from conversions.consumers import ConversionConsumer

    return [path("ws/conversions/<uuid:uuid>/", ConversionConsumer.as_asgi())]


websocket_urlpatterns = _websocket_urls()
