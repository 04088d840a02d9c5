r"""The code pages that a batch script of a guest can be written in.

cmd reads a script in the code page of its console, from line to line, so a script that begins with
chcp tells its own.  Windows XP and 2003 end a script at the change to UTF-8.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence

from conversions.pipeline.windows.registry import Hive

_UTF_8, _UTF_8_SINCE = "65001", 6
_EVERYWHERE = "437"
"""The page of English, which every Windows has."""


def code_pages(system: Hive, control_set: str, *, nt_major: int) -> tuple[str, ...]:
    """Return numbers of code pages in order of preference, at least one: the console's, UTF-8."""
    key = system.key(f"{control_set}\\Control\\Nls\\CodePage")
    own = (key.text("OEMCP") if key else None) or ""
    pages = [own] if re.fullmatch(r"[0-9]{3,5}", own) and _is_known(own) else []
    if nt_major >= _UTF_8_SINCE:
        pages.append(_UTF_8)
    return tuple(pages or [_EVERYWHERE])


def page_for(text: str, pages: Sequence[str]) -> str:
    """Return the first page that has all characters of a text, the last one without any such."""
    return next((page for page in pages if _has_all(text, page)), pages[-1])


def _has_all(text: str, page: str) -> bool:
    try:
        text.encode(f"cp{page}")
    except UnicodeEncodeError:
        return False
    return True


def _is_known(page: str) -> bool:
    try:
        codecs.lookup(f"cp{page}")
    except LookupError:
        return False
    return True
