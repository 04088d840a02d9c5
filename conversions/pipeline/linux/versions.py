"""Comparing versions as package managers do."""

from __future__ import annotations

import re


def version_key(version: str) -> list[tuple[int, int, str]]:
    """Return a sort key: digit runs as numbers, the rest as text; the shorter prefix is smaller."""
    return [
        (1, int(piece), "") if piece.isdigit() else (0, 0, piece)
        for piece in re.findall(r"[0-9]+|[a-zA-Z]+|[^0-9a-zA-Z]", version)
    ]
