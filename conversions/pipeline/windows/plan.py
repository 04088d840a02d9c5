"""What a guest will get: chosen from the administrator's files before anything is changed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from conversions.pipeline.job import WindowsOptions
from conversions.pipeline.types import BlockBus, Inspection, NetBus
from conversions.pipeline.windows.boot_driver import BootDriver, choose_boot_driver
from conversions.pipeline.windows.collection import (
    Collection,
    find_tools,
    locate,
    open_collection,
    service_program,
)
from conversions.pipeline.windows.driver_match import choose_agents, choose_drivers

BALLOON_SERVICE = "blnsvr.exe"
_NETWORK = ("virtio_net.inf", "netkvm.inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Files by the name they get in the guest, and what follows from them.

    `made_for` is the Windows the drivers were made for; `collection` None when nobody supplied one.
    """

    place: Path
    collection: Collection | None
    made_for: str
    drivers: Mapping[str, str]
    agents: Mapping[str, str]
    tools: Mapping[str, Path]
    boot: BootDriver | None
    net_bus: NetBus

    @property
    def service_program(self) -> str | None:
        """Return what runs the scripts of the first start, None without it."""
        return service_program(self.tools)

    @property
    def block_bus(self) -> BlockBus:
        """Return the bus the guest will find its disks on."""
        return self.boot.bus if self.boot else BlockBus.IDE

    def has(self, name: str) -> bool:
        """Tell whether a file is among the drivers."""
        return name in self.drivers

    def size_bytes(self) -> int:
        """Return how much will be copied into the guest."""
        collection = self.collection
        if collection is None:
            return 0
        return sum(
            collection.size_bytes(p) for p in (*self.drivers.values(), *self.agents.values())
        )

    def where(self) -> str:
        """Return where the drivers come from, for messages."""
        return self.collection.describe() if self.collection else f"{self.place} (not there)"


def make_plan(
    guest: Inspection, options: WindowsOptions, environ: Mapping[str, str] = os.environ
) -> Plan:
    """Choose what the guest gets.  Raises DriverCollectionError, IsoError."""
    place, named = locate(options.virtio_win, environ)
    collection = open_collection(place, named=named)
    paths = collection.paths() if collection else ()
    made_for, drivers = choose_drivers(
        paths, arch=guest.arch, osinfo=guest.osinfo, siblings=options.sibling_drivers
    )
    return Plan(
        place=place,
        collection=collection,
        made_for=made_for,
        drivers=drivers,
        agents=choose_agents(paths, arch=guest.arch),
        tools=find_tools(options.virt_tools, environ, place),
        boot=choose_boot_driver(drivers, BlockBus(options.block_driver)),
        net_bus=NetBus.VIRTIO_NET
        if any(name in drivers for name in _NETWORK)
        else emulated_nic(guest),
    )


def emulated_nic(guest: Inspection) -> NetBus:
    """Return the emulated card that this Windows has a driver for by itself.

    RTL8139 lost its driver with Windows 8; Vista was the first with one for the e1000.
    """
    return NetBus.RTL8139 if guest.major_version < 6 else NetBus.E1000
