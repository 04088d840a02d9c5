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


UNKNOWN_KEY = Reason(
    code="E-LV-HOSTKEY",
    message="The key of {host} is not known here: {error}.",
    remedy="Let the user that runs the workers connect there once with ssh, and compare "
    "the key that is shown.",
)
NOT_LET_IN = Reason(
    code="E-LV-AUTH",
    message="{host} accepts no key of this user: {error}.",
    remedy="Add the public key of the user that runs the workers to the authorized keys there.",
)
NO_ANSWER = Reason(
    code="E-SSH-CONNECT",
    message="There is no connection to {host}: {error}.",
    remedy="Check the name of the host, that ssh is on there, and its port.",
)
# What OpenSSH's client says; libvirt passes it on.
SSH_CAUSES = (
    (re.compile(r"Host key verification failed|host key"), UNKNOWN_KEY),
    (re.compile(r"Permission denied \("), NOT_LET_IN),
)


def ssh_error(reason: Reason, host: str, said: str) -> SshError:
    """Return the error of a host for that reason, with what was said."""
    return SshError(reason.code, reason.message.format(host=host, error=said), remedy=reason.remedy)
