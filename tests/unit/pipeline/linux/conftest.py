"""Phony Linux guests in folders of this host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conversions.pipeline.report import RecordingReporter
from tests.appliance.phony import BUSYBOX, SHELL, PhonyGuest, Tree
from tests.guests.folder_linux import FolderLinux, can_run_programs


@pytest.fixture
def phony(tmp_path: Path) -> Callable[..., PhonyGuest]:
    """Make a guest of these files."""
    if not (BUSYBOX.exists() and SHELL.exists()):
        pytest.skip("phony guests need the packages busybox-static and bash-static")
    if not can_run_programs():
        pytest.skip("this host lets no program have another root folder (user namespaces)")

    def make(tree: Tree, **options: object) -> PhonyGuest:
        disk = FolderLinux(tmp_path / "guest")
        return PhonyGuest.make(disk, tmp_path, tree, RecordingReporter(), **options)

    return make
