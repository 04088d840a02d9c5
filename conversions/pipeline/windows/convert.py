"""Convert a Windows guest: the order of its parts.

Only what Windows needs to start is done here; drivers, agents, addresses and the removal of foreign
tools happen at its first starts, by scripts that are left in it.
"""

from __future__ import annotations

from dataclasses import asdict

from conversions.pipeline.context import Context
from conversions.pipeline.errors import GuestError
from conversions.pipeline.guestcaps import guestcaps_text
from conversions.pipeline.report import Level
from conversions.pipeline.types import BlockBus, Concern, ConcernLevel, Guestcaps, NetBus
from conversions.pipeline.windows import fixes, scripts, static_ip
from conversions.pipeline.windows.applications import (
    Program,
    antivirus_programs,
    has_defender,
    has_group_policy,
    installed_programs,
)
from conversions.pipeline.windows.boot_driver import register_boot_driver, temporary_keys
from conversions.pipeline.windows.code_pages import code_pages
from conversions.pipeline.windows.collection import read_file
from conversions.pipeline.windows.concerns import (
    NEW_DRIVER_FORBIDDEN,
    guest_registry,
    missing_files,
    refusals,
)
from conversions.pipeline.windows.drive import system_drive
from conversions.pipeline.windows.drivers import check_room, copy_drivers
from conversions.pipeline.windows.esp import repair_esps
from conversions.pipeline.windows.files import WindowsFiles
from conversions.pipeline.windows.firstboot import FOLDER, FirstBoot
from conversions.pipeline.windows.foreign_tools import add_removals
from conversions.pipeline.windows.guestcaps import has_virtio, windows_guestcaps
from conversions.pipeline.windows.ntfs import fix_heads, protect_folder
from conversions.pipeline.windows.plan import BALLOON_SERVICE, Plan, make_plan
from conversions.pipeline.windows.pnp_wait import quiet_new_hardware
from conversions.pipeline.windows.registry import SOFTWARE, SYSTEM, Changes, Registry
from conversions.pipeline.windows.versions import label

_NETSH_UNTIL = (6, 1)
"""The last NT version without cmdlets for addresses and disks: Windows 7."""
NETWORK_PRIORITY, LAST_PRIORITY = 2500, 9000


class WindowsConverter:
    """Windows XP to 11, Server 2003 to 2025, for x86 processors."""

    def convert(self, c: Context) -> Guestcaps:
        """Convert the guest, or with `c.change` false only say what would be done.

        Raises GuestError, HostError.  Leaves nothing mounted after a change.
        """
        plan = make_plan(c.guest, c.job.windows)
        _refuse(c, plan)
        changes = Changes()
        files = WindowsFiles(c.g, changes, work=c.work, change=c.change)
        registry = guest_registry(c, changes)
        control_set = c.guest.windows_current_control_set
        with registry.reading(SOFTWARE) as software:
            programs = installed_programs(software)
            suspects = _suspects(programs, has_defender(software), has_group_policy(software))
        with registry.reading(SYSTEM) as system:
            rtc_utc, rtc_reason = fixes.rtc_is_utc(system, control_set, c.report)
            drive = system_drive(c.g, system, c.guest.root)
            pages = code_pages(system, control_set, nt_major=c.guest.major_version)
        caps = windows_guestcaps(c.guest, plan, rtc_utc=rtc_utc, rtc_reason=rtc_reason)
        firstboot = (
            FirstBoot(
                files,
                registry,
                plan.tools,
                control_set=control_set,
                drive=drive,
                code_pages=pages,
            )
            if plan.service_program
            else None
        )
        folder = copy_drivers(files, c.guest.windows_systemroot, plan)
        c.report.log(Level.INFO, f"{len(plan.drivers)} driver files from {plan.where()}: {folder}")
        if firstboot:
            _queue_installers(c, plan, firstboot, registry, files, drive)
            add_removals(firstboot, programs, c.report)
        with registry.editing(SYSTEM) as system:
            fixes.disable_services(system, control_set, vmware=c.job.windows.disable_vmware)
            fixes.remove_storage_filter(system, control_set)
            fixes.keep_stop_screen(system, control_set)
            if plan.boot:
                register_boot_driver(system, control_set, plan.boot, arch=c.guest.arch)
        with registry.editing(SOFTWARE) as software:
            fixes.extend_device_path(software, c.report)
        if firstboot:
            _queue_settings(c, plan, firstboot, caps)
        _warn_of_wishes(c)
        repair_esps(c, files, changes)
        if c.change:
            c.g.umount_all()
            if firstboot:
                protect_folder(c.g, c.guest.root, FOLDER.rsplit("/", 1)[0], c.report, changes)
            if c.guest.major_version < 6:
                fix_heads(c.g, c.guest.root, changes)
        for suspect in suspects if plan.boot else ():
            c.report.log(Level.WARNING, f"{suspect} {NEW_DRIVER_FORBIDDEN}.")
        _tell(c, caps)
        c.report.report("guestcaps", asdict(caps))
        c.report.report("changes", changes.rows)
        return caps


