"""What a person should know before a Windows guest is converted."""

from __future__ import annotations

from collections.abc import Iterator

from conversions.pipeline.context import Context
from conversions.pipeline.types import Concern, ConcernLevel, Inspection
from conversions.pipeline.windows.applications import (
    antivirus_programs,
    has_defender,
    has_group_policy,
    installed_programs,
)
from conversions.pipeline.windows.collection import SERVICE_PROGRAMS
from conversions.pipeline.windows.foreign_tools import foreign_tools
from conversions.pipeline.windows.inspection import state_meaning, state_remedy
from conversions.pipeline.windows.plan import Plan, make_plan
from conversions.pipeline.windows.registry import SOFTWARE, Changes, Hive, Registry
from conversions.pipeline.windows.versions import label

_ARCHES = ("i386", "x86_64")
_SHA2_SYSTEMS = ("win7", "win2k8r2")
NEW_DRIVER_FORBIDDEN = (
    "may forbid the new boot driver; Windows then stops at its start with "
    "0x7B INACCESSIBLE_BOOT_DEVICE"
)


def windows_concerns(c: Context) -> Iterator[Concern]:
    """Yield every concern about the guest.  Raises HostError for a bad driver collection."""
    yield from refusals(c.guest)
    plan = make_plan(c.guest, c.job.windows)
    yield from missing_files(c, plan)
    yield from _drivers(c.guest, plan)
    with guest_registry(c, Changes()).reading(SOFTWARE) as software:
        yield from _software(software, plan)


def guest_registry(c: Context, changes: Changes) -> Registry:
    """Return the registry of the guest."""
    hives = {"SYSTEM": c.guest.windows_system_hive, SOFTWARE: c.guest.windows_software_hive}
    return Registry(c.g, hives, changes, change=c.change)


def refusals(guest: Inspection) -> Iterator[Concern]:
    """Yield what in the guest itself stops a conversion."""
    if guest.arch not in _ARCHES:
        yield Concern(
            level=ConcernLevel.BLOCKS,
            code="C-WINDOWS-ARCH",
            title="Windows for this processor cannot be converted",
            found=f"{label(guest)}.",
            meaning="Only Windows for x86 processors of 32 and 64 bits can.",
        )
    if guest.windows_ntfs_state:
        yield Concern(
            level=ConcernLevel.BLOCKS,
            code=f"C-NTFS-{guest.windows_ntfs_state.upper()}",
            title="Windows has not let go of its disk",
            found=f"{guest.root}: {state_meaning(guest.windows_ntfs_state)}.",
            meaning="Changing it now would damage the guest; a conversion stops at its start.",
            remedy=state_remedy(guest.windows_ntfs_state),
        )


def missing_files(c: Context, plan: Plan) -> Iterator[Concern]:
    """Yield what an administrator has to supply first; the conversion refuses with the same."""
    if not plan.drivers:
        emulated = c.job.windows.emulated_devices
        yield Concern(
            level=ConcernLevel.WARNING if emulated else ConcernLevel.BLOCKS,
            code="C-NO-DRIVERS",
            title="There are no virtio drivers for this Windows",
            found=f"{label(c.guest)}; drivers: {plan.where()}.",
            meaning=f"It will run on IDE disks and an emulated {plan.net_bus} card, slowly."
            if emulated
            else "Without them it would find neither its disk nor its network card.",
            remedy="Supply a virtio-win ISO or folder that covers this Windows"
            + ("." if emulated else ", or choose emulated devices (IDE), which are slow."),
        )
    if plan.service_program is None:
        lost = {
            "drivers": plan.drivers,
            "addresses": c.job.windows.static_ips,
            "scripts": c.job.customize.firstboot,
        }
        needed = ", ".join(name for name, wanted in lost.items() if wanted)
        yield Concern(
            level=ConcernLevel.BLOCKS if needed else ConcernLevel.WARNING,
            code="C-NO-SERVICE-PROGRAM",
            title="The program that works in the guest at its first start is missing",
            found=f"Neither {SERVICE_PROGRAMS[0]} nor {SERVICE_PROGRAMS[1]} was supplied.",
            meaning=f"Nothing would be done with what is there for it: {needed}."
            if needed
            else "Nothing can run at the guest's first start; tools of the old hypervisor stay.",
            remedy=f"Put {SERVICE_PROGRAMS[0]} into the folder of the drivers, or name its folder "
            "with --virt-tools.",
        )


