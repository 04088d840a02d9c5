"""The Celery application: one worker on each conversion host."""

import logging
import os
from typing import Any

from celery import Celery
from celery.signals import celeryd_after_setup, celeryd_init

logger = logging.getLogger(__name__)

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "v2vweb.settings")

app = Celery("v2vweb")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


def host_queue(worker: str) -> str:
    """Return the queue that only the worker of one conversion host takes from."""
    return f"host.{worker}"


def take_from_own_queue(instance: Any, **_kwargs: Any) -> None:
    """Let a worker take, besides what is for all, what is for its host alone."""
    from django.conf import settings

    instance.app.amqp.queues.select_add(host_queue(settings.WORKER_NAME))


def refuse_without_key(**_kwargs: Any) -> None:
    """Let no worker start that seals passwords with a key all know."""
    from v2vweb.start import require_secret_key

    require_secret_key()


celeryd_init.connect(refuse_without_key)
celeryd_after_setup.connect(take_from_own_queue)


def send(task: Any, *arguments: str, queue: str | None = None) -> None:
    """Send a task to the workers; without a broker it is left to the periodic tasks."""
    try:
        task.apply_async(arguments, queue=queue)
    except Exception:
        logger.warning("%s waits until the broker is back.", task.name, exc_info=True)