def _refuse(c: Context, plan: Plan) -> None:
    """Refuse what cannot be converted; warn of the rest.  Raises GuestError before any change."""
    for concern in (*refusals(c.guest), *missing_files(c, plan)):
        if c.change and concern.level is ConcernLevel.BLOCKS:
            raise refusal(concern)
        c.report.log(Level.WARNING, f"{concern.title}: {concern.found} {concern.meaning}")
    if plan.drivers and plan.boot is None:
        c.report.log(
            Level.WARNING,
            f"{plan.where()} has no block driver for {label(c.guest)}; its disks will be IDE.",
        )
    if plan.drivers and plan.net_bus is not NetBus.VIRTIO_NET:
        c.report.log(
            Level.WARNING,
            f"{plan.where()} has no network driver for {label(c.guest)}; its network card will be "
            f"an emulated {plan.net_bus}.",
        )
    if c.change:
        stat = dict(c.g.statvfs("/"))
        check_room(stat["bfree"] * stat["bsize"], plan)


def refusal(concern: Concern) -> GuestError:
    """Return the error for a concern that stops a conversion."""
    return GuestError(
        f"{concern.title}: {concern.found} {concern.meaning}",
        remedy=concern.remedy,
        code="E-" + concern.code.removeprefix("C-"),
    )


def _suspects(programs: list[Program], defender: bool, policies: bool) -> list[str]:
    """Return what may keep Windows from loading a new boot driver."""
    found = ["A group policy"] if policies else []
    antivirus = antivirus_programs(programs)
    if antivirus or defender:
        found.append(", ".join(antivirus) or "Windows Defender")
    return found


def _queue_installers(
    c: Context,
    plan: Plan,
    firstboot: FirstBoot,
    registry: Registry,
    files: WindowsFiles,
    drive: str,
) -> None:
    """Queue what installs drivers and agents, in the order it has to happen."""
    if c.guest.major_version >= 6:  # NT 5 has no pnputil
        firstboot.add(
            scripts.INSTALL_DRIVERS,
            scripts.install_drivers(),
            priority=scripts.DRIVERS_PRIORITY,
        )
    if tool := plan.tools.get("pnp_wait.exe"):
        restore = quiet_new_hardware(c.guest, registry)
        firstboot.put("pnp_wait.exe", read_file(tool), what="tool of the first start")
        firstboot.add("wait pnp", scripts.wait_for_pnp(firstboot.layout.folder, restore))
    if tool := plan.tools.get("vmdp.exe"):
        files.write("/vmdp.exe", read_file(tool), "tool of the first start")
        firstboot.add("configure vmdp", scripts.setup_vmdp(drive, first=True))
        firstboot.add("finish vmdp setup", scripts.setup_vmdp(drive, first=False))
    if plan.collection and plan.agents and c.job.guest_agent:
        for name, path in plan.agents.items():
            firstboot.put(
                name, plan.collection.read(path), folder="/Temp", what="guest agent copied"
            )
        firstboot.add_powershell(
            "install-qemu-ga", scripts.install_guest_agent(firstboot.layout.folder)
        )
    elif not plan.agents:
        c.report.log(
            Level.WARNING, f"There is no installer of the QEMU guest agent in {plan.where()}."
        )
    if plan.has(BALLOON_SERVICE):
        firstboot.add("install-blnsvr", scripts.install_balloon_service(BALLOON_SERVICE))
    elif plan.drivers:
        c.report.log(
            Level.WARNING, f"There is no {BALLOON_SERVICE} for this Windows in {plan.where()}."
        )


def _queue_settings(c: Context, plan: Plan, firstboot: FirstBoot, caps: Guestcaps) -> None:
    """Queue disks, addresses, the person's own scripts, and the tidying up."""
    cmdlets = (c.guest.major_version, c.guest.minor_version) > _NETSH_UNTIL
    if has_virtio(caps) and len(c.source.disks) > 1 and cmdlets:
        firstboot.add_powershell("online-disks", scripts.online_disks())
    if addresses := c.job.windows.static_ips:
        name = "network-configure"
        if cmdlets:
            wait = caps.net_bus is NetBus.VIRTIO_NET
            text = static_ip.powershell(addresses, wait_for_netkvm=wait)
            firstboot.add_powershell(name, text, priority=NETWORK_PRIORITY)
        else:
            firstboot.add(name, static_ip.netsh(addresses), priority=NETWORK_PRIORITY)
    for number, text in enumerate(c.job.customize.firstboot, 1):
        firstboot.add(f"user script {number}", text)
    if plan.boot and c.job.windows.remove_boot_keys:
        keys = tuple(temporary_keys(plan.boot, arch=c.guest.arch))
        text = scripts.remove_boot_keys(firstboot.layout.folder, keys)
        firstboot.add("remove boot keys", text, priority=LAST_PRIORITY)


def _warn_of_wishes(c: Context) -> None:
    """Say what was wished for and is only done to Linux guests."""
    wishes = c.job.customize
    unheeded = {
        "host name": wishes.hostname,
        "time zone": wishes.timezone,
        "password of root": wishes.root_password_hash,
        "SSH keys": wishes.ssh_keys,
        "update of the packages": wishes.update,
        "packages to install": wishes.install,
        "packages to remove": wishes.uninstall,
        "files": wishes.files,
    }
    if names := ", ".join(name for name, value in unheeded.items() if value):
        c.report.log(
            Level.WARNING,
            f"Not done, since this is a Windows guest: {names} (ignored). A script of the first "
            "start can do it.",
        )


def _tell(c: Context, caps: Guestcaps) -> None:
    c.report.log(Level.INFO, guestcaps_text(caps))
    c.report.log(
        Level.INFO,
        f"Virtio drivers were copied and the boot driver for {caps.block_bus} entered; whether "
        "Windows loads it shows at its first start."
        if caps.block_bus is not BlockBus.IDE
        else "This guest has no virtio drivers; it will be slow.",
    )
    if c.guest.is_uefi:
        c.report.log(Level.INFO, "This guest needs UEFI on the target.")
