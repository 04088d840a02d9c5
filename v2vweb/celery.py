"""The Celery application: one worker on each conversion host."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "v2vweb.settings")

app = Celery("v2vweb")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
