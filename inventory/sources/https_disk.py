"""Disks that are files of an https server, read with nbdkit's curl plugin."""

from __future__ import annotations

from pathlib import Path

from inventory.sources.nbdkit import NbdServer, pick_filters

# A server of VMware may think for minutes before it answers.
TIMEOUT_SECONDS = 2000

# One second before the first try, a minute in all: a forgotten session is renewed in between.
RETRY = (("retry-delay", "1"), ("retries", "6"))


def https_server(
    url: str, *, cookie_file: Path | None = None, pinned: Path | None = None, verify: bool = True
) -> NbdServer:
    """Return the server for one URL.

    The cookie is read again from its file at most once a second, so that a new session is used as
    soon as it is there.  `pinned` is a Unix socket behind which the server answers (see pinned.py).
    """
    if pinned:
        parameters = [("url", url.replace("https:", "http:", 1)), ("protocols", "http")]
        parameters += [("unix-socket-path", str(pinned))]
    else:
        parameters = [("url", url), ("protocols", "https")]
    parameters += [("timeout", str(TIMEOUT_SECONDS))]
    # A redirect could lead the cookie to another host.
    parameters += [("followlocation", "false"), ("tcp-keepalive", "true")]
    variables = {}
    if cookie_file:
        # The script is a fixed word of command; where the file is comes from the environment.
        parameters += [("cookie-script", 'cat -- "$V2V_COOKIE_FILE"'), ("cookie-script-renew", "1")]
        variables["V2V_COOKIE_FILE"] = str(cookie_file)
    if not verify:
        parameters += [("sslverify", "false")]
    filters = pick_filters("cow", "retry")
    if "retry" in filters:
        parameters += RETRY
    return NbdServer(
        plugin="curl",
        parameters=parameters,
        filters=filters,
        variables=variables,
    )
