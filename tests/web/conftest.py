"""Django's side of the tests: folders of their own, no Redis, no worker."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.db import connection
from pytest_django import Settings

from v2vweb.celery import app


@pytest.fixture(autouse=True, scope="session")
def no_broker() -> None:
    """Send tasks nowhere; a test calls the task's function when it means it."""
    app.conf.broker_url = "memory://"


@pytest.fixture(autouse=True)
def own_state(settings: Settings, tmp_path: Path) -> None:
    """Point every folder below the test's own and keep messages in memory."""
    for name in ("UPLOAD_DIR", "WORK_DIR", "IMPORT_DIR", "VDDK_DIR", "STATIC_ROOT"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        setattr(settings, name, folder)
    settings.SECRET_KEY = "of-the-tests"
    settings.DRIVERS_DIR = tmp_path / "drivers"
    targets = tmp_path / "targets"
    targets.mkdir()
    settings.TARGET_DIRS = [targets]
    settings.FILE_UPLOAD_TEMP_DIR = str(settings.UPLOAD_DIR)
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    django_db_modify_db_settings_parallel_suffix: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Keep SQLite's test database in a file, as in use: one in memory locks whole tables at once
    when a supervisor's thread and the test's meet."""
    if connection.vendor == "sqlite":
        path = tmp_path_factory.mktemp("database") / "test.sqlite3"
        connection.settings_dict["TEST"]["NAME"] = str(path)
