"""What must be right on this host before the inventory can work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Warning, register


def check_writable(path: Path, setting: str, id_: str) -> list[CheckMessage]:
    """Return a warning when a folder is missing or cannot be written."""
    if path.is_dir() and os.access(path, os.W_OK):
        return []
    problem = "cannot be written" if path.is_dir() else "does not exist"
    return [
        Warning(
            f"The folder {path} {problem}.",
            hint=f"Run script/setup, or set {setting} to another folder.",
            id=id_,
        )
    ]


@register()
def check_folders(app_configs: Sequence[AppConfig] | None, **kwargs: object) -> list[CheckMessage]:
    """Check the folder that uploads go to."""
    return check_writable(settings.UPLOAD_DIR, "V2VWEB_UPLOADS", "inventory.W001")
