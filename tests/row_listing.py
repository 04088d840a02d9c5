"""Which row of a specification's test table is shown by which test: pytest --rows FILE.

A test says so by `@pytest.mark.rows("2-T28", "2-T29")`: the number of the document, then the row.
`rows_without_test.toml` has the rows that no test shows, each with the reason.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

REASONS = Path(__file__).with_name("rows_without_test.toml")
_ROW = re.compile(r"^\|\s*(T\d+)\s*\|", re.MULTILINE)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--rows", metavar="FILE", help="run nothing; list the rows of FILE with their tests"
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    """Print the list and end, with status 1 when a row has neither a test nor a reason."""
    if not (name := session.config.getoption("--rows")):
        return
    document = Path(name)
    number = document.name.partition("-")[0]
    tests: dict[str, list[str]] = {}
    for item in session.items:
        for mark in item.iter_markers("rows"):
            for row in mark.args:
                tests.setdefault(row, []).append(item.nodeid)
    reasons = tomllib.loads(REASONS.read_text()).get(number, {})
    missing = []
    for row in _ROW.findall(document.read_text()):
        shown = tests.get(f"{number}-{row}")
        reason = reasons.get(row)
        if not shown and not reason:
            missing.append(row)
        print(row, "  ".join(shown or ()) or (f"no test: {reason}" if reason else "MISSING"))
    print(f"{len(missing)} rows have neither a test nor a reason: {' '.join(missing)}")
    pytest.exit("rows listed", returncode=1 if missing else 0)
