"""What is installed in a guest, read from the registry; antivirus programs among it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from conversions.pipeline.windows.registry import Hive

UNINSTALL = "Microsoft\\Windows\\CurrentVersion\\Uninstall"
# Programs of 32 bits on a 64-bit Windows are listed apart.
WOW_UNINSTALL = f"WOW6432Node\\{UNINSTALL}"
_DEFENDER = "Microsoft\\Windows Defender"
_ANTIVIRUS = re.compile(
    "virus|kaspersky|mcafee|norton|sophos|apexonent|avg technologies", re.IGNORECASE
)
MAX_PROGRAMS = 2000
"""More entries than any machine has; the rest of a list is not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One entry of the list of installed programs; "" for what it does not say."""

    key: str
    name: str = ""
    version: str = ""
    publisher: str = ""
    uninstall: str = ""


def installed_programs(software: Hive) -> list[Program]:
    """Return the programs in SOFTWARE, those of 32 bits included."""
    found = []
    for path in (UNINSTALL, WOW_UNINSTALL):
        parent = software.key(path)
        for key in parent.children()[:MAX_PROGRAMS] if parent else ():
            found.append(
                Program(
                    key=key.name,
                    name=key.text("DisplayName") or "",
                    version=key.text("DisplayVersion") or "",
                    publisher=key.text("Publisher") or "",
                    uninstall=key.text("UninstallString") or "",
                )
            )
    return found


def antivirus_programs(programs: Iterable[Program]) -> list[str]:
    """Return the names of those that look like an antivirus program."""
    return [
        p.name or p.key
        for p in programs
        if any(_ANTIVIRUS.search(text) for text in (p.key, p.name, p.publisher))
    ]


def has_defender(software: Hive) -> bool:
    """Tell whether Windows Defender is there and not turned off."""
    key = software.key(_DEFENDER)
    return key is not None and key.number("DisableAntiVirus") != 1


def has_group_policy(software: Hive) -> bool:
    """Tell whether group policies were applied, which may forbid new drivers."""
    history = software.key("Microsoft\\Windows\\CurrentVersion\\Group Policy\\History")
    return history is not None and any(
        re.fullmatch(r"\{[0-9A-Fa-f].+\}", key.name) for key in history.children()
    )
