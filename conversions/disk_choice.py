"""How disks are written: which of the choices for them a kind of target takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext as _

from conversions.pipeline.output_kinds import kind_of


def disk_problems(kind_name: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Return by field why a choice does not fit: format, allocation, compressed."""
    kind = kind_of(kind_name)
    found = {}
    for field, allowed in (("format", kind.formats), ("allocation", kind.allocations)):
        if (chosen := values.get(field)) and chosen not in allowed:
            words = {"allowed": " or ".join(allowed), "chosen": chosen}
            found[field] = _("This target takes %(allowed)s only; %(chosen)s was chosen.") % words
    if not values.get("compressed"):
        return found
    if values.get("format") == "raw":
        found["compressed"] = _("Compression needs format qcow2; raw was chosen.")
    elif values.get("allocation") == "preallocated":
        found["compressed"] = _("Compression and preallocation exclude each other.")
    elif not kind.knows("compressed"):
        found["compressed"] = _("This target takes no compressed disks.")
    return found
