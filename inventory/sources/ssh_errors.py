"""Why ssh leads into no host, in words for the person at the page."""

from __future__ import annotations

import re
from dataclasses import dataclass

from inventory.sources.errors import SourceError


class SshError(SourceError):
    """There is no connection to a host over ssh, or none that makes sense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """What is wrong and what to do; `code` is a stable id."""

    code: str
    message: str
    remedy: str


# What OpenSSH's client says; libvirt passes it on.
SSH_CAUSES = (
    (
        re.compile(r"Host key verification failed|host key"),
        Reason(
            code="E-LV-HOSTKEY",
            message="The key of {host} is not known here: {error}.",
            remedy="Let the user that runs the workers connect there once with ssh, and compare "
            "the key that is shown.",
        ),
    ),
    (
        re.compile(r"Permission denied \("),
        Reason(
            code="E-LV-AUTH",
            message="{host} accepts no key of this user: {error}.",
            remedy="Add the public key of the user that runs the workers to the authorized keys "
            "there.",
        ),
    ),
)
_NO_ANSWER = Reason(
    code="E-SSH-CONNECT",
    message="There is no connection to {host}: {error}.",
    remedy="Check the name of the host, that ssh is on there, and its port.",
)


def ssh_error(host: str, said: str) -> SshError:
    """Return the error for what OpenSSH's client said when it ended."""
    reason = next((r for pattern, r in SSH_CAUSES if pattern.search(said)), _NO_ANSWER)
    message = reason.message.format(host=host, error=said.strip().rstrip("."))
    return SshError(reason.code, message, remedy=reason.remedy)
