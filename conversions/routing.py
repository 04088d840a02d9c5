"""Addresses of the websockets."""

from __future__ import annotations

from django.urls import path

from conversions.consumers import ConversionConsumer

websocket_urlpatterns = [path("ws/conversions/<uuid:uuid>/", ConversionConsumer.as_asgi())]
