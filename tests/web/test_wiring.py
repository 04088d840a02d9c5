"""What holds the parts of the console together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import v2vweb.asgi
from django.conf import settings
from conversions.tasks import run_conversion
from inventory.tasks import check_upload
for task in (run_conversion, check_upload):
    assert task.app.conf.broker_url == settings.CELERY_BROKER_URL, task.app.conf.broker_url
"""


def test_the_web_process_sends_tasks_to_the_broker_of_the_settings(repository: Path) -> None:
    """In a process of its own: the tests themselves configure Celery for all of them."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", _PROGRAM], cwd=repository, check=True)
