"""Step 12: which bus and slot each disk and removable gets on the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from conversions.pipeline.report import Level, Reporter
from conversions.pipeline.types import BlockBus, Guestcaps, Slot, TargetBuses, TargetDisk
from inventory.sources.types import Controller, Removable, RemovableType

_DISK_BUS = {
    BlockBus.VIRTIO_BLK: "virtio_blk",
    BlockBus.VIRTIO_SCSI: "scsi",
    BlockBus.IDE: "ide",
}
# A SATA CD-ROM stays on the IDE/SATA bus: the target may have no SCSI controller.
_CDROM_BUS = {
    None: "ide",
    Controller.IDE: "ide",
    Controller.SATA: "ide",
    Controller.VIRTIO_BLK: "virtio_blk",
    Controller.SCSI: "scsi",
    Controller.VIRTIO_SCSI: "scsi",
    Controller.NVME: "scsi",
}


def assign_target_buses(
    disks: Sequence[TargetDisk],
    removables: Sequence[Removable],
    guestcaps: Guestcaps,
    report: Reporter,
) -> TargetBuses:
    """Put disks in source order on the bus the guest has a driver for, then the removables.

    A removable keeps its slot if that is free, else takes the next higher free one, with a
    warning; those without a slot come last and take the first free one.
    """
    slots: dict[str, list[Slot]] = {"virtio_blk": [], "ide": [], "scsi": [], "floppy": []}
    slots[_DISK_BUS[guestcaps.block_bus]] = list(disks)
    for removable in sorted(removables, key=lambda r: r.slot is None):
        bus = _bus_of(removable)
        wanted = removable.slot or 0
        slot = _first_free(slots[bus], wanted)
        if removable.slot is not None and slot != wanted:
            report.log(
                Level.WARNING,
                f"{removable.type} wanted slot {wanted} of {bus.replace('_', '-')}, which is "
                f"taken; it moves to slot {slot}. Its device name in the guest may change.",
            )
        slots[bus] += [None] * (slot + 1 - len(slots[bus]))
        slots[bus][slot] = removable
    buses = TargetBuses(**{bus: tuple(content) for bus, content in slots.items()})
    report.log(Level.INFO, buses_text(buses))
    report.report(
        "target_buses",
        {bus: [_record(s) for s in getattr(buses, bus)] for bus in slots},
    )
    return buses


def _record(slot: Slot) -> dict[str, Any] | None:
    """Return a slot as plain values; a copy under way is none."""
    if isinstance(slot, TargetDisk):
        slot = replace(slot, overlay=replace(slot.overlay, early=None))
    return asdict(slot) if slot is not None else None


def _bus_of(removable: Removable) -> str:
    if removable.type is RemovableType.FLOPPY:
        return "floppy"
    return _CDROM_BUS[removable.controller]


def _first_free(slots: Sequence[Slot], start: int) -> int:
    slot = start
    while slot < len(slots) and slots[slot] is not None:
        slot += 1
    return slot


def removable_text(removable: Removable) -> str:
    """Return the report's form: CD-ROM [ide] in slot 0."""
    controller = f" [{removable.controller}]" if removable.controller else ""
    slot = f" in slot {removable.slot}" if removable.slot is not None else ""
    return f"{removable.type}{controller}{slot}"


def buses_text(buses: TargetBuses) -> str:
    """Return the report in the layout of the text log; empty slots of a used bus are shown."""
    lines: list[str] = []
    for bus, slots in (("virtio-blk", buses.virtio_blk), ("ide", buses.ide), ("scsi", buses.scsi)):
        for number, slot in enumerate(slots):
            lines.append(f"{bus} slot {number}:")
            if slot is None:
                lines.append("        (slot empty)")
            elif isinstance(slot, Removable):
                lines.append("        " + removable_text(slot))
            else:
                lines += [
                    f"target_file = [file] {slot.final_path}",
                    f"target_format = {slot.format}",
                    f"target_estimated_size = {slot.estimated_bytes}",
                    f"target_overlay = {slot.overlay.path}",
                    f"target_overlay.ov_source = {slot.overlay.source_label}",
                ]
    return "\n".join(lines)
