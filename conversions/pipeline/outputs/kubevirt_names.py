"""What Kubernetes takes as names and labels, and what becomes of other words.

Source: RFC 1123 as Kubernetes reads it, "Object Names and IDs" and "Labels and Selectors" of its
documentation.
"""

from __future__ import annotations

import re

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
# Of a NetworkAttachmentDefinition, in the machine's own namespace or in another.
_NETWORK = re.compile(rf"({_LABEL}/)?{_LABEL}(\.{_LABEL})*")
_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_MAX_BYTES = 253
POD_NETWORK = "default"


def is_machine_name(name: str) -> bool:
    """Tell whether a machine can be called so: an RFC 1123 subdomain."""
    return len(name) <= _MAX_BYTES and bool(_SUBDOMAIN.fullmatch(name))


def is_network_name(name: str) -> bool:
    """Tell whether a network attachment can be called so: NAME or NAMESPACE/NAME."""
    return len(name) <= _MAX_BYTES and bool(_NETWORK.fullmatch(name))


def is_label_value(value: str) -> bool:
    """Tell whether a label can have that value."""
    return bool(_VALUE.fullmatch(value))


def network_name_like(name: str) -> str:
    """Return a possible name of a network attachment that resembles a source's network."""
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return words[:63].strip("-") or "network"
