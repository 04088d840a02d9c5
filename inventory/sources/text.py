"""A source as text, in the layouts other programs read."""

from __future__ import annotations

from inventory.sources.tar import storable
from inventory.sources.types import Controller, CpuTopology, Nic, Removable, Source


def current(source: Source) -> str:
    """Return the block of --print-source in its current layout, to the letter, newline included.

    Labels are right-justified in 15 columns; an absent value leaves the space behind the colon;
    an empty list prints one empty line.
    """
    lines = [
        ("source name", source.name),
        ("hypervisor type", source.hypervisor),
        ("VM genid", source.genid or ""),
        ("memory", f"{source.memory_bytes} (bytes)"),
        ("nr vCPUs", str(source.vcpus)),
        ("CPU vendor", source.cpu_vendor or ""),
        ("CPU model", source.cpu_model or ""),
        ("CPU topology", _topology(source.cpu_topology)),
        ("CPU features", ",".join(sorted(source.features))),
        ("firmware", source.firmware),
        ("UEFI secureboot", str(source.uefi_secureboot).lower()),
        ("display", source.display.text() if source.display else ""),
        ("sound", source.sound or ""),
    ]
    disks = [f"{disk.id}{_controller(disk.controller)}" for disk in source.disks]
    return _block(lines, disks, source)


def legacy(source: Source) -> str:
    """Return the legacy layout as the text log shows it: no tabs, no blanks and newline at ends."""
    lines = legacy_block(source).expandtabs(8).rstrip("\n").split("\n")
    return "\n".join(line.rstrip() for line in lines)


def legacy_block(source: Source) -> str:
    """Return the block of --print-source in its layout of 2018, to the letter, newline included.

    It shows paths and formats of the disks, and no machine generation id or secure boot.
    """
    lines = [
        ("source name", source.name),
        ("hypervisor type", source.hypervisor),
        ("memory", f"{source.memory_bytes} (bytes)"),
        ("nr vCPUs", str(source.vcpus)),
        ("CPU vendor", source.cpu_vendor or ""),
        ("CPU model", source.cpu_model or ""),
        ("CPU topology", _topology(source.cpu_topology)),
        ("CPU features", ",".join(sorted(source.features))),
        ("firmware", source.firmware),
        ("display", source.display.text() if source.display else ""),
        ("video", ""),
        ("sound", source.sound or ""),
    ]
    disks = [
        f"{disk.path}{f' {disk.member}' if disk.member else ''} ({disk.format})"
        f"{_controller(disk.controller)}"
        for disk in source.disks
    ]
    return _block(lines, disks, source)


def _block(scalars: list[tuple[str, str]], disks: list[str], source: Source) -> str:
    text = "".join(f"{label:>15}: {value}\n" for label, value in scalars)
    sections = (
        ("disks", disks),
        ("removable media", [_removable(r) for r in source.removables]),
        ("NICs", [_nic(n) for n in source.nics]),
    )
    for title, entries in sections:
        text += f"{title}:\n"
        text += "".join(f"\t{entry}\n" for entry in entries) or "\n"
    return storable(text)


def _controller(controller: Controller | None) -> str:
    return f" [{controller}]" if controller else ""


def _topology(topology: CpuTopology | None) -> str:
    if topology is None:
        return ""
    return (
        f"sockets: {topology.sockets} cores/socket: {topology.cores} "
        f"threads/core: {topology.threads}"
    )


def _removable(removable: Removable) -> str:
    slot = f" in slot {removable.slot}" if removable.slot is not None else ""
    return f"{removable.type}{_controller(removable.controller)}{slot}"


def _nic(nic: Nic) -> str:
    mac = f" mac: {nic.mac}" if nic.mac else ""
    model = f" [{nic.model}]" if nic.model else ""
    return f'{nic.vnet_type} "{nic.vnet}"{mac}{model}'
