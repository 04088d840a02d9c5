"""The hardware items of an OVF descriptor: memory, processors, controllers, network cards."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from lxml import etree

from inventory.sources.base import Warn
from inventory.sources.errors import DescriptorError
from inventory.sources.ovf_xml import NS, OVF, RASD, VMW
from inventory.sources.types import Controller, CpuTopology, Nic, VnetType

DEFAULT_MEMORY_BYTES = 1 << 30
_WORDS = {"kilobytes": 1 << 10, "megabytes": 1 << 20, "gigabytes": 1 << 30}
_UNITS = re.compile(r"byte(?:s)?(?:\*(\d{1,2})\^(\d{1,3}))?")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}")
_CONTROLLERS = {5: Controller.IDE, 6: Controller.SCSI, 20: Controller.SATA}


class Item:
    """One hardware item; children by their local name."""

    def __init__(self, element: etree._Element) -> None:
        self._element = element
        self.type = self.integer("ResourceType")

    def get(self, name: str, namespace: str = RASD) -> str | None:
        text = self._element.findtext(f"{{{namespace}}}{name}")
        return text.strip() if text and text.strip() else None

    def integer(self, name: str, namespace: str = RASD) -> int | None:
        text = self.get(name, namespace)
        if text is None:
            return None
        if not re.fullmatch(r"-?\d{1,18}", text):
            raise DescriptorError(
                "E-OVF-INT", f"{name} in the descriptor is {text[:40]!r}, which is no whole number."
            )
        return int(text)


def hardware_items(root: etree._Element, hardware: etree._Element | None) -> Iterator[Item]:
    """Yield the items that describe the VM itself: no ranges, only the default configuration."""
    if hardware is None:
        return
    options = root.findall("ovf:DeploymentOptionSection/ovf:Configuration", NS)
    defaults = [o for o in options if o.get(f"{{{OVF}}}default") == "true"] or options[:1]
    allowed = {o.get(f"{{{OVF}}}id") for o in defaults}
    for element in hardware.findall("ovf:Item", NS):
        configurations = (element.get(f"{{{OVF}}}configuration") or "").split()
        if element.get(f"{{{OVF}}}bound") or (configurations and not allowed & set(configurations)):
            continue
        yield Item(element)


def controller_of(item: Item, by_id: Mapping[str | None, Item], warn: Warn) -> Controller | None:
    """Return the bus an item's Parent provides; None, mostly with a warning, if that is unclear."""
    parent = item.get("Parent")
    if parent is None:
        return None
    found = by_id.get(parent)
    if found is None or found.type not in _CONTROLLERS:
        kind = "does not exist" if found is None else f"has the resource type {found.type}"
        warn(f"A drive names the controller {parent[:40]}, which {kind}; it is left open.")
        return None
    if found.type == 20 and "nvme" in (found.get("ResourceSubType") or "").lower():
        return Controller.NVME
    return _CONTROLLERS[found.type]


def unit_bytes(units: str, default: int, warn: Warn) -> int:
    """Return the bytes in one allocation unit such as `byte * 2^20` or MegaBytes."""
    text = re.sub(r"\s", "", units).lower()
    if not text:
        return default
    if text in _WORDS:
        return _WORDS[text]
    match = _UNITS.fullmatch(text)
    if match and match[1] is None:
        return 1
    if match and int(match[1]) in (2, 10) and int(match[2]) <= 60:
        return int(int(match[1]) ** int(match[2]))
    warn(f"The allocation unit {units[:40]!r} is not known; {default} bytes are taken.")
    return default


def memory_bytes(items: Iterable[Item], warn: Warn) -> int:
    """Return the machine's memory.  Raises DescriptorError for one that cannot be."""
    item = next((i for i in items if i.type == 4), None)
    quantity = item.integer("VirtualQuantity") if item else None
    if item is None or quantity is None:
        warn("The descriptor does not say how much memory the machine has; 1 GiB is taken.")
        return DEFAULT_MEMORY_BYTES
    memory = quantity * unit_bytes(item.get("AllocationUnits") or "", 1 << 20, warn)
    if not 0 < memory < 1 << 50:
        raise DescriptorError("E-OVF-INT", f"The machine's memory is {memory} bytes.")
    return memory


def cpus(items: Iterable[Item], warn: Warn) -> tuple[int, CpuTopology | None]:
    """Return the number of vCPUs and how they are grouped.  Raises DescriptorError below 1."""
    item = next((i for i in items if i.type == 3), None)
    if item is None:
        return 1, None
    quantity = item.integer("VirtualQuantity")
    vcpus = 1 if quantity is None else quantity
    if not 0 < vcpus <= 4096:
        raise DescriptorError("E-OVF-INT", f"The machine has {vcpus} vCPUs.")
    cores = item.integer("CoresPerSocket", VMW)
    if cores is None:
        return vcpus, None
    if cores <= 0 or vcpus // cores <= 0:
        warn(f"{cores} cores per socket do not fit {vcpus} vCPUs; no topology is taken.")
        return vcpus, None
    if vcpus % cores:
        warn(f"{vcpus} vCPUs are not a multiple of {cores} cores per socket.")
    return vcpus, CpuTopology(sockets=vcpus // cores, cores=cores, threads=1)


def nic(index: int, item: Item, warn: Warn) -> Nic:
    """Return network card number `index` from 0; a network without a name is called ethN."""
    connection, model = (item.get(n) for n in ("Connection", "ResourceSubType"))
    return Nic(
        vnet=connection or f"eth{index}",
        vnet_type=VnetType.BRIDGE if connection else VnetType.NETWORK,
        mac=_mac(item, warn),
        model=model.lower() if model else None,
    )


def _mac(item: Item, warn: Warn) -> str | None:
    """Return a card's address with colons.  Hypervisors refuse one that stands for a group."""
    text = item.get("Address")
    if not text:
        return None
    mac = text.replace("-", ":")
    if not _MAC.fullmatch(mac):
        why = "is no MAC address"
    elif int(mac[:2], 16) & 1:
        why = "is that of a group (multicast)"
    else:
        return mac
    warn(f"The address {text[:40]!r} of a network card {why}; it is dropped.")
    return None
