"""Reading a host and following a libvirt host in a process of its own, which can be given up.

libvirt's calls cannot be given up from within: a host behind a dropping firewall holds them for
minutes, and ssh below them may wait for an answer that nobody gives.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from inventory.sources.errors import SourceError
from inventory.sources.host_access import SSH, HostAccess, checked_address, scheme_of
from inventory.sources.host_listing import HostListing
from inventory.sources.programs import WITH_US
from inventory.sources.uris import checked_uri

_PROGRAM = [sys.executable, "-m", "inventory.sources.libvirt_listing"]
_SSH_PROGRAM = [sys.executable, "-m", "inventory.sources.vmx_folder"]
_FOLLOW = [sys.executable, "-m", "inventory.sources.libvirt_events"]
_HOME = Path(__file__).resolve().parents[2]
# What ssh, TLS and Kerberos need; the console's secrets are not among it.
_ENVIRONMENT = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "SSH_AUTH_SOCK", "KRB5CCNAME",
    "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME",
)  # fmt: skip


class ChildError(SourceError):
    """The process that reads a host gave no answer that can be used."""


def read_host(access: HostAccess, *, with_domains: bool, seconds: int) -> HostListing:
    """Return what a host has, within so many seconds.  Raises SourceError.

    The address is checked first; whatever the child started is gone when this returns.
    """
    checked_address(access.uri)
    request = {**access.to_dict(), "domains": with_domains, "seconds": seconds}
    answer = _ask(request, _SSH_PROGRAM if scheme_of(access.uri) == SSH else _PROGRAM)
    if "error" in answer:
        error = answer["error"]
        raise SourceError(error["code"], error["message"], remedy=error["remedy"])
    return HostListing.from_dict(answer["listing"])


def follow_host(access: HostAccess) -> subprocess.Popen[bytes]:
    """Start a process that prints what changes on a host; see libvirt_events for its lines.

    It leads a group of its own.  Raises SourceError for an address that is refused.
    """
    checked_uri(access.uri)
    process = subprocess.Popen(
        [*WITH_US, *_FOLLOW],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # what matters is on a line
        cwd=_HOME,
        env=_environment(),
        start_new_session=True,
    )
    with cast(IO[bytes], process.stdin) as stdin, suppress(BrokenPipeError):
        stdin.write(json.dumps(access.to_dict()).encode())
    return process


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}


def _ask(request: dict[str, Any], program: list[str]) -> dict[str, Any]:
    """Run the program with a request and return its answer.  Raises ChildError."""
    uri, seconds = request["uri"], request["seconds"]
    with subprocess.Popen(
        program,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=_HOME,
        env=_environment(),
        # A group of its own, to be ended with its ssh; and no terminal to ask for a password on.
        start_new_session=True,
    ) as child:
        try:
            out, err = child.communicate(json.dumps(request).encode(), timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            raise ChildError(
                "E-LV-TIMEOUT",
                f"The host {uri} did not answer within {seconds} s.",
                remedy="Check that it is up, that a firewall lets this machine through, and that "
                "this user can sign in there without being asked anything.",
            ) from None
    try:
        answer: dict[str, Any] = json.loads(out)
    except ValueError:
        last = (err.decode(errors="replace").strip().splitlines() or ["nothing was said"])[-1]
        raise ChildError(
            "E-LV-CRASH",
            f"Reading the host {uri} ended with code {child.returncode}: {last[:300]}.",
            remedy="Try again; the log of the worker says more.",
        ) from None
    return answer
