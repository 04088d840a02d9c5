"""Saved network maps, and what they make of the cards of a machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.utils.translation import gettext as _

from conversions.models import SavedMap
from inventory.sources.types import Nic, VnetType


class MapRefusedError(Exception):
    """What was chosen cannot be a map; the message is for the person at the page."""


def kind_of(nic: Nic) -> str:
    """Return what a card is on at the source: "network" or "bridge"."""
    return "network" if nic.vnet_type is VnetType.NETWORK else "bridge"


def entries_of(nics: Sequence[Nic], chosen: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """Return the entries of a map that says what was chosen for each card.  Raises MapRefusedError.

    A map goes by the source's networks, so two cards on one network cannot differ.
    """
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for nic, choice in zip(nics, chosen, strict=True):
        key = (kind_of(nic), nic.vnet)
        if found.setdefault(key, choice) != choice:
            raise MapRefusedError(
                _(
                    "%(network)s leads to %(first)s and to %(second)s. A map goes by the "
                    "source's networks, so each can lead to one place only."
                )
                % {"network": nic.vnet, "first": found[key][1], "second": choice[1]}
            )
    if not found:
        raise MapRefusedError(_("The machine has no network card, so there is nothing to save."))
    return [
        {"from_kind": key[0], "from_name": key[1], "kind": kind, "name": name}
        for key, (kind, name) in found.items()
    ]


def mapped_values(saved: SavedMap, nics: Sequence[Nic]) -> dict[str, Any]:
    """Return the form's values for the cards a map knows; the others are left out.

    A card without a MAC keeps its kind: an entry that changes it does not apply.
    """
    by_source = {(e["from_kind"], e["from_name"]): e for e in saved.entries}
    values: dict[str, Any] = {}
    for index, nic in enumerate(nics):
        entry = by_source.get((kind_of(nic), nic.vnet))
        if entry and (nic.mac is not None or entry["kind"] == kind_of(nic)):
            values[f"nic{index}_kind"] = entry["kind"]
            values[f"nic{index}_name"] = entry["name"]
    return values
