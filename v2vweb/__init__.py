"""Wiring: settings, URLs, ASGI, Celery."""

# Every process that sends tasks has to know the broker, the web process too.
from v2vweb.celery import app as celery_app

__all__ = ["celery_app"]
