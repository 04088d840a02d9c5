"""What a Windows guest can do after conversion, with the reason for each."""

from __future__ import annotations

from conversions.pipeline.guestcaps import target_arch
from conversions.pipeline.types import BlockBus, Guestcaps, Inspection, Machine, NetBus
from conversions.pipeline.windows.plan import Plan
from conversions.pipeline.windows.versions import label

# From the osinfo database: systems that it lists, without q35.
_WITHOUT_Q35 = ("winxp", "win2k3", "win2k3r2", "winvista", "win2k8")
_FIRST_Q35_MAJOR = 6


def machine_for_windows(osinfo: str, major: int, arch: str) -> Machine:
    """Return the machine type; one that is not in the tables is judged by its NT version."""
    if arch not in ("i386", "x86_64"):
        return Machine.VIRT
    if osinfo in _WITHOUT_Q35:
        return Machine.I440FX
    known = osinfo != "unknown"
    return Machine.Q35 if known or major >= _FIRST_Q35_MAJOR else Machine.I440FX


def windows_guestcaps(
    guest: Inspection, plan: Plan, *, rtc_utc: bool, rtc_reason: str
) -> Guestcaps:
    """Derive what the guest can do from the drivers it got."""
    system = label(guest)
    machine = machine_for_windows(guest.osinfo, guest.major_version, guest.arch)

    def has(name: str) -> str:
        return f"{name} {'comes from' if plan.has(name) else 'is not in'} {plan.where()}"

    drivers = {
        "virtio_rng": "viorng.inf",
        "virtio_balloon": "balloon.inf",
        "isa_pvpanic": "pvpanic.inf",
        "virtio_socket": "viosock.inf",
    }
    block = (
        f"{plan.boot.file} is entered as boot driver"
        if plan.boot
        else f"there is no block driver for it in {plan.where()}"
    )
    net = (
        has("netkvm.inf")
        if plan.net_bus is NetBus.VIRTIO_NET
        else f"there is no network driver for it in {plan.where()}; Windows has one for this card"
    )
    return Guestcaps(
        block_bus=plan.block_bus,
        net_bus=plan.net_bus,
        virtio_rng=plan.has("viorng.inf"),
        virtio_balloon=plan.has("balloon.inf"),
        isa_pvpanic=plan.has("pvpanic.inf"),
        virtio_socket=plan.has("viosock.inf"),
        machine=machine,
        arch=target_arch(guest.arch),
        arch_min_version=0,
        virtio_1_0=True,
        rtc_utc=rtc_utc,
        video="vga",
        acpi=True,
        reasons={
            "block_bus": block,
            "net_bus": net,
            **{field: has(name) for field, name in drivers.items()},
            "machine": f"{system} runs on {machine}",
            "arch": f"the programs of the guest are {guest.arch}",
            "arch_min_version": f"{system} needs no particular processor level",
            "virtio_1_0": "the drivers for Windows speak virtio 1.0",
            "rtc_utc": rtc_reason,
            "video": "every guest has a driver for standard VGA",
            "acpi": f"{system} uses ACPI",
        },
    )


def has_virtio(caps: Guestcaps) -> bool:
    """Tell whether the guest finds its disks by a virtio driver."""
    return caps.block_bus is not BlockBus.IDE
