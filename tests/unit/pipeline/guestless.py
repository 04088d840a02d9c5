"""Whole conversions without an appliance: what they do in the guest is a function of the test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from conversions.pipeline import run
from conversions.pipeline.context import Context
from conversions.pipeline.guestcaps import expected_guestcaps
from conversions.pipeline.types import Guestcaps
from tests.unit.pipeline.samples import GUEST


class NoAppliance:
    """Takes an appliance's place; nothing is launched."""

    def __init__(self, *_args: object, **_options: object) -> None:
        self.handle = SimpleNamespace(umount_all=lambda: None, mount_options=lambda *_args: None)

    def launch(self) -> object:
        """Return a handle for which there is no disk."""
        return self.handle

    def shutdown(self) -> None:
        """Do nothing."""

    def kill(self) -> None:
        """Do nothing."""


def without_appliance(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], **others: object
) -> None:
    """Let run.convert() find a guest that `change`, called with the work folder, converts.

    `others` take the place of more of its steps.
    """

    def nothing(*_args: object, **_options: object) -> None:
        pass

    def convert(context: Context) -> Guestcaps:
        change(context.work)
        return expected_guestcaps()

    steps: dict[str, object] = {
        "Appliance": NoAppliance,
        "unlock": lambda *_args, **_options: (),
        "list_filesystems": lambda _g: [("/dev/sda1", "ext4")],
        "report_filesystems": nothing,
        "check_filesystems": nothing,
        "inspect_guest": lambda *_args, **_options: GUEST,
        "mountpoint_stats": lambda *_args: (),
        "estimate_targets": lambda *_args, **_options: {},
        "check_guest_space": nothing,
        "collect_concerns": nothing,
        "warn_of_unused": nothing,
        "pick_converter": lambda _guest: SimpleNamespace(convert=convert),
        "detect_boot_disk": lambda *_args: 0,
        "trim_filesystems": nothing,
    }
    for name, step in (steps | others).items():
        monkeypatch.setattr(run, name, step)