def _drivers(guest: Inspection, plan: Plan) -> Iterator[Concern]:
    """Yield what the driver collection lacks for this guest."""
    if not plan.drivers:
        return
    if plan.made_for != guest.osinfo:
        yield Concern(
            level=ConcernLevel.WARNING,
            code="C-SIBLING-DRIVERS",
            title="The drivers are made for another Windows",
            found=f"{plan.where()} has none for {guest.osinfo}; those for {plan.made_for} are "
            "taken.",
            meaning="They usually work, but nobody has promised it.",
            remedy="Supply a newer virtio-win ISO.",
        )
    for present, code, what, effect in (
        (plan.boot, "C-NO-BLOCK-DRIVER", "block", "It will run on IDE disks, slowly."),
        (
            plan.has("netkvm.inf") or plan.has("virtio_net.inf"),
            "C-NO-NETWORK-DRIVER",
            "network",
            f"It gets an emulated {plan.net_bus} card.",
        ),
    ):
        if not present:
            yield Concern(
                level=ConcernLevel.WARNING,
                code=code,
                title=f"The {what} driver for this Windows is missing",
                found=f"{plan.where()} has other drivers for {plan.made_for}.",
                meaning=effect,
                remedy="Supply a complete virtio-win ISO.",
            )
    if guest.osinfo in _SHA2_SYSTEMS:
        yield Concern(
            level=ConcernLevel.WARNING,
            code="C-SHA2-UPDATE",
            title="This Windows needs an update to load current drivers",
            found=f"{label(guest)}.",
            meaning="Current virtio drivers are signed with SHA-2, which it accepts only with the "
            "updates KB4474419 and KB4490628.",
            remedy="Install both on the source, or supply drivers with SHA-1 signatures.",
        )
    if not plan.agents:
        yield Concern(
            level=ConcernLevel.NOTE,
            code="C-NO-GUEST-AGENT",
            title="The QEMU guest agent will not be installed",
            found=f"{plan.where()} has no installer of it.",
            meaning="The host cannot ask the guest for its addresses or a clean shutdown.",
            remedy="Supply the virtio-win ISO, which holds it.",
        )


def _software(software: Hive, plan: Plan) -> Iterator[Concern]:
    programs = installed_programs(software)
    tools, silent = foreign_tools(programs)
    if tools or silent:
        yield Concern(
            level=ConcernLevel.WARNING if silent else ConcernLevel.NOTE,
            code="C-HYPERVISOR-TOOLS",
            title="Tools of the old hypervisor are installed",
            found=f"{', '.join([t.name for t in tools] + silent)}.",
            meaning="Their uninstaller runs at the first start; that of VMware often refuses to "
            "off VMware." + (" Some do not say how they are removed." if silent else ""),
            remedy="Uninstall them on the source before the export.",
        )
    if plan.boot is None:
        return
    if has_group_policy(software):
        yield Concern(
            level=ConcernLevel.WARNING,
            code="C-GROUP-POLICY",
            title="Group policies are in force",
            found="The registry has a history of group policies.",
            meaning=f"A policy {NEW_DRIVER_FORBIDDEN}.",
            remedy="Allow the installation of devices on the source, or take the machine out of "
            "its domain for the conversion.",
        )
    antivirus = antivirus_programs(programs)
    if antivirus or has_defender(software):
        yield Concern(
            level=ConcernLevel.WARNING if antivirus else ConcernLevel.NOTE,
            code="C-ANTIVIRUS",
            title="An antivirus program is installed",
            found=f"{', '.join(antivirus) or 'Windows Defender'}.",
            meaning=f"It {NEW_DRIVER_FORBIDDEN}.",
            remedy="Turn it off on the source before the export, and on again after the first "
            "starts."
            if antivirus
            else "",
        )
