"""The engine stands alone: no Django anywhere in it, libguestfs in one module only."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ENGINE = ("inventory/sources", "conversions/pipeline")
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("django", "channels", "celery"):
            raise ImportError(f"the engine imports {name}")
sys.meta_path.insert(0, Blocker())
import importlib
importlib.import_module(sys.argv[1])
"""


def modules(repository: Path) -> list[Path]:
    """Return every file of the engine."""
    return [path for folder in ENGINE for path in (repository / folder).rglob("*.py")]


def test_every_module_of_the_engine_imports_without_django(repository: Path) -> None:
    names = [
        ".".join(p.relative_to(repository).with_suffix("").parts).removesuffix(".__init__")
        for p in modules(repository)
        if p.name != "__main__.py"
    ]
    program = BLOCKER.replace(
        "importlib.import_module(sys.argv[1])",
        "[importlib.import_module(name) for name in sys.argv[1:]]",
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *names], cwd=repository, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(names) > 30


def test_the_block_works(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKER, "inventory.models"],
        cwd=repository,
        capture_output=True,
        text=True,
    )
    assert "the engine imports django" in done.stderr


@pytest.mark.parametrize("library", ["guestfs"])
def test_one_module_alone_imports_the_appliances_library(repository: Path, library: str) -> None:
    pattern = re.compile(rf"^\s*(import|from) {library}\b", re.MULTILINE)
    users = [p.name for p in modules(repository) if pattern.search(p.read_text())]
    assert users == ["appliance.py"]
