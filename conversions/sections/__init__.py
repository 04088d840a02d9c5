"""Parts of the convert form that only some machines have, one module each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from conversions.models import Inspection
from conversions.sections.base import Section
from conversions.sections.copying import CopySection
from conversions.sections.damage import DamageSection
from conversions.sections.encryption import EncryptionSection
from conversions.sections.guest import GuestSection
from conversions.sections.windows import WindowsSection
from inventory.models import SourceVM

SECTIONS: tuple[type[Section], ...] = (
    DamageSection,
    EncryptionSection,
    WindowsSection,
    GuestSection,
)
# Only of conversions that make a new machine.
COPY_SECTIONS: tuple[type[Section], ...] = (CopySection, *SECTIONS)


def sections_for(
    data: Any,
    vm: SourceVM,
    inspection: Inspection | None,
    kinds: Sequence[type[Section]] = SECTIONS,
) -> list[Section]:
    """Return the sections that suit a machine, filled with what was sent."""
    return [
        kind(data, vm=vm, inspection=inspection) for kind in kinds if kind.suits(vm, inspection)
    ]
