"""The long name of an operating system, from libosinfo's database on this host."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from lxml import etree

_VARIABLE = "OSINFO_SYSTEM_DIR"
_DEFAULT = "/usr/share/osinfo"


def osinfo_id(short_id: str) -> str | None:
    """Return the id for a short one ("debian12"), None when the database does not know it.

    Source: the osinfo-db files os/VENDOR/NAME.xml; OSINFO_SYSTEM_DIR names another database.
    """
    return _ids(os.environ.get(_VARIABLE, _DEFAULT)).get(short_id)


@cache
def _ids(folder: str) -> dict[str, str]:
    """Return {short id: id} of every system in a database; files that are no XML are passed."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    found: dict[str, str] = {}
    for path in sorted(Path(folder).glob("os/*/*.xml")):
        try:
            root = etree.parse(path, parser).getroot()
        except (OSError, etree.XMLSyntaxError):
            continue
        for system in root.iterfind("os"):
            for short in system.iterfind("short-id"):
                found.setdefault(short.text or "", system.get("id", ""))
    return found
