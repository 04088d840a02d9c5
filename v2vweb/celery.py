"""The Celery application: one worker on each conversion host."""

import logging
import os
from typing import Any

from celery import Celery

logger = logging.getLogger(__name__)

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "v2vweb.settings")

app = Celery("v2vweb")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


def send(task: Any, *arguments: str) -> None:
    """Send a task to the workers; without a broker it is left to the periodic tasks."""
    try:
        task.delay(*arguments)
    except Exception:
        logger.warning("%s waits until the broker is back.", task.name, exc_info=True)
