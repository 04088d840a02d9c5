"""The screen of a source VM: what shows it, and where it listens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class DisplayType(StrEnum):
    """window is a local window of the hypervisor, for sources that say nothing better."""

    WINDOW = "window"
    VNC = "vnc"
    SPICE = "spice"


class ListenType(StrEnum):
    """Where clients connect."""

    ADDRESS = "address"
    NETWORK = "network"
    SOCKET = "socket"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """`value` is the address, the network's name or the socket's path; None when not stated."""

    type: ListenType
    value: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Display:
    """One graphical console; `port` None means the hypervisor chooses.

    The password stays in memory: `to_dict` leaves it out, so that no record or log holds it.
    """

    type: DisplayType
    keymap: str | None = None
    password: str | None = field(default=None, repr=False)
    port: int | None = None
    listen: Listen | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, without the password."""
        values = asdict(self)
        del values["password"]
        return values

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Display:
        """Build a Display from `to_dict()`'s form.  Raises KeyError, TypeError or ValueError."""
        values = dict(data)
        listen = values.get("listen")
        values["type"] = DisplayType(values["type"])
        values["listen"] = (
            Listen(type=ListenType(listen["type"]), value=listen["value"]) if listen else None
        )
        return cls(**values)

    def text(self) -> str:
        """Return the line of --print-source; the password is only said to be there."""
        words = [str(self.type)]
        words += [self.keymap] if self.keymap else []
        words += ["with password"] if self.password else []
        if self.listen is not None:
            words += _listen_words(self.listen)
        return " ".join(words)


def _listen_words(listen: Listen) -> list[str]:
    match listen.type:
        case ListenType.ADDRESS:
            return [f"listening on address {listen.value}"]
        case ListenType.NETWORK:
            return [f"listening on network {listen.value}"]
        case ListenType.SOCKET if listen.value:
            return [f"listening on Unix domain socket {listen.value}"]
        case ListenType.SOCKET:
            return ["listening on automatically created Unix domain socket"]
        case ListenType.NONE:
            return ["listening on private fd"]
