"""How helper programs are started: in what environment, and so that none outlives us."""

from __future__ import annotations

import os

# setpriv makes the kernel kill the child with us, even after a kill -9 of this process.
WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
_PROXIES = ("https_proxy", "http_proxy", "all_proxy", "no_proxy")


def clean_environment() -> dict[str, str]:
    """Return this process's environment without proxies, in the C locale, for helpers."""
    kept = {k: v for k, v in os.environ.items() if k.lower() not in _PROXIES}
    return kept | {"LANG": "C", "LC_ALL": "C"}


def forget_proxies() -> None:
    """Take the proxies out of this process's environment, for libraries that would use them."""
    for name in list(os.environ):
        if name.lower() in _PROXIES:
            del os.environ[name]
