"""What a finished conversion hands to the copy, and its record as JSON for a copy that comes later.

The record holds no secret: no password of the source and none of its display.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from conversions.pipeline.source import Fingerprint
from conversions.pipeline.types import (
    Application,
    BlockBus,
    Guestcaps,
    Inspection,
    Machine,
    NetBus,
    Overlay,
)
from inventory.sources.types import Controller, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A guest that is converted in its overlays; `before` is what the source was like.

    `estimates` are the bytes each target disk will need at most, by overlay.
    """

    source: Source
    before: Fingerprint
    overlays: tuple[Overlay, ...]
    estimates: Mapping[str, int]
    guest: Inspection
    guestcaps: Guestcaps
    boot_disk: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; of each overlay the names of its layers, bottom first."""
        return {
            "source": self.source.to_dict(),
            # As absolute names: a later run may have another current folder.
            "before": {str(Path(n).absolute()): list(seen) for n, seen in self.before.items()},
            "overlays": [
                {
                    "sd": overlay.sd,
                    "layers": [Path(layer.path).name for layer in layers_of(overlay)],
                    "virtual_size_bytes": overlay.virtual_size_bytes,
                    "source_format": overlay.source_format,
                    "source_controller": overlay.source_controller,
                    "source_label": overlay.source_label,
                }
                for overlay in self.overlays
            ],
            "estimates": dict(self.estimates),
            "guest": asdict(self.guest),
            "guestcaps": asdict(self.guestcaps),
            "boot_disk": self.boot_disk,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], folder: Path) -> Converted:
        """Build it from `to_dict()`'s form; the overlays are the top layers, in `folder`.

        Where the source's disks are now, `source_uri`, is not known yet.  Raises KeyError,
        TypeError or ValueError.
        """
        before = {
            name: (int(size), int(mtime), str(digest))
            for name, (size, mtime, digest) in data["before"].items()
        }
        return cls(
            source=Source.from_dict(data["source"]),
            before=before,
            overlays=tuple(_overlay(entry, folder) for entry in data["overlays"]),
            estimates={str(sd): int(size) for sd, size in data["estimates"].items()},
            guest=_guest(data["guest"]),
            guestcaps=_guestcaps(data["guestcaps"]),
            boot_disk=None if data["boot_disk"] is None else int(data["boot_disk"]),
        )


def layers_of(overlay: Overlay) -> tuple[Overlay, ...]:
    """Return the layers over a source's disk, bottom first: two where it was copied early."""
    return (overlay.early.base, overlay) if overlay.early else (overlay,)


def layer_names(entry: Mapping[str, Any]) -> list[str]:
    """Return the names of an overlay's layers.  Raises ValueError for anything but file names."""
    names = [str(name) for name in entry["layers"]]
    if not names or any(name in ("", ".", "..") or "/" in name or "\0" in name for name in names):
        raise ValueError(f"{names!r} are no names of layers")
    return names


def _overlay(entry: Mapping[str, Any], folder: Path) -> Overlay:
    controller = entry["source_controller"]
    return Overlay(
        sd=str(entry["sd"]),
        path=str(folder / layer_names(entry)[-1]),
        virtual_size_bytes=int(entry["virtual_size_bytes"]),
        source_uri="",
        source_format=str(entry["source_format"]),
        source_controller=Controller(controller) if controller else None,
        source_label=str(entry["source_label"]),
    )


def _guest(data: Mapping[str, Any]) -> Inspection:
    values = dict(data)
    values["uefi_esps"] = tuple(data["uefi_esps"])
    for name in ("mountpoints", "filesystems"):
        values[name] = tuple((str(one), str(other)) for one, other in data[name])
    values["applications"] = tuple(Application(**app) for app in data["applications"])
    return Inspection(**values)


def _guestcaps(data: Mapping[str, Any]) -> Guestcaps:
    return Guestcaps(
        **{
            **data,
            "block_bus": BlockBus(data["block_bus"]),
            "net_bus": NetBus(data["net_bus"]),
            "machine": Machine(data["machine"]),
        }
    )
