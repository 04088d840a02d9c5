"""What must be right on this host before conversions can run."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Warning, register

from inventory.checks import check_writable


@register()
def check_folders(app_configs: Sequence[AppConfig] | None, **kwargs: object) -> list[CheckMessage]:
    """Check the work folder and every target folder."""
    messages = check_writable(settings.WORK_DIR, "V2VWEB_WORK", "conversions.W001")
    for target in settings.TARGET_DIRS:
        messages += check_writable(target, "V2VWEB_TARGETS", "conversions.W002")
    return messages


@register()
def check_programs(app_configs: Sequence[AppConfig] | None, **kwargs: object) -> list[CheckMessage]:
    """Check that the engine finds qemu-img and libguestfs."""
    messages: list[CheckMessage] = []
    if shutil.which("qemu-img") is None:
        messages.append(
            Warning(
                "qemu-img is not installed; nothing can be converted on this host.",
                hint="Run script/setup, or install the package qemu-utils.",
                id="conversions.W003",
            )
        )
    if importlib.util.find_spec("guestfs") is None:
        messages.append(
            Warning(
                "The Python module guestfs is not found; guests cannot be opened on this host.",
                hint="Run script/setup: it installs python3-guestfs and makes a virtual "
                "environment that sees it.",
                id="conversions.W004",
            )
        )
    return messages
